"""The LightningModule: one network, its loss, its optimiser and its validation scores."""

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from cvmh.classes import NODATA_ID, ClassTable
from cvmh.config import TrainSettings
from cvmh.errors import TrainingError
from cvmh.metrics import Scores, score
from cvmh.train.distill import Distillation
from cvmh.train.ema import averaged
from cvmh.train.losses import SegmentationLoss
from cvmh.train.optimiser import decayed_names, make_optimiser
from cvmh.train.pruning import Pruning
from cvmh.train.schedule import learning_rate, momentum
from cvmh.train.sync_norm import share_statistics

Batch = tuple[Tensor, Tensor, Tensor]


class SegmentationModule(lightning.LightningModule):
    """Train a network on batches (image (B, bands, H, W), label (B, H, W), index (B,)).

    Args:
        network: maps images to logits (B, classes, H, W).
        classes: the class table.
        settings: how to train.
        class_weights: a factor per class for the loss.
        fused: update all parameters in one pass, which is faster; not under mixed precision.
        teacher: maps the same images to logits of the same classes, and teaches beside the labels
            as ``settings.distill`` says; any module will do.
        pruning: leaves cells out of batches; None: all are computed.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: ClassTable,
        settings: TrainSettings,
        *,
        class_weights: Sequence[float] | None = None,
        fused: bool = False,
        teacher: nn.Module | None = None,
        pruning: Pruning | None = None,
    ) -> None:
        super().__init__()
        self.fused = fused
        self.network = network
        self._decayed = decayed_names(network)
        self.average = averaged(network, settings.ema) if settings.ema else None
        if settings.compile:
            # In place, so that the names of the weights stay.
            network.compile()
        self.classes = classes
        self.settings = settings
        self.loss = SegmentationLoss(
            settings.loss, class_weights=class_weights, label_smoothing=settings.label_smoothing
        )
        self.pruning = pruning
        self.distillation = None if teacher is None else Distillation(teacher, settings.distill)
        self.train_loss = MeanMetric()
        self.val_loss = MeanMetric()
        self.confusion = MulticlassConfusionMatrix(len(classes), ignore_index=NODATA_ID)
        self.scores: Scores | None = None
        # Set by the run: the share of it that is done, 0..1.
        self.progress = 0.0

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and kept: the average, where there is one."""
        return self.network if self.average is None else self.average.module

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
        return make_optimiser(self.network, self.settings, fused=self.fused, decayed=self._decayed)

    def on_train_start(self) -> None:
        """Bring the teacher to the device of the network, which it is no part of."""
        if self.distillation is not None:
            self.distillation.move(self.device)

    def on_train_epoch_start(self) -> None:
        """Seed torch by the epoch, so that a resumed run draws the same numbers."""
        # Each process draws its own.
        seed = self.settings.seed * 1_000_003 + self.current_epoch
        torch.manual_seed(seed + (self.global_rank << 40))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set learning rate and momentum by the progress of the run."""
        rate = learning_rate(self.progress, self.settings)
        betas = momentum(self.progress, self.settings), self.settings.beta2
        for group in self.optimizers().param_groups:  # type: ignore[union-attr]
            group["lr"], group["betas"] = rate * group["factor"], betas

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch; a loss that is not finite stops the run."""
        images, labels, indices = batch
        # By which a batch draws the same in a resumed run.
        number = self.current_epoch, batch_idx
        answers: list[Tensor] = []
        if self.pruning is None:
            logits = self.network(images)
        else:
            images, labels = self.pruning.empty(
                images, labels, number=number, rank=self.global_rank
            )
            logits, answers = self.pruning.train(self.network, images, number=number)
        loss = self.loss(logits, labels)
        if self.distillation is not None:
            loss = self.distillation.mix(loss, images, logits)
        for auxiliary in answers:
            assert self.pruning is not None
            loss = loss + self.pruning.settings.auxiliary * self.loss(auxiliary, labels)
        if not torch.isfinite(loss):
            raise TrainingError(self._not_finite("loss", f"{loss.item()}", indices))
        self.train_loss.update(loss.detach())
        return loss * self._share_of_step(batch_idx)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take a step, and move the average after it; Lightning calls this once a step."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop at a gradient that is not finite, unless a loss scaler will skip the step."""
        if self.trainer.precision == "16-mixed":
            return
        found = {name: p.grad for name, p in self.network.named_parameters() if p.grad is not None}
        # One look at all of them: at each look a GPU is waited for.
        if torch.isfinite(nn.utils.get_total_norm(list(found.values()))):
            return
        for name, gradient in found.items():
            # All may be finite, and only their norm too large.
            if not torch.isfinite(gradient).all():
                raise TrainingError(self._not_finite("gradient", name, None))

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch; the callbacks have read it before."""
        self.log("train_loss", self.train_loss.compute())
        self.train_loss.reset()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of all gradients, also where processes share them."""
        sharded = self.trainer.strategy.model
        if isinstance(sharded, FullyShardedDataParallel):
            sharded.clip_grad_norm_(self.settings.clip_gradient)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_validation_start(self) -> None:
        """Let all processes validate the same network, whose statistics they may differ in."""
        share_statistics(self.network)
        if self.average is not None:
            share_statistics(self.average.module)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count a batch in the confusion matrix."""
        images, labels, _ = batch
        if self.pruning is None:
            logits = self.kept(images)
        else:
            logits = self.pruning.validate(self.kept, images)
        self.val_loss.update(self.loss(logits, labels))
        self.confusion.update(logits.argmax(dim=1), labels)

    def on_validation_epoch_end(self) -> None:
        """Compute the scores of the validation split and log them."""
        counts = self.confusion.compute().cpu().numpy()
        self.scores = score(counts, self.classes, protocol="full", split="val")
        self.log("val_loss", self.val_loss.compute())
        for name in ("miou", "mf1", "oa"):
            value = getattr(self.scores, name)
            if value is not None:
                self.log(f"val_{name}", float(value))
        for name, entry in self.scores.classes.items():
            if entry.iou is not None:
                self.log(f"val_iou/{name}", float(entry.iou))
        self.confusion.reset()
        self.val_loss.reset()

    def _share_of_step(self, batch_idx: int) -> float:
        """Return what Lightning's division by ``accumulate`` lacks in an epoch's last step.

        That step may have fewer batches than the others.
        """
        wanted = self.settings.accumulate
        batches = int(self.trainer.num_training_batches) - batch_idx // wanted * wanted
        return wanted / min(wanted, batches)

    def _not_finite(self, what: str, value: str, indices: Tensor | None) -> str:
        where = f"step {self.global_step + 1} of epoch {self.current_epoch + 1}"
        crops = "" if indices is None else f", crops {indices.tolist()}"
        return (
            f"the {what} is not finite ({value}) at {where}{crops}, learning rate "
            f"{learning_rate(self.progress, self.settings):.2e}; lower train.learning_rate, or use "
            "train.precision=32 and continue with --resume"
        )
