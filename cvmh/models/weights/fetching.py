"""A file fetched over HTTP: complete and checked, or not there at all."""

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cvmh.errors import OutputError, WeightsError
from cvmh.files import digest, make_folder
from cvmh.progress import Progress, silent
from cvmh.version import VERSION

# A broken transfer is taken up where it ended, so many times, after so many seconds times the
# number of the attempt; a server that is silent for so long is given up.
ATTEMPTS = 4
PAUSE = 1.0
PATIENCE = 30.0
CHUNK = 1 << 20
MEGABYTE = 1_000_000
SHA256 = re.compile(r"[0-9a-f]{64}")
# The header in which Hugging Face tells the mark of a file before it hands over to another server.
LINKED = "X-Linked-Etag"
BROKEN = (OSError, http.client.HTTPException)


@dataclass
class _Transfer:
    """How far a transfer has come, and what the server says of the file."""

    done: int = 0
    total: int | None = None
    mark: str | None = None
    sha256: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all of the file is here, as far as the server says."""
        return self.done > 0 and self.done == (self.total or self.done)


def fetch(
    address: str,
    target: Path,
    *,
    sha256: str | None = None,
    check: Callable[[Path], None] = lambda path: None,
    progress: Progress = silent,
) -> None:
    """Fetch a file beside its target, check it, and rename it into place.

    Args:
        address: an HTTP address.
        target: where the file shall be.
        sha256: what it must have; None: what the server says, if it says one.
        check: raises an error for a file that is not the wanted one.
        progress: receives megabytes.

    Raises:
        WeightsError: the address does not answer, gives something else, or the transfer breaks.
        OutputError: the folder or the file cannot be written.
    """
    make_folder(target.parent)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with _written(partial) as stream:
            transfer = _transfer(address, target, stream, progress)
            stream.flush()
            os.fsync(stream.fileno())
        _compare(partial, address, sha256 or transfer.sha256)
        check(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _transfer(address: str, target: Path, stream: IO[bytes], progress: Progress) -> _Transfer:
    transfer = _Transfer()
    said = ""
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE * attempt)
        try:
            with _open(address, transfer) as response:
                _begin(response, transfer, stream, address, target)
                while chunk := response.read(CHUNK):
                    _write(stream, chunk)
                    transfer.done += len(chunk)
                    _tell(transfer, progress)
        except urllib.error.HTTPError as error:
            error.close()
            said = f"answers {error.code} {error.reason}"
            if error.code < 500 and error.code != http.HTTPStatus.TOO_MANY_REQUESTS:
                break
        except OutputError:
            raise
        except BROKEN as error:
            said = f"cannot be reached ({getattr(error, 'reason', None) or error})"
        else:
            if transfer.is_complete:
                return transfer
            said = f"ended after {transfer.done} of {transfer.total or 'some'} bytes"
    raise WeightsError(f"{address} {said}; {by_hand(address, target)}")


def by_hand(address: str, target: Path) -> str:
    """Return how a user gets a file into its place without us."""
    return f"fetch it with a browser, and put it at {target}"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps what the first server says of a file, when it hands over to another."""

    def __init__(self, transfer: _Transfer) -> None:
        self.transfer = transfer

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Return the request that is made next."""
        self.transfer.sha256 = _as_sha256(headers.get(LINKED)) or self.transfer.sha256
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(address: str, transfer: _Transfer) -> Any:
    request = urllib.request.Request(address, headers={"User-Agent": f"cvmh/{VERSION}"})
    if transfer.done and transfer.mark:
        request.add_header("Range", f"bytes={transfer.done}-")
        # The whole file comes where it has changed.
        request.add_header("If-Range", transfer.mark)
    opener = urllib.request.build_opener(_Redirects(transfer))
    return opener.open(request, timeout=PATIENCE)


def _begin(
    response: Any, transfer: _Transfer, stream: IO[bytes], address: str, target: Path
) -> None:
    """Note what the server says of the file; start again unless it goes on where it ended."""
    headers = response.headers
    if headers.get_content_type() == "text/html":
        raise WeightsError(
            f"{address} gives a web page, not a file: it may ask for a login or a click; "
            f"{by_hand(address, target)}"
        )
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        transfer.done = 0
        stream.seek(0)
        stream.truncate()
    length = headers.get("Content-Length")
    transfer.total = None if length is None else transfer.done + int(length)
    mark = headers.get("ETag")
    transfer.mark = None if mark is None or mark.startswith("W/") else mark
    transfer.sha256 = transfer.sha256 or _as_sha256(mark)


def _as_sha256(mark: str | None) -> str | None:
    plain = (mark or "").removeprefix("W/").strip('"').lower()
    return plain if SHA256.fullmatch(plain) else None


def _compare(path: Path, address: str, sha256: str | None) -> None:
    if sha256 is None:
        return
    found = digest(path)
    if found != sha256:
        raise WeightsError(
            f"{address} gave a file with the sha256 {found}, it must be {sha256}; try again"
        )


def _tell(transfer: _Transfer, progress: Progress) -> None:
    total = max(transfer.total or 0, transfer.done)
    progress("fetching", -(-transfer.done // MEGABYTE), -(-total // MEGABYTE), "MB")


def _written(path: Path) -> IO[bytes]:
    try:
        return path.open("wb")
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror})") from error


def _write(stream: IO[bytes], chunk: bytes) -> None:
    try:
        stream.write(chunk)
    except OSError as error:
        raise OutputError(f"{stream.name} cannot be written ({error.strerror})") from error
