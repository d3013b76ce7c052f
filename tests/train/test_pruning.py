"""Runs in which a network learns to do without some of its cells."""

import json

import pytest
import torch
from safetensors.torch import load_file

from cvmh.config import PruningRunSettings, RunConfig
from cvmh.errors import ConfigError
from cvmh.models.bundle import load_bundle
from cvmh.models.pruning import WHOLE, MaskedGrid
from cvmh.report.info import describe
from cvmh.settings import parse_assignment, validate
from cvmh.train import train
from cvmh.train.pruning import Pruning, cells_with_data

DATA = {"tile": 64, "crops_per_epoch": 4, "batch": 2}
TRAIN = {"epochs": 1, "learning_rate": 1e-2}
COMBINATIONS = [
    ("clipped_output", "frozen", "block"),
    ("delta", "null", "entry"),
    ("confidence", "exit", "block"),
]


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def pruning(**settings):
    return Pruning(PruningRunSettings(**settings), seed=3)


@pytest.mark.parametrize(("score", "reinsert", "at"), COMBINATIONS)
def test_a_dense_bundle_becomes_one_that_chooses_cells_and_teaches_it(
    tmp_path, make_config, tiny_bundle, caplog, score, reinsert, at
):
    caplog.set_level("INFO", logger="cvmh")
    chosen = {"score": score, "reinsert": reinsert, "at": at}
    model = {"init": str(tiny_bundle)}
    config = make_config(model=model, data=DATA, train=TRAIN, pruning={**chosen, "nodata": 0.5})
    result = train(config, tmp_path / "run", device="cpu")
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["teacher"]["bundle"] == str(tiny_bundle)
    assert f"teacher {tiny_bundle}: cvmh_unet_nano, soft labels of weight 0.5" in caplog.text
    assert f"pruning: 0.4 to 1 of the cells are kept, by {score}" in caplog.text
    bundle = load_bundle(result.bundle)
    assert bundle.card.settings["pruning"] == chosen
    assert bundle.card.scores["keep"] == describe(result.bundle)["scores"]["keep"] == 0.7
    before, after = load_file(tiny_bundle), load_file(result.bundle)
    parts = after.keys() - before.keys()
    assert before.keys() <= after.keys() and all(key.startswith("pruner.") for key in parts)
    assert bool(parts) == (reinsert != "frozen") and set(state["init"]["new_parts"]) == parts
    image = draw(1, 3, 96, 96)
    with torch.no_grad():
        assert not torch.equal(bundle.network(image, keep=0.3), bundle.network(image))


def test_a_stopped_run_goes_on_with_the_cells_that_it_would_have_left_out(
    tmp_path, make_config, same_weights
):
    def config():
        settings = {"nodata": 0.5, "reinsert": "null"}
        return make_config(data=DATA, train={**TRAIN, "epochs": 2}, pruning=settings)

    def stop(row):
        raise KeyboardInterrupt

    straight = train(config(), tmp_path / "straight", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train(config(), tmp_path / "stopped", device="cpu", report=stop)
    resumed = train(config(), tmp_path / "stopped", device="cpu", resume=True)
    assert same_weights(straight.bundle, resumed.bundle)


def test_a_bundle_that_chooses_cells_starts_a_run_that_does_not(tmp_path, make_config, tiny_bundle):
    settings = {"score": "confidence", "reinsert": "null"}
    first = make_config(model={"init": str(tiny_bundle)}, data=DATA, train=TRAIN, pruning=settings)
    pruned = train(first, tmp_path / "pruned", device="cpu").bundle
    second = make_config(model={"init": str(pruned)}, data=DATA, train=TRAIN)
    dense = train(second, tmp_path / "dense", device="cpu").bundle
    assert "keep" not in load_bundle(dense).card.scores
    assert load_file(dense).keys() == load_file(tiny_bundle).keys()
    third = make_config(
        model={"init": str(pruned)}, data=DATA, train=TRAIN, pruning={"distill": False}
    )
    train(third, tmp_path / "other", device="cpu")
    assert "teacher" not in json.loads((tmp_path / "other" / "run.json").read_text())


def test_crops_lose_the_data_and_the_labels_of_whole_cells():
    images, labels = draw(32, 3, 70, 96) + 1, torch.zeros(32, 70, 96, dtype=torch.long)
    thinned, masked = pruning(nodata=0.5).empty(images, labels, number=(1, 2), rank=0)
    is_lost = (thinned == 0).all(1)
    assert torch.equal(is_lost, masked == 255)
    assert torch.equal(thinned.where(~is_lost[:, None], images), images)
    active = cells_with_data(thinned)
    assert active.shape == (32, 3, 3)
    cells = active.repeat_interleave(32, 1)[:, :70].repeat_interleave(32, 2)
    assert torch.equal(cells, ~is_lost)
    assert 8 <= int((~active).flatten(1).any(1).sum()) <= 24
    assert bool(active.flatten(1).any(1).all())


def test_what_is_left_out_depends_on_the_number_of_the_batch_alone():
    images, labels = draw(4, 3, 128, 128) + 1, torch.zeros(4, 128, 128, dtype=torch.long)
    found = {
        name: pruning(nodata=1.0).empty(images, labels, number=number, rank=rank)[1]
        for name, number, rank in [
            ("one", (0, 1), 0),
            ("same", (0, 1), 0),
            ("next", (0, 2), 0),
            ("beside", (0, 1), 1),
        ]
    }
    assert torch.equal(found["one"], found["same"])
    assert not torch.equal(found["one"], found["next"])
    assert not torch.equal(found["one"], found["beside"])
    kept, labels_kept = pruning(nodata=0.0).empty(images, labels, number=(0, 1), rank=0)
    assert kept is images and labels_kept is labels


class Spy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images, grid, keep, trace=None):
        self.seen.append((grid, keep))
        return images


def test_the_share_is_drawn_for_each_batch_and_cells_without_data_are_none():
    images, spy = draw(2, 3, 64, 64) + 1, Spy()
    settings = pruning(keep=[0.5, 0.75], validate_keep=0.6)
    for step in range(200):
        settings.train(spy, images, number=(0, step))
    shares = [keep for _, keep in spy.seen]
    assert 0.5 <= min(shares) < 0.51 and 0.74 < max(shares) <= 0.75
    assert all(grid is WHOLE for grid, _ in spy.seen)
    images[0, :, 32:] = 0
    settings.train(spy, images, number=(0, 0))
    grid, again = spy.seen[-1]
    assert again == shares[0] and isinstance(grid, MaskedGrid)
    assert grid.active_BGG.flatten(1).tolist() == [[True, True, False, False], [True] * 4]
    settings.validate(spy, images)
    assert spy.seen[-1][1] == 0.6


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"model": {"name": "unet_resnet18"}}, "network 'unet_resnet18' cannot choose cells; use"),
        ({"train": {"devices": 2}}, "pruning takes the statistics of batch norms over the cells"),
    ],
)
def test_a_run_that_cannot_leave_out_cells_is_refused(
    tmp_path, make_config, monkeypatch, groups, message
):
    monkeypatch.setenv("LOCAL_RANK", "0")
    model = groups.get("model")
    config = make_config(pruning={}, **({} if model else groups))
    if model:
        config = config.model_copy(update={"model": config.model.model_copy(update=model)})
    with pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pruning": {"keep": [0.0, 1.0]}}, "'pruning.keep': must be two shares above 0 and up"),
        ({"pruning": {"keep": [0.9, 0.4]}}, "'pruning.keep': must be two shares above 0 and up"),
        ({"pruning": {"keep": [1, 1]}}, "'pruning.keep': must be two shares above 0 and up"),
        ({"pruning": {"keep": 0.5}}, "'pruning.keep': must be two shares .* first, got 0.5$"),
        ({"pruning": {"keep": [0.4]}}, r"'pruning.keep': must be two shares .* got \[0.4\]$"),
        ({"pruning": {"keep": [0.4, 0.5, 1]}}, "'pruning.keep': must be two shares above 0"),
        ({"pruning": {"keep": None}}, "'pruning.keep': must be two shares .* first, got None$"),
        ({"pruning": {"validate_keep": 1.5}}, "'pruning.validate_keep'"),
        ({"pruning": {"auxiliary": float("inf")}}, "'pruning.auxiliary': .* finite .*, got inf"),
        ({"pruning": {"auxiliary": float("nan")}}, "'pruning.auxiliary': .* finite .*, got nan"),
        ({"pruning": {"kep": [0.4, 1.0]}}, "unknown key 'pruning.kep'; did you mean"),
        ({"pruning": {"score": "norm"}}, "'pruning.score': input should be 'clipped_output'"),
        ({"model": {"settings": {"pruning": {}}}}, "'pruning' stands beside model"),
    ],
)
def test_a_wrong_setting_is_told_in_one_sentence(content, message):
    with pytest.raises(ConfigError, match=message):
        validate(RunConfig, content, source="test")


def test_null_tokens_are_chosen_by_the_bare_word(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("pruning: {reinsert: null}\n")
    assigned = validate(RunConfig, parse_assignment("pruning.reinsert=null"), source="test")
    read = RunConfig.read(path)
    path.write_text(read.to_yaml())
    for config in (assigned, read, RunConfig.read(path)):
        assert config.pruning is not None and config.pruning.reinsert == "null"
