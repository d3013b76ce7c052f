"""``cvmh train``."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cvmh.cli.progress import shown
from cvmh.cli.verb import PATH, Verb, command_line

if TYPE_CHECKING:
    from cvmh.config import RunConfig

# What of a network's learning rate one takes that learns to leave out cells.
SHARE_OF_RATE = 0.1


@click.command(cls=Verb)
@click.option(
    "--dataset",
    metavar="NAME",
    help="What to train on; 'folder' is your own, 'cvmh data list' lists others.",
)
@click.option(
    "--data", "root", type=PATH, metavar="ROOT", help="The folder that the data set is in."
)
@click.option(
    "--config", "config_file", type=PATH, metavar="FILE", help="Settings of a run, as YAML."
)
@click.option("--model", metavar="NAME", help="The network, of 'cvmh models', or smp:ARCH:ENCODER.")
@click.option(
    "--init",
    type=PATH,
    metavar="BUNDLE",
    help="Start from the weights of a bundle, and with its network unless --model names it; its "
    "bands and classes may be others.",
)
@click.option(
    "--offline",
    is_flag=True,
    help="Never fetch the published weights that model.pretrained names.",
)
@click.option("--out", type=PATH, metavar="DIR", help="The run folder.  [default: runs/NAME-TIME]")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one setting, for example train.epochs=3; may be given many times.",
)
@click.option("--resume", is_flag=True, help="Continue the run in --out after its last epoch.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of every random choice.")
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes of this machine, one a GPU; data.batch is of each.  [default: 1]",
)
@click.option(
    "--nodes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Machines; start the same command on each.  [default: 1]",
)
@click.option(
    "--strategy",
    type=click.Choice(["auto", "ddp", "fsdp"]),
    help="How processes share the work; fsdp also shares the weights.  [default: auto]",
)
def command(
    dataset: str | None,
    root: Path | None,
    config_file: Path | None,
    model: str | None,
    init: Path | None,
    offline: bool,
    out: Path | None,
    assignments: tuple[str, ...],
    resume: bool,
    seed: int | None,
    devices: int | None,
    nodes: int | None,
    strategy: str | None,
) -> None:
    """Train a network on labelled images and leave a run folder with its bundle.

    Example: cvmh train --dataset folder --data my_tiles --set train.minutes=10
    """
    from cvmh.config import RunConfig
    from cvmh.errors import ConfigError
    from cvmh.settings import Layer, merge, parse_assignment, read_yaml, validate_layers

    if resume and out is None:
        raise click.UsageError("--resume needs the run folder to continue; give it with --out")
    if resume and out is not None and config_file is None:
        config_file = out / "config.yaml"
        if not config_file.exists():
            raise ConfigError(f"{out} holds no run to resume; start one without --resume")
    if dataset is None and config_file is None:
        raise click.UsageError("say what to train on: --dataset NAME, or --config FILE")
    options: dict[str, Any] = {"data": {}, "model": {}, "train": {}}
    for group, key, value in (
        ("data", "dataset", dataset),
        ("data", "root", root),
        ("model", "name", model),
        ("model", "init", init),
        ("train", "seed", seed),
        ("train", "devices", devices),
        ("train", "nodes", nodes),
        ("train", "strategy", strategy),
    ):
        if value is not None:
            options[group][key] = value
    layers = [
        Layer(str(config_file or "settings"), read_yaml(config_file) if config_file else {}),
        Layer("options", options),
        *(Layer(f"--set {text}", parse_assignment(text)) for text in assignments),
    ]
    written = merge(*(layer.content for layer in layers))
    source, content = layers[0]
    layers[0] = Layer(source, merge(_of_its_bundle(written.get("model")), content))
    config = _recommended(validate_layers(RunConfig, layers))
    if out is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        # Names of smp's networks hold colons, which no file name of Windows may.
        network = config.model.name.replace(":", "-")
        out = Path("runs") / f"{config.data.dataset}-{network}-{stamp}"
    try:
        _run(config, out, resume=resume, offline=offline)
    except KeyboardInterrupt:
        if (out / "run.json").exists():
            click.echo(f"cvmh: continue with: cvmh train --resume --out {out}", err=True)
        raise


def _run(config: "RunConfig", out: Path, *, resume: bool, offline: bool) -> None:
    """Train in this process, or start the processes that do and watch them."""
    from cvmh.errors import CvmhError
    from cvmh.train import check
    from cvmh.train.devices import count_wanted, is_started
    from cvmh.train.launch import (
        INTERRUPTED,
        end_with_starter,
        is_watched,
        leave_message,
        run_processes,
    )

    if is_watched():
        end_with_starter()
        try:
            _train(config, out, resume=resume, offline=offline)
        except CvmhError as error:
            leave_message(error)
        except KeyboardInterrupt:
            # The process that the user started says so.
            sys.exit(INTERRUPTED)
    elif count_wanted(config.train) == 1 or is_started(config.train):
        _train(config, out, resume=resume, offline=offline)
    else:
        with shown("auto") as progress, _hushed():
            check(config, out, resume=resume, progress=progress, offline=offline)
        words = sys.argv[1:]
        if not any(word.partition("=")[0] == "--out" for word in words):
            # The default holds the time, which is another in each process.
            words = [*words, "--out", str(out)]
        run_processes(words, config.train, out=out)


@contextmanager
def _hushed() -> Iterator[None]:
    """Leave it to the first process of a run to tell what the package says."""
    logger = logging.getLogger("cvmh")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _train(config: "RunConfig", out: Path, *, resume: bool, offline: bool) -> None:
    from cvmh.train import train
    from cvmh.train.devices import find_devices

    is_first = find_devices(config.train).is_first
    hushed = nullcontext() if is_first else _hushed()
    with hushed, shown("auto" if is_first else "off") as progress:
        result = train(
            config,
            out,
            resume=resume,
            progress=progress,
            report=_print_epoch,
            command=command_line(),
            offline=offline,
        )
    if is_first:
        click.echo(result.bundle)


def _of_its_bundle(model: Any) -> dict[str, Any]:
    """Return the network of the bundle that a run starts from as settings, where none is named."""
    from cvmh.models.bundle import read_card

    if not isinstance(model, dict) or not model.get("init") or "name" in model:
        return {}
    card = read_card(model["init"])
    # Whether it learns to leave out cells is up to the run.
    settings = {key: value for key, value in card.settings.items() if key != "pruning"}
    return {"model": {"name": card.model, "settings": settings}}


def _recommended(config: "RunConfig") -> "RunConfig":
    """Take the learning rate that the chosen network asks for, where the user has set none.

    A trained network that learns to leave out cells takes a tenth, to keep what it knows.
    """
    from cvmh.models.zoo import find_preset

    preset = find_preset(config.model.name)
    if "learning_rate" in config.train.model_fields_set:
        return config
    is_taught_more = config.pruning is not None and config.model.init is not None
    rate = preset.learning_rate * (SHARE_OF_RATE if is_taught_more else 1)
    train = config.train.model_copy(update={"learning_rate": rate})
    return config.model_copy(update={"train": train})


def _print_epoch(row: dict[str, float]) -> None:
    shown_names = ("train_loss", "val_loss", "val_miou", "val_mf1", "val_oa")
    parts = [f"{name} {row[name]:.4f}" for name in shown_names if name in row]
    click.echo(f"epoch {row['epoch']:.0f}  step {row['step']:.0f}  " + "  ".join(parts), err=True)
