"""Published files of any family, with exact keys and shapes and with typical damages."""

import re

import pytest
import torch

from cvmh.errors import ConfigError, WeightsError
from cvmh.models.encoders import create_encoder
from cvmh.models.encoders.vmamba import VMamba, VMambaSettings
from cvmh.models.weights.loading import find_stem, load_weights
from cvmh.models.weights.matching import fit_shapes, match_names
from cvmh.models.weights.table import detect_variant, layout_of, variant_of

DEPTHS = (1, 1, 2, 1)
# Tiny VMambas of both generations, and how their files are named.
TINY = {
    "v0": ({"generation": "v0", "width": 16, "depths": DEPTHS, "expand": 2.0}, 2, "january"),
    "v2": ({"width": 16, "depths": DEPTHS, "expand": 1.0}, 1, "classification"),
}


def tiny(generation="v2", **more):
    return VMamba(VMambaSettings(**TINY[generation][0], **more)).eval()


@pytest.fixture
def write(tmp_path, published, drawn):
    """Return a function that writes the weights of a tiny VMamba, and gives path and tensors."""

    def make(generation="v2", *, change=lambda tensors: tensors, style=None, wrap=None, **options):
        _, ratio, usual = TINY[generation]
        shapes = published.vmamba_of(generation, 16, ratio, DEPTHS, style=style or usual)
        tensors = change(drawn(shapes))
        path = tmp_path / "w.pth"
        torch.save(tensors if wrap is None else wrap(tensors), path, **options)
        return path, tensors

    return make


def state_after(encoder, path, **options):
    return load_weights(encoder, path, **options), encoder.state_dict()


@pytest.mark.parametrize("generation", ["v0", "v2"])
def test_each_tensor_of_a_file_arrives_where_its_name_says(write, generation):
    path, published = write(generation)
    report, state = state_after(tiny(generation), path)
    start = "layers.2.blocks.1."
    op, norm = ("self_attention", "ln_1") if generation == "v0" else ("op", "norm")
    D = 64 * TINY[generation][1]
    N = 16 if generation == "v0" else 1
    ours = {key.removeprefix("stages.2.1."): value for key, value in state.items()}
    assert torch.equal(ours["norm.weight"], published[f"{start}{norm}.weight"])
    scan = {key: published[f"{start}{op}.{key}"] for key in ("dt_projs_weight", "A_logs", "Ds")}
    for k in range(4):
        assert torch.equal(ours["mixer.dt_weight"][k], scan["dt_projs_weight"][k].T)
        assert torch.equal(ours["mixer.A_log"][k], scan["A_logs"][k * D : (k + 1) * D])
        assert torch.equal(ours["mixer.D"][k], scan["Ds"][k * D : (k + 1) * D])
    assert ours["mixer.A_log"].shape == (4, D, N)
    last = "norm" if generation == "v0" else "classifier.norm"
    assert torch.equal(state["norms.3.weight"], published[f"{last}.weight"])
    assert report.random == {"norms": 6}
    assert report.dropped == ({"head": 2} if generation == "v0" else {"classifier": 2})
    assert report.loaded == len(published) - 2 == len(state) - 6
    assert report.describe() == (
        f"weights from {path}: {report.loaded} tensors loaded (from the file itself); left random: "
        f"norms (6); not used: {next(iter(report.dropped))} (2)"
    )


def as_segmenter(tensors):
    named = {f"backbone.{key}": value for key, value in tensors.items()}
    outs = {f"backbone.outnorm{i}.{k}": torch.ones(16 * 2**i) for i in range(4) for k in KINDS}
    heads = {"decode_head.conv_seg.weight": torch.zeros(150, 512, 1, 1)}
    return {"state_dict": named | outs | heads, "meta": {"iter": 160_000}}


KINDS = ("weight", "bias")
WRAPS = {
    "training": lambda tensors: {"model": tensors, "optimizer": {"state": {}}, "epoch": 3},
    "averaged": lambda tensors: {
        "model": {key: 0 * value for key, value in tensors.items()},
        "model_ema": {f"module.{key}": value for key, value in tensors.items()},
    },
    "parallel": lambda tensors: {f"module.{key}": value for key, value in tensors.items()},
    "compiled": lambda tensors: {
        "model": {f"module._orig_mod.{key}": value for key, value in tensors.items()}
    },
    "hooked": lambda tensors: {
        "state_dict": tensors
        | {f"ema_{key.replace('.', '_')}": 0 * value for key, value in tensors.items()}
    },
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_what_a_training_puts_around_weights_changes_nothing(write, wrap):
    plain, _ = write()
    _, expected = state_after(tiny(), plain)
    expected = {key: value.clone() for key, value in expected.items()}
    path, _ = write(wrap=WRAPS[wrap])
    _, found = state_after(tiny(), path)
    norms = re.compile(r"norms\.[012]\..*")
    for key in expected:
        assert norms.fullmatch(key) or torch.equal(found[key], expected[key]), key


def test_a_segmenter_gives_its_backbone_and_the_norms_behind_each_stage(write):
    path, _ = write(wrap=as_segmenter)
    report, state = state_after(tiny(), path)
    assert report.random == {} and report.loaded == len(state)
    assert report.dropped == {"decode_head": 1, "classifier": 2}
    assert report.taken == "state_dict"


def test_linear_layers_may_have_the_shape_of_convolutions(write):
    plain, _ = write()
    _, expected = state_after(tiny(), plain)

    def change(tensors):
        linear = re.compile(r".*(in_proj|out_proj|fc1|fc2)\.weight")
        return {
            key: value[..., None, None] if linear.fullmatch(key) else value
            for key, value in tensors.items()
        }

    path, _ = write(change=change)
    _, found = state_after(tiny(), path)
    compared = [key for key in expected if key not in NORMS]
    assert all(torch.equal(found[key], expected[key]) for key in compared)


NORMS = {f"norms.{i}.{kind}" for i in range(3) for kind in KINDS}


def test_half_precision_becomes_single(write):
    path, published = write(change=lambda tensors: {k: v.half() for k, v in tensors.items()})
    _, state = state_after(tiny(), path)
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert torch.equal(state["stem.first.conv.bias"], published["patch_embed.0.bias"].float())


def test_maps_that_are_not_asked_for_need_no_norm(write):
    path, _ = write()
    report, _ = state_after(tiny(out_indices=(0, 2)), path)
    assert set(report.random) == {"norms"}
    assert report.loaded == len(tiny(out_indices=(0, 2)).state_dict()) - report.random["norms"]


def without(*keys):
    return lambda tensors: {key: value for key, value in tensors.items() if key not in keys}


def with_(**more):
    return lambda tensors: tensors | {key.replace("_", "."): value for key, value in more.items()}


DAMAGES = {
    "a key is missing": (
        without("layers.0.blocks.0.op.Ds"),
        r"do not fit encoder 'VMamba': 1 missing \(stages\.0\.0\.mixer\.D\)$",
    ),
    "many are missing": (
        lambda tensors: {k: v for k, v in tensors.items() if "layers.2" not in k},
        r"40 missing \(stages\.2\.0\.norm\.weight, .*, \.\.\.\)$",
    ),
    "a key is unknown": (with_(layers_9_gate=torch.ones(1)), r"1 unknown \(layers\.9\.gate\)$"),
    "a block too many": (
        lambda tensors: (
            tensors
            | {
                key.replace("layers.2.blocks.1", "layers.2.blocks.2"): value
                for key, value in tensors.items()
            }
        ),
        r"18 unknown \(stages\.2\.2\.norm\.weight, ",
    ),
    "a shape": (
        lambda tensors: tensors | {"patch_embed.5.bias": torch.ones(17)},
        r"1 of another shape or type \(stem\.second\.conv\.bias is \(17,\), not \(16,\)\)$",
    ),
    "whole numbers": (
        lambda tensors: {key: value.to(torch.int8) for key, value in tensors.items()},
        r"[1-9]\d* of another shape or type \(.* is of torch\.int8, not of torch\.float32",
    ),
    "a stem of one band": (
        lambda tensors: tensors | {"patch_embed.0.weight": tensors["patch_embed.0.weight"][:, :1]},
        r"or type \(stem\.first\.conv\.weight is \(8, 1, 3, 3\), not \(8, 3, 3, 3\)\)$",
    ),
    "a stem of more bands": (
        lambda tensors: (
            tensors | {"patch_embed.0.weight": tensors["patch_embed.0.weight"].repeat(1, 4, 1, 1)}
        ),
        r"or type \(stem\.first\.conv\.weight is \(8, 12, 3, 3\), not \(8, 3, 3, 3\)\)$",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_does_not_fit_is_refused_and_the_encoder_stays_as_it_was(write, damage):
    change, said = DAMAGES[damage]
    path, _ = write(change=change)
    encoder = tiny()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    with pytest.raises(WeightsError, match=said):
        load_weights(encoder, path)
    after = encoder.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_lenient_load_takes_what_fits_and_tells_the_rest(write):
    path, _ = write(change=DAMAGES["a shape"][0])
    report, _ = state_after(tiny(), path, strict=False)
    assert report.random == {"norms": 6, "stem": 1}
    path, _ = write(change=lambda tensors: {"other": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"missing .*; 1 unknown \(other\)"):
        load_weights(tiny(), path, strict=False)


def test_other_bands_get_the_mean_of_the_known_and_the_stem_keeps_its_size(write):
    path, published = write()
    old = published["patch_embed.0.weight"]
    report, state = state_after(tiny(bands=4), path)
    new = state["stem.first.conv.weight"]
    torch.testing.assert_close(new[:, :3], old * 3 / 4)
    torch.testing.assert_close(new[:, 3], old.mean(dim=1) * 3 / 4)
    assert report.adapted == ("stem.first.conv.weight",)
    assert (report.known_bands, report.new_bands) == (("red", "green", "blue"), ("band 4",))
    report, state = state_after(tiny(), path, band_names=("nir", "red", "green"))
    new = state["stem.first.conv.weight"]
    torch.testing.assert_close(new[:, 1:], old[:, :2])
    torch.testing.assert_close(new[:, 0], old.mean(dim=1))
    assert report.new_bands == ("nir",)
    assert "new bands from the mean of the others: nir" in report.describe()
    _, state = state_after(tiny(bands=1), path)
    torch.testing.assert_close(state["stem.first.conv.weight"][:, 0], old.sum(dim=1))


def test_bands_without_telling_names_are_taken_in_order(write):
    path, published = write()
    report, state = state_after(tiny(), path, band_names=("band 1", "band 2", "band 3"))
    assert torch.equal(state["stem.first.conv.weight"], published["patch_embed.0.weight"])
    assert report.adapted == report.new_bands == ()


FAMILIES = ("vmamba", "vssd", "groupmamba", "plainmamba")
LOADED = (
    ("vmamba", "vmamba_tiny_v0"),
    ("vmamba", "vmamba_tiny_s1l8"),
    ("vssd", "vssd_micro"),
    ("groupmamba", "groupmamba_tiny"),
    ("plainmamba", "plainmamba_l1"),
)


@pytest.mark.parametrize(("family", "name"), LOADED, ids=[name for _, name in LOADED])
def test_files_of_each_family_load_and_are_recognised(tmp_path, published, flat, family, name):
    shapes = getattr(published, family)(name)
    torch.save({"model": flat(shapes)}, tmp_path / "w.pth")
    with torch.device("meta"):
        encoder = create_encoder(name)
    encoder = encoder.to_empty(device="cpu")
    report = load_weights(encoder, tmp_path / "w.pth")
    assert report.variant == name == variant_of(encoder)
    assert set(report.random) <= {"norms", "neck_norms", "neck_levels"}
    assert report.loaded + sum(report.dropped.values()) == len(shapes)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_published_file_fits_its_encoder_completely(published, flat, family):
    for name in getattr(published, family.upper()):
        with torch.device("meta"):
            encoder = create_encoder(name)
        layout, own = layout_of(encoder), encoder.state_dict()
        match = match_names(flat(getattr(published, family)(name)), layout)
        stem = find_stem(encoder, 3)
        fit = fit_shapes(match.weights, own, stem=stem, bands=(0, 1, 2))
        assert not match.unknown and not fit.misfits and match.weights.keys() <= own.keys()
        rest = own.keys() - fit.weights.keys()
        assert all(re.fullmatch(layout.absent, key) for key in rest)
        assert own[stem].shape[1] == 3 and variant_of(encoder) == name


def test_every_published_file_is_of_one_variant_only(published, flat):
    for family in FAMILIES:
        for name in getattr(published, family.upper()):
            tensors = flat(getattr(published, family)(name))
            plain = {key.removeprefix("backbone."): value for key, value in tensors.items()}
            named = {f"backbone.{key}": value for key, value in plain.items()}
            assert detect_variant(tensors).variant == detect_variant(plain).variant == name
            assert detect_variant(named | {"decode_head.w": torch.ones(1)}).variant == name
    assert detect_variant({"conv1.weight": torch.ones(64, 3, 7, 7)}) is None


@pytest.mark.parametrize(
    ("family", "given", "wanted"),
    [
        ("vmamba", "vmamba_tiny_s2l5", "vmamba_tiny_s1l8"),
        ("vmamba", "vmamba_tiny_v0", "vmamba_tiny_s1l8"),
        ("vssd", "vssd_small", "vssd_tiny"),
        ("groupmamba", "groupmamba_tiny", "vssd_tiny"),
    ],
)
def test_weights_of_another_variant_say_which_they_are(
    tmp_path, published, flat, family, given, wanted
):
    torch.save(flat(getattr(published, family)(given)), tmp_path / "w.pth")
    with torch.device("meta"):
        encoder = create_encoder(wanted)
    said = (
        rf"are of '{given}', the encoder is '{wanted}'; build the encoder '{given}', "
        rf"or give weights of '{wanted}'"
    )
    with pytest.raises(WeightsError, match=said):
        load_weights(encoder, tmp_path / "w.pth")


def test_an_encoder_of_settings_of_its_own_is_told_which_one_to_build(tmp_path, published, flat):
    torch.save(flat(published.vssd("vssd_micro")), tmp_path / "w.pth")
    said = r"of 'vssd_micro', the encoder is a VMamba of settings of its own; build .*'vssd_micro'$"
    with pytest.raises(WeightsError, match=said):
        load_weights(tiny(), tmp_path / "w.pth")


def test_weights_of_something_else_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7), "fc.bias": torch.ones(5)}, tmp_path / "w")
    with pytest.raises(WeightsError, match=r"missing \(stem.*2 unknown \(conv1\.weight, fc\.bias"):
        load_weights(tiny(), tmp_path / "w")


def test_an_encoder_without_published_weights_says_so():
    class Other(VMamba):
        def __init__(self):
            super().__init__(VMambaSettings(**TINY["v2"][0]))
            self.settings = None

    with pytest.raises(ConfigError, match=r"no weights of Other have been published"):
        load_weights(Other(), "w.pth")
