"""Orders in which a scan visits the pixels of a map, as tables of pixel indices.

Legend: H W height and width, L = H * W pixels, K paths, T steps of a path. A pixel's index is
``row * W + column``; a table holds in row k the pixels of path k, first visited first.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import _disable_current_modes

from cvmh.errors import ConfigError, ShapeError
from cvmh.ops._tracing import is_exporting_to_onnx, is_tracing

LineOrder = Literal["natural", "figure"]


class KeptTables(NamedTuple):
    """Paths over the kept tokens of each map of a batch, (B, K, T).

    Attributes:
        order: Where each token lies in the compact layout, int32; -1 is padding.
        gap: How many dropped tokens its path passes right before it, int32; 0 for padding.
        step: At which step of the complete path it is, int64; 0 for padding.
    """

    order: Tensor
    gap: Tensor
    step: Tensor


def order_table(
    paths: str,
    height: int,
    width: int,
    *,
    line_order: LineOrder = "natural",
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the int32 table (K, L) of a named set of paths over an H x W map.

    Tables are cached and shared between callers: never write into one.

    Args:
        paths: ``ss2d`` (rows, columns, and both reversed), ``cs2d`` (rows, columns,
            anti-diagonals, diagonals), ``snake`` (rows to and fro, its reverse, columns to and
            fro, its reverse), ``bidirectional`` (rows and reversed rows), ``single`` (rows), or
            one other path: ``columns``, ``rows_reversed``, ``columns_reversed``.
        height: Rows of the map.
        width: Columns of the map.
        line_order: For ``cs2d`` only, in which order its lines follow each other: ``natural``
            (columns from the left, diagonals from a corner) or ``figure`` (as the connectors in
            the paper's figure are drawn: columns from the right, anti-diagonals from the
            bottom-right corner, diagonals from the top-right one). The direction inside a line
            is the same in both.
        device: Where the table shall live; the copy on each device is cached too.

    Raises:
        ConfigError: For an unknown name or an empty map.
    """
    if paths not in PATHS:
        raise ConfigError(f"paths must be one of {', '.join(PATHS)}, got {paths!r}")
    if line_order not in ("natural", "figure"):
        raise ConfigError(f"line order must be natural or figure, got {line_order!r}")
    if height < 1 or width < 1:
        raise ConfigError(f"height and width must be at least 1, got {height} x {width}")
    device = torch.device(device)
    if is_tracing() and not is_exporting_to_onnx():
        return _traced_table(paths, height, width, line_order, device)
    # ONNX has no such operator: sizes become fixed there.
    return _cached_table(paths, int(height), int(width), line_order, device)


def inverse_table(order: Tensor, length: int) -> Tensor:
    """Return at which step each pixel is visited, int32 (..., L); -1 where it is not.

    Args:
        order: Pixel indices (..., T), each pixel at most once a path; -1 is padding.
        length: Number of pixels L.
    """
    steps = torch.arange(order.shape[-1], dtype=torch.int32, device=order.device)
    # Padding falls into a spare last column, so that no branch on the data is needed.
    target = torch.where(order < 0, length, order).long()
    inverse = order.new_full((*order.shape[:-1], length + 1), -1, dtype=torch.int32)
    inverse.scatter_(-1, target, steps.expand_as(order))
    return inverse[..., :length]


def step_directions(order: Tensor, width: int) -> Tensor:
    """Return which way each step of a path went, int64 (..., T).

    0 for the start of a path and for a leap to a pixel that is no neighbour, 1 right, 2 left, 3 up,
    4 down (PlainMamba's codes).

    Args:
        order: Pixel indices (..., T) without padding.
        width: Columns of the map.
    """
    row, column = order.long() // width, order.long() % width
    down, right = torch.diff(row), torch.diff(column)
    code = torch.where(down == 0, 1 * (right == 1) + 2 * (right == -1), 0)
    code = code + torch.where(right == 0, 3 * (down == -1) + 4 * (down == 1), 0)
    return functional.pad(code, (1, 0))


def kept_tables(
    order: Tensor, keep: Tensor, *, size: int | None = None, place: Tensor | None = None
) -> KeptTables:
    """Return the paths over the kept tokens of each map, for maps that hold only these.

    Args:
        order: Complete paths (K, L): each visits every pixel once.
        keep: Boolean (B, L), true for tokens that stay.
        size: Steps T of a path; those of the map that keeps most if None. Where it is given,
            nothing waits for the device, and tokens beyond it are not visited.
        place: Where each token lies in the compact layout, integers (B, L), of any value where it
            is dropped; in pixel order if None.

    Raises:
        ShapeError: If the tables and the mask do not fit.
    """
    fits = order.dim() == 2 and keep.dim() == 2 and keep.shape[1] == order.shape[1]
    if not fits or keep.dtype != torch.bool or (place is not None and place.shape != keep.shape):
        raise ShapeError(
            "order must be (K, L), keep a boolean (B, L) and place (B, L), got order "
            f"{tuple(order.shape)}, keep {tuple(keep.shape)} of {keep.dtype} and place "
            f"{None if place is None else tuple(place.shape)}"
        )
    if size is None:
        size = int(keep.sum(dim=1).amax()) if keep.numel() else 0
    if place is None:
        place = keep.cumsum(dim=1) - 1
    num_paths, length = order.shape
    shape = (keep.shape[0], num_paths, length)
    visited = torch.where(keep, place, -1).index_select(1, order.flatten()).view(shape)
    is_kept = visited >= 0
    # What is dropped falls into a spare last column, so that no branch on the data is needed.
    target = torch.where(is_kept, (is_kept.cumsum(dim=2) - 1).clamp(max=size), size)
    blank = visited.new_full((*shape[:2], size + 1), -1)
    compact = blank.scatter(2, target, visited)[..., :size]
    steps = torch.arange(length, device=order.device).expand(shape)
    step = blank.long().scatter(2, target, steps)[..., :size]
    gap = torch.diff(step, prepend=blank[..., :1].long()) - 1
    # Behind the last token of a path there is -1.
    return KeptTables(compact.int(), torch.where(step < 0, 0, gap).int(), step.clamp(min=0))


def _sorted_by(*keys: Tensor) -> Tensor:
    """Return pixel indices sorted by the first key, ties by the second."""
    first, second = (key.flatten() for key in keys)
    by_second = second.argsort(stable=True)
    return by_second[first[by_second].argsort(stable=True)]


def _cross(row: Tensor, column: Tensor, line_order: str) -> list[Tensor]:
    by_row, by_column = _sorted_by(row, column), _sorted_by(column, row)
    return [by_row, by_column, by_row.flip(0), by_column.flip(0)]


def _diagonal(row: Tensor, column: Tensor, line_order: str) -> list[Tensor]:
    sign = 1 if line_order == "natural" else -1
    lines = [sign * column, sign * (row + column), sign * (column - row)]
    return [_sorted_by(row, column), *(_sorted_by(line, row) for line in lines)]


def _snake(row: Tensor, column: Tensor, line_order: str) -> list[Tensor]:
    along_rows = _sorted_by(row, torch.where(row % 2 == 0, column, -column))
    along_columns = _sorted_by(column, torch.where(column % 2 == 0, row, -row))
    return [along_rows, along_rows.flip(0), along_columns, along_columns.flip(0)]


def _bidirectional(row: Tensor, column: Tensor, line_order: str) -> list[Tensor]:
    by_row = _sorted_by(row, column)
    return [by_row, by_row.flip(0)]


def _only(paths: Callable[[Tensor, Tensor, str], list[Tensor]], index: int) -> Any:
    return lambda row, column, line_order: [paths(row, column, line_order)[index]]


PATHS: dict[str, Callable[[Tensor, Tensor, str], list[Tensor]]] = {
    "ss2d": _cross,
    "cs2d": _diagonal,
    "snake": _snake,
    "bidirectional": _bidirectional,
    "single": _only(_cross, 0),
    "columns": _only(_cross, 1),
    "rows_reversed": _only(_cross, 2),
    "columns_reversed": _only(_cross, 3),
}


# A network asks for a few map sizes; the bound only stops endless growth on images of all sizes.
@lru_cache(maxsize=128)
def _cached_table(
    paths: str, height: int, width: int, line_order: str, device: torch.device
) -> Tensor:
    # A cached tensor that was made in inference mode could not be trained with later, one that was
    # made while a graph is traced would have no values.
    with torch.inference_mode(False), _disable_current_modes():
        if device.type != "cpu":
            return _cached_table(paths, height, width, line_order, torch.device("cpu")).to(device)
        # Said, because a network may be made under another default device.
        rows, columns = (torch.arange(size, device="cpu") for size in (height, width))
        row, column = torch.meshgrid(rows, columns, indexing="ij")
        return torch.stack(PATHS[paths](row, column, line_order)).to(torch.int32)


@torch.library.custom_op("cvmh::order_table", mutates_args=())
def _traced_table(
    paths: str, height: int, width: int, line_order: str, device: torch.device
) -> Tensor:
    """Return a table in a graph, where sizes may be symbols and results may be overwritten."""
    return _cached_table(paths, height, width, line_order, device).clone()


@_traced_table.register_fake
def _(paths: str, height: int, width: int, line_order: str, device: torch.device) -> Tensor:
    num_paths = _cached_table(paths, 1, 1, line_order, torch.device("cpu")).shape[0]
    return torch.empty(num_paths, height * width, dtype=torch.int32, device=device)
