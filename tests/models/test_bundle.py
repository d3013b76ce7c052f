import json
import struct

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cvmh.classes import ISPRS
from cvmh.errors import BundleError, OutputError
from cvmh.metrics.area_sample import AreaSample
from cvmh.metrics.calibration import Calibration, ReliabilityCounter
from cvmh.models.bundle import FORMAT, BundleCard, load_bundle, read_card, save_bundle
from cvmh.models.zoo import create_model

# The smallest network of the zoo that has every part.
SETTINGS = {
    "widths": [8, 8, 8, 8],
    "encoder_depths": [1, 1, 1, 1],
    "decoder_depths": [1, 1, 1, 1],
    "num_frequencies": 1,
}
CARD = {
    "model": "cvmh_unet_nano",
    "settings": SETTINGS,
    "classes": ISPRS,
    "band_names": ("red", "green", "blue", "nir"),
    "dtype": "uint16",
    "mean": (0.1, 1 / 3, 1e-7, 12345.678),
    "std": (1.0, 2.5, 1e7, 0.3),
}


def make_card(**changes):
    return BundleCard(**{**CARD, **changes})


def make_calibration():
    counter = ReliabilityCounter(6)
    counter.add(np.array([0, 1]), np.array([0, 2]), np.array([1 / 3, 0.9]))
    found = counter.overall()
    return Calibration(split="val", nll_before=0.1, nll_after=0.05, before=found, after=found)


@pytest.fixture(scope="module")
def network():
    """A network in train mode whose running statistics are those of data, not the initial ones."""
    torch.manual_seed(0)
    tiny = create_model("cvmh_unet_nano", bands=4, num_classes=len(ISPRS), **SETTINGS)
    tiny.train()(torch.randn(2, 4, 64, 64))
    return tiny


@pytest.fixture
def saved(tmp_path, network):
    path = tmp_path / "model.safetensors"
    save_bundle(path, network, make_card())
    return path


def assert_refused(path, *fragments, action=load_bundle):
    with pytest.raises(BundleError) as caught:
        action(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 600
    for fragment in fragments:
        assert fragment in message


def with_header(path, text):
    save_file({"x": torch.zeros(1)}, path, metadata=None if text is None else {"cvmh": text})
    return path


def test_weights_survive_bit_for_bit(saved, network):
    loaded = load_bundle(saved).network.state_dict()
    original = network.state_dict()
    assert list(loaded) == list(original)
    for name, tensor in original.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name


def test_a_loaded_network_is_in_eval_mode_and_predicts_the_same(saved, network):
    bundle = load_bundle(saved)
    assert not any(module.training for module in bundle.network.modules())
    assert bundle.path == saved
    x_BCHW = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = bundle.network(x_BCHW)
        network.eval()
        expected = network(x_BCHW)
        network.train()
    assert torch.equal(found, expected)


def test_saving_leaves_the_network_in_train_mode(saved, network):
    assert network.training


def test_every_field_of_the_card_survives(tmp_path, network):
    card = make_card(
        gsd=0.1,
        tile=512,
        temperature=1.7,
        calibration=make_calibration(),
        area_sample=AreaSample.of(np.arange(72).reshape(2, 6, 6), split="val"),
        dataset="Straße 7",
        data_fingerprint="ab12",
        splits="geoseg",
        train_split="train",
        val_split="val",
        scores={"val": {"miou": 0.1 + 0.2, "classes": {"car": None}}},
        licence="CC-BY-4.0",
        versions={"cvmh": "0.0.1"},
    )
    path = tmp_path / "model.safetensors"
    save_bundle(path, network, card)
    assert load_bundle(path).card == read_card(path) == card


def test_a_bundle_from_before_calibration_still_loads(tmp_path, network):
    card = json.loads(make_card(temperature=1.7).model_dump_json())
    for name in ("calibration", "area_sample", "splits", "train_split", "val_split"):
        del card[name]
    path = tmp_path / "old.safetensors"
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, path, metadata={"cvmh": json.dumps(card)})
    found = load_bundle(path).card
    assert (found.temperature, found.calibration, found.area_sample) == (1.7, None, None)
    assert (found.splits, found.train_split, found.val_split) == ("", "", "")


def test_a_sample_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="2 clusters and 6 classes has a cell beyond them"):
        make_card(area_sample=AreaSample.of(np.ones((2, 7, 7), dtype=int), split="val"))


def test_the_file_is_read_by_safetensors_alone(saved, network):
    weights = load_file(saved)
    assert set(weights) == set(network.state_dict())
    length = struct.unpack("<Q", saved.read_bytes()[:8])[0]
    header = json.loads(saved.read_bytes()[8 : 8 + length])["__metadata__"]["cvmh"]
    assert json.loads(header)["classes"] == ISPRS.to_json()
    assert json.loads(header)["format"] == FORMAT


def test_reading_the_card_reads_no_weights(saved, monkeypatch):
    class HeaderOnly:
        """An open bundle whose weights must not be asked for."""

        def __init__(self, path, framework):
            self.file = safe_open(path, framework=framework)

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *error):
            self.file.__exit__(*error)

        def metadata(self):
            return self.file.metadata()

        def keys(self):
            raise AssertionError("the weights were asked for")

    monkeypatch.setattr("cvmh.models.bundle.safe_open", HeaderOnly)
    assert read_card(saved) == make_card()
    with pytest.raises(AssertionError, match="the weights were asked for"):
        load_bundle(saved)


def test_a_missing_file_is_an_error_that_says_how_to_get_one(tmp_path):
    for action in (load_bundle, read_card):
        path = tmp_path / "none.safetensors"
        assert_refused(path, "does not exist", "'cvmh train' or 'cvmh demo'", action=action)
        assert_refused(tmp_path, action=action)


def torch_file(path):
    torch.save({"weight": torch.zeros(3)}, path)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x00" * 8),
        lambda path: path.write_text("These are not the weights that you are looking for.\n" * 9),
        torch_file,
        lambda path: path.write_bytes(b"\x02" + b"\x00" * 7 + b"{}"),
    ],
    ids=["empty", "zeros", "text", "torch", "no-metadata"],
)
def test_a_file_that_is_no_bundle_is_refused(tmp_path, write):
    path = tmp_path / "model.safetensors"
    write(path)
    for action in (load_bundle, read_card):
        assert_refused(path, "not a bundle", action=action)


def test_a_pickle_is_refused_without_being_run(tmp_path):
    sign = tmp_path / "sign"
    path = tmp_path / "model.safetensors"
    torch.save(Trap(str(sign)), path)
    assert_refused(path, "is not a bundle")
    assert not sign.exists()


@pytest.mark.parametrize("keep", [4, 200, -1, -1000])
def test_a_file_that_was_cut_off_is_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    assert_refused(saved, "is not a bundle")


def test_safetensors_of_another_program_are_refused(tmp_path):
    path = with_header(tmp_path / "model.safetensors", None)
    assert_refused(path, "has no cvmh header")
    assert_refused(path, "has no cvmh header", action=read_card)


def test_a_bundle_of_a_newer_format_asks_for_an_update(tmp_path):
    content = {"format": FORMAT + 1, "something": "that this version does not know"}
    path = with_header(tmp_path / "model.safetensors", json.dumps(content))
    found = f"has format {FORMAT + 1}, this cvmh"
    assert_refused(path, found, f"reads up to {FORMAT}", "update cvmh", action=read_card)


def damaged(**changes):
    content = {**json.loads(make_card().model_dump_json()), **changes}
    return json.dumps({key: value for key, value in content.items() if value is not ...})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "null",
        "{}",
        damaged(format="one"),
        damaged(model=...),
        damaged(surprise=1),
        damaged(classes=[{"id": 3, "name": "x", "rgb": [0, 0, 0]}]),
        damaged(classes="all"),
        damaged(band_names=[]),
        damaged(mean=["a"]),
        damaged(mean=[1.0]),
        damaged(std=[1.0] * 5),
        damaged(std=[1.0, 2.0, 0.0, 1.0]),
        damaged(temperature=0),
    ],
)
def test_a_damaged_header_is_refused(tmp_path, text):
    path = with_header(tmp_path / "model.safetensors", text)
    for action in (load_bundle, read_card):
        assert_refused(path, "has a damaged header", action=action)


def test_weights_of_another_network_are_refused(tmp_path, network):
    path = tmp_path / "model.safetensors"
    save_bundle(path, network, make_card(settings={**SETTINGS, "widths": [8, 8, 8, 16]}))
    assert_refused(path, "does not fit network 'cvmh_unet_nano'", "size mismatch")
    save_bundle(path, network, make_card(model="unet_resnet18", settings={}))
    assert_refused(path, "does not fit network 'unet_resnet18'", "weights of it are missing (")
    save_bundle(path, network, make_card(band_names=("pan",), mean=(0.0,), std=(1.0,)))
    assert_refused(path, "does not fit network 'cvmh_unet_nano'", "size mismatch")


@pytest.mark.parametrize(
    ("missing", "more", "said"),
    [
        (4, 0, "weights of it are missing (4, 'pruner.null.0' first)"),
        (1, 2, "weights of it are missing (1, 'pruner.null.0' first)"),
        (0, 2, "weights are not of it (2, 'other.0' first)"),
    ],
)
def test_missing_weights_and_others_are_told_in_one_sentence(tmp_path, missing, more, said):
    path, settings = tmp_path / "model.safetensors", {**SETTINGS, "pruning": {"reinsert": "null"}}
    weights = create_model("cvmh_unet_nano", bands=3, num_classes=6, **settings).state_dict()
    nulls = [f"pruner.null.{level}" for level in range(missing)]
    weights = {name: tensor for name, tensor in weights.items() if name not in nulls}
    weights |= {f"other.{number}": torch.zeros(1) for number in range(more)}
    save_bundle(path, torch.nn.Identity(), make_card(settings=settings), weights=weights)
    with pytest.raises(BundleError) as caught:
        load_bundle(path)
    assert str(caught.value) == (
        f"bundle {path} does not fit network 'cvmh_unet_nano': {said}, so it is damaged or of "
        "another version of cvmh; copy it anew, update cvmh, or train it again"
    )


def test_a_network_that_cannot_be_built_is_refused_with_the_nearest_right_name(tmp_path, network):
    path = tmp_path / "model.safetensors"
    for changes, fragment in [
        ({"model": "cvmh_unet_nan"}, "did you mean 'cvmh_unet_nano'?"),
        ({"settings": {"width": [8]}}, "did you mean 'widths'?"),
        ({"settings": {"bands": 4}}, "bands"),
        ({"settings": {"name": "x"}}, "name"),
        ({"model": "unet_resnet18", "settings": {"arch": "none"}}, "none"),
    ]:
        save_bundle(path, network, make_card(**changes))
        assert_refused(path, "names a network that cannot be built", fragment)
        assert read_card(path).model == changes.get("model", "cvmh_unet_nano")


@pytest.mark.parametrize("reason", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_bundle(saved, network, monkeypatch, reason):
    before = saved.read_bytes()

    def fail(*_):
        raise reason

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        save_bundle(saved, network, make_card(dataset="another"))
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
    assert load_bundle(saved).card.dataset == ""


def test_a_missing_folder_is_named_before_anything_is_written(tmp_path, network):
    path = tmp_path / "none" / "model.safetensors"
    with pytest.raises(OutputError, match="No such file or directory") as caught:
        save_bundle(path, network, make_card())
    assert str(path) in str(caught.value)
    assert not path.parent.exists()
