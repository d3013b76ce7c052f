"""One training, from settings to a run folder with its bundle."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch

from cvmh.config import PruningRunSettings, RunConfig
from cvmh.datasets import SegmentationData, TrainingData, open_data, prepare_training
from cvmh.errors import ConfigError
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
from cvmh.train.folder import (
    FINISHED,
    FITTED,
    UNFINISHED,
    TrainingResult,
    check_folder,
    read_fitted,
    read_teacher,
    write_state,
)
from cvmh.train.memory import fitting
from cvmh.train.module import SegmentationModule
from cvmh.train.pruning import Pruning, check_pruning, settle_teacher
from cvmh.train.start import make_network
from cvmh.train.sync_norm import join_batch_norms
from cvmh.train.teacher import Teacher, make_teacher
from cvmh.train.trainer import find_precision, interruptible, make_trainer, quiet

log = logging.getLogger(__name__)


def train(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: Progress = silent,
    report: Callable[[dict[str, float]], None] = lambda row: None,
    command: str = "",
    offline: bool = False,
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
        offline: never fetch published weights.

    Raises:
        OutputError: ``out`` holds a run already, or cannot be written.
        ConfigError: there is nothing to resume, or a setting does not fit the data.
        TrainingError: a loss, gradient or score is not finite, or a batch does not fit in memory
            or is too small for batch norm.
        KeyboardInterrupt: the user stopped the run; it can be resumed.
    """
    config = settle_teacher(config)
    devices = find_devices(config.train, device)
    if devices.is_first:
        check_folder(out, resume=resume)
    else:
        # One process speaks for all.
        progress, report = silent, lambda row: None
    precision = find_precision(config.train.precision, uses_gpu=devices.uses_gpu)
    # Refused before anything is read.
    _keeps_best(config)
    check_pruning(config)
    data = open_data(config.data)
    training = prepare_training(data, config, progress=progress)
    training.share(num_replicas=devices.count, rank=devices.rank)
    result = read_fitted(out) if resume else None
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
            offline=offline,
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
    write_state(out, training.summary.fingerprint, state="finished", command=command, result=result)
    return result


def check(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress = silent,
    offline: bool = False,
) -> None:
    """Find out what is wrong with a run before its processes are started, and summarise its data.

    Published weights that are not there are fetched, unless ``offline``.

    Raises:
        CvmhError: what :func:`train` would raise before its first step.
    """
    config = settle_teacher(config)
    devices = find_devices(config.train)
    if devices.is_first:
        check_folder(out, resume=resume)
    find_precision(config.train.precision, uses_gpu=devices.uses_gpu)
    _keeps_best(config)
    check_pruning(config)
    data = open_data(config.data)
    training = prepare_training(data, config, progress=progress)
    is_resumed = (out / "last.ckpt").exists()
    _teacher(config, out, data, training, is_resumed=is_resumed)
    make_network(config, data, training, is_resumed=is_resumed, offline=offline, progress=progress)


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
    offline: bool,
) -> TrainingResult:
    """Train to the end, and leave the bundle that is kept under its unfinished name."""
    weights = class_weights(config.train.class_weights, training.summary.class_pixels)
    keeps_best, mark = _keeps_best(config), training.summary.fingerprint
    last = out / "last.ckpt"
    is_resumed = last.exists()
    # Before the seed, so that the network starts with the weights that it has without a teacher.
    teacher = _teacher(config, out, data, training, is_resumed=is_resumed)
    lightning.seed_everything(config.train.seed, verbose=False)
    network, facts, told = make_network(
        config, data, training, is_resumed=is_resumed, offline=offline, progress=progress
    )
    if teacher is not None:
        facts, told = {**facts, **teacher.facts}, [*told, teacher.told]
    if devices.is_first:
        for line in told:
            log.info(line)
        make_folder(out)
        write_complete(out / "config.yaml", config.to_yaml())
        write_state(
            out, training.summary.fingerprint, state="training", command=command, facts=facts
        )
    if devices.count > 1 and config.train.sync_batchnorm:
        network = join_batch_norms(network, uses_gpu=devices.uses_gpu)
    # Lightning cannot clip the gradients of a fused optimiser under mixed precision.
    fused = precision == "32-true"
    module = SegmentationModule(
        network,
        data.classes,
        config.train,
        class_weights=weights,
        fused=fused,
        teacher=None if teacher is None else teacher.network,
        pruning=None if config.pruning is None else Pruning(config.pruning, seed=config.train.seed),
    )
    record = Record(
        out,
        save=_bundle_writer(out, config, data, training, is_first=devices.is_first),
        keeps_best=keeps_best,
        report=report,
    )
    with quiet(), interruptible(), fitting(config), told_when_lost(devices):
        trainer = make_trainer(
            config.train,
            out,
            [
                _agreement(config, training, teacher, is_resumed=is_resumed),
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
        write_state(out, mark, state=FITTED, command=command, result=result)
    return result


def _keeps_best(config: RunConfig) -> bool:
    """Say whether the best epoch is kept, and not the last; without validation none is best."""
    if config.data.val_split is None and config.train.patience is not None:
        raise ConfigError("train.patience needs validation; set data.val_split or leave it out")
    return config.train.select == "best" and config.data.val_split is not None


def _teacher(
    config: RunConfig,
    out: Path,
    data: SegmentationData,
    training: TrainingData,
    *,
    is_resumed: bool,
) -> Teacher | None:
    begun_with = read_teacher(out) if is_resumed else None
    return make_teacher(config, data, training, begun_with=begun_with)


def _agreement(
    config: RunConfig, training: TrainingData, teacher: Teacher | None, *, is_resumed: bool
) -> Agreement:
    # Machines may round the last digits differently.
    means = [f"{mean:.6g}" for mean in training.summary.mean]
    return Agreement(
        {
            "settings": config.model_dump_json(exclude={"data": {"root"}}),
            "training data": f"{means} {training.summary.class_pixels}",
            "state to continue": str(is_resumed),
            "teacher": str(None if teacher is None else teacher.facts),
        }
    )


def _pace(config: RunConfig, training: TrainingData, progress: Progress) -> Pace:
    steps = math.ceil(len(training.train_loader) / config.train.accumulate) * config.train.epochs
    return Pace(total_steps=steps, minutes=config.train.minutes, progress=progress)


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
            settings=config.network_settings,
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
            scores=_brief(module.scores, config.pruning),
            versions=versions(),
        )
        save_bundle(out / UNFINISHED, module.kept, card, weights=weights)

    return write


def _brief(scores: Scores | None, pruning: PruningRunSettings | None) -> dict[str, Any]:
    if scores is None:
        return {}
    keep = {} if pruning is None else {"keep": pruning.validate_keep}
    return {**scores.model_dump(mode="json", exclude={"confusion"}), **keep}
