"""Which processes a run has, which of them this one is, and how they work together."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy
from torch import Tensor, distributed
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

from cvmh.config import TrainSettings
from cvmh.errors import ConfigError, LostProcessError
from cvmh.train.module import SegmentationModule

# A process that has not answered for so long is lost. What one does while others wait, such as
# writing a bundle, takes seconds; reading a batch from a slow disk may take minutes.
ANSWER_WITHIN = timedelta(minutes=15)
# What a launcher of one's own must set where a run has several machines.
MEETING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
# Parts of a network from so many parameters up are gathered one by one under FSDP.
SHARD_FROM = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What a run computes on: its processes, which of them this one is, and how they cooperate.

    ``rank`` counts over all machines, 0 is the first.
    """

    uses_gpu: bool
    count: int
    rank: int
    strategy: Strategy | str

    @property
    def is_first(self) -> bool:
        """Whether this process writes what the run leaves."""
        return self.rank == 0


class Agreement(Callback):
    """Let a run begin only where all its processes see the same as the first.

    Args:
        facts: what to compare, under names for the message.
    """

    def __init__(self, facts: Mapping[str, str]) -> None:
        self.facts = facts

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Compare; the processes have just met."""
        first = trainer.strategy.broadcast(self.facts)
        for name, value in self.facts.items():
            if first[name] != value:
                raise ConfigError(
                    f"process {trainer.global_rank + 1} of {trainer.world_size} has other {name} "
                    "than the first; give all machines the same command line and data, and an "
                    "--out on a disk that they share"
                )


def count_wanted(settings: TrainSettings) -> int:
    """Return how many processes the settings ask for."""
    return settings.devices * settings.nodes


def is_started(settings: TrainSettings) -> bool:
    """Say whether this process is one of several that torchrun, SLURM or cvmh started."""
    return "LOCAL_RANK" in os.environ or _slurm_started(settings)


def find_devices(settings: TrainSettings, device: str = "auto") -> Devices:
    """Return the devices of a run, from its settings and the variables that a launcher set.

    Args:
        settings: how many devices and machines, and the strategy.
        device: "auto", "cpu" or "cuda".

    Raises:
        ConfigError: there are too few GPUs, a launcher started another number of processes than
            the settings ask for, or the strategy does not fit.
    """
    uses_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if uses_gpu and settings.devices > torch.cuda.device_count():
        raise ConfigError(
            f"--devices {settings.devices} needs as many GPUs, this machine has "
            f"{torch.cuda.device_count()}; give fewer"
        )
    environment, rank = _find_place(settings)
    strategy = _make_strategy(settings, environment, uses_gpu=uses_gpu)
    return Devices(uses_gpu=uses_gpu, count=count_wanted(settings), rank=rank, strategy=strategy)


def _find_place(settings: TrainSettings) -> tuple[ClusterEnvironment, int]:
    count = count_wanted(settings)
    environment: ClusterEnvironment = LightningEnvironment()
    if count == 1:
        return environment, 0
    if TorchElasticEnvironment.detect():
        environment = TorchElasticEnvironment()
        if environment.world_size() != count:
            raise ConfigError(
                f"torchrun started {environment.world_size()} processes, but --devices "
                f"{settings.devices} and --nodes {settings.nodes} ask for {count}; let them agree"
            )
        return environment, environment.global_rank()
    if _slurm_started(settings):
        environment = SLURMEnvironment(auto_requeue=False)
        return environment, environment.global_rank()
    _check_meeting(settings)
    return environment, environment.node_rank() * settings.devices + environment.local_rank()


def _make_strategy(
    settings: TrainSettings, environment: ClusterEnvironment, *, uses_gpu: bool
) -> Strategy | str:
    if settings.strategy == "fsdp":
        return _fsdp(settings, environment, uses_gpu=uses_gpu)
    if count_wanted(settings) == 1:
        return "auto"
    return DDPStrategy(
        cluster_environment=environment,
        process_group_backend="nccl" if uses_gpu else "gloo",
        timeout=ANSWER_WITHIN,
        # Statistics are joined, or shared before validation; Lightning validates in uneven steps.
        broadcast_buffers=False,
    )


def kept_weights(module: SegmentationModule) -> Mapping[str, Tensor]:
    """Return the weights to keep, gathered where processes share them; all must call it."""
    strategy = module.trainer.strategy
    if not isinstance(strategy, FSDPStrategy):
        return module.kept.state_dict()
    prefix = "network."
    gathered = strategy.lightning_module_state_dict()
    return {key[len(prefix) :]: value for key, value in gathered.items() if key.startswith(prefix)}


@contextmanager
def told_when_lost(devices: Devices) -> Iterator[None]:
    """Turn what torch says when another process ends into one sentence.

    Raises:
        LostProcessError: another process ended, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:
        if devices.count == 1 or not _is_lost(error):
            raise
        raise LostProcessError(
            f"process {devices.rank + 1} of {devices.count} lost the others: one of them "
            f"ended or did not answer for {ANSWER_WITHIN.seconds // 60} minutes; see what it said, "
            "and continue with --resume"
        ) from error


def part_from_others() -> None:
    """Leave the group of processes: what follows is done by each alone."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _is_lost(error: RuntimeError) -> bool:
    return isinstance(error, distributed.DistError) or any(
        name in str(error).lower() for name in ("gloo", "nccl", "connection")
    )


def _slurm_started(settings: TrainSettings) -> bool:
    """Say whether srun started one task for each process; a batch script alone is none."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    return count_wanted(settings) > 1 and tasks == str(count_wanted(settings))


def _check_meeting(settings: TrainSettings) -> None:
    missing = [name for name in MEETING if name not in os.environ]
    if settings.nodes > 1 and missing:
        raise ConfigError(
            f"--nodes {settings.nodes} needs the variables {', '.join(MEETING)} on each machine, "
            f"or torchrun or srun, which set their own; {', '.join(missing)} is not set"
        )


def _fsdp(
    settings: TrainSettings, environment: ClusterEnvironment, *, uses_gpu: bool
) -> FSDPStrategy:
    if not uses_gpu:
        raise ConfigError("train.strategy=fsdp needs GPUs; use ddp on a CPU")
    if settings.ema:
        raise ConfigError(
            "train.strategy=fsdp cannot average weights; set train.ema=null, or use ddp"
        )
    policy: Any = partial(size_based_auto_wrap_policy, min_num_params=SHARD_FROM)
    return FSDPStrategy(
        cluster_environment=environment,
        timeout=ANSWER_WITHIN,
        auto_wrap_policy=policy,
        state_dict_type="full",
    )
