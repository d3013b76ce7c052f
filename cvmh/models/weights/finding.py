"""Published weights by path or name: in a folder of one's own, checked, and fetched if need be."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cvmh.errors import OutputError, WeightsError
from cvmh.files import cache_folder, digest, lock, make_folder, write_complete
from cvmh.models.weights.catalogue import PublishedFile, is_published, look_up
from cvmh.models.weights.fetching import by_hand, fetch
from cvmh.models.weights.reading import read_weights
from cvmh.models.weights.table import detect_variant
from cvmh.progress import Progress, silent

# In the form of the program sha256sum.
SUMS = "SHA256SUMS"
# Seconds between looks whether another process has done fetching.
LOOK = 0.2


class Found(NamedTuple):
    """A file of weights on this disk, and what the catalogue says of it; None where nothing."""

    path: Path
    published: PublishedFile | None


def weights_folder() -> Path:
    """Return where published weights are kept: ``CVMH_WEIGHTS``, else in the cache folder."""
    return Path(os.environ.get("CVMH_WEIGHTS") or cache_folder() / "weights").expanduser()


def find_weights(
    file_or_name: str,
    *,
    variants: Sequence[str] = (),
    offline: bool = False,
    progress: Progress = silent,
) -> Found:
    """Return a file of weights: a path, or a name of the catalogue, which is fetched if need be.

    The sha256 of each file of the folder is kept beside it from its first use on, and compared at
    each later one.

    Args:
        file_or_name: a path, a name of the catalogue, or a published name of a file.
        variants: of which encoders a name may be; none: of any.
        offline: never fetch; so does the variable ``CVMH_OFFLINE``.
        progress: receives what is fetched.

    Raises:
        WeightsError: there is no such file or name, it is of another encoder, has changed, or
            cannot be fetched, or may not be.
    """
    path, is_file, is_folder = _look_at(file_or_name)
    if is_file:
        return Found(path, None)
    # A folder may have the name of weights, a run's for instance.
    if is_folder and not is_published(file_or_name):
        raise WeightsError(f"weights '{file_or_name}' are a folder; give a file in it, or a name")
    published = look_up(file_or_name)
    if variants and published.variant not in variants:
        raise WeightsError(
            f"weights '{file_or_name}' are of '{published.variant}', the network takes those of "
            f"{' or '.join(variants)}"
        )
    target = weights_folder() / published.file
    if target.exists():
        _verify(target, published)
    else:
        _refuse_offline(published, target, offline=offline)
        _fetch(target, published, progress)
    return Found(target, published)


def _look_at(file_or_name: str) -> tuple[Path, bool, bool]:
    """Return a path, whether it is a file, and whether it is a folder."""
    try:
        path = Path(file_or_name).expanduser()
        return path, path.is_file(), path.is_dir()
    # The home of nobody, a name that no disk can have, or a folder that may not be looked into.
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"weights '{file_or_name}' cannot be looked for ({reason})") from error


def _fetch(target: Path, published: PublishedFile, progress: Progress) -> None:
    make_folder(target.parent)
    with _alone(target.parent):
        # Another process may have fetched it meanwhile.
        if target.exists():
            return
        fetch(
            published.address,
            target,
            sha256=published.sha256,
            check=lambda partial: _check_variant(partial, published, source=published.address),
            progress=progress,
        )
        _record(target, digest(target))


def _verify(path: Path, published: PublishedFile) -> None:
    """Compare the sha256 of a file with that of its first use, which this may be."""
    found, recorded = digest(path), _read_sums(path.parent).get(path.name)
    expected = published.sha256 or recorded
    if expected is not None and found != expected:
        raise WeightsError(
            f"{path} has the sha256 {found}, it was {expected}: the file has changed or is "
            f"damaged; remove it and its line in {path.parent / SUMS}, and it is fetched again"
        )
    if recorded is None:
        _check_variant(path, published, source=str(path))
        # A folder that many share may be read-only.
        if os.access(path.parent, os.W_OK):
            _record(path, found)


def _record(path: Path, found: str) -> None:
    sums = {**_read_sums(path.parent), path.name: found}
    lines = [f"{value}  {name}\n" for name, value in sums.items()]
    write_complete(path.parent / SUMS, "".join(lines))


def _read_sums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise _damaged(folder) from error
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    if any(len(pair) < 2 for pair in pairs):
        raise _damaged(folder)
    return {name.removeprefix("*"): value for value, name in pairs}


def _damaged(folder: Path) -> WeightsError:
    return WeightsError(f"{folder / SUMS} is damaged; remove it, and it is written anew")


def _refuse_offline(published: PublishedFile, target: Path, *, offline: bool) -> None:
    is_offline = offline or os.environ.get("CVMH_OFFLINE", "0") not in ("", "0")
    if is_offline:
        raise WeightsError(
            f"weights {target} are not there, and nothing is fetched with --offline or "
            f"CVMH_OFFLINE; they are at {published.address}: "
            f"{by_hand(published.address, target)}"
        )


def _check_variant(path: Path, published: PublishedFile, *, source: str) -> None:
    detected = detect_variant(read_weights(path).tensors)
    if detected is None or detected.variant != published.variant:
        found = "no encoder of ours" if detected is None else f"'{detected.variant}'"
        raise WeightsError(
            f"{source} holds weights of {found}, not of '{published.variant}'; put the right file "
            f"at {weights_folder() / published.file}"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process after the other fetch into a folder."""
    try:
        file = (folder / ".fetching").open("wb")
    except OSError as error:
        raise OutputError(f"folder {folder} cannot be written ({error.strerror})") from error
    with file:
        while not lock(file):
            time.sleep(LOOK)
        yield
