"""The journal of a prediction: what is finished, on the disk, so that nothing is computed twice.

One file that only grows. Its first line is a JSON header; then follows a record for every finished
stripe of every span of columns: a fixed head with a checksum, facts as JSON, and the pixels. A
record that a killed process or a full disk left torn fails its checksum and is cut off when the
journal is opened again.

Legend: H rows, W columns, K classes.
"""

import contextlib
import json
import os
import shutil
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cvmh.errors import OutputError
from cvmh.files import lock

HEAD = struct.Struct("<4sIQI")
MAGIC = b"CVMR"
# Class ids and scores come in runs, which the quickest level packs nearly as well as the best.
LEVEL = 1
# The setting that tells when the scene's files changed last.
MOMENT = "scene changed"
# The system may hold back what was written for so long; only a power failure can lose it.
SECONDS_BETWEEN_SYNCS = 5.0


class Piece(NamedTuple):
    """Final pixels of a stripe from one column on; every plane is (H, W) or (K, H, W) of uint8.

    The first plane holds the class ids. float16 planes are kept as pairs of bytes.
    """

    column: int
    planes: tuple[NDArray[Any], ...]


class Record(NamedTuple):
    """A finished stripe of a span: what was counted in it, and where it has data."""

    facts: dict[str, Any]
    pieces: tuple[Piece, ...]


class Journal:
    """Finished stripes by (span, stripe), in a folder of their own beside the output.

    Args:
        folder: made if it does not exist.
        settings: everything that the result depends on, JSON; a journal that was begun with other
            settings is not continued.
        layout: what the records depend on beyond that, such as the spans; taken over from the
            journal where there is one.
        overwrite: start anew where a journal of other settings is found.

    Raises:
        OutputError: the folder cannot be written, another process writes to it, or it holds a
            journal of other settings and ``overwrite`` is not set.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        layout: Mapping[str, Any],
        *,
        overwrite: bool = False,
    ) -> None:
        self.folder = folder
        self._path = folder / "journal"
        self._settings = json.loads(json.dumps(settings))
        self._offsets: dict[tuple[int, int], int] = {}
        self._facts: dict[tuple[int, int], dict[str, Any]] = {}
        self._synced = time.monotonic()
        with self._explained():
            folder.mkdir(exist_ok=True)
            self._file = self._path.open("a+b")
        try:
            if not lock(self._file):
                raise OutputError(
                    f"another process is writing {self._target}; wait for it or choose another name"
                )
            self.layout = self._continue(overwrite) or self._begin(layout)
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __contains__(self, key: tuple[int, int]) -> bool:
        """Return whether the stripe of a span, (span, stripe), is finished."""
        return key in self._offsets

    def __len__(self) -> int:
        """Return the number of finished stripes of all spans."""
        return len(self._offsets)

    def append(self, span: int, stripe: int, record: Record) -> None:
        """Add a finished stripe.

        Raises:
            OutputError: the disk is full; what was finished before is kept.
        """
        packed = [
            [zlib.compress(np.ascontiguousarray(plane).data, LEVEL) for plane in p.planes]
            for p in record.pieces
        ]
        shapes = [
            (piece.column, [(plane.shape, plane.dtype.str) for plane in piece.planes])
            for piece in record.pieces
        ]
        facts = json.dumps(
            {
                "span": span,
                "stripe": stripe,
                "facts": record.facts,
                "shapes": shapes,
                "lengths": [[len(plane) for plane in planes] for planes in packed],
            }
        ).encode()
        body = b"".join([facts, *(plane for planes in packed for plane in planes)])
        head = HEAD.pack(MAGIC, len(facts), len(body), _checksum(facts, body))
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(head + body)
            self._file.flush()
            self._sync()
        except OSError as error:
            with contextlib.suppress(OSError):
                # The unwritten rest must not be tried again when the file is closed.
                os.ftruncate(self._file.fileno(), end)
            raise OutputError(self._why(error)) from error
        self._offsets[span, stripe] = end
        self._facts[span, stripe] = record.facts

    def read(self, span: int, stripe: int) -> Record:
        """Return a finished stripe.

        Raises:
            OutputError: the journal was damaged meanwhile.
        """
        self._file.seek(self._offsets[span, stripe])
        found = self._read_body()
        if found is None:
            raise OutputError(f"{self._path} was damaged while it was in use; start anew")
        content, body, place = *found, found[0].pop("place")
        pieces = []
        for (column, shapes), lengths in zip(content["shapes"], content["lengths"], strict=True):
            planes = []
            for (shape, dtype), length in zip(shapes, lengths, strict=True):
                raw = zlib.decompress(body[place : place + length])
                planes.append(np.frombuffer(raw, dtype=dtype).reshape(shape))
                place += length
            pieces.append(Piece(column, tuple(planes)))
        return Record(content["facts"], tuple(pieces))

    def keys(self) -> list[tuple[int, int]]:
        """Return the (span, stripe) of all finished stripes."""
        return sorted(self._offsets)

    def facts(self, span: int, stripe: int) -> dict[str, Any]:
        """Return only what was counted in a finished stripe."""
        return self._facts[span, stripe]

    def close(self) -> None:
        """Release the file; a journal without any record is removed."""
        self._release()
        if not self._offsets:
            self.remove()

    def remove(self) -> None:
        """Remove the folder, since all outputs are complete or nothing is worth keeping."""
        self._offsets.clear()
        self._release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _release(self) -> None:
        with contextlib.suppress(OSError):
            # On a full disk what is left to write is nothing that counts.
            self._file.close()

    def _continue(self, overwrite: bool) -> dict[str, Any] | None:
        """Return the layout of the journal that is there, None if there is none to continue."""
        self._file.seek(0)
        try:
            line = self._file.readline()
            header = json.loads(line)
            settings, layout = header["settings"], header["layout"]
        except (ValueError, KeyError, TypeError):
            return None
        if not line.endswith(b"\n"):
            # Torn at its last byte: records must not follow it on the same line.
            return None
        end = self._scan()
        if settings == self._settings and self._offsets:
            os.ftruncate(self._file.fileno(), end)
            return dict(layout)
        # What was made of a scene that has changed since is of no use to anybody.
        is_stale = _names_differing(settings, self._settings) == {MOMENT}
        if self._offsets and not (overwrite or is_stale):
            raise OutputError(
                f"{self._target} was begun with other settings and not finished "
                f"({_difference(settings, self._settings)}); repeat those to continue it, or "
                "discard it with --overwrite"
            )
        self._offsets.clear()
        return None

    def _begin(self, layout: Mapping[str, Any]) -> dict[str, Any]:
        try:
            with self._explained():
                os.ftruncate(self._file.fileno(), 0)
                header = {"settings": self._settings, "layout": layout}
                self._file.write(json.dumps(header).encode() + b"\n")
                self._file.flush()
        except OutputError:
            self.remove()
            raise
        return dict(json.loads(json.dumps(layout)))

    def _scan(self) -> int:
        """Find the whole records; return where the last one ends."""
        while True:
            start = self._file.tell()
            found = self._read_body()
            if found is None:
                return start
            key = found[0]["span"], found[0]["stripe"]
            self._offsets[key], self._facts[key] = start, found[0]["facts"]

    def _read_body(self) -> tuple[dict[str, Any], bytes] | None:
        head = self._file.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        magic, length, total, checksum = HEAD.unpack(head)
        left = os.fstat(self._file.fileno()).st_size - self._file.tell()
        if magic != MAGIC or total > left:
            return None
        body = self._file.read(total)
        if _checksum(body[:length], body) != checksum:
            return None
        return {**json.loads(body[:length]), "place": length}, body

    def _sync(self) -> None:
        if time.monotonic() - self._synced > SECONDS_BETWEEN_SYNCS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    @property
    def _target(self) -> str:
        return str(self.folder.with_name(self.folder.name.removeprefix(".").removesuffix(".part")))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(self._why(error)) from error

    def _why(self, error: OSError) -> str:
        told = (
            f"{self._target} cannot be written ({error.strerror}); make room or choose another "
            "folder"
        )
        kept = f", then repeat with --resume: {len(self)} finished stripes are kept"
        return told + kept if len(self) else told


def folder_of(output: Path) -> Path:
    """Return the hidden folder beside an output that keeps its unfinished work."""
    return output.with_name(f".{output.name}.part")


def _checksum(facts: bytes, body: bytes) -> int:
    """Return the checksum of a record; how long its facts are counts too."""
    return zlib.crc32(body, len(facts))


def _names_differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    return {name for name in before.keys() | now.keys() if before.get(name) != now.get(name)}


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = sorted(_names_differing(before, now))
    return "; ".join(f"{name} {before.get(name)}, now {now.get(name)}" for name in names)
