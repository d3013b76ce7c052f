"""VSSD has the published counts, takes any image, trains, compiles and leaves as ONNX."""

import io

import pytest
import torch

from cvmh.errors import ConfigError
from cvmh.models.encoders import ENCODERS, Classifier, create_encoder

NAMES = [name for name, family in ENCODERS.items() if family.name == "VSSD"]
# A network with every part of the published ones.
TINY = {"width": 8, "depths": (1, 2, 1, 1), "heads": (1, 2, 4, 8), "d_state": 3}
# Entries of the classifier's file: counted by the sources for VSSD-T alone.
ENTRIES = {"vssd_tiny": 421}


@pytest.fixture
def make_tiny():
    """Return a factory of tiny encoders whose batch norms have seen something."""

    def make(**settings):
        torch.manual_seed(0)
        encoder = create_encoder("vssd_tiny", **TINY | settings)
        with torch.no_grad():
            for name, value in encoder.state_dict().items():
                if name.endswith(("running_var", "running_mean")):
                    value.uniform_(0.5, 1.5)
        return encoder.eval()

    return make


@pytest.mark.parametrize("name", NAMES)
def test_it_has_exactly_the_published_parameters(name):
    with torch.device("meta"):
        classifier = Classifier(create_encoder(name, out_indices=(3,)))
    published = ENCODERS[name].variants[name].published
    assert published.is_exact
    assert sum(p.numel() for p in classifier.parameters()) == published.parameters
    entries = len(classifier.state_dict())
    assert entries == ENTRIES.get(name, entries)


@pytest.mark.parametrize("height, width", [(33, 47), (65, 97), (250, 230), (1, 1), (64, 32)])
def test_it_takes_images_of_any_size(make_tiny, height, width):
    with torch.no_grad():
        maps = make_tiny()(torch.rand(1, 3, height, width))
    for channels, stride, got in zip((8, 16, 32, 64), (4, 8, 16, 32), maps, strict=True):
        assert got.shape == (1, channels, -(-height // stride), -(-width // stride))
        assert got.isfinite().all()


@pytest.mark.parametrize("bands", [1, 4, 13])
def test_it_takes_images_of_any_bands_and_gives_the_maps_that_are_wanted(make_tiny, bands):
    encoder = make_tiny(bands=bands, out_indices=(1, 3))
    with torch.no_grad():
        maps = encoder(torch.rand(2, bands, 40, 56))
    assert [tuple(got.shape) for got in maps] == [(2, 16, 5, 7), (2, 64, 2, 2)]
    assert [one["reduction"] for one in encoder.feature_info] == [8, 32]


def test_an_image_does_not_change_another_of_its_batch(make_tiny):
    encoder, images = make_tiny(), torch.rand(3, 3, 33, 47)
    with torch.no_grad():
        for together, alone in zip(encoder(images), encoder(images[1:2]), strict=True):
            torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"has_attention": False}, {"is_normalised": True}])
def test_every_parameter_gets_a_gradient(make_tiny, settings):
    encoder = make_tiny(**settings).train()
    loss = sum(got.square().mean() for got in encoder(torch.rand(2, 3, 40, 72)))
    loss.backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_gradients_of_a_network_are_right_on_a_map_that_is_not_square(make_tiny):
    encoder = make_tiny(width=4, heads=(1, 1, 2, 2)).double()
    image = torch.rand(1, 1, 9, 14, dtype=torch.float64).expand(-1, 3, -1, -1).clone()
    image.requires_grad_()
    assert torch.autograd.gradcheck(lambda image: tuple(encoder(image)), image, fast_mode=True)


def test_it_stays_finite_under_autocast_in_training_and_in_use(make_tiny):
    encoder = make_tiny().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = encoder(torch.rand(2, 3, 65, 97))
    sum(got.float().square().mean() for got in maps).backward()
    assert all(got.isfinite().all() for got in maps)
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
    encoder.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        maps = encoder(torch.rand(1, 3, 65, 97))
    assert all(got.isfinite().all() for got in maps)


def test_it_compiles_as_a_whole(make_tiny):
    encoder, image = make_tiny(), torch.rand(1, 3, 33, 47)
    compiled = torch.compile(encoder, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        for got, wanted in zip(compiled(image), encoder(image), strict=True):
            torch.testing.assert_close(got, wanted)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_onnx_gives_the_same_maps_of_any_image_by_plain_operators(make_tiny):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    encoder = make_tiny()
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    exported = torch.onnx.export(
        encoder, (torch.rand(2, 3, 64, 96),), dynamic_shapes=(sizes,), dynamo=True, verbose=False
    )
    operators = {(node.domain, node.op_type) for node in exported.model.graph}
    assert {domain for domain, _ in operators} == {""}
    assert not {name for _, name in operators} & {"Scan", "Loop", "If"}
    file = io.BytesIO()
    exported.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for shape in ((2, 3, 64, 96), (1, 3, 33, 47)):
        image = torch.rand(shape)
        maps = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        with torch.no_grad():
            for got, wanted in zip(maps, encoder(image), strict=True):
                torch.testing.assert_close(torch.from_numpy(got), wanted, rtol=1e-4, atol=1e-5)


def test_settings_that_do_not_fit_are_named():
    said = r"'heads': must divide the stages' inner channels \(128, 256, 512, 512\), got \(2, 4, 3"
    with pytest.raises(ConfigError, match=said):
        create_encoder("vssd_tiny", heads=(2, 4, 3, 16))
    with pytest.raises(ConfigError, match=r"inner channels \(128, 256, 512, 1024\), got \(2, 4, 8"):
        create_encoder("vssd_tiny", heads=(2, 4, 8, 0), has_attention=False)
    with pytest.raises(ConfigError, match="'width': input should be greater than or equal to 2"):
        create_encoder("vssd_tiny", width=0)
    with pytest.raises(ConfigError, match="no encoder 'vssd_tinny'; did you mean 'vssd_tiny'"):
        create_encoder("vssd_tinny")
