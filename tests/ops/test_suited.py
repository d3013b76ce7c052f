"""When kernels that torch knows nothing of may run."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from cvmh.models.pruning import CellGrid
from cvmh.models.pruning.masked import MaskedGrid
from cvmh.models.zoo import create_model
from cvmh.ops._suited import suits_numba
from cvmh.ops.convolution import convolve_patches
from cvmh.ops.expansion import expand_pixels


def test_plain_tensors_suit():
    weight = torch.nn.Parameter(torch.zeros(3))
    assert suits_numba(torch.zeros(3))
    assert not suits_numba(torch.zeros(3), weight)
    with torch.no_grad():
        assert suits_numba(torch.zeros(3), weight)


def test_what_is_watched_or_has_no_values_does_not():
    fake = FakeTensorMode().from_tensor(torch.zeros(3))
    for other in (torch.zeros(3).double(), torch.zeros(3, device="meta"), fake):
        assert not suits_numba(torch.zeros(3), other)
    with torch.autocast("cpu", torch.bfloat16):
        assert not suits_numba(torch.zeros(3))
    with forward_ad.dual_level():
        assert not suits_numba(torch.zeros(3))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_model("cvmh_unet_nano", bands=3, num_classes=4).eval()


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_a_traced_network_gives_what_it_gives_untraced(network):
    images = torch.randn(2, 1, 3, 64, 64)
    traced = torch.jit.trace(network, images[0], check_trace=False)
    for image in images:
        torch.testing.assert_close(traced(image), network(image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [None, MaskedGrid, CellGrid])
@torch.no_grad()
def test_networks_run_in_sixteen_bits_on_every_grid(network, kind):
    grid = {} if kind is None else {"grid": kind(torch.rand(2, 2, 3) < 0.6)}
    image = torch.randn(2, 3, 64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(image, **grid)
    wanted = network(image, **grid)
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0.1 * float(wanted.abs().max()))


def test_kernels_do_not_ask_for_the_default_device_or_dtype():
    x, table = torch.randn(40, 17), torch.randint(-1, 40, (3, 5, 5), dtype=torch.int32)
    weight, pixels, norm = torch.randn(4, 17, 3, 3), torch.randn(1, 2, 3, 20), torch.randn(2, 5)
    wanted = convolve_patches(x, table, weight), expand_pixels(pixels, *norm, factor=2)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            found = convolve_patches(x, table, weight), expand_pixels(pixels, *norm, factor=2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, wanted))


def test_a_bias_gets_its_gradient_and_keeps_its_precision():
    x, table = torch.randn(5, 3), torch.zeros(4, 1, 1, dtype=torch.int32)
    weight, bias = torch.randn(3, 1, 1, 1), torch.randn(3, requires_grad=True)
    convolve_patches(x, table, weight, bias, groups=3).sum().backward()
    assert torch.equal(bias.grad, torch.full((3,), 4.0))


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_nothing_gives_nothing(backend, monkeypatch):
    monkeypatch.setenv("CVMH_SCAN_BACKEND", backend)
    none = torch.zeros(0, 4, 4, dtype=torch.int32)
    assert convolve_patches(torch.zeros(3, 2), none, torch.zeros(5, 2, 3, 3)).shape == (0, 2, 2, 5)
    ones = torch.ones(2)
    assert expand_pixels(torch.zeros(0, 1, 1, 8), ones, ones, factor=2).shape == (0, 2, 2, 2)
