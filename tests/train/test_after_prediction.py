import torch

from cvmh.ops import order_table
from cvmh.ops.dct import dct_basis


def test_what_a_prediction_leaves_in_the_caches_can_be_trained_with():
    with torch.inference_mode():
        tables = order_table("cs2d", 3, 37), dct_basis(((0, 0), (1, 2)), 3, 37)
    assert not any(table.is_inference() for table in tables)
