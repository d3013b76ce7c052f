"""Lightning's trainer, set up for our runs, quiet and interruptible."""

import logging
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger

from cvmh.config import TrainSettings
from cvmh.errors import ConfigError
from cvmh.train.devices import Devices


def make_trainer(
    settings: TrainSettings,
    out: Path,
    callbacks: list[Callback],
    *,
    devices: Devices,
    precision: Any,
) -> lightning.Trainer:
    """Return the trainer of a run that leaves its files in ``out``."""
    if settings.patience is not None:
        callbacks = [
            EarlyStopping("val_miou", mode="max", patience=settings.patience, strict=False),
            *callbacks,
        ]
    return lightning.Trainer(
        accelerator="gpu" if devices.uses_gpu else "cpu",
        devices=settings.devices,
        num_nodes=settings.nodes,
        strategy=devices.strategy,
        # The loaders know their shares.
        use_distributed_sampler=False,
        precision=precision,
        max_epochs=-1 if settings.minutes else settings.epochs,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip_gradient,
        logger=TensorBoardLogger(out, name="", version="tensorboard"),
        log_every_n_steps=10,
        callbacks=callbacks,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=out,
    )


def find_precision(wanted: str, *, uses_gpu: bool) -> Any:
    """Return Lightning's name of a precision; "auto" is float32 on a CPU.

    Raises:
        ConfigError: the device cannot compute in it.
    """
    if wanted == "auto":
        wanted = "32" if not uses_gpu else "bf16" if torch.cuda.is_bf16_supported() else "16"
    if wanted == "16" and not uses_gpu:
        raise ConfigError("train.precision=16 needs a GPU; use 32 or bf16 on a CPU")
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[wanted]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's banners and hints off the terminal; its errors still come."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        warnings.filterwarnings("ignore", module="pytorch_lightning.*")
        # A hint at speed: kernels of one channel have several right strides.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let an interrupt through: Lightning would ignore further ones and exit with code 1."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as exit_:
        if not isinstance(exit_.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from exit_
