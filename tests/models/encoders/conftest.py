"""What the tests of encoders share: equations in NumPy, and how published weights become ours."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def equations():
    """Return the module ``equations``, which computes layers in NumPy."""
    file = Path(__file__).with_name("equations.py")
    spec = importlib.util.spec_from_file_location("equations", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def take_over():
    """Return a function that brings published weights (arrays by name) to our names and shapes."""

    def take(layout, weights):
        taken = {}
        for key, array in weights.items():
            ours = layout.rename(key)
            if ours is None:
                assert re.fullmatch(layout.dropped, key), f"{key} is not known"
            else:
                assert ours not in taken, f"{key} comes twice"
                taken[ours] = layout.reshape(ours, torch.as_tensor(array))
        return taken

    return take
