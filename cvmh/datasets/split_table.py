"""``split.csv``: which image of a folder data set is in which split."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cvmh.errors import DataError

COLUMNS = ("stem", "split")


class Row(NamedTuple):
    """A row of ``split.csv``; ``is_eroded`` if the only label is an eroded one."""

    stem: str
    split: str
    is_eroded: bool


class Line(NamedTuple):
    """A row as it stands in the file, whatever it says."""

    number: int
    stem: str
    split: str
    labels: str


def read_rows(path: Path) -> Iterable[Row]:
    """Read ``split.csv``.

    Raises:
        DataError: it is missing, is no such table, or contradicts itself.
    """
    found: dict[str, Row] = {}
    for number, stem, split, labels in read_lines(path):
        if not stem or not split:
            raise DataError(
                f"{path} must name a stem and its split in every row, line {number} does not"
            )
        if stem in found:
            raise DataError(f"{path} lists '{stem}' twice")
        found[stem] = Row(stem, split, labels == "eroded")
    return found.values()


def read_lines(path: Path) -> list[Line]:
    """Read the rows of ``split.csv`` as they stand, with commas or semicolons between the columns.

    Raises:
        DataError: it is missing, or is no table with these columns.
    """
    text = _read_text(path)
    head = next((line for line in text.splitlines() if line.strip()), "")
    # Spreadsheets write semicolons where numbers have decimal commas.
    delimiter = ";" if ";" in head and "," not in head else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as CSV ({error})") from error
    names = [name.lower() for name in rows[0][1]] if rows else []
    if missing := [name for name in COLUMNS if name not in names]:
        raise DataError(
            f"{path} must have the columns stem,split and at least one row, but its first line is "
            f"'{head.strip()}', without {' and '.join(missing)}"
        )
    if len(rows) == 1:
        raise DataError(
            f"{path} must have the columns stem,split and at least one row, but has no row"
        )
    # A row that is too short lacks its last cells.
    lines = [(number, dict(zip(names, cells, strict=False))) for number, cells in rows[1:]]
    return [
        Line(number, *(row.get(name, "") for name in (*COLUMNS, "labels"))) for number, row in lines
    ]


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing; write it with the columns stem,split (split: train, val or test)"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    # UTF-16 without a mark is valid UTF-8 with a zero beside every letter.
    if "\0" in text:
        raise DataError(
            f"{path} must be text in UTF-8, but is not (UTF-16 from a spreadsheet?); save it anew "
            "as 'CSV UTF-8'"
        )
    return text
