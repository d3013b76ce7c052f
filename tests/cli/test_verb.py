"""What all verbs share."""

import errno
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


def test_a_reader_that_has_gone_is_no_fault_of_the_verb():
    def run():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    result = CliRunner().invoke(Verb("verb", callback=run))
    assert result.exit_code == 1 and result.stderr == ""
