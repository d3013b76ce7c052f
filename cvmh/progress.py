"""How lower layers report progress: a callback that the command line turns into a bar."""

from typing import Protocol


class Progress(Protocol):
    """Receives where a job stands; called often, so it must be cheap."""

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None:
        """Report that ``done`` of ``total`` units of a stage are done."""


def silent(stage: str, done: int, total: int, unit: str) -> None:
    """Report to nobody."""
