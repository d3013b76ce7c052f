"""What all verbs share: how errors are told, and where paths and progress come from."""

import logging
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cvmh.errors import CvmhError
from cvmh.files import without_secrets
from cvmh.memory import keep_freed_memory

PATH = click.Path(path_type=Path)


class Verb(click.Command):
    """A command that tells a CvmhError in one line and exits 1; ``-vv`` shows the traceback."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["-v", "--verbose"], count=True, help="-vv shows the traceback of an error."
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        verbose = ctx.params.pop("verbose")
        keep_freed_memory()
        try:
            with _messages_shown():
                return super().invoke(ctx)
        except CvmhError as error:
            if verbose >= 2:
                traceback.print_exc()
            click.echo(f"cvmh: error: {' '.join(str(error).split())}", err=True)
            ctx.exit(1)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if verbose >= 2:
                raise
            kind = type(error).__name__
            click.echo(
                f"cvmh: unexpected {kind}: {' '.join(str(error).split())}; "
                "this is a fault of cvmh, please report it with the output of -vv",
                err=True,
            )
            ctx.exit(1)


class _ToStderr(logging.Handler):
    """Writes what the package tells of itself like any other line of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        click.echo(f"cvmh: {record.getMessage()}", err=True)


@contextmanager
def _messages_shown() -> Iterator[None]:
    """Show the messages of the logger ``cvmh`` while a verb runs."""
    logger, handler = logging.getLogger("cvmh"), _ToStderr()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def command_line(without: Mapping[str, int] | None = None) -> str:
    """Return the command line as it was typed, for the record.

    Args:
        without: options to leave out, and how many values each takes.
    """
    left_out, words = without or {}, iter(sys.argv[1:])
    kept = ["cvmh"]
    for word in words:
        name, has_value, _ = word.partition("=")
        if name not in left_out:
            kept.append(without_secrets(word))
        elif not has_value:
            for _ in range(left_out[name]):
                next(words, None)
    return shlex.join(kept)


def newest_bundle(folder: Path = Path("runs")) -> Path:
    """Return the newest bundle of a complete run under ``./runs``.

    Raises:
        click.UsageError: there is none.
    """
    found = sorted(folder.glob("*/best.safetensors"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise click.UsageError(
            f"no bundle was given with --checkpoint and there is none under ./{folder}; "
            "train one with 'cvmh train' or 'cvmh demo'"
        )
    click.echo(f"cvmh: using the newest bundle, {found[-1]}", err=True)
    return found[-1]
