"""One of two processes of test_sync_norm.py: norms a half of a batch and writes what came of it."""

import sys

import torch
from torch import distributed, nn

from cvmh.train.sums import sum_over_processes
from cvmh.train.sync_norm import join_batch_norms


def main(folder, rank):
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    given = torch.load(f"{folder}/given.pt")
    network = nn.Sequential(nn.BatchNorm2d(5), nn.Sigmoid(), nn.BatchNorm2d(5, momentum=None))
    network.load_state_dict(given["state"])
    network = join_batch_norms(network, uses_gpu=False)
    x = given["x"].chunk(2)[rank].requires_grad_()
    for _ in range(2):
        y = network(x)
    # A loss that is a quotient of two sums over both processes.
    slope = given["slope"].chunk(2)[rank]
    loss = sum_over_processes((y * slope).sum()) / sum_over_processes(slope.square().sum())
    loss.backward()
    for parameter in network.parameters():
        # As DDP does it.
        distributed.all_reduce(parameter.grad)
        parameter.grad /= 2
    result = {
        "y": y.detach(),
        "loss": loss.detach(),
        # DDP's mean over processes halves what comes of every process.
        "x": x.grad / 2,
        "gradients": [parameter.grad for parameter in network.parameters()],
        "state": network.state_dict(),
        "evaluated": network.eval()(x.detach()).detach(),
    }
    torch.save(result, f"{folder}/result{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
