import sys
from typing import NamedTuple

import pytest

from cvmh.cli.main import main


class Outcome(NamedTuple):
    """What a command left: its exit code and its two streams."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def cvmh(monkeypatch, capsys, tmp_path):
    """Return a function that runs ``cvmh`` in ``tmp_path``, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cvmh", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        return Outcome(exit_.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def visible(tmp_path):
    """Return a function that gives the names in a folder that a user sees, legends left out."""

    def names(folder=tmp_path):
        seen = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        return {name for name in seen if not name.endswith((".aux.xml", ".qml"))}

    return names
