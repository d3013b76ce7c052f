"""Whether a bundle saw the images that it is scored on, in training or when it was selected."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cvmh.datasets import LabelledImage, SegmentationData
from cvmh.datasets.summary import fingerprint
from cvmh.errors import ConfigError, DataError
from cvmh.models.bundle import BundleCard


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Images that a bundle saw: what for, which ones, and of how many that are scored.

    ``is_known`` is false where that cannot be said.
    """

    is_known: bool = False
    where: Literal["", "training", "selection"] = ""
    stems: tuple[str, ...] = ()
    total: int = 0

    def told(self, most: int) -> str:
        """Return how many images were seen, and the names of some."""
        more = ", ..." if len(self.stems) > most else ""
        return f"{len(self.stems)} of {self.total} images: {', '.join(self.stems[:most])}{more}"


def find_seen(
    card: BundleCard,
    data: SegmentationData,
    images: Sequence[LabelledImage],
    *,
    reopen: Callable[[str], SegmentationData] | None = None,
) -> Seen:
    """Return which of the images a bundle was trained or, if none of that, selected on.

    Nothing is claimed where the card does not say, or names another data set. A folder data set
    may have changed since, so it counts only if its training images are still the same.
    """
    if card.dataset != data.name or not card.train_split:
        return Seen()
    trained_on = data
    if card.splits != data.splits:
        if reopen is None:
            return Seen()
        try:
            trained_on = reopen(card.splits)
        except (ConfigError, DataError):
            # The files on this disk cannot be divided as in training: nothing can be said.
            return Seen()
    fitted, selected = (_of(trained_on, names) for names in (card.train_split, card.val_split))
    if data.layout == "folder" and (
        not fitted or fingerprint(fitted, trained_on) != card.data_fingerprint
    ):
        return Seen()
    kinds: tuple[tuple[Literal["training", "selection"], Sequence[LabelledImage]], ...] = (
        ("training", fitted),
        ("selection", selected),
    )
    for where, known in kinds:
        paths = {image.image for image in known}
        stems = tuple(image.stem for image in images if image.image in paths)
        if stems:
            return Seen(is_known=True, where=where, stems=stems, total=len(images))
    return Seen(is_known=True)


def _of(data: SegmentationData, names: str) -> tuple[LabelledImage, ...]:
    return tuple(image for image in data.images if image.split in names.split("+"))
