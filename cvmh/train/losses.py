"""The loss of a run: a weighted sum of terms, over labelled pixels only.

B batch, C classes, H W size; pixels labelled 255 count in no term. Every term works in float32
whatever the network computes in.
"""

from collections.abc import Callable, Sequence

import torch
from segmentation_models_pytorch.losses import FocalLoss, LovaszLoss
from torch import Tensor, nn
from torch.nn import functional

from cvmh.classes import NODATA_ID
from cvmh.config import LossSettings
from cvmh.train.sums import count_processes, sum_over_processes

# Terms that several processes compute together, as one with all their batches would; the others
# are means over the processes of what each computes alone.
JOINT = frozenset({"cross_entropy", "dice", "boundary"})
# A pixel is hard while its true class has less than this probability, ...
HARD_BELOW = 0.7
# ... and this share of the labelled pixels is kept at least.
HARD_SHARE = 1 / 16
# Width in pixels in which a border is drawn, and the distance at which two borders still match.
BORDER_WIDTH = 3
BORDER_REACH = 5


class SegmentationLoss(nn.Module):
    """Weighted sum of the terms that the settings name.

    Args:
        weights: the weight of each term; one of weight 0 is left out.
        class_weights: a factor per class for the terms that count pixels, cross-entropy and OHEM.
            Dice, Lovász and the boundary term weigh all classes alike, focal by difficulty.
        label_smoothing: the share of a label that is spread over all classes, in the same two.
    """

    def __init__(
        self,
        weights: LossSettings,
        *,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        counted = class_weights, label_smoothing
        makers: dict[str, Callable[[], nn.Module]] = {
            "cross_entropy": lambda: CrossEntropy(*counted),
            "dice": Dice,
            "focal": lambda: FocalLoss("multiclass", ignore_index=NODATA_ID),
            "lovasz": lambda: LovaszLoss("multiclass", ignore_index=NODATA_ID),
            "ohem": lambda: HardPixels(*counted),
            "boundary": Boundary,
        }
        self.weights = {name: weight for name, weight in weights if weight > 0}
        self.terms = nn.ModuleDict({name: makers[name]() for name in self.weights})

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of logits (B, C, H, W) and int64 labels (B, H, W).

        A batch without any labelled pixel gives zero, with zero gradients.
        """
        with torch.autocast(logits.device.type, enabled=False):
            # Float64 stays, for numerical checks.
            logits = logits if logits.dtype == torch.float64 else logits.float()
            # Zero times the logits keeps a batch without labels connected to the network.
            total = logits.sum() * 0
            is_labelled = bool((labels != NODATA_ID).any())
            for name, weight in self.weights.items():
                # Another process may have labels, and waits for the sums of this one.
                if is_labelled or (name in JOINT and count_processes() > 1):
                    total = total + weight * self.terms[name](logits, labels)
            return total


class CrossEntropy(nn.Module):
    """Cross-entropy, averaged over pixels with the weights of their classes, as torch does it.

    A pixel of a class of weight 0 counts as unlabelled.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar term of logits (B, C, H, W) and labels (B, H, W)."""
        loss_BHW, weight_BHW = self.pixels(logits, labels)
        sums = torch.stack([loss_BHW.sum(), weight_BHW.sum()])
        return _mean(*sum_over_processes(sums).unbind())

    def pixels(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss and the weight of each pixel (B, H, W); both 0 where it is unlabelled."""
        weights = self.class_weights
        if weights is None:
            weight_BHW = (labels != NODATA_ID).to(logits.dtype)
        else:
            weights = weights.to(logits.dtype)
            # Id 255 takes the weight of class 0 before it is masked.
            is_labelled = labels != NODATA_ID
            weight_BHW = weights[labels * is_labelled] * is_labelled
            labels = torch.where(weight_BHW > 0, labels, NODATA_ID)
        loss_BHW = functional.cross_entropy(
            logits,
            labels,
            weight=weights,
            ignore_index=NODATA_ID,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        return loss_BHW, weight_BHW


class HardPixels(nn.Module):
    """Cross-entropy over hard pixels only: those whose true class has a low probability.

    ``L = sum_i [p_i < t] w_i l_i / sum_i [p_i < t] w_i`` with ``p_i`` the probability of the true
    class, the bootstrapped cross-entropy of Wu, Shen and van den Hengel 2016 (arXiv 1605.06885).
    Where fewer than a share are hard, the hardest of all are taken, as many as the share says.
    """

    def __init__(self, class_weights: Sequence[float] | None, label_smoothing: float) -> None:
        super().__init__()
        self.cross_entropy = CrossEntropy(class_weights, label_smoothing)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar term of logits (B, C, H, W) and labels (B, H, W)."""
        loss_BHW, weight_BHW = self.cross_entropy.pixels(logits, labels)
        is_counted = weight_BHW > 0
        loss, weight = loss_BHW[is_counted], weight_BHW[is_counted]
        true = logits.detach().softmax(dim=1).gather(1, (labels * (labels != NODATA_ID))[:, None])
        true = true[:, 0][is_counted]
        num_kept = max(int((true < HARD_BELOW).sum()), int(len(true) * HARD_SHARE), 1)
        kept = true.topk(min(num_kept, len(true)), largest=False).indices
        return _mean(loss[kept].sum(), weight[kept].sum())


class Dice(nn.Module):
    """One minus the Dice coefficient per class over the whole batch, averaged over all classes.

    ``1 - 2 sum p g / (sum p + sum g)``; a class without a labelled pixel adds nothing. Equal to
    smp's DiceLoss, written so that the three sums can be taken over several processes first.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar term of logits (B, C, H, W) and labels (B, H, W)."""
        shares, truth, _ = _maps(logits, labels)
        sums = [maps.sum(dim=(0, 2, 3)) for maps in (shares * truth, shares, truth)]
        common, found, labelled = sum_over_processes(torch.stack(sums)).unbind()
        dice = 2 * common / (found + labelled).clamp_min(1e-7)
        return ((1 - dice) * (labelled > 0)).mean()


class Boundary(nn.Module):
    """One minus a soft boundary F1 per class, averaged over the classes that have a border.

    Bokhovkin and Burnaev 2019, "Boundary Loss for Remote Sensing Imagery Semantic Segmentation"
    (arXiv 1905.07852), section 3: with ``pool`` a maximum over a square window, a border is
    ``b = pool(1 - y) - (1 - y)``, of the label ``g`` and of the probabilities ``p`` alike;
    ``P = sum(b_p pool(b_g)) / sum b_p``, ``R = sum(b_g pool(b_p)) / sum b_g``,
    ``L = 1 - 2 P R / (P + R)``. Borders beside unlabelled pixels and of the tile do not count.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar term of logits (B, C, H, W) and labels (B, H, W)."""
        shares, truth, is_labelled = _maps(logits, labels)
        # A window that holds an unlabelled pixel would show a border that is none.
        is_inside = 1 - _widened(1 - is_labelled, BORDER_WIDTH)
        found, labelled = _border(shares) * is_inside, _border(truth) * is_inside
        right = found * _widened(labelled, BORDER_REACH)
        met = labelled * _widened(found, BORDER_REACH)
        maps = right, found, met, labelled
        sums = sum_over_processes(torch.stack([map_BCHW.sum((0, 2, 3)) for map_BCHW in maps]))
        num_right, num_found, num_met, num_labelled = sums.unbind()
        precision, recall = num_right / (num_found + 1e-7), num_met / (num_labelled + 1e-7)
        loss = 1 - 2 * precision * recall / (precision + recall + 1e-7)
        has_border = num_labelled > 0
        return _mean((loss * has_border).sum(), has_border.sum())


def _maps(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities, labels as 0 and 1 (B, C, H, W), both 0 where unlabelled, and where not.

    The third is 1 where a pixel is labelled (B, 1, H, W).
    """
    is_labelled = labels != NODATA_ID
    truth = functional.one_hot(labels * is_labelled, logits.shape[1]).permute(0, 3, 1, 2)
    mask = is_labelled[:, None].to(logits.dtype)
    return logits.softmax(dim=1) * mask, truth * mask, mask


def _border(maps_BCHW: Tensor) -> Tensor:
    return _widened(1 - maps_BCHW, BORDER_WIDTH) - (1 - maps_BCHW)


def _widened(maps_BCHW: Tensor, width: int) -> Tensor:
    return functional.max_pool2d(maps_BCHW, width, stride=1, padding=width // 2)


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """Divide a sum by what it counts; nothing counted gives zero."""
    return total / torch.where(count > 0, count, 1)
