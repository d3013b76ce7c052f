"""What the triton backend decides before a launch, without importing triton.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from cvmh.errors import KernelError
from cvmh.ops.arguments import ScanArguments


class Tile(NamedTuple):
    """What a program holds in registers: states of a group, channels, steps read at once."""

    states: int
    channels: int
    steps: int


class Table(NamedTuple):
    """The sizes for one class of devices.

    Attributes:
        chunk: Steps of a chunk, with few states and with many.
        many_states: From how many states on a chunk is the longer one.
        forward: Tiles to choose from; more states than one has go in groups.
        backward: The same for the backward.
        narrow: Channels of a tile where there are few programs, or a low-rank dt, whose weights
            take registers.
        enough_programs: How many programs are not few.
        chunks_at_once: Chunks whose ends are read at once when they are handed on.
    """

    chunk: tuple[int, int]
    many_states: int
    forward: tuple[Tile, ...]
    backward: tuple[Tile, ...]
    narrow: int
    enough_programs: int
    chunks_at_once: int

    def chunk_size(self, num_states: int) -> int:
        """Return the steps of a chunk."""
        return self.chunk[num_states >= self.many_states]


# Reading a step and expanding dt costs a program about as much as this many states.
STEP_COST = 4

# By class of device, the closer name first: "cuda 9" or "hip 9" is a major version of the
# capability. No class has been measured yet; one row is chosen for registers and serves all.
TABLES = {
    "interpreter": Table(
        chunk=(8, 8),
        many_states=8,
        forward=(Tile(1, 16, 4), Tile(2, 16, 2)),
        backward=(Tile(1, 16, 4), Tile(2, 16, 2)),
        narrow=16,
        enough_programs=0,
        chunks_at_once=2,
    ),
    "gpu": Table(
        chunk=(64, 128),
        many_states=8,
        forward=(Tile(1, 128, 4), Tile(4, 64, 4), Tile(16, 64, 2)),
        backward=(Tile(1, 64, 4), Tile(4, 32, 2)),
        narrow=32,
        enough_programs=4096,
        chunks_at_once=16,
    ),
}


class Pairing(NamedTuple):
    """How the paths of an order share programs.

    Attributes:
        slots: Paths (K,), int32; with two sides, each is followed by its exact reverse.
        sides: 2 if all paths come in pairs, else 1.
        is_complete: Whether every path is known to visit every pixel.
    """

    slots: Tensor
    sides: int
    is_complete: bool


def table_of(device: torch.device) -> Table:
    """Return the sizes for a device."""
    if device.type != "cuda":
        return TABLES["interpreter"]
    family = "cuda" if torch.version.hip is None else "hip"
    name = f"{family} {torch.cuda.get_device_capability(device)[0]}"
    return TABLES.get(name, TABLES["gpu"])


def choose_tile(
    table: Table, tiles: tuple[Tile, ...], *, num_states: int, rank: int, lanes: int
) -> Tile:
    """Return the tile for a scan.

    Args:
        table: The sizes for the device.
        tiles: ``table.forward`` or ``table.backward``.
        num_states: N.
        rank: Columns of dt that the kernels expand, or 0.
        lanes: Channels of all chunks, planes and images of one launch.
    """
    tile = min(tiles, key=lambda tile: -(-num_states // tile.states) * (tile.states + STEP_COST))
    if rank > 0 or lanes // tile.channels < table.enough_programs:
        return tile._replace(channels=min(table.narrow, tile.channels))
    return tile


def count_states(arguments: ScanArguments) -> int:
    """Return how many floats the states before all chunks take."""
    num_paths, num_channels, num_states = arguments.A.shape
    chunk = table_of(arguments.x.device).chunk_size(num_states)
    num_chunks = -(-arguments.num_steps // chunk)
    return arguments.x.shape[0] * num_paths * num_chunks * num_states * num_channels


# An order table is looked at once, as reading the answer waits for the queue of the device.
_pairings: WeakIdKeyDictionary = WeakIdKeyDictionary()


def pair_paths(order: Tensor, *, num_pixels: int, merge: bool) -> Pairing:
    """Return how the paths of an order, (K, T) or (B, K, T), share programs.

    Orders of single images are new with every call, and not looked at.

    Raises:
        KernelError: If a table on a CUDA device would have to be looked at in a capture.
    """
    num_paths = order.shape[-2]
    slots = torch.arange(num_paths, dtype=torch.int32, device=order.device)
    if order.dim() == 3:
        return Pairing(slots, 1, False)
    # Tensors of inference mode do not count what is written into them.
    version = None if order.is_inference() else (order._version, num_pixels)
    known, found = _pairings.get(order, (None, None))
    if found is None or version is None or known != version:
        found = _look_at(order, num_pixels)
        if version is not None:
            _pairings[order] = (version, found)
    return found if merge else found._replace(slots=slots, sides=1)


def _look_at(order: Tensor, num_pixels: int) -> Pairing:
    if order.is_cuda and torch.cuda.is_current_stream_capturing():
        raise KernelError(
            "order must have been scanned before a CUDA graph is captured, got a new table; "
            "keep the tensor and run once without capture"
        )
    num_paths, num_steps = order.shape
    is_reverse = (order[:, None] == order.flip(1)).all(dim=-1)
    is_complete = (order >= 0).all() & (num_steps == num_pixels)
    *flags, complete = torch.cat([is_reverse.flatten(), is_complete[None]]).tolist()
    slots: list[int] = []
    for path in range(num_paths):
        partners = (
            other
            for other in range(path + 1, num_paths)
            if flags[path * num_paths + other] and other not in slots
        )
        partner = next(partners, None)
        if path not in slots and partner is not None:
            slots += [path, partner]
    sides = 2 if len(slots) == num_paths else 1
    slots = slots if sides == 2 else list(range(num_paths))
    return Pairing(
        torch.tensor(slots, dtype=torch.int32, device=order.device), sides, bool(complete)
    )
