"""Forecasters and classifiers: any length, any number of variates, gaps, auxiliaries."""

import numpy as np
import pytest
import torch

from cvmh.errors import ConfigError, ShapeError
from cvmh.models.tsm2 import (
    ClassifierSettings,
    ForecasterSettings,
    TSM2Classifier,
    TSM2Forecaster,
)
from cvmh.models.tsm2.series import patches, read_series
from cvmh.settings import validate

SMALL = {"width": 8, "d_state": 2, "patch": 4, "depth": 1}


def forecaster(**settings):
    torch.manual_seed(0)
    return TSM2Forecaster(ForecasterSettings(**{**SMALL, "horizon": 5, **settings})).eval()


def classifier(**settings):
    torch.manual_seed(0)
    return TSM2Classifier(ClassifierSettings(**{**SMALL, "num_classes": 3, **settings})).eval()


@pytest.mark.parametrize("variates", [1, 2, 7])
@pytest.mark.parametrize("steps", [1, 3, 4, 30, 33])
def test_any_number_of_variates_and_steps_works(variates, steps):
    series = torch.randn(2, variates, steps)
    auxiliaries = torch.randn(2, 3), torch.randn(2, 2, steps)
    common = {"variates": variates, "static": 3, "varying": 2}
    assert forecaster(**common)(series, *auxiliaries).shape == (2, variates, 5)
    assert classifier(**common)(series, *auxiliaries).shape == (2, 3)


def test_patches_end_with_the_series_and_begin_with_what_is_unknown():
    found = patches(torch.arange(1.0, 6.0).reshape(1, 1, 5, 1), 3)
    assert found[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_series_is_scaled_by_what_is_known_and_brought_back():
    values = torch.tensor([[[1.0, np.nan, 3.0], [5.0, 5.0, np.nan], [np.nan] * 3]])
    read = read_series(values, is_scaled=True)
    assert read.values[0].tolist() == [[-1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert read.is_known.equal(~values.isnan())
    back = read.unscale(read.values)
    assert back[read.is_known].equal(values[read.is_known])


def test_rounding_is_not_taken_for_the_course_of_a_constant_series():
    values = torch.full((1, 1, 97), 0.1) * (1 + 1e-7 * torch.randn(97))
    assert read_series(values, is_scaled=True).values.abs().max() < 1e-6


def test_gaps_are_not_values_and_leave_the_gradients_finite():
    network = forecaster(variates=2)
    series = torch.randn(3, 2, 20)
    series[0, :, 5:9] = np.nan
    series[1, 1] = np.nan
    found = network(series)
    found.sum().backward()
    assert found.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    # A gap is another thing than the mean of the series in its place.
    filled = series.clone()
    filled[0, :, 5:9] = series[0, :, [*range(5), *range(9, 20)]].mean(1, keepdim=True)
    assert not network(filled)[0].allclose(found[0])


def test_missing_auxiliaries_count_as_their_mean():
    network = classifier(static=2, varying=1)
    series, static, varying = torch.randn(1, 1, 8), torch.zeros(1, 2), torch.zeros(1, 1, 8)
    found = network(series, torch.full_like(static, np.nan), torch.full_like(varying, np.nan))
    assert found.equal(network(series, static, varying))


def test_a_forecast_follows_the_units_of_its_series():
    network = forecaster(variates=2)
    series = torch.randn(3, 2, 20, dtype=torch.float64)
    found = network.double()(series)
    torch.testing.assert_close(network(100 * series + 7), 100 * found + 7, rtol=1e-9, atol=1e-9)


def test_the_auxiliaries_of_every_kind_matter_at_their_own_time():
    network = forecaster(variates=2, static=1, varying=2)
    series, static, varying = torch.randn(1, 2, 8), torch.randn(1, 1), torch.randn(1, 2, 8)
    found = network(series, static, varying)
    assert not network(series, static + 1, varying).allclose(found)
    assert not network(series, static, varying + 1).allclose(found)
    # The embedding of a patch knows the varying auxiliaries of its own steps alone.
    seen = []
    network.trunk.embed.register_forward_hook(lambda module, inputs, output: seen.append(output))
    later = varying.clone()
    later[..., 5] += 1
    network(series, static, varying)
    network(series, static, later)
    differs = (seen[0] != seen[1]).any(dim=-1)
    assert differs[0].tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize("make", [forecaster, classifier])
def test_gradients_are_right_through_the_whole_network(make):
    network = make(variates=2, static=1, varying=1, width=3, patch=2).double()
    inputs = [torch.randn(1, *shape, dtype=torch.float64) for shape in [(2, 3), (1,), (1, 3)]]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(network, inputs, atol=1e-6)


@pytest.mark.parametrize("make", [forecaster, classifier])
def test_bf16_autocast_is_finite_and_near_float32(make):
    network, series = make(variates=3), torch.randn(4, 3, 22)
    series[series > 1] = np.nan
    with torch.autocast("cpu", torch.bfloat16):
        found = network(series)
    assert found.isfinite().all()
    torch.testing.assert_close(found.float(), network(series), rtol=0.1, atol=0.1)


def test_it_can_be_compiled_as_one_graph():
    network = forecaster(variates=2, static=1, varying=1)
    inputs = torch.randn(2, 2, 10), torch.randn(2, 1), torch.randn(2, 1, 10)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), network(*inputs))


def test_a_sample_does_not_depend_on_its_batch():
    network, series = forecaster(variates=2), torch.randn(4, 2, 20)
    torch.testing.assert_close(network(series)[1:2], network(series[1:2]))


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        ([(2, 3, 8), (2, 1), (2, 2, 8)], r"series must be \(B, 2, T\) with T above 0, got \(2, 3"),
        ([(2, 8), (2, 1), (2, 2, 8)], r"series must be \(B, 2, T\)"),
        ([(2, 2, 0), (2, 1), (2, 2, 0)], r"T above 0"),
        ([(2, 2, 8), None, (2, 2, 8)], r"static must be \(2, 1\) with settings.static 1, got None"),
        ([(2, 2, 8), (2, 4), (2, 2, 8)], r"static must be \(2, 1\) .* got \(2, 4\)"),
        ([(2, 2, 8), (2, 1), (2, 2, 7)], r"varying must be \(2, 2, 8\) .* got \(2, 2, 7\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_one_sentence(shapes, match):
    network = forecaster(variates=2, static=1, varying=2)
    with pytest.raises(ShapeError, match=match):
        network(*(None if shape is None else torch.zeros(shape) for shape in shapes))


def test_an_auxiliary_that_the_settings_do_not_name_is_refused():
    with pytest.raises(ShapeError, match=r"static must be left out with settings.static 0"):
        forecaster()(torch.zeros(2, 1, 8), torch.zeros(2, 1))


def test_a_setting_that_is_misspelt_is_named():
    with pytest.raises(ConfigError, match="did you mean 'horizon'"):
        validate(ForecasterSettings, {"horizons": 3, "horizon": 3}, source="here")
