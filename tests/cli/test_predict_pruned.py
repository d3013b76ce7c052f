"""What the last line of ``cvmh predict`` says of pruned tiles."""

from types import SimpleNamespace

import pytest

from cvmh.cli.predict import _tell_pruned


@pytest.mark.parametrize(
    ("saved", "words"), [(3.14, "saved about 3.1 s"), (-2.5, "cost about 2.5 s"), (None, None)]
)
def test_pruning_that_took_longer_than_dense_tiles_is_not_told_as_saved(saved, words, capsys):
    pruning = SimpleNamespace(
        tiles_pruned=3, mean_kept_share=0.5, estimated_seconds_saved=saved, sample=None
    )
    _tell_pruned(SimpleNamespace(pruning=pruning))
    told = capsys.readouterr().err
    assert told.startswith("cvmh: 3 tiles pruned, 50% of the cells")
    assert words in told if words else "about" not in told
