"""The selective scan on a GPU, by triton kernels.

Legend: B batch, L pixels, D channels, K paths, N states, T steps of a path, R rank of dt.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import triton
from torch import Tensor

from cvmh.ops._triton_backward import scan_bwd_kernel
from cvmh.ops._triton_kernels import scan_fwd_kernel
from cvmh.ops._triton_problem import Problem, map_of
from cvmh.ops.arguments import ScanArguments, no_autocast

OLDEST = (3, 6)
if tuple(int(part) for part in triton.__version__.split(".")[:2]) < OLDEST:
    raise ImportError(f"triton 3.6 or newer is needed, got {triton.__version__}")


def is_interpreted() -> bool:
    """Return whether triton's interpreter runs the kernels, which takes tensors on the CPU."""
    return not isinstance(scan_fwd_kernel, triton.JITFunction)


def run_forward(arguments: ScanArguments, states: Tensor) -> Tensor:
    """Return y, and write the states before all chunks, unless there is no room for any."""
    with _on_device_of(arguments.x):
        problem = Problem.of(arguments)
        y = problem.new_planes()
        if states.numel() == 0:
            states = problem.new_states()
        problem.flow(problem.x, problem.B, states, is_adjoint=False)
        tile = problem.choose_tile(problem.table.forward)
        problem.launch(
            *(scan_fwd_kernel, problem.count_programs(tile), tile),
            *(problem.x, problem.B, problem.C, problem.dt),
            *(problem.steps, problem.paths, problem.sizes),
            *(problem.A_KND, problem.D, states, y),
        )
        return problem.merge_planes(y)


def run_backward(arguments: ScanArguments, states: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Return the gradients of all differentiable arguments that were given, by name.

    They are float32, or of the dtype of the argument. The gradient of y may have any strides.
    """
    with _on_device_of(arguments.x):
        return _propagate(Problem.of(arguments), arguments, states, grad)


def _propagate(
    problem: Problem, arguments: ScanArguments, states: Tensor, grad: Tensor
) -> dict[str, Tensor]:
    """Return the gradients of all inputs, given that of the output."""
    sizes, num_batch, num_states = problem.sizes, problem.num_batch, problem.num_states
    tile = problem.choose_tile(problem.table.backward)
    num_programs = problem.count_programs(tile)
    num_groups = problem.count_groups(tile)
    num_tiles = problem.count_tiles(tile)

    dy, adjoints = map_of(grad), problem.new_states()
    problem.flow(dy, problem.C, adjoints, is_adjoint=True)
    scratch_size = num_programs * (problem.chunk // tile.steps) * tile.states * tile.channels
    grad_x = problem.new_planes()
    by_path = (num_batch, sizes.num_paths, sizes.length)
    is_final = arguments.dt_weight is None and num_groups == 1
    grad_dt = problem.new_map(
        *(*by_path, sizes.num_channels), dtype=arguments.dt.dtype if is_final else torch.float32
    )
    weights = problem.new_map(num_tiles, *by_path, 2 * num_states)
    # By chunk; a program writes all that is in its tile.
    small = grad_x.new_empty(
        *(num_batch * sizes.num_chunks, sizes.num_paths, num_groups),
        *(tile.states + 3, sizes.num_channels),
    )
    problem.launch(
        *(scan_bwd_kernel, num_programs, tile),
        *(problem.x, problem.B, problem.C, dy, problem.dt),
        *(problem.steps, problem.paths, sizes),
        *(problem.A_KND, problem.D, states, adjoints, grad_x.new_empty(scratch_size)),
        *(grad_x, grad_dt, weights, small),
    )
    grad_B, grad_C = weights.sum(dim=0).split(num_states, dim=-1)
    of_states, singles = small.sum(dim=0).split([tile.states, 3], dim=2)
    grad_A = of_states.flatten(1, 2)[:, :num_states].transpose(1, 2)
    grad_D, grad_gap_dt, grad_bias = singles.sum(dim=1).unbind(1)
    results = {"x": grad_x.sum(dim=1), "A": grad_A, "B": grad_B, "C": grad_C, "D": grad_D}
    results |= {"gap_dt": grad_gap_dt, "dt_bias": grad_bias}
    if arguments.dt_weight is not None:
        low, weight = arguments.dt.float(), arguments.dt_weight.float()
        results["dt_weight"] = (low.transpose(2, 3) @ grad_dt).sum(dim=0)
        grad_dt = grad_dt @ weight.transpose(1, 2)
    return results | {"dt": grad_dt}


@contextmanager
def _on_device_of(tensor: Tensor) -> Iterator[None]:
    """Launch where a tensor lives, and keep autocast out."""
    device = torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
    with device, no_autocast(tensor.device):
        yield
