"""Every shipped size of the triton kernels compiles to lean machine code, without a GPU at hand.

A launch on tensors of the CPU is turned into a compilation for another device, so what is looked
at is what a user's GPU gets: the same arguments, specialisations and options.
"""

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from cvmh.ops import _triton_plan, order_table
from cvmh.ops.arguments import ScanArguments

triton = pytest.importorskip("triton", reason="triton is not installed")
TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (TOOLS / "nvdisasm").exists(), reason="this triton brings no disassembler"
    ),
]

# By capability: width of the tiles, number of states, rank of dt. One capability is looked at in
# full, the others where most registers are taken: a compilation lasts about a second.
LARGEST = [("wide", 1, 0), ("narrow", 1, 8), ("narrow", 16, 8)]
SCANS = {
    80: LARGEST,
    90: [*LARGEST, ("narrow", 1, 0), ("wide", 4, 0), ("wide", 16, 0), ("narrow", 4, 8)],
    100: LARGEST,
}
ENOUGH_PROGRAMS = {"wide": 0, "narrow": 1 << 40}
# Most registers by kernel, states and channels, over all capabilities, for a full and a low-rank
# dt. A GPU has 255 for a lane, and gives them out by eight.
REGISTERS = {
    ("scan_local_kernel", 1, 128): (64, None),
    ("scan_local_kernel", 4, 64): (64, None),
    ("scan_local_kernel", 16, 64): (136, None),
    ("scan_local_kernel", 1, 32): (64, 72),
    ("scan_local_kernel", 4, 32): (64, 64),
    ("scan_local_kernel", 16, 32): (96, 80),
    ("scan_pass_kernel", 1, 32): (96, 96),
    ("scan_fwd_kernel", 1, 128): (128, None),
    ("scan_fwd_kernel", 4, 64): (128, None),
    ("scan_fwd_kernel", 16, 64): (248, None),
    ("scan_fwd_kernel", 1, 32): (80, 128),
    ("scan_fwd_kernel", 4, 32): (96, 168),
    ("scan_fwd_kernel", 16, 32): (128, 168),
    ("scan_bwd_kernel", 1, 64): (232, None),
    ("scan_bwd_kernel", 1, 32): (168, 208),
    ("scan_bwd_kernel", 4, 32): (168, 232),
}
# A sum over the lanes of a warp takes five.
SHUFFLES = 5


class Code(NamedTuple):
    """One compiled kernel."""

    name: str
    states: int
    channels: int
    steps: int
    registers: int
    stack: int
    num_stages: int
    opcodes: Counter

    def count(self, *names):
        return sum(self.opcodes[name] for name in names)


class Driver:
    """Stands in for the driver of a GPU that is not there."""

    def __init__(self, capability):
        self.target = triton.backends.compiler.GPUTarget("cuda", capability, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return self.target.arch

    def get_current_stream(self, device):
        return 0


def read(kernel, constants, folder):
    """Disassemble a compiled kernel."""
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.asm["cubin"])

    def tool(*command):
        command = [TOOLS / command[0], *command[1:], cubin]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    usage = re.search(r"REG:(\d+) STACK:(\d+)", tool("cuobjdump", "--dump-resource-usage"))
    opcodes = re.findall(r"^\s+/\*\w+\*/\s+(?:@!?\w+ +)?([A-Z]\w*)", tool("nvdisasm"), re.M)
    return Code(
        kernel.metadata.name,
        constants.get("GROUP", 1),
        constants["BLOCK_D"],
        constants["UNROLL"],
        *map(int, usage.groups()),
        kernel.metadata.num_stages,
        Counter(opcodes),
    )


@pytest.fixture
def compile_scan(monkeypatch, tmp_path):
    """Return a function that gives the code of all kernels of a scan, forward and backward."""
    from cvmh.ops import _triton

    if _triton.is_interpreted():
        pytest.skip("triton's interpreter is on")
    compiled = []
    launch = triton.JITFunction.run

    def compile_only(self, *args, grid, warmup, **constants):
        # The adjoint differs by a product; with one state it is looked at too.
        if constants.get("ADJOINT") and constants.get("N", 1) > 1:
            return
        kernel = launch(self, *args, grid=grid, warmup=True, **constants)
        compiled.append(read(kernel, constants, tmp_path))

    def compile_scan(capability, *, width, N, rank):
        table = _triton_plan.TABLES["gpu"]._replace(enough_programs=ENOUGH_PROGRAMS[width])
        monkeypatch.setitem(_triton_plan.TABLES, "interpreter", table)
        monkeypatch.setattr(triton.runtime.driver, "_active", Driver(capability))
        order = order_table("ss2d", 16, 16)
        (K, L), D = order.shape, 96

        def half(*shape):
            return torch.zeros(shape, dtype=torch.bfloat16)

        arguments = ScanArguments(
            x=half(1, L, D),
            dt=half(1, K, L, rank or D),
            A=torch.zeros(K, D, N),
            B=half(1, K, L, N),
            C=half(1, K, L, N),
            order=order,
            dt_softplus=True,
            dt_weight=torch.zeros(K, rank, D) if rank else None,
            gap=torch.zeros_like(order) if rank else None,
            gap_dt=torch.zeros(K, D) if rank else None,
        )
        compiled.clear()
        states = torch.zeros(_triton_plan.count_states(arguments))
        y = _triton.run_forward(arguments, states)
        _triton.run_backward(arguments, states, torch.zeros_like(y))
        return list(compiled)

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(triton.JITFunction, "run", compile_only)
    return compile_scan


@pytest.mark.parametrize("capability", SCANS)
def test_kernels_stay_in_registers_and_lanes_apart(compile_scan, capability):
    seen = set()
    for width, N, rank in SCANS[capability]:
        for code in compile_scan(capability, width=width, N=N, rank=rank):
            limit = REGISTERS[code.name, code.states, code.channels][rank > 0]
            assert code.registers <= limit, code
            assert code.stack == 0 and code.count("LDL", "STL") == 0, code
            assert code.count("BAR", "LDS", "STS") == 0, code
            # The sums over channels for B and C, of each state and step.
            sums = 2 * code.states * code.steps if code.name == "scan_bwd_kernel" else 0
            assert code.count("SHFL") == SHUFFLES * sums, code
            assert code.num_stages == 1, code
            seen.add((code.name, code.states, code.channels))
    assert capability != 90 or seen == REGISTERS.keys()


def test_every_tile_that_is_shipped_is_compiled_here():
    for table in (table for name, table in _triton_plan.TABLES.items() if name != "interpreter"):
        for name, tiles in (("fwd", table.forward), ("bwd", table.backward)):
            for tile in tiles:
                for channels in (tile.channels, min(table.narrow, tile.channels)):
                    assert (f"scan_{name}_kernel", tile.states, channels) in REGISTERS
