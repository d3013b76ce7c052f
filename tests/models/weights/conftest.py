"""Published files, made: exact keys and shapes, on a disk no larger than their keys."""

import importlib.util
from pathlib import Path

import pytest
import torch

SPEC = Path(__file__).parents[2] / "published_weights.py"


@pytest.fixture(scope="session")
def published():
    """Return the module ``published_weights``, which knows keys and shapes of published files."""
    spec = importlib.util.spec_from_file_location("published_weights", SPEC)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def drawn():
    """Return a function that draws tensors of given shapes."""

    def draw(shapes, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return {
            key: torch.randn(shape, generator=generator) if shape else torch.tensor(3)
            for key, shape in shapes.items()
        }

    return draw


@pytest.fixture(scope="session")
def flat():
    """Return a function that gives tensors of any shapes that are all one stored number."""

    def make(shapes):
        return {key: torch.full((), 0.02).expand(shape) for key, shape in shapes.items()}

    return make
