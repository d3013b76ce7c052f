"""What all verbs share."""

import logging

import click
from click.testing import CliRunner

from cvmh.cli.verb import Verb


def test_messages_of_the_package_are_lines_on_stderr():
    logger = logging.getLogger("cvmh")
    before = logger.level, list(logger.handlers)

    def run():
        logger.info("compiling %d kernels", 2)
        click.echo("done")

    result = CliRunner().invoke(Verb("verb", callback=run))
    assert result.stderr == "cvmh: compiling 2 kernels\n" and result.stdout == "done\n"
    assert (logger.level, logger.handlers) == before
