import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from cvmh.errors import ConfigError
from cvmh.train.class_weights import class_weights

PIXELS = (600_000, 30_000, 0, 2_000)


def proportional(one, other):
    one, other = np.array(one), np.array(other)
    return np.allclose(one / one.sum(), other / other.sum(), rtol=1e-12)


def test_inverse_weights_are_those_that_scikit_learn_calls_balanced():
    labels = np.repeat(range(4), PIXELS)
    balanced = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    weights = class_weights("inverse", PIXELS)
    assert proportional([weights[0], weights[1], weights[3]], balanced)


def test_the_square_root_moderates_the_inverse():
    inverse, root = class_weights("inverse", PIXELS), class_weights("sqrt_inverse", PIXELS)
    assert proportional(np.sqrt(inverse), root)


def test_effective_numbers_are_the_sums_that_their_paper_defines():
    # E_n = 1 + beta + beta^2 + ... + beta^(n - 1), for whole numbers of samples.
    samples = (700, 20, 1, 4000)
    numbers = [sum(0.999**power for power in range(count)) for count in samples]
    weights = class_weights("effective", [count * 1024 for count in samples])
    assert proportional(weights, 1 / np.array(numbers))


@pytest.mark.parametrize("rule", ["inverse", "sqrt_inverse", "effective"])
def test_weights_are_one_on_average_and_zero_for_a_class_that_does_not_occur(rule):
    weights = class_weights(rule, PIXELS)
    assert weights[2] == 0
    assert sum(weights) == pytest.approx(3)
    assert weights[0] < weights[1] < weights[3]


def test_there_are_no_weights_where_none_are_wanted_or_nothing_is_labelled():
    assert class_weights("none", PIXELS) is None
    assert class_weights("inverse", (0, 0)) is None


def test_a_list_is_taken_as_it_is_and_must_fit_the_classes():
    assert class_weights((1.0, 0.0, 2.0, 1.0), PIXELS) == (1, 0, 2, 1)
    with pytest.raises(ConfigError, match=r"one number for each of 4 classes, got 2"):
        class_weights((1.0, 2.0), PIXELS)
