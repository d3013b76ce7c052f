"""Scans are operators that torch.compile, torch.export and autograd understand.

That their results are right is shown in test_selective_scan.py.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cvmh.errors import KernelError
from cvmh.models.ss2d import SS2D
from cvmh.ops import order_table, selective_scan
from cvmh.ops._operators import FIELDS, FLOATS

CASES = {
    "plain": {},
    "every option": {"rank": 3, "softplus": True, "gaps": True, "N": 4},
    "sixteen bits": {"dtype": torch.bfloat16},
    "ready decay": {"rank": 3, "softplus": True, "ready": True},
}


def inputs_of(arguments, *, merge=True, keep_states=True):
    """Return the inputs of the forward operator."""
    values = arguments | {"merge": merge}
    return (*(values.get(field) for field in FIELDS), keep_states)


def leaves_of(arguments):
    return [arguments[name].requires_grad_() for name in FLOATS if name in arguments]


def assert_same(got, expected):
    assert len(got) == len(expected)
    assert all(map(torch.equal, got, expected))


@pytest.fixture
def ss2d():
    """Return a small mixer with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SS2D(8, d_state=2)


@pytest.fixture
def image():
    return torch.randn(2, 5, 7, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def forget_graphs():
    yield
    torch._dynamo.reset()


# opcheck looks at gradients of copies that it made itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("merge", [True, False], ids=["merged", "apart"])
@pytest.mark.parametrize("case", CASES)
def test_operators_keep_the_rules_of_torch(make_scan, case, merge):
    arguments = make_scan(**CASES[case])
    forward, backward = (
        torch.ops.cvmh.selective_scan_numba_fwd,
        torch.ops.cvmh.selective_scan_numba_bwd,
    )
    inputs = inputs_of(arguments, merge=merge)
    y, states = forward(*inputs)
    results = torch.library.opcheck(backward, (torch.ones_like(y), states, *inputs[:-1]))
    assert set(results.values()) == {"SUCCESS"}
    leaves_of(arguments)
    results = torch.library.opcheck(forward, inputs)
    assert set(results.values()) == {"SUCCESS"}


def test_states_are_kept_only_for_a_gradient(make_scan):
    arguments = make_scan()
    forward = torch.ops.cvmh.selective_scan_numba_fwd
    y, states = forward(*inputs_of(arguments, keep_states=False))
    assert states.numel() == 0
    kept, states = forward(*inputs_of(arguments))
    assert states.isfinite().all() and states.numel() > 0
    assert torch.equal(y, kept)


def test_gradients_cannot_be_differentiated_again(make_scan):
    arguments = make_scan()
    leaves = leaves_of(arguments)
    y = selective_scan(**arguments, backend="numba")
    (grad_x,) = torch.autograd.grad(y.square().sum(), leaves[0], create_graph=True)
    with pytest.raises(
        KernelError, match="gives no gradients of gradients; take backend 'reference'"
    ):
        torch.autograd.grad(grad_x.sum(), leaves[0])
    y = selective_scan(**arguments, backend="reference")
    (grad_x,) = torch.autograd.grad(y.square().sum(), leaves[0], create_graph=True)
    assert torch.autograd.grad(grad_x.sum(), leaves[0])[0].any()


def test_a_scan_does_not_load_the_compiler(start_python):
    code = (
        "import sys, torch; from cvmh.models.zoo import create_model; "
        "network = create_model('cvmh_unet_nano', bands=3, num_classes=2); "
        "network.eval()(torch.zeros(1, 3, 32, 32)); "
        "assert 'numba' in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    process = start_python("-c", code)
    assert process.communicate(timeout=120)[1] == "" and process.returncode == 0


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed sizes", "any sizes"])
def test_compiled_scans_are_one_node_with_the_same_results(make_scan, dynamic):
    def scan(*leaves):
        order = order_table("cs2d", 5, 7)
        options = {"order": order, "dt_softplus": True, "gap": arguments["gap"]}
        return selective_scan(**dict(zip(names, leaves, strict=True)) | options).sin()

    arguments = make_scan(rank=3, softplus=True, gaps=True)
    names = [name for name in FLOATS if name in arguments]
    leaves = leaves_of(arguments)
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    results = []
    for function in (scan, compiled):
        y = function(*leaves)
        results.append([y, *torch.autograd.grad(y, leaves, torch.ones_like(y))])
    assert_same(*results)


def test_a_compiled_mixer_takes_maps_of_all_sizes(ss2d):
    compiled = torch.compile(ss2d, fullgraph=True, backend="aot_eager")
    for height, width in ((5, 7), (6, 4), (3, 8)):
        image = torch.ones(1, height, width, 8)
        assert torch.equal(compiled(image), ss2d(image))


def test_compiled_under_autocast_a_scan_stays_float32(make_scan):
    arguments = make_scan(rank=3, softplus=True)
    compiled = torch.compile(selective_scan, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = compiled(**arguments)
    assert y.dtype == torch.float32
    assert torch.equal(y, selective_scan(**arguments))


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "not strict"])
def test_exported_mixers_hold_one_scan(ss2d, image, strict):
    program = torch.export.export(ss2d, (image,), strict=strict)
    targets = [str(node.target) for node in program.graph.nodes]
    assert targets.count("cvmh.selective_scan_numba_fwd.default") == 1
    assert torch.equal(program.module()(image), ss2d(image))


def test_exported_mixers_take_maps_of_other_sizes(ss2d, image):
    sizes = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(ss2d, (image,), dynamic_shapes=(sizes,))
    for shape in ((2, 5, 7, 8), (1, 9, 4, 8)):
        image = torch.ones(shape)
        assert torch.equal(program.module()(image), ss2d(image))


@pytest.mark.parametrize("paths", ["cs2d", "single"])
def test_order_tables_of_graphs_keep_the_rules_of_torch(paths):
    make = torch.ops.cvmh.order_table
    inputs = (paths, 3, 4, "natural", torch.device("cpu"))
    assert set(torch.library.opcheck(make, inputs).values()) == {"SUCCESS"}
    # A graph may write into what it is given.
    make(*inputs).zero_()
    assert order_table(paths, 3, 4).max() == 11


def test_tables_made_while_tracing_are_real(ss2d):
    # A size that no other test has, so that the table is not in the cache.
    image = torch.ones(1, 11, 13, 8)
    torch.export.export(ss2d, (image,), strict=False)
    with FakeTensorMode() as mode:
        ss2d_of_nothing = SS2D(8, d_state=2)
        assert ss2d_of_nothing(mode.from_tensor(torch.ones(1, 11, 17, 8))).shape == (1, 11, 17, 8)
    for width in (13, 17):
        table = order_table("cs2d", 11, width)
        assert type(table) is torch.Tensor and int(table.max()) == 11 * width - 1


def test_without_values_only_shapes_are_checked(make_scan):
    arguments = make_scan()
    with FakeTensorMode() as mode:
        fake = {
            name: mode.from_tensor(value) if isinstance(value, torch.Tensor) else value
            for name, value in arguments.items()
        }
        assert selective_scan(**fake | {"A": -fake["A"]}).shape == arguments["x"].shape
    with pytest.raises(ValueError, match="C must be"):
        selective_scan(**fake | {"C": fake["C"][:, 1:]})
