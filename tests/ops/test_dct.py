"""Cosine bases agree with scipy and hold the frequencies that were asked for."""

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given
from hypothesis import strategies as st

from cvmh.errors import ConfigError
from cvmh.ops import FCANET_TOP16, dct_basis, top_frequencies


@pytest.mark.parametrize("height, width", [(8, 8), (7, 12), (1, 5)])
def test_projection_on_the_basis_is_the_discrete_cosine_transform(height, width):
    frequencies = tuple((u, v) for u in range(height) for v in range(width))
    image = np.random.default_rng(0).standard_normal((height, width))
    expected = scipy.fft.dctn(image, type=2, norm="ortho")
    basis = dct_basis(frequencies, height, width).double().numpy()
    got = (basis * image).sum(axis=(1, 2)).reshape(height, width)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_without_scaling_the_constant_is_one_and_cosines_reach_almost_one():
    basis = dct_basis(((0, 0), (0, 1)), 4, 64, orthonormal=False)
    assert basis.dtype == torch.float32 and basis.shape == (2, 4, 64)
    assert (basis[0] == 1).all()
    assert 0.999 < float(basis[1].max()) < 1


def test_top_frequencies_scale_with_the_map():
    assert top_frequencies(16, 7, 8) == FCANET_TOP16
    assert top_frequencies(3, 14, 30) == ((0, 0), (0, 4), (12, 0))
    assert len(set(top_frequencies(32, 7, 7))) == 32


@given(st.integers(1, 32), st.integers(1, 40), st.integers(1, 40))
def test_top_frequencies_fit_every_map(num, height, width):
    frequencies = top_frequencies(num, height, width)
    assert dct_basis(frequencies, height, width).shape == (num, height, width)


def test_frequencies_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"with 0 <= u < 4 and 0 <= v < 5, got .*4, 0"):
        dct_basis(((0, 0), (4, 0)), 4, 5)
    with pytest.raises(ConfigError, match="num must be between 1 and 32 frequencies, got 33"):
        top_frequencies(33, 7, 7)
    with pytest.raises(ConfigError, match="height and width must be at least 1, got 0 x 7"):
        top_frequencies(3, 0, 7)
