"""Files that are complete or not there at all, and their names."""

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from cvmh.errors import OutputError

# Windows locks bytes, which then nobody else can read; this one lies beyond the end of any file.
LOCKED_BYTE = 1 << 62


def write_complete(path: Path, content: bytes | str) -> None:
    """Write a file beside its target, flush it to the disk, and rename it into place.

    Raises:
        OutputError: the folder does not exist or cannot be written, or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as stream:
            temporary = Path(stream.name)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files that only their owner can read.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def lock(file: IO[bytes]) -> bool:
    """Take an open file for this process alone until it is closed; return whether it is free."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {path} cannot be made ({error.strerror})") from error


def cache_folder() -> Path:
    """Return where what can be had again is kept: ``CVMH_CACHE``, default ``~/.cache/cvmh``."""
    return Path(os.environ.get("CVMH_CACHE") or Path.home() / ".cache" / "cvmh")


def digest(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def without_secrets(word: str) -> str:
    """Return a word without the password and the query of a URL, which may be a signature."""
    if "://" not in word:
        return word
    parts = urlsplit(word)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
