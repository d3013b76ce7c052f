import json
from types import SimpleNamespace

import pytest
from torch import nn

from cvmh.models.cost import Cost
from cvmh.models.encoders import ENCODERS, FAMILIES
from cvmh.models.zoo import PRESETS

COST = Cost(
    parameters=30_840_000,
    leaf_parameters=1,
    # 5.71 where it is rounded once, 5.72 by way of 5.715.
    macs=5_714_999_999,
    scan_flops=10**9,
    flops=7 * 10**9,
)


@pytest.fixture(autouse=True)
def cheap_costs(monkeypatch):
    """Count nothing: building and running the large networks takes seconds."""
    monkeypatch.setattr("cvmh.models.cost.count_cost", lambda network, **size: COST)
    monkeypatch.setattr("cvmh.models.zoo.create_model", lambda name: name)
    encoder = SimpleNamespace(
        parameters=lambda: [nn.Parameter()],
        widths=[16],
        norms=[None],
        settings=SimpleNamespace(width=16),
    )
    monkeypatch.setattr("cvmh.models.encoders.create_encoder", lambda name: encoder)


def test_every_network_and_every_encoder_is_listed(cvmh, monkeypatch):
    # What a pipe gets.
    monkeypatch.setenv("COLUMNS", "80")
    outcome = cvmh("models")
    assert (outcome.code, outcome.stderr) == (0, "")
    lines = [line.split() for line in outcome.stdout.splitlines() if line.strip()]
    assert [line[0] for line in lines if line[0] in PRESETS] == list(PRESETS)
    assert [line[0] for line in lines if line[0] in ENCODERS] == list(ENCODERS)
    assert lines[1][:5] == ["cvmh_unet", "30.84", "M", "5.71", "1.00"]
    rows = {line[0]: line[1:] for line in lines if line[0] in ENCODERS}
    assert rows["vmamba_tiny_s1l8"] == ["0.00", "7.00", "30.25", "4.9", "82.6", "47.9"]
    assert rows["vim2_base"] == ["0.00", "7.00", "about", "74.00", "-", "83.9", "-"]
    for name, preset in PRESETS.items():
        published = f"; published: {preset.published}" if preset.published else ""
        assert f"{name}: {preset.source}{published}\n" in outcome.stdout
    for family in FAMILIES:
        assert f"{family.name}: {family.source}; {family.licence}\n" in outcome.stdout


def test_the_table_as_json_has_a_row_for_every_network_and_encoder(cvmh):
    rows = json.loads(cvmh("models", "--json").stdout)
    assert [row["name"] for row in rows] == [*PRESETS, *ENCODERS]
    for row in rows[: len(PRESETS)]:
        assert (row["kind"], row["parameters"], row["gmacs"]) == (
            "network",
            30_840_000,
            5.714999999,
        )
        assert row["source"] == PRESETS[row["name"]].source
    for row in rows[len(PRESETS) :]:
        family = ENCODERS[row["name"]]
        assert (row["kind"], row["gflops"], row["licence"]) == ("encoder", 7.0, family.licence)
        assert row["published"] == family.variants[row["name"]].published._asdict()
