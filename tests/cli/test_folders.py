"""What counts as a folder of masks, however many scenes a pattern happens to mean."""

import pytest


@pytest.mark.parametrize("output", ["masks/", "masks/{stem}.tif"])
def test_a_pattern_that_means_one_scene_has_its_folder_made_as_for_several(
    cvmh, make_scene, tiny_bundle, visible, tmp_path, output
):
    make_scene("scenes/only.tif", height=40, width=40)
    call = ("predict", "scenes/*.tif", "-o", output, "--checkpoint", tiny_bundle, "--resume")
    assert cvmh(*call, "--dry-run").code == 0
    assert not (tmp_path / "masks").exists()
    for _ in range(2):
        outcome = cvmh(*call)
        assert outcome.code == 0, outcome.stderr
    assert "is complete, nothing to do" in outcome.stderr
    assert visible(tmp_path / "masks") == {"only.tif"}
