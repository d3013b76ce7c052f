import pytest
import torch


@pytest.fixture(autouse=True)
def seed():
    """Draw the same weights and maps in every test, whichever ran before it."""
    torch.manual_seed(0)
