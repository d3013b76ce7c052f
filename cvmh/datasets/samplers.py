"""In which order the numbers of crops and tiles come, and which process gets which."""

from collections.abc import Iterator

from torch.utils.data import Sampler

# The number of a tile that is read but does not count.
NO_TILE = -1


class EpochSampler(Sampler[int]):
    """Gives every crop of a run its own number, so that each epoch draws new crops.

    Several processes share the crops of a step: what all of them get in a step is what one
    process with so many times the batch gets, whatever the epoch and wherever a run resumes.

    Args:
        crops_per_epoch: crops of an epoch of all processes together; what does not fill a step
            of theirs is left out.
        batch: crops of one process in one step.
    """

    def __init__(self, crops_per_epoch: int, *, batch: int = 1) -> None:
        self.crops_per_epoch = crops_per_epoch
        self.batch = batch
        self.epoch = 0
        self.num_replicas = 1
        self.rank = 0

    def set_epoch(self, epoch: int) -> None:
        """Take up the numbering at an epoch; Lightning calls this."""
        self.epoch = epoch

    def share(self, *, num_replicas: int, rank: int) -> None:
        """Give only the crops of process ``rank`` of ``num_replicas``."""
        self.num_replicas, self.rank = num_replicas, rank

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of this process's crops of the epoch, step after step."""
        start = self.epoch * self.crops_per_epoch + self.rank * self.batch
        stride = self.batch * self.num_replicas
        for step in range(len(self) // self.batch):
            first = start + step * stride
            yield from range(first, first + self.batch)

    def __len__(self) -> int:
        """Return the number of this process's crops of an epoch."""
        return self.crops_per_epoch // (self.batch * self.num_replicas) * self.batch


class TileSampler(Sampler[int]):
    """Gives every tile once; several processes share the tiles of a step.

    All processes have as many steps. One that has no tile left for the last gets number -1, whose
    pixels ``ValidationTiles`` ignores, so that no tile counts twice.

    Args:
        num_tiles: how many there are.
        batch: tiles of one process in one step.
    """

    def __init__(self, num_tiles: int, *, batch: int) -> None:
        self.num_tiles = num_tiles
        self.batch = batch
        self.num_replicas = 1
        self.rank = 0

    def share(self, *, num_replicas: int, rank: int) -> None:
        """Give only the tiles of process ``rank`` of ``num_replicas``."""
        self.num_replicas, self.rank = num_replicas, rank

    def __iter__(self) -> Iterator[int]:
        """Yield the numbers of this process's tiles, step after step."""
        for step in range(0, self.num_tiles, self.batch * self.num_replicas):
            first = step + self.rank * self.batch
            yield from range(first, min(first + self.batch, self.num_tiles)) or [NO_TILE]

    def __len__(self) -> int:
        """Return the number of this process's tiles."""
        return sum(1 for _ in self)
