"""The loss of a run: cross-entropy plus Dice, over labelled pixels only."""

from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor, nn

from cvmh.classes import NODATA_ID


class SegmentationLoss(nn.Module):
    """Weighted sum of cross-entropy and multi-class Dice; pixels labelled 255 do not count."""

    def __init__(self, *, cross_entropy: float = 1.0, dice: float = 1.0) -> None:
        super().__init__()
        self.weights = (cross_entropy, dice)
        self.cross_entropy = nn.CrossEntropyLoss(ignore_index=NODATA_ID)
        self.dice = DiceLoss(mode="multiclass", from_logits=True, ignore_index=NODATA_ID)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of logits (B, classes, H, W) and int64 labels (B, H, W).

        A batch without any labelled pixel gives zero, with zero gradients.
        """
        logits = logits.float()
        if not (labels != NODATA_ID).any():
            return logits.sum() * 0
        weight_ce, weight_dice = self.weights
        return weight_ce * self.cross_entropy(logits, labels) + weight_dice * self.dice(
            logits, labels
        )
