from pathlib import Path

import pytest
import torch
from torch import nn

from cvmh.train.sums import count_processes, sum_over_processes
from cvmh.train.sync_norm import JoinedBatchNorm, join_batch_norms

SCRIPT = Path(__file__).parent / "sum_in_two_processes.py"


@pytest.mark.slow
def test_two_processes_norm_as_one_does_the_joined_batch(tmp_path, start_python):
    generator = torch.Generator().manual_seed(0)
    norm = nn.Sequential(nn.BatchNorm2d(5), nn.Sigmoid(), nn.BatchNorm2d(5, momentum=None))
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.rand(5, generator=generator) + 0.5)
    # The halves differ in mean and spread, so their own statistics would be far off.
    x = torch.randn(4, 5, 6, 7, generator=generator) * torch.tensor([1, 1, 9, 9.0]).view(4, 1, 1, 1)
    x = x + torch.tensor([0, 0, 20, 20.0]).view(4, 1, 1, 1)
    slope = torch.randn(x.shape, generator=generator)
    given = {"x": x, "slope": slope, "state": norm.state_dict()}
    torch.save(given, tmp_path / "given.pt")
    processes = [start_python(SCRIPT, tmp_path, rank) for rank in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors

    x.requires_grad_()
    for _ in range(2):
        y = norm(x)
    loss = (y * slope).sum() / slope.square().sum()
    loss.backward()
    results = [torch.load(tmp_path / f"result{rank}.pt") for rank in range(2)]
    close = {"rtol": 1e-6, "atol": 1e-6}
    joined = {key: torch.cat([result[key] for result in results]) for key in ("y", "x")}
    torch.testing.assert_close(joined["y"], y.detach(), **close)
    torch.testing.assert_close(joined["x"], x.grad, **close)
    evaluated = torch.cat([result["evaluated"] for result in results])
    torch.testing.assert_close(evaluated, norm.eval()(x).detach(), **close)
    for result in results:
        torch.testing.assert_close(result["loss"], loss.detach(), **close)
        gradients = [parameter.grad for parameter in norm.parameters()]
        torch.testing.assert_close(result["gradients"], gradients, **close)
        torch.testing.assert_close(dict(result["state"]), dict(norm.state_dict()), **close)


def test_a_joined_network_keeps_its_parameters_their_names_and_its_mode():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    network[1].eval()
    before = dict(network.named_parameters())
    state = network.state_dict()
    joined = join_batch_norms(network, uses_gpu=False)
    assert isinstance(joined[1][0], JoinedBatchNorm) and not joined[1][0].training
    after = dict(joined.named_parameters())
    assert list(before) == list(after) and all(after[name] is before[name] for name in before)
    assert list(joined.state_dict()) == list(state)


def test_one_process_norms_and_sums_as_ever():
    assert count_processes() == 1
    x = torch.randn(2, 4, 5, 3)
    assert sum_over_processes(x) is x
    norm, joined = nn.BatchNorm2d(4), join_batch_norms(nn.BatchNorm2d(4), uses_gpu=False)
    torch.testing.assert_close(joined(x), norm(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(joined.running_var, norm.running_var)
    half = joined(x.bfloat16())
    assert half.dtype == torch.bfloat16
