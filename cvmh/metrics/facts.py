"""What must be known of scores before they are compared with others."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

# Where eroded labels come from.
OF_THE_SET = "of the data set"
MADE_HERE = "made here"
# What a split was to the bundle that is scored on it.
TRAINING, SELECTION = "training", "selection"


class Facts(BaseModel):
    """How scores were made; the defaults are those of validation while a network trains.

    Args:
        labels: all labelled pixels, or all but those along the borders of classes.
        labels_from: where eroded labels come from, with the radius if they were made here.
        splits: the table that divides the data set; empty if that is its own.
        splits_meant: that of the protocol, where a prepared copy follows another one.
        left_out: classes that the means leave out.
        uncounted: classes whose labels do not count in overall accuracy and kappa.
        tta: whether the scores of flipped and turned tiles were averaged.
        is_stitched: whether whole scenes were put together before anything was counted.
        trained_on: the split table and the splits of it that the bundle was trained on, where both
            are known: scores of one protocol compare only if the training images are the same.
        seen_in: "training" or "selection" if the bundle saw the split there; empty if not, or
            where that is not known.
        seen: how many of the images it saw, and how many there are, in words.
        note: in what the protocol differs from what its authors did, or what is not certain.
        source: where the protocol is described.
    """

    model_config = ConfigDict(frozen=True)

    labels: Literal["full", "eroded"] = "full"
    labels_from: str = ""
    splits: str = ""
    splits_meant: str = ""
    left_out: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    tta: bool = False
    is_stitched: bool = False
    trained_on: str = ""
    seen_in: Literal["", "training", "selection"] = ""
    seen: str = ""
    note: str = ""
    source: str = ""

    @property
    def sentence(self) -> str:
        """All of it but note and source in one line, to be printed with every score."""
        labels = f"{self.labels} labels" + (f" ({self.labels_from})" if self.labels_from else "")
        table = f"split table {self.splits}" if self.splits else "the data set's own split"
        if self.splits_meant:
            table += f" (NOT {self.splits_meant}, THE PROTOCOL'S)"
        parts = [
            labels,
            table,
            f"means without {', '.join(self.left_out)}"
            if self.left_out
            else "means of all classes",
            f"OA without {', '.join(self.uncounted)}" if self.uncounted else "OA of all classes",
            "averaged over flips and turns" if self.tta else "no test-time augmentation",
            "stitched scenes" if self.is_stitched else "tiles by themselves",
        ]
        if self.trained_on:
            parts.append(f"trained on {self.trained_on}")
        if self.seen_in:
            parts.append(f"{self.seen_in.upper()} SPLIT of this bundle ({self.seen})")
        return ", ".join(parts)
