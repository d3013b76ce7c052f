import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums are taken in one order, in this process and in those that it starts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def same_weights():
    """Return a function that says whether two bundles hold the same bits."""

    def same(one, other):
        first, second = load_file(one), load_file(other)
        return first.keys() == second.keys() and all(
            torch.equal(first[name], second[name]) for name in first
        )

    return same
