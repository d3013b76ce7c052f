"""What happens beside the steps of a run: its pace, its record, its files."""

import csv
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from cvmh.errors import OutputError
from cvmh.files import write_complete
from cvmh.plots import curves
from cvmh.progress import Progress
from cvmh.train.module import SegmentationModule


class Pace(Callback):
    """Tell the module which share of the run is done, and report progress.

    The share counts steps, or minutes where the run is limited by the clock.
    """

    # In seconds; a benchmark counts those of its processor instead.
    clock = staticmethod(time.monotonic)

    def __init__(self, *, total_steps: int, minutes: float | None, progress: Progress) -> None:
        self.total_steps = total_steps
        self.seconds = minutes * 60 if minutes else None
        self.progress = progress
        self._before = 0.0
        self._started = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._before + self.clock() - self._started

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds that are spent, for the checkpoint."""
        return {"elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the seconds that a stopped run had spent."""
        self._before = float(state_dict["elapsed"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Start the clock."""
        self._started = self.clock()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Set the module's progress before it sets the learning rate."""
        if self.seconds is None:
            pl_module.progress = trainer.global_step / self.total_steps
            self.progress("train", trainer.global_step, self.total_steps, "steps")
        else:
            # All processes go by the clock of the first.
            elapsed = trainer.strategy.broadcast(self.elapsed)
            pl_module.progress = min(1.0, elapsed / self.seconds)
            self.progress("train", int(elapsed), int(self.seconds), "s")

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the run when its minutes are over."""
        if self.seconds is not None and trainer.strategy.broadcast(self.elapsed) >= self.seconds:
            trainer.should_stop = True


class Record(Callback):
    """Keep the history of a run and its last state, each file complete or not at all.

    ``save`` is given the module whenever its network is the one to keep: the best so far by
    validation mIoU, or that of each epoch where the last is wanted.
    """

    def __init__(
        self,
        folder: Path,
        *,
        save: Callable[[SegmentationModule], None],
        keeps_best: bool,
        report: Callable[[dict[str, float]], None],
    ) -> None:
        self.folder = folder
        self.save = save
        self.keeps_best = keeps_best
        self.report = report
        self.rows: list[dict[str, float]] = []
        self.best = -1.0

    def state_dict(self) -> dict[str, Any]:
        """Return the history, for the checkpoint."""
        return {"rows": self.rows, "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the history of a stopped run."""
        self.rows, self.best = list(state_dict["rows"]), float(state_dict["best"])

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Keep the network when its validation mIoU is the best so far."""
        scores = pl_module.scores
        miou = scores.miou if scores is not None and scores.miou is not None else 0.0
        if self.keeps_best and miou > self.best:
            self.best = miou
            self.save(pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Add a row to the history; write the history, its picture and the checkpoint."""
        if not self.keeps_best:
            self.save(pl_module)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {
            "epoch": float(trainer.current_epoch + 1),
            "step": float(trainer.global_step),
            **metrics,
            # Lightning publishes what the module logs only after this.
            "train_loss": float(pl_module.train_loss.compute()),
        }
        self.rows.append(row)
        if not trainer.is_global_zero:
            # Takes part in what the first process writes.
            trainer.save_checkpoint(self.folder / "last.ckpt")
            return
        self.report(self.rows[-1])
        write_complete(self.folder / "metrics.csv", _as_csv(self.rows))
        with _complete(self.folder / "curves.png") as temporary:
            curves(temporary, self.rows)
        with _complete(self.folder / "last.ckpt") as temporary:
            trainer.save_checkpoint(temporary)


@contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """Give a name beside a file's for those that write in place; rename it when they are done."""
    temporary = path.with_name(f".{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _as_csv(rows: list[dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    return text.getvalue()
