import json

import pytest

from cvmh.models.cost import Cost
from cvmh.models.zoo import PRESETS


@pytest.fixture(autouse=True)
def cheap_costs(monkeypatch):
    """Count nothing: building and running the large networks takes seconds."""
    cost = Cost(
        parameters=30_840_000, leaf_parameters=1, macs=5_710_000_000, scan_flops=10**9, flops=7 * 10**9
    )
    monkeypatch.setattr("cvmh.models.cost.count_cost", lambda network, **size: cost)
    monkeypatch.setattr("cvmh.models.zoo.create_model", lambda name: name)


def test_every_network_is_listed(cvmh, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    outcome = cvmh("models")
    assert (outcome.code, outcome.stderr) == (0, "")
    lines = [line.split() for line in outcome.stdout.splitlines()]
    assert [line[0] for line in lines if line[0] in PRESETS] == list(PRESETS)
    assert lines[1][:5] == ["cvmh_unet", "30.84", "M", "5.71", "1.00"]


def test_the_table_as_json_has_a_row_for_every_network(cvmh):
    rows = json.loads(cvmh("models", "--json").stdout)
    assert [row["name"] for row in rows] == list(PRESETS)
    for row in rows:
        assert (row["parameters"], row["gmacs"]) == (30_840_000, 5.71)
        assert row["source"] == PRESETS[row["name"]].source
