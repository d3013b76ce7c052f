"""One training, from settings to a run folder with its bundle."""

import json
import logging
import math
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger

from cvmh.config import RunConfig, TrainSettings
from cvmh.datasets import SegmentationData, TrainingData, open_data, prepare_training
from cvmh.errors import ConfigError, OutputError
from cvmh.files import make_folder, write_complete
from cvmh.metrics import Scores
from cvmh.models.bundle import BundleCard, save_bundle, versions
from cvmh.progress import Progress, silent
from cvmh.train.calibrate import calibrate
from cvmh.train.callbacks import Pace, Record
from cvmh.train.class_weights import class_weights
from cvmh.train.devices import (
    Agreement,
    Devices,
    find_devices,
    kept_weights,
    part_from_others,
    told_when_lost,
)
from cvmh.train.memory import fitting
from cvmh.train.module import SegmentationModule
from cvmh.train.start import make_network
from cvmh.train.sync_norm import join_batch_norms

# The best network so far; it gets the bundle's name only when the run is complete.
UNFINISHED = "best.unfinished.safetensors"
FINISHED = "best.safetensors"
# The state of a run whose epochs are over, and whose bundle is not calibrated yet.
FITTED = "fitted"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a complete run leaves: its bundle, and the figures of the epoch that it is of."""

    bundle: Path
    scores: dict[str, Any]
    epochs: int
    steps: int


def train(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: Progress = silent,
    report: Callable[[dict[str, float]], None] = lambda row: None,
    command: str = "",
) -> TrainingResult:
    """Train a network as the settings say and leave a run folder.

    Args:
        config: the settings of the run.
        out: the run folder; must not hold a run yet, unless ``resume``.
        resume: continue the run in ``out`` from its last complete epoch.
        device: "auto", "cpu" or "cuda".
        progress: receives the steps that are done.
        report: receives the metrics of each epoch.
        command: the command line, kept with the run.

    Raises:
        OutputError: ``out`` holds a run already, or cannot be written.
        ConfigError: there is nothing to resume, or a setting does not fit the data.
        TrainingError: a loss, gradient or score is not finite, or a batch does not fit in memory.
        KeyboardInterrupt: the user stopped the run; it can be resumed.
    """
    devices = find_devices(config.train, device)
    if devices.is_first:
        _check_folder(out, resume=resume)
    else:
        # One process speaks for all.
        progress, report = silent, lambda row: None
    precision = _precision(config.train.precision, uses_gpu=devices.uses_gpu)
    # Refused before anything is read.
    _keeps_best(config)
    data = open_data(config.data)
    training = prepare_training(data, config, progress=progress)
    training.share(num_replicas=devices.count, rank=devices.rank)
    result = _fitted(out) if resume else None
    if result is None:
        result = _fit(
            config,
            out,
            data,
            training,
            devices=devices,
            precision=precision,
            progress=progress,
            report=report,
            command=command,
        )
    if not devices.is_first:
        return result
    training.share(num_replicas=1, rank=0)
    if config.train.calibrate and training.val_loader is not None:
        with fitting(config):
            calibrate(
                out / UNFINISHED,
                training.val_loader,
                split=config.data.val_split or "",
                device=torch.device("cuda" if devices.uses_gpu else "cpu"),
                progress=progress,
            )
    (out / UNFINISHED).replace(out / FINISHED)
    _write_state(out, training, state="finished", command=command, result=result)
    return result


def check(
    config: RunConfig, out: Path, *, resume: bool = False, progress: Progress = silent
) -> None:
    """Find out what is wrong with a run before its processes are started, and summarise its data.

    Raises:
        CvmhError: what :func:`train` would raise before its first step.
    """
    devices = find_devices(config.train)
    if devices.is_first:
        _check_folder(out, resume=resume)
    _precision(config.train.precision, uses_gpu=devices.uses_gpu)
    _keeps_best(config)
    data = open_data(config.data)
    training = prepare_training(data, config, progress=progress)
    make_network(config, data, training, is_resumed=(out / "last.ckpt").exists())


def _fit(
    config: RunConfig,
    out: Path,
    data: SegmentationData,
    training: TrainingData,
    *,
    devices: Devices,
    precision: Any,
    progress: Progress,
    report: Callable[[dict[str, float]], None],
    command: str,
) -> TrainingResult:
    """Train to the end, and leave the bundle that is kept under its unfinished name."""
    weights = class_weights(config.train.class_weights, training.summary.class_pixels)
    keeps_best = _keeps_best(config)
    lightning.seed_everything(config.train.seed, verbose=False)
    last = out / "last.ckpt"
    is_resumed = last.exists()
    network, facts, told = make_network(config, data, training, is_resumed=is_resumed)
    if devices.is_first:
        for line in told:
            log.info(line)
        make_folder(out)
        write_complete(out / "config.yaml", config.to_yaml())
        _write_state(out, training, state="training", command=command, facts=facts)
    if devices.count > 1 and config.train.sync_batchnorm:
        network = join_batch_norms(network, uses_gpu=devices.uses_gpu)
    # Lightning cannot clip the gradients of a fused optimiser under mixed precision.
    fused = precision == "32-true"
    module = SegmentationModule(
        network, data.classes, config.train, class_weights=weights, fused=fused
    )
    record = Record(
        out,
        save=_bundle_writer(out, config, data, training, is_first=devices.is_first),
        keeps_best=keeps_best,
        report=report,
    )
    with _quiet(), _interruptible(), fitting(config), told_when_lost(devices):
        trainer = _trainer(
            config.train,
            out,
            [
                _agreement(config, training, is_resumed=is_resumed),
                _pace(config, training, progress),
                record,
            ],
            devices=devices,
            precision=precision,
        )
        trainer.fit(
            module,
            training.train_loader,
            training.val_loader,
            # A run that was stopped in its first epoch begins again.
            ckpt_path=last if is_resumed else None,
        )
        part_from_others()
    rows = record.rows if keeps_best else record.rows[-1:]
    result = TrainingResult(
        bundle=out / FINISHED,
        scores=max(rows, key=lambda row: row.get("val_miou", -1.0)),
        epochs=len(record.rows),
        steps=trainer.global_step,
    )
    if devices.is_first:
        _write_state(out, training, state=FITTED, command=command, result=result)
    return result


def _fitted(out: Path) -> TrainingResult | None:
    """Return what a run that was stopped after its last epoch had come to; None before that."""
    try:
        state = json.loads((out / "run.json").read_text())
    except ValueError as error:
        raise ConfigError(f"{out / 'run.json'} is damaged ({error}); begin a new run") from error
    # The first process may have finished before another one looks.
    if state.get("state") not in (FITTED, "finished"):
        return None
    return TrainingResult(
        bundle=out / FINISHED, scores=state["best"], epochs=state["epochs"], steps=state["steps"]
    )


def _check_folder(out: Path, *, resume: bool) -> None:
    if resume and (out / FINISHED).exists():
        raise ConfigError(f"the run in {out} is complete, so there is nothing to resume")
    if resume and not (out / "run.json").exists():
        raise ConfigError(f"{out} holds no run to resume; start one without --resume")
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is not empty; choose another --out, or continue it with --resume")


def _keeps_best(config: RunConfig) -> bool:
    """Say whether the best epoch is kept, and not the last; without validation none is best."""
    if config.data.val_split is None and config.train.patience is not None:
        raise ConfigError("train.patience needs validation; set data.val_split or leave it out")
    return config.train.select == "best" and config.data.val_split is not None


def _agreement(config: RunConfig, training: TrainingData, *, is_resumed: bool) -> Agreement:
    # Machines may round the last digits differently.
    means = [f"{mean:.6g}" for mean in training.summary.mean]
    return Agreement(
        {
            "settings": config.model_dump_json(exclude={"data": {"root"}}),
            "training data": f"{means} {training.summary.class_pixels}",
            "state to continue": str(is_resumed),
        }
    )


def _pace(config: RunConfig, training: TrainingData, progress: Progress) -> Pace:
    steps = math.ceil(len(training.train_loader) / config.train.accumulate) * config.train.epochs
    return Pace(total_steps=steps, minutes=config.train.minutes, progress=progress)


def _trainer(
    settings: TrainSettings,
    out: Path,
    callbacks: list[Callback],
    *,
    devices: Devices,
    precision: Any,
) -> lightning.Trainer:
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


def _precision(wanted: str, *, uses_gpu: bool) -> Any:
    if wanted == "auto":
        wanted = "32" if not uses_gpu else "bf16" if torch.cuda.is_bf16_supported() else "16"
    if wanted == "16" and not uses_gpu:
        raise ConfigError("train.precision=16 needs a GPU; use 32 or bf16 on a CPU")
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[wanted]


def _bundle_writer(
    out: Path,
    config: RunConfig,
    data: SegmentationData,
    training: TrainingData,
    *,
    is_first: bool,
) -> Callable[[SegmentationModule], None]:
    summary = training.summary

    def write(module: SegmentationModule) -> None:
        weights = kept_weights(module)
        if not is_first:
            return
        card = BundleCard(
            model=config.model.name,
            settings=config.model.settings,
            classes=data.classes,
            band_names=summary.band_names,
            dtype=summary.dtype,
            mean=summary.mean,
            std=summary.std,
            gsd=summary.gsd,
            tile=config.data.tile,
            dataset=data.name,
            data_fingerprint=summary.fingerprint,
            splits=data.splits,
            train_split="+".join(config.data.train_splits),
            val_split=config.data.val_split or "",
            scores=_brief(module.scores),
            versions=versions(),
        )
        save_bundle(out / UNFINISHED, module.kept, card, weights=weights)

    return write


def _brief(scores: Scores | None) -> dict[str, Any]:
    return {} if scores is None else scores.model_dump(mode="json", exclude={"confusion"})


def _write_state(
    out: Path,
    training: TrainingData,
    *,
    state: str,
    command: str,
    result: TrainingResult | None = None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Write ``run.json``; ``facts`` of how the run started stay in it to the end."""
    content = {
        **_facts_of_start(out),
        **(facts or {}),
        "state": state,
        "command": command,
        "versions": {
            **versions(),
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "lightning": lightning.__version__,
        },
        "data_fingerprint": training.summary.fingerprint,
        "best": None if result is None else result.scores,
        "epochs": None if result is None else result.epochs,
        "steps": None if result is None else result.steps,
    }
    write_complete(out / "run.json", json.dumps(content, indent=1) + "\n")


def _facts_of_start(out: Path) -> dict[str, Any]:
    try:
        state = json.loads((out / "run.json").read_text())
    except FileNotFoundError:
        return {}
    return {key: state[key] for key in ("init", "trained_parameters") if key in state}


@contextmanager
def _quiet() -> Iterator[None]:
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
def _interruptible() -> Iterator[None]:
    """Let an interrupt through: Lightning would ignore further ones and exit with code 1."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as exit_:
        if not isinstance(exit_.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from exit_
