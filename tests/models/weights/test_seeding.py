"""CVMH-UNet from published weights of VMamba v0."""

import pytest
import torch

from cvmh.errors import WeightsError
from cvmh.models.cvmh_unet import CVMHUNet, CVMHUNetSettings
from cvmh.models.encoders.vmamba import VMamba, VMambaSettings
from cvmh.models.weights.loading import load_weights
from cvmh.models.weights.reading import read_weights
from cvmh.models.weights.seeding import DIAGONALS, seed_cvmh_unet
from cvmh.ops.traversal import order_table

WIDTHS = (8, 16, 32, 64)
DEPTHS = (2, 2, 3, 2)


def unet(**settings):
    small = {"widths": WIDTHS, "decoder_depths": (1, 1, 1, 1), "num_frequencies": 2}
    return CVMHUNet(CVMHUNetSettings(**{**small, **settings})).eval()


@pytest.fixture
def write(tmp_path, published, drawn):
    """Return a function that writes a file of a tiny VMamba v0, and gives path and tensors."""

    def make(depths=DEPTHS, *, change=lambda tensors: tensors):
        tensors = change(drawn(published.vmamba_of("v0", 8, 2, depths, style="january")))
        torch.save({"model": tensors}, tmp_path / "w.pth")
        return read_weights(tmp_path / "w.pth"), tensors

    return make


def test_the_four_paths_of_both_have_the_same_numbers():
    ours, theirs = (order_table(paths, 3, 4).tolist() for paths in ("cs2d", "ss2d"))
    assert ours[:2] == theirs[:2]
    assert theirs[2:] == [path[::-1] for path in theirs[:2]]


@pytest.mark.parametrize("block", ["cvss", "vss"])
def test_stem_scans_and_merging_come_from_the_file_and_the_rest_stays(write, block):
    file, published = write()
    network = unet(block=block)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    report = seed_cvmh_unet(network, file)
    state = network.state_dict()
    scan = "scan." if block == "cvss" else ""
    assert torch.equal(state["stem.project.weight"], published["patch_embed.proj.weight"])
    assert torch.equal(state["merge.1.norm.bias"], published["layers.1.downsample.norm.bias"])
    assert torch.equal(
        state["merge.2.reduce.weight"], published["layers.2.downsample.reduction.weight"]
    )
    theirs, ours = "layers.2.blocks.1.", f"encoder.2.blocks.1.{scan}"
    scans = {key: published[f"{theirs}self_attention.{key}"] for key in ("A_logs", "x_proj_weight")}
    assert torch.equal(state[f"{ours}norm.weight"], published[f"{theirs}ln_1.weight"])
    assert torch.equal(state[f"{ours}mixer.x_proj_weight"], scans["x_proj_weight"])
    assert torch.equal(state[f"{ours}mixer.A_log"], scans["A_logs"].view(4, 64, 16))
    taken = {key for key in state if not torch.equal(state[key], before[key])}
    assert len(taken) == report.loaded and report.note == DIAGONALS
    parts = {key.split(".")[0] for key in taken}
    assert parts == {"stem", "encoder", "merge"}
    if block == "cvss":
        assert all(".scan." in key for key in taken if key.startswith("encoder"))
    # The third block of the third stage, and the norm and the head of the classifier.
    assert report.dropped == {"head": 2, "stages": 13, "norms": 2}
    assert sum(report.random.values()) + report.loaded == len(state)


def test_the_encoder_of_vm_unet_answers_as_vmamba_does(write, tmp_path):
    depths = (1, 1, 1, 1)
    file, _ = write(depths)
    network = unet(block="vss", scan="ss2d", encoder_depths=depths, residual_wrap=False)
    report = seed_cvmh_unet(network, file)
    assert report.note == ""
    vmamba = VMamba(
        VMambaSettings(generation="v0", width=8, depths=depths, expand=2.0, out_indices=(3,))
    ).eval()
    load_weights(vmamba, tmp_path / "w.pth")
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x, _ = network.stem(image)
        for level, stage in enumerate(network.encoder):
            x = stage(x)
            x = network.merge[level](x) if level < 3 else x
        (expected,) = vmamba(image)
        found = vmamba.norms[3](x).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, expected)


def test_blocks_that_the_file_lacks_stay_random(write):
    file, _ = write((1, 2, 2, 2))
    network = unet()
    before = network.state_dict()["encoder.0.blocks.1.scan.norm.weight"].clone()
    seed_cvmh_unet(network, file)
    assert torch.equal(network.state_dict()["encoder.0.blocks.1.scan.norm.weight"], before)


def test_bands_are_fitted_and_a_convolutional_stem_stays_random(write):
    file, published = write()
    network = unet(bands=4)
    report = seed_cvmh_unet(network, file, band_names=("nir", "red", "green", "blue"))
    old, new = published["patch_embed.proj.weight"], network.state_dict()["stem.project.weight"]
    torch.testing.assert_close(new[:, 1:], old * 3 / 4)
    torch.testing.assert_close(new[:, 0], old.mean(dim=1) * 3 / 4)
    assert report.new_bands == ("nir",)
    report = seed_cvmh_unet(unet(stem_widths=(4, 8)), file)
    assert report.adapted == () and report.dropped["stem"] == 4 and report.random["stem"] > 4


def test_a_network_of_other_sizes_says_which_would_fit(write):
    file, _ = write()
    said = r"do not fit a CVMH-UNet of widths \(8, 16, 32, 64\), d_state 1 and expand 2: 16 of anot"
    with pytest.raises(WeightsError, match=said):
        seed_cvmh_unet(unet(d_state=1), file)


def test_files_of_another_encoder_say_what_would_do(published, flat, tmp_path):
    torch.save(flat(published.vmamba("vmamba_tiny_s1l8")), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"are of 'vmamba_tiny_s1l8', a CVMH-UNet starts from"):
        seed_cvmh_unet(unet(), read_weights(tmp_path / "w.pth"))


def test_a_damaged_file_is_refused(write):
    lost = "layers.0.blocks.0.self_attention.Ds"
    file, _ = write(
        change=lambda tensors: {key: value for key, value in tensors.items() if key != lost}
    )
    with pytest.raises(WeightsError, match=r"1 missing \(encoder\.0\.blocks\.0\.scan\.mixer\.D\)"):
        seed_cvmh_unet(unet(), file)


def test_the_published_network_takes_both_published_sizes(published, flat, tmp_path):
    with torch.device("meta"):
        network = CVMHUNet(CVMHUNetSettings())
    network = network.to_empty(device="cpu")
    for name in ("vmamba_tiny_v0", "vmamba_small_v0"):
        torch.save({"model": flat(published.vmamba(name, style="january"))}, tmp_path / "w.pth")
        report = seed_cvmh_unet(network, read_weights(tmp_path / "w.pth"))
        # Eight blocks, three mergings, the stem.
        assert (report.variant, report.loaded) == (name, 8 * 13 + 3 * 3 + 4)
