"""Self-attention gives what its equations give, pixel by pixel in float64."""

import numpy as np
import pytest
import torch

from cvmh.models.attention import Attention


@pytest.fixture
def attention():
    torch.manual_seed(0)
    attention = Attention(12, num_heads=3).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_()
    return attention


def by_the_equations(attention, x_LC):
    weights = {name: value.numpy() for name, value in attention.state_dict().items()}
    channels = x_LC.shape[1]
    width = channels // 3
    query, key, value = np.split(x_LC @ weights["in_proj.weight"].T, 3, axis=1)
    result = np.zeros_like(x_LC)
    for head in range(3):
        part = slice(head * width, (head + 1) * width)
        for pixel in range(len(x_LC)):
            alike = np.exp([query[pixel, part] @ other[part] / width**0.5 for other in key])
            result[pixel, part] = (alike / alike.sum()) @ value[:, part]
    return result @ weights["out_proj.weight"].T + weights["out_proj.bias"]


def test_it_gives_what_the_equations_give(attention):
    x = torch.randn(2, 3, 5, 12, dtype=torch.float64)
    expected = np.stack([by_the_equations(attention, image.flatten(0, 1).numpy()) for image in x])
    torch.testing.assert_close(
        attention(x).detach().flatten(1, 2), torch.from_numpy(expected), rtol=1e-10, atol=1e-10
    )


def test_gradients_are_right_on_a_map_that_is_not_square(attention):
    x = torch.randn(1, 2, 3, 12, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in attention.named_parameters()]

    def attend(x, *values):
        return torch.func.functional_call(attention, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(attend, (x, *attention.parameters()))
