from pathlib import Path

import pytest
from pydantic import ValidationError

from cvmh.config import RunConfig
from cvmh.errors import ConfigError
from cvmh.models.cvmh_unet import FIXED_NEEDS_ALL, CVMHUNetSettings
from cvmh.settings import Layer, merge, parse_assignment, read_yaml, validate, validate_layers


def message_of(action):
    with pytest.raises(ConfigError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


def check(content):
    return validate(RunConfig, content, source="here")


@pytest.mark.parametrize(
    ("content", "key", "hint"),
    [
        ({"trian": {}}, "trian", "did you mean 'train'?"),
        ({"train": {"epoch": 3}}, "train.epoch", "did you mean 'train.epochs'?"),
        ({"data": {"tiles": 3}}, "data.tiles", "did you mean 'data.tile'?"),
        ({"augment": {"noice": 0}}, "augment.noice", "did you mean 'augment.noise'?"),
        ({"zzz": 1}, "zzz", "known keys here are model, data, augment, train, pruning"),
        (
            {"model": {"zzz": 1}},
            "model.zzz",
            "known keys here are name, settings, init, pretrained, freeze_encoder",
        ),
    ],
)
def test_an_unknown_key_is_refused_and_the_nearest_right_one_named(content, key, hint):
    assert message_of(lambda: check(content)) == f"here: unknown key '{key}'; {hint}"


@pytest.mark.parametrize(
    ("content", "key", "came"),
    [
        ({"train": {"epochs": "many"}}, "'train.epochs'", "got 'many'"),
        ({"train": {"epochs": 0}}, "'train.epochs'", "got 0"),
        ({"train": {"epochs": 2.5}}, "'train.epochs'", "got 2.5"),
        ({"train": {"warmup": 1}}, "'train.warmup'", "got 1"),
        ({"train": {"precision": "8"}}, "'train.precision'", "got '8'"),
        ({"train": {"minutes": 0}}, "'train.minutes'", "got 0"),
        ({"data": {"tile": 16}}, "'data.tile'", "got 16"),
        ({"data": {"bands": [1, "red"]}}, "'data.bands.1'", "got 'red'"),
        ({"data": 3}, "'data'", "got 3"),
        ({"augment": {"flips": 1.5}}, "'augment.flips'", "got 1.5"),
        ({"model": {"settings": [1]}}, "'model.settings'", "got [1]"),
        ({"model": {"settings": {"bands": 4}}}, "'model.settings'", "got {'bands': 4}"),
        ({1: 2}, "'1'", ""),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_came(content, key, came):
    message = message_of(lambda: check(content))
    assert message.startswith(f"here: {key}: ")
    assert message.endswith(came)


def test_a_value_in_the_place_of_a_group_is_refused_with_the_keys_of_the_group():
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, {"train": {"loss": "dice"}}, source="test")
    assert str(caught.value) == (
        "test: 'train.loss': must be keys with values; its keys are cross_entropy, dice, focal, "
        "lovasz, ohem, boundary, got 'dice'"
    )


@pytest.mark.parametrize(
    ("model", "content", "message"),
    [
        (
            RunConfig,
            {"train": {"distill": {"temperature": 2}}},
            "test: 'train.distill': temperature is of kind 'soft'; set kind to soft, or leave it "
            "out",
        ),
        (
            CVMHUNetSettings,
            {"dct_size": "fixed", "pruning": {}},
            f"test: pruning is not possible: {FIXED_NEEDS_ALL}",
        ),
    ],
)
def test_what_does_not_go_together_is_said_without_all_that_the_group_holds(
    model, content, message
):
    with pytest.raises(ConfigError) as caught:
        validate(model, content, source="test")
    assert str(caught.value) == message


def test_settings_cannot_be_changed_after_they_were_checked():
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().train.epochs = 3


def test_an_empty_file_gives_the_defaults(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("# nothing but this\n", encoding="utf-8")
    assert RunConfig.read(path) == RunConfig()


def test_settings_survive_a_file(tmp_path):
    written = check(
        {
            "model": {"name": "cvmh_unet_nano", "settings": {"widths": [8, 16, 32, 64]}},
            "data": {"root": "a folder/ä", "bands": [4, 1], "workers": 0},
            "augment": {"noise": 0.125},
            "train": {"learning_rate": 1e-4, "minutes": 1.5, "precision": "32", "patience": 2},
        }
    )
    path = tmp_path / "run.yaml"
    path.write_text(written.to_yaml(), encoding="utf-8")
    read = RunConfig.read(path)
    assert read == written
    assert read.data.root == Path("a folder/ä")
    assert read.data.bands == (4, 1)
    assert read.train.precision == "32"


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    assert message_of(lambda: read_yaml(path)) == f"config file {path} does not exist"


@pytest.mark.parametrize(
    "content",
    [
        b"train: [1, 2",
        b"a: b: c",
        b"\t- x",
        b"a: \xff\xfe",
        b"a: !!python/name:os.system",
        b"a: *b",
        # A date that no calendar has.
        b"a: 2024-13-77",
    ],
)
def test_broken_yaml_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    assert f"config file {path} cannot be read as YAML" in message_of(lambda: read_yaml(path))


def test_a_folder_is_not_a_config_file(tmp_path):
    assert str(tmp_path) in message_of(lambda: read_yaml(tmp_path))


@pytest.mark.parametrize(("text", "kind"), [("- 1\n", "list"), ("7\n", "int"), ("word\n", "str")])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text, kind):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    assert message_of(lambda: RunConfig.read(path)).endswith(f"'key: value' lines, got a {kind}")


def test_an_error_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("train: {epoch: 1}\n", encoding="utf-8")
    assert message_of(lambda: RunConfig.read(path)).startswith(f"{path}: unknown key 'train.epoch'")


@pytest.mark.parametrize(
    ("assignments", "source", "key"),
    [
        (("train.epochs=0",), "--set train.epochs=0", "train.epochs"),
        (("data.tile=64",), "run.yaml", "train.epochs"),
        (("train={}", "data.tile=64"), "run.yaml", "train.epochs"),
        (("train={epochs: x}", "train.seed=1"), "--set train={epochs: x}", "train.epochs"),
        (("train=3",), "--set train=3", "train"),
        (("train.epochs=1", "data.bands=[1,x]"), "--set data.bands=[1,x]", "data.bands.1"),
        (("train.epochs=1", "data.tiles=3"), "--set data.tiles=3", "data.tiles"),
        (("train.epochs=1", "zzz.a=1"), "--set zzz.a=1", "zzz"),
        (
            ("train.epochs=1", "train.distill.temperature=2", "train.distill.kind=hard"),
            "--set train.distill.temperature=2, --set train.distill.kind=hard",
            "train.distill",
        ),
    ],
)
def test_an_error_in_layers_names_the_one_that_the_value_is_of(assignments, source, key):
    layers = [
        Layer("run.yaml", {"train": {"epochs": "many"}}),
        Layer("options", {"train": {}}),
        *(Layer(f"--set {text}", parse_assignment(text)) for text in assignments),
    ]
    message = message_of(lambda: validate_layers(RunConfig, layers))
    assert message.startswith(f"{source}: ") and f"'{key}'" in message


def test_later_layers_win_key_by_key_and_no_layer_is_changed():
    first = {"train": {"epochs": 1, "seed": 2}, "data": {"tile": 64}}
    second = {"train": {"epochs": 3}, "model": {"name": "x"}}
    merged = merge(first, second, {"data": None})
    assert merged == {"train": {"epochs": 3, "seed": 2}, "data": None, "model": {"name": "x"}}
    merged["train"]["seed"] = 9
    merged["model"]["name"] = "y"
    assert first == {"train": {"epochs": 1, "seed": 2}, "data": {"tile": 64}}
    assert second == {"train": {"epochs": 3}, "model": {"name": "x"}}
    assert merge() == {}


def test_a_mapping_replaces_a_value_and_a_value_a_mapping():
    assert merge({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}
    assert merge({"a": {"b": 2}}, {"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "nested"),
    [
        ("train.epochs=3", {"train": {"epochs": 3}}),
        ("a=", {"a": None}),
        ("a=null", {"a": None}),
        ("a=[1, 2]", {"a": [1, 2]}),
        ("a={b: 1}", {"a": {"b": 1}}),
        ("a.b.c=yes please", {"a": {"b": {"c": "yes please"}}}),
        ("a=b=c", {"a": "b=c"}),
        (" a =x", {"a": "x"}),
    ],
)
def test_an_assignment_becomes_a_nested_mapping(text, nested):
    assert parse_assignment(text) == nested


def test_a_number_with_an_exponent_is_a_number():
    assert check(parse_assignment("train.learning_rate=1e-3")).train.learning_rate == 0.001


@pytest.mark.parametrize("text", ["epochs", "=3", ".a=3", "a.=3", "a..b=3", ""])
def test_a_malformed_assignment_is_refused(text):
    assert f"must be written key=value, for example train.epochs=3, got '{text}'" in message_of(
        lambda: parse_assignment(text)
    )


@pytest.mark.parametrize("value", ["[1", "{", "2024-13-77"])
def test_an_assignment_whose_value_is_not_yaml_is_refused(value):
    message = message_of(lambda: parse_assignment(f"train.epochs={value}"))
    assert message == f"the value of setting 'train.epochs' is not valid YAML, got '{value}'"
