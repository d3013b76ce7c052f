"""The doctor opens every layout of the known data sets, and finds no fault in their labels."""

import pytest

from cvmh.datasets import KNOWN
from cvmh.datasets.doctor import examine

LAYOUTS = [(known.name, layout.name) for known in KNOWN.values() for layout in known.layouts]
# Fakes have few images, in which a class may be missing, and some lie beside each other.
EXPECTED = {
    "alpha-is-data",
    "class-not-trained",
    "class-not-validated",
    "eroded-labels",
    "not-opened",
    "rare-class",
    "touching-splits",
}


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_the_doctor_reads_every_layout(fake_set, name, layout):
    diagnosis = examine(name, fake_set(name, layout))
    assert {finding.code for finding in diagnosis.findings} <= EXPECTED
    assert diagnosis.examination.data.layout == layout
    assert all(facts.labels.labelled for facts in diagnosis.examination.images)
    incomplete = [finding for finding in diagnosis.findings if finding.code == "not-opened"]
    assert all("is not complete" in finding.what for finding in incomplete)
