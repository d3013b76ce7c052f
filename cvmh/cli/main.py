"""The command ``cvmh``: a table of verbs, each loaded only when it is called."""

import importlib
import signal
import sys

import click

from cvmh.version import VERSION

# 128 and the number of the signal, as shells have it.
INTERRUPTED, TERMINATED = 130, 143
# In the order of the work; the help line stands here so that ``--help`` loads no verb.
VERBS = {
    "demo": "Make a scene, train a small network, and show its mask of another scene.",
    "data": "Find, check, prepare or make labelled data sets.",
    "train": "Train a network on labelled images.",
    "evaluate": "Score a bundle on labelled images, whole scenes at a time.",
    "predict": "Segment scenes into georeferenced masks.",
    "info": "Say what a raster, a bundle, a run or a mask is.",
    "models": "List the networks.",
}


class LazyGroup(click.Group):
    """A group whose verbs are modules of ``cvmh.cli``, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the work."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a verb, or None if there is no such verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"cvmh.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs and their help lines."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="cvmh %(version)s")
def cli() -> None:
    """Segment satellite and aerial images with vision state space models.

    Start with 'cvmh demo'. Each command explains itself with --help.
    """


class Terminated(BaseException):
    """The system asked the process to end (SIGTERM); it cleans up as after an interrupt.

    No KeyboardInterrupt, which click would turn into an error of its own.
    """


def main() -> None:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        # Without standalone mode, click returns the exit code of an Exit instead of raising it.
        sys.exit(cli(prog_name="cvmh", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Terminated:
        click.echo("cvmh: terminated", err=True)
        sys.exit(TERMINATED)
    except (KeyboardInterrupt, click.Abort):
        click.echo("cvmh: interrupted", err=True)
        sys.exit(INTERRUPTED)


def _terminate(number: int, frame: object) -> None:
    raise Terminated


if __name__ == "__main__":
    main()
