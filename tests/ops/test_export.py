"""Scans leave for ONNX: as loops, for maps of any size, with the results of the reference."""

import io

import pytest
import torch
from torch import nn

from cvmh.errors import KernelError
from cvmh.models.ss2d import SS2D
from cvmh.ops import choose_backend, order_table, selective_scan
from cvmh.ops._operators import FLOATS

# torch's own code, at every export.
pytestmark = pytest.mark.filterwarnings(
    "ignore:# The axis name:UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)
MAPS = ("x", "dt", "B", "C")
DYNAMIC = torch.export.Dim.DYNAMIC


class Scan(nn.Module):
    """A scan with its parameters; maps, order and gaps are inputs."""

    def __init__(self, arguments, **options):
        super().__init__()
        for name in FLOATS:
            if name in arguments and name not in MAPS:
                self.register_parameter(name, nn.Parameter(arguments[name]))
        self.softplus, self.options = arguments["dt_softplus"], options

    def forward(self, x, dt, B, C, order=None, gap=None):
        maps = {"x": x, "dt": dt, "B": B, "C": C, "order": order, "gap": gap}
        parameters = dict(self.named_parameters())
        return selective_scan(**maps, **parameters, dt_softplus=self.softplus, **self.options)


def start(module, inputs, dynamic):
    """Export a module and return what runs it in onnxruntime."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    program = torch.onnx.export(
        module.eval(),
        # ONNX knows no strides.
        tuple(one.contiguous() for one in inputs),
        dynamic_shapes=tuple(dynamic),
        dynamo=True,
        verbose=False,
    )
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(*tensors):
        values = {name: one.contiguous().numpy() for name, one in zip(names, tensors, strict=True)}
        return torch.from_numpy(session.run(None, values)[0])

    run.operators = [node.op_type for node in program.model_proto.graph.node]
    return run


@pytest.fixture(autouse=True)
def forget_graphs():
    # Outside of an export, torch compiles the loops anew for each size.
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def check(assert_close):
    """Return a function that holds a scan to the reference in float64."""

    def check(arguments, **options):
        double = {
            name: value.double() if isinstance(value, torch.Tensor) and name in FLOATS else value
            for name, value in arguments.items()
        }
        expected = selective_scan(**double, backend="reference", **options)
        got = selective_scan(**arguments, backend="export", **options)
        assert_close({"y": got}, {"y": expected})

    return check


@pytest.mark.parametrize("length", [1, 63, 64, 65, 130])
def test_lengths_around_a_chunk(make_scan, check, length):
    check(make_scan(1, length, paths="single", N=2))
    check(make_scan(1, length, paths="single", N=1) | {"order": None})


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "apart"])
@pytest.mark.parametrize("N", [1, 3])
def test_all_options_together(make_scan, check, N, merge):
    check(make_scan(8, 9, N=N, rank=3, softplus=True, gaps=True), merge=merge)
    check(make_scan(8, 9, N=N, skip=False), merge=merge)


def test_paths_of_each_image_with_padding(make_scan, check):
    generator = torch.Generator().manual_seed(3)
    permutations = [torch.randperm(35, generator=generator)[:20] for _ in range(6)]
    order = torch.stack(permutations).reshape(2, 3, 20).int()
    order[0, 1, ::4] = -1
    arguments = make_scan(order=order, softplus=True, gaps=True)
    # Padding stands for no pixel, whatever the first one holds.
    order[order == 0] = -1
    for name in MAPS:
        arguments[name][:, ..., 0, :] = float("nan")
    check(arguments, merge=False)


def test_empty_paths_give_zeros(make_scan):
    arguments = make_scan(order=order_table("ss2d", 5, 7)[:, :0])
    for merge in (True, False):
        assert (selective_scan(**arguments, backend="export", merge=merge) == 0).all()


def test_sixteen_bits_and_autocast_give_float32(make_scan, check):
    arguments = make_scan(softplus=True, rank=4, dtype=torch.bfloat16)
    check(arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = selective_scan(**arguments, backend="export")
    assert inside.dtype == torch.float32
    assert torch.equal(inside, selective_scan(**arguments, backend="export"))


def test_gradients_are_refused(make_scan):
    arguments = make_scan()
    arguments["x"].requires_grad_()
    with pytest.raises(KernelError, match="backend 'export' gives no gradients"):
        selective_scan(**arguments, backend="export")


def test_no_scan_chooses_it_by_itself(monkeypatch):
    monkeypatch.delenv("CVMH_SCAN_BACKEND", raising=False)
    assert choose_backend() != "export" and choose_backend("export", device="cuda") == "export"


@pytest.mark.parametrize("N", [1, 3])
def test_onnx_takes_any_number_of_pixels(make_scan, assert_close, N):
    arguments = make_scan(1, 100, paths="single", rank=3, softplus=True, N=N)
    maps = [arguments[name] for name in MAPS]
    module = Scan(arguments)
    run = start(module, maps, [{0: DYNAMIC, one.dim() - 2: DYNAMIC} for one in maps])
    assert run.operators.count("Scan") == 3 and len(run.operators) < 60
    for num_batch, length in ((2, 100), (1, 64), (3, 257), (2, 2)):
        other = make_scan(1, length, B=num_batch, paths="single", rank=3, softplus=True, N=N)
        other |= {name: value.detach() for name, value in module.named_parameters()}
        expected = selective_scan(**other, backend="reference")
        assert_close({"y": run(*(other[name] for name in MAPS))}, {"y": expected})


def test_onnx_takes_orders_and_gaps_as_inputs(make_scan, assert_close):
    def random_paths(seed, num_batch, height, width, num_steps):
        generator = torch.Generator().manual_seed(seed)
        order = torch.rand(num_batch, 3, height * width, generator=generator).argsort(dim=-1)
        order = order[..., :num_steps].int()
        order[..., ::5] = -1
        return make_scan(height, width, B=num_batch, order=order, gaps=True)

    arguments = random_paths(0, 2, 10, 12, 90)
    names = (*MAPS, "order", "gap")
    inputs = [arguments[name] for name in names]
    dynamic = [{0: DYNAMIC, 1: DYNAMIC}, *({0: DYNAMIC, 2: DYNAMIC} for _ in inputs[1:])]
    module = Scan(arguments, merge=False)
    run = start(module, inputs, dynamic)
    for seed, sizes in enumerate(((2, 10, 12, 90), (3, 7, 9, 63), (1, 8, 20, 70))):
        other = random_paths(seed, *sizes) | {n: p.detach() for n, p in module.named_parameters()}
        expected = selective_scan(**other, merge=False, backend="reference")
        assert_close({"y": run(*(other[name] for name in names))}, {"y": expected})


@pytest.mark.parametrize("num_examples", [1, 2])
def test_a_mixer_becomes_onnx_for_batches_of_any_size(assert_close, num_examples):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mixer = SS2D(8, d_state=2)
    generator = torch.Generator().manual_seed(1)
    run = start(mixer, [torch.ones(num_examples, 6, 11, 8)], [{0: DYNAMIC}])
    for num_batch in (1, 2, 5):
        image = torch.randn(num_batch, 6, 11, 8, generator=generator)
        with torch.no_grad():
            assert_close({"y": run(image)}, {"y": mixer(image)})
