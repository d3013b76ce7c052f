"""The settings of a run: what to train on, with which network, for how long."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from cvmh.settings import Settings, read_yaml, validate

Positive = Field(gt=0)
# How class weights can be had from the pixels of each class.
WEIGHT_RULES = ("none", "inverse", "sqrt_inverse", "effective")
TWO_SHARES = "must be two shares above 0 and up to 1, the smaller one first"


class ModelSettings(Settings):
    """Which network, and the settings in which it differs from its preset."""

    name: str = "cvmh_unet_small"
    settings: dict[str, Any] = Field(default_factory=dict)
    # A bundle whose weights the network starts from; its classes and bands may be others.
    init: Path | None = None
    # Published weights that the encoder starts from: a file, or a name of `docs/weights.md`.
    pretrained: str | None = None
    # Train the decoder and the head only; the encoder's weights and statistics stay.
    freeze_encoder: bool = False

    @model_validator(mode="after")
    def _refuse_two_starts(self) -> "ModelSettings":
        if self.init is not None and self.pretrained is not None:
            raise ValueError("init and pretrained exclude each other; leave one of them out")
        return self

    @field_validator("settings")
    @classmethod
    def _refuse_facts_of_the_data(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for key in ("name", "bands", "num_classes"):
            if key in settings:
                raise ValueError(f"'{key}' is not a setting of a network, leave it out")
        if "pruning" in settings:
            raise ValueError("'pruning' stands beside model; set pruning.score, for example")
        return settings


class DataSettings(Settings):
    """Where the labelled images are, which bands are used, and how they are cut."""

    dataset: str = "folder"
    root: Path | None = None
    # How the files of a known data set lie; None: recognised by looking. See `cvmh data list`.
    layout: str | None = None
    # Which published split to follow; None: the one that goes with the layout.
    splits: str | None = None
    # Which labels to train on; "auto" takes full ones, and eroded ones where there are no others.
    labels: Literal["auto", "full", "eroded"] = "auto"
    # Take what is there of a known data set though parts are missing.
    partial: bool = False
    # Read each part of a label's colour as 0 or 255, whichever is nearer (Potsdam's tile 4_12).
    round_colours: bool = False
    # One split or several.
    train_split: str | tuple[str, ...] = "train"
    # None: no validation; the bundle is then that of the last epoch.
    val_split: str | None = "val"
    # 1-based; None takes every band that is not an alpha band.
    bands: tuple[int, ...] | None = None
    tile: int = Field(256, ge=32)
    # Tiles of one step of one process: two processes with 8 step as one with 16.
    batch: int = Field(8, ge=1)
    # Where crops are drawn: 0 anywhere, 1 each class as often as any other, between the two by
    # frequency^(1 - balance).
    balance: float = Field(0.0, ge=0, le=1)
    # None: as many crops as there are whole tiles in the split, at least 16 batches.
    crops_per_epoch: int | None = Field(None, ge=1)
    # None: one worker fewer than there are cores, at most 4; none on two cores without a GPU.
    workers: int | None = Field(None, ge=0)

    @property
    def train_splits(self) -> tuple[str, ...]:
        """The splits that are trained on."""
        return (self.train_split,) if isinstance(self.train_split, str) else self.train_split


class AugmentSettings(Settings):
    """Joint augmentation of image and label; probabilities 0..1, strengths as factors."""

    flips: float = Field(0.5, ge=0, le=1)
    rotations: float = Field(0.75, ge=0, le=1)
    radiometry: float = Field(0.5, ge=0, le=1)
    brightness: float = Field(0.2, ge=0)
    contrast: float = Field(0.2, ge=0)
    band_shift: float = Field(0.1, ge=0)
    noise: float = Field(0.05, ge=0)
    # Things appear so many times larger, from and to; drawn evenly on a logarithmic scale.
    scale: tuple[float, float] = (1.0, 1.0)
    # Share of crops with a box from another place, and of crops made of four places.
    cutmix: float = Field(0.0, ge=0, le=1)
    mosaic: float = Field(0.0, ge=0, le=1)

    @field_validator("scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if not 0.1 <= scale[0] <= scale[1] <= 10:
            raise ValueError("must be two factors from 0.1 to 10, the smaller one first")
        return scale


class LossSettings(Settings):
    """The terms of the loss and their weights; a term that is not named has weight 0."""

    # Cross-entropy over labelled pixels.
    cross_entropy: float = Field(0.0, ge=0)
    # One minus the Dice coefficient per class, over the batch.
    dice: float = Field(0.0, ge=0)
    # Each class against the rest, pixels that are right already count little (gamma 2).
    focal: float = Field(0.0, ge=0)
    # A convex surrogate of the IoU per class.
    lovasz: float = Field(0.0, ge=0)
    # Cross-entropy over the hard pixels only.
    ohem: float = Field(0.0, ge=0)
    # One minus a soft F1 of the borders per class.
    boundary: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _refuse_none(self) -> "LossSettings":
        if not any(weight for _, weight in self):
            raise ValueError(f"one of {', '.join(LossSettings.model_fields)} must be above 0")
        return self


class DistillSettings(Settings):
    """A second teacher beside the labels: ``(1 - weight) loss + weight distillation``."""

    # A bundle whose answers the network learns too; None: labels alone.
    teacher: Path | None = None
    # The share of the teacher in the loss; 1 leaves the labels out.
    weight: float = Field(0.5, gt=0, le=1)
    # "hard": cross-entropy against the teacher's likeliest class. "soft": the Kullback-Leibler
    # divergence from the teacher's scores, times the temperature squared.
    kind: Literal["hard", "soft"] = "hard"
    # Both networks' logits are divided by it; of "soft" only.
    temperature: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _refuse_idle_temperature(self) -> "DistillSettings":
        if self.kind == "hard" and self.temperature != 1:
            raise ValueError("temperature is of kind 'soft'; set kind to soft, or leave it out")
        return self


class TrainSettings(Settings):
    """Optimisation: AdamW, a schedule with warm-up, a weighted sum of losses."""

    epochs: int = Field(50, ge=1)
    # A limit in minutes: training ends there and the schedule follows the clock, not the steps.
    minutes: float | None = Field(None, gt=0)
    # The command line takes the network's own where none is set.
    learning_rate: float = Field(1e-3, gt=0)
    final_learning_rate: float = Field(1e-5, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    # A factor on the learning rate of the encoder, below 1 where it comes from `model.init`.
    encoder_rate: float = Field(1.0, gt=0)
    # A further factor for each stage between the decoder and a stage of the encoder.
    layer_decay: float = Field(1.0, gt=0, le=1)
    # Below AdamW's customary 0.999, because short runs learn faster with a shorter memory.
    beta2: float = Field(0.98, gt=0, lt=1)
    # How the learning rate falls after its warm-up. "one_cycle" climbs from a 25th by a cosine and
    # moves AdamW's first beta against it: give it a long warm-up, such as 0.3.
    schedule: Literal["cosine", "poly", "one_cycle"] = "cosine"
    # The share of the run in which the learning rate climbs.
    warmup: float = Field(0.05, ge=0, lt=1)
    # Validate and keep a moving average of the weights with this decay a step; None: the weights.
    ema: float | None = Field(None, gt=0, lt=1)
    # Batches whose gradients make one step.
    accumulate: int = Field(1, ge=1)
    # The terms of the loss by name and weight.
    loss: LossSettings = LossSettings(cross_entropy=1.0, dice=1.0)
    # The share of a label that cross-entropy and OHEM spread over all classes.
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    # A factor per class for cross-entropy and OHEM: from the training split's pixels, or a list.
    class_weights: Literal["none", "inverse", "sqrt_inverse", "effective"] | tuple[float, ...] = (
        "none"
    )
    # What a trained network teaches beside the labels.
    distill: DistillSettings = DistillSettings()
    clip_gradient: float = Field(1.0, gt=0)
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    # Let torch compile the network: minutes at the start, for steps that may be faster.
    compile: bool = False
    # Which epoch the bundle is of: that with the best validation mIoU, or the last.
    select: Literal["best", "last"] = "best"
    # Fit a temperature to the validation split at the end, so that scores are probabilities.
    calibrate: bool = True
    # Stop when the validation mIoU has not risen for so many epochs; None never stops early.
    patience: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    # Processes of each machine, one a GPU, or several on its CPU; and how many machines.
    devices: int = Field(1, ge=1)
    nodes: int = Field(1, ge=1)
    # "ddp": each process holds the network; "fsdp": they share its weights; auto: ddp.
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    # Whether batch norms see the batch of all processes, as one process with all of it would.
    sync_batchnorm: bool = True

    @field_validator("class_weights", mode="before")
    @classmethod
    def _check_class_weights(cls, value: Any) -> Any:
        if value is None:
            return "none"
        if isinstance(value, list | tuple):
            numbers = [weight for weight in value if isinstance(weight, int | float)]
            if len(numbers) < len(value) or min(numbers, default=-1) < 0 or not any(numbers):
                raise ValueError("weights must be numbers from 0 up, not all of them 0")
        elif value not in WEIGHT_RULES:
            raise ValueError(f"must be one of {', '.join(WEIGHT_RULES)}, or a list of numbers")
        return value

    @field_validator("precision", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """Take 32 for "32": YAML and the command line read it as a number."""
        return str(value) if isinstance(value, int) else value


class PruningSettings(Settings):
    """How a network chooses the cells of 32 pixels that its blocks compute."""

    # What is high where a cell is needed: the clipped output of the scans of the first block, the
    # mean step of these scans, or the doubt of an auxiliary head.
    score: Literal["clipped_output", "delta", "confidence"] = "clipped_output"
    # What the others have: the features that they are scored by, learned tokens in the decoder and
    # its skips, or the answers of the auxiliary head as the network's own.
    reinsert: Literal["frozen", "null", "exit"] = "frozen"
    # Where cells are scored: behind the first block of the encoder and of the decoder, which then
    # computes all of them, or at the entry, of the tokens that this block would get.
    at: Literal["block", "entry"] = "block"

    @field_validator("reinsert", mode="before")
    @classmethod
    def _as_word(cls, value: Any) -> Any:
        """Take None for "null": YAML and the command line read the bare word as nothing."""
        return "null" if value is None else value

    @model_validator(mode="after")
    def _refuse_scores_of_scans_at_the_entry(self) -> "PruningSettings":
        if self.at == "entry" and self.score == "clipped_output":
            raise ValueError(
                'at "entry" scores cells before anything is scanned, and score "clipped_output" is '
                'of scans; set score to "confidence" or "delta", or at to "block"'
            )
        return self

    @property
    def has_heads(self) -> bool:
        """Whether auxiliary heads are needed."""
        return self.score == "confidence" or self.reinsert == "exit"


class PruningRunSettings(PruningSettings):
    """A run in which a network learns to do without cells; ``pruning: {}`` takes the defaults."""

    # The share of the cells that are computed: drawn for each batch, evenly from and to.
    keep: tuple[float, float] = (0.4, 1.0)
    # The share at which the network is validated, and so the epoch chosen that is kept.
    validate_keep: float = Field(0.7, gt=0, le=1)
    # Share of crops of which some cells lose their data, as at the edges of a scene.
    nodata: float = Field(0.1, ge=0, le=1)
    # Weight of the loss of the auxiliary heads, where there are any.
    auxiliary: float = Field(0.4, gt=0, allow_inf_nan=False)
    # Let the bundle of model.init teach beside the labels, where train.distill names no teacher.
    distill: bool = True

    @field_validator("keep", mode="before")
    @classmethod
    def _are_two(cls, keep: Any) -> Any:
        if not isinstance(keep, list | tuple) or len(keep) != 2:
            raise ValueError(TWO_SHARES)
        return keep

    @field_validator("keep")
    @classmethod
    def _in_order(cls, keep: tuple[float, float]) -> tuple[float, float]:
        if not 0 < keep[0] <= keep[1] <= 1 or keep[0] == 1:
            raise ValueError(TWO_SHARES)
        return keep


class RunConfig(Settings):
    """One complete run; one YAML file of ``configs/`` is one of these."""

    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    train: TrainSettings = TrainSettings()
    # None: the network computes all cells.
    pruning: PruningRunSettings | None = None

    @property
    def network_settings(self) -> dict[str, Any]:
        """The settings of the network: those of ``model``, and how it chooses cells."""
        if self.pruning is None:
            return self.model.settings
        chosen = self.pruning.model_dump(include=set(PruningSettings.model_fields))
        return {**self.model.settings, "pruning": chosen}

    @classmethod
    def read(cls, path: Path) -> "RunConfig":
        """Read a run's settings from a YAML file.

        Raises:
            ConfigError: the file is missing, is not YAML, or a setting in it is unknown or wrong.
        """
        return validate(cls, read_yaml(path), source=str(path))

    def to_yaml(self) -> str:
        """Return the settings as YAML text that :meth:`read` reads back."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))
