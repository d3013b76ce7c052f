"""Distillation: a network learns from the answers of a trained one, beside the labels.

B batch, C classes, H W size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cvmh.config import DistillSettings
from cvmh.errors import ShapeError
from cvmh.train.sums import sum_over_processes


class Distillation:
    """The teacher of a run and the loss that it gives; the objective of GroupMamba and DeiT.

    ``(1 - a) loss + a distillation`` with ``a = settings.weight``. It is no module: checkpoints,
    bundles, averages and the processes of a run know nothing of the teacher's weights.

    Args:
        teacher: maps the images that the network gets to logits of the network's classes; it is
            set to eval mode and never gets a gradient.
        settings: weight, kind and temperature.
    """

    def __init__(self, teacher: nn.Module, settings: DistillSettings) -> None:
        self.teacher = teacher.eval()
        self.settings = settings

    def move(self, device: torch.device) -> None:
        """Bring the teacher to where the images are."""
        self.teacher.to(device)

    def mix(self, loss: Tensor, images: Tensor, logits: Tensor) -> Tensor:
        """Return the loss of a batch, given that of its labels, its images and its logits.

        Raises:
            ShapeError: the teacher's answer has another shape.
        """
        with torch.no_grad():
            taught = self.teacher(images)
        if taught.shape != logits.shape:
            raise ShapeError(
                f"the teacher must give logits of shape {tuple(logits.shape)}, as the network "
                f"does, got {tuple(taught.shape)}"
            )
        distilled = distillation_loss(logits, taught, has_data(images), self.settings)
        # Zero times a loss that is not finite is not finite either.
        if self.settings.weight == 1:
            return distilled
        return (1 - self.settings.weight) * loss + self.settings.weight * distilled


def has_data(images: Tensor) -> Tensor:
    """Return where images (B, bands, H, W) have data, (B, H, W): where any band is not 0.

    Crops are exactly 0 where there is none, whatever augmentation did to the rest.
    """
    return (images != 0).any(dim=1)


def distillation_loss(
    logits: Tensor, taught: Tensor, is_counted: Tensor, settings: DistillSettings
) -> Tensor:
    """Return how far a network is from its teacher, a mean over pixels, in float32.

    hard: ``-log softmax(z)[argmax t]``; soft: ``T^2 KL(softmax(t / T) || softmax(z / T))``. Over
    several processes it is the mean over the pixels of all; none counted gives zero.

    Args:
        logits: of the network (B, C, H, W).
        taught: of the teacher, of the same shape.
        is_counted: the pixels that count (B, H, W), labelled or not.
        settings: kind and temperature.
    """
    with torch.autocast(logits.device.type, enabled=False):
        # Float64 stays, for numerical checks.
        logits, taught = (z if z.dtype == torch.float64 else z.float() for z in (logits, taught))
        if settings.kind == "hard":
            loss_BHW = functional.cross_entropy(logits, taught.argmax(dim=1), reduction="none")
        else:
            own, wanted = (
                functional.log_softmax(z / settings.temperature, dim=1) for z in (logits, taught)
            )
            divergence = functional.kl_div(own, wanted, reduction="none", log_target=True)
            loss_BHW = settings.temperature**2 * divergence.sum(dim=1)
        weight = is_counted.to(loss_BHW.dtype)
        sums = torch.stack([(loss_BHW * weight).sum(), weight.sum()])
        total, count = sum_over_processes(sums).unbind()
        return total / count.clamp_min(1)
