"""SS2D: what holds for all networks that are made of it."""

import pytest
import torch

from cvmh.models.ss2d import SS2D


@pytest.mark.parametrize("is_whole", [False, True], ids=["autocast", "whole"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sums_along_paths_may_leave_the_range_of_16_bit(dtype, is_whole):
    torch.manual_seed(0)
    mixer = SS2D(16, d_state=4, paths="ss2d").eval()
    with torch.no_grad():
        # Of the scan's output, and so without effect behind its norm.
        mixer.D.fill_(6e4)
        x = 10 * torch.randn(1, 5, 7, 16)
        expected = mixer(x)
        if is_whole:
            computed = mixer.to(dtype)(x.to(dtype))
        else:
            with torch.autocast("cpu", dtype):
                computed = mixer(x)
    assert computed.dtype == dtype
    assert (computed.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_path_is_brought_to_the_device_of_a_map_once(monkeypatch):
    orders = []

    def note(x, *others, order, **options):
        orders.append(order)
        return torch.empty_like(x)

    monkeypatch.setattr("cvmh.models.ss2d.selective_scan", note)
    mixer = SS2D(16, d_state=1).to("meta")
    for _ in range(2):
        mixer(torch.empty(1, 3, 5, 16, device="meta"))
    assert orders[0].device.type == "meta"
    assert orders[1] is orders[0]
