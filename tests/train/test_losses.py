"""Every term against a computation by hand, pixel by pixel in float64."""

import math

import numpy as np
import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss
from torch.nn import functional

from cvmh.config import LossSettings
from cvmh.train.losses import SegmentationLoss

TERMS = tuple(LossSettings.model_fields)
WEIGHTS = (1.0, 0.25, 3.0, 2.0)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, 4, 9, 8, generator=generator)
    # Class 3 is in no label; classes lie in patches, so that they have borders.
    labels = torch.randint(0, 3, (2, 3, 4), generator=generator)
    labels = labels.repeat_interleave(3, dim=1).repeat_interleave(2, dim=2)
    labels[0, :2] = 255
    return logits, labels


def loss_of(**terms):
    options = {
        name: terms.pop(name) for name in ("class_weights", "label_smoothing") & terms.keys()
    }
    return SegmentationLoss(LossSettings(**terms), **options)


def pixels_of(logits, labels):
    """Yield the class and the softmax of each labelled pixel."""
    values = logits.numpy().astype("float64")
    for image, row, column in np.argwhere(labels.numpy() != 255):
        powers = np.exp(values[image, :, row, column])
        yield int(labels[image, row, column]), powers / powers.sum()


def cross_entropy_by_hand(logits, labels, weights=(1, 1, 1, 1), smoothing=0.0):
    total = count = 0.0
    for true, shares in pixels_of(logits, labels):
        wanted = np.full(4, smoothing / 4)
        wanted[true] += 1 - smoothing
        total -= (np.array(weights) * wanted * np.log(shares)).sum()
        count += weights[true]
    return total / count


def dice_by_hand(logits, labels):
    common, found, labelled = np.zeros((3, 4))
    for true, shares in pixels_of(logits, labels):
        common[true] += shares[true]
        found += shares
        labelled[true] += 1
    # The mean is over all classes, and a class without a label adds nothing.
    return np.where(labelled > 0, 1 - 2 * common / (found + labelled), 0).mean()


def focal_by_hand(logits, labels):
    values = logits.numpy().astype("float64")
    losses = []
    for image, row, column in np.argwhere(labels.numpy() != 255):
        for number in range(4):
            share = 1 / (1 + math.exp(-values[image, number, row, column]))
            is_true = labels[image, row, column] == number
            right = share if is_true else 1 - share
            losses.append(-((1 - right) ** 2) * math.log(right))
    return sum(losses) / len(losses)


def lovasz_by_hand(logits, labels):
    """Sum the errors of a class, largest first, times the IoU that each one costs."""
    pixels = list(pixels_of(logits, labels))
    losses = []
    for number in {true for true, _ in pixels}:
        errors = sorted(
            ((abs((true == number) - shares[number]), true == number) for true, shares in pixels),
            key=lambda pair: -pair[0],
        )
        size = sum(is_true for _, is_true in errors)
        loss = before = missed = false = 0.0
        for error, is_true in errors:
            missed, false = missed + is_true, false + (not is_true)
            cost = 1 - (size - missed) / (size + false)
            loss, before = loss + error * (cost - before), cost
        losses.append(loss)
    return sum(losses) / len(losses)


def ohem_by_hand(logits, labels):
    return np.mean([-np.log(s[true]) for true, s in pixels_of(logits, labels) if s[true] < 0.7])


def window(image, row, column, reach):
    top, left = max(0, row - reach), max(0, column - reach)
    return image[top : row + reach + 1, left : column + reach + 1]


def widened(image, reach):
    return np.array(
        [
            [window(image, r, c, reach).max() for c in range(image.shape[1])]
            for r in range(len(image))
        ]
    )


def boundary_by_hand(logits, labels):
    powers = np.exp(logits.numpy().astype("float64"))
    shares, truth = powers / powers.sum(axis=1, keepdims=True), labels.numpy()
    losses = []
    for number in range(4):
        hit_found = sum_found = hit_true = sum_true = 0.0
        for image in range(len(truth)):
            is_known = (truth[image] != 255).astype(float)
            counts = 1 - widened(1 - is_known, 1)
            true = (truth[image] == number).astype(float)
            found = shares[image, number] * is_known
            true, found = (counts * (widened(1 - y, 1) - (1 - y)) for y in (true, found))
            hit_found += (found * widened(true, 2)).sum()
            hit_true += (true * widened(found, 2)).sum()
            sum_found, sum_true = sum_found + found.sum(), sum_true + true.sum()
        if sum_true:
            precision, recall = hit_found / sum_found, hit_true / sum_true
            losses.append(1 - 2 * precision * recall / (precision + recall))
    return sum(losses) / len(losses)


BY_HAND = {
    "cross_entropy": cross_entropy_by_hand,
    "dice": dice_by_hand,
    "focal": focal_by_hand,
    "lovasz": lovasz_by_hand,
    "ohem": ohem_by_hand,
    "boundary": boundary_by_hand,
}


@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_what_a_computation_pixel_by_pixel_gives(batch, term):
    assert loss_of(**{term: 1})(*batch).item() == pytest.approx(BY_HAND[term](*batch), rel=1e-5)


def test_a_loss_is_the_weighted_sum_of_its_terms(batch):
    weights = {"cross_entropy": 0.5, "dice": 2, "boundary": 0.1}
    wanted = sum(weight * BY_HAND[term](*batch) for term, weight in weights.items())
    assert loss_of(**weights)(*batch).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_takes_weights_and_smoothing_as_torch_does(batch, smoothing):
    loss = loss_of(cross_entropy=1, class_weights=WEIGHTS, label_smoothing=smoothing)(*batch)
    assert loss.item() == pytest.approx(cross_entropy_by_hand(*batch, WEIGHTS, smoothing), rel=1e-5)
    theirs = functional.cross_entropy(
        *batch, weight=torch.tensor(WEIGHTS), ignore_index=255, label_smoothing=smoothing
    )
    torch.testing.assert_close(loss, theirs)


def test_dice_is_that_of_smp(batch):
    theirs = DiceLoss("multiclass", ignore_index=255)(*batch)
    torch.testing.assert_close(loss_of(dice=1)(*batch), theirs)


@pytest.mark.parametrize("term", ["cross_entropy", "ohem"])
def test_pixels_of_a_class_of_weight_zero_count_as_unlabelled(batch, term):
    logits, labels = batch
    loss = loss_of(**{term: 1}, class_weights=(1, 0, 1, 1), label_smoothing=0.1)
    fewer = torch.where(labels == 1, 255, labels)
    torch.testing.assert_close(loss(logits, labels), loss(logits, fewer))
    assert loss(logits, torch.full_like(labels, 1)) == 0


def test_of_an_easy_batch_ohem_takes_the_hardest_share():
    truth = torch.zeros(1, 8, 8, dtype=torch.int64)
    logits = torch.zeros(1, 2, 8, 8)
    # All above 0.7 for the true class, the four hardest of 64 at the end.
    logits[:, 0] = torch.linspace(9, 1, 64).view(8, 8)
    hardest = functional.cross_entropy(logits, truth, reduction="none").flatten().topk(4).values
    torch.testing.assert_close(loss_of(ohem=1)(logits, truth), hardest.mean())


def test_a_border_in_the_right_place_costs_less_than_one_that_lies_beside_it():
    truth = torch.zeros(1, 24, 24, dtype=torch.int64)
    truth[:, :, 12:] = 1
    losses = []
    for shift in (0, 1, 4):
        shares = functional.one_hot(truth.roll(-shift, dims=2), 2).permute(0, 3, 1, 2)
        losses.append(loss_of(boundary=1)(40.0 * shares, truth).item())
    assert losses[0] == pytest.approx(0, abs=1e-5)
    # Borders up to two pixels apart still match; beyond that they do not.
    assert losses[1] < 0.4 < losses[2]


def test_a_tile_of_one_class_has_no_border_and_costs_nothing():
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    loss = loss_of(boundary=1)(logits, torch.ones(1, 8, 8, dtype=torch.int64))
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


@pytest.mark.parametrize("term", ["cross_entropy", "dice", "ohem", "boundary"])
def test_gradients_of_what_we_wrote_are_those_of_finite_differences(batch, term):
    logits, labels = batch[0][:, :, :5, :4].double().requires_grad_(), batch[1][:, :5, :4]
    loss = loss_of(**{term: 1}, class_weights=WEIGHTS, label_smoothing=0.1)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits)


@pytest.mark.parametrize("term", TERMS)
def test_pixels_that_are_labelled_255_neither_count_nor_get_a_gradient(batch, term):
    logits, labels = batch
    logits.requires_grad_()
    loss = loss_of(**{term: 1})
    (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
    assert (gradient[0, :, :2] == 0).all() and gradient[0, :, 3:].any() and gradient[1].any()
    changed = logits.detach().clone()
    changed[0, :, :2] += torch.randn(4, 2, 8)
    torch.testing.assert_close(loss(changed, labels), loss(logits, labels).detach())


@pytest.mark.parametrize("term", TERMS)
def test_a_batch_without_labelled_pixels_has_loss_zero_and_gradients_zero(batch, term):
    logits = batch[0].requires_grad_()
    loss = loss_of(**{term: 1})(logits, torch.full_like(batch[1], 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("term", TERMS)
def test_one_labelled_pixel_gives_a_finite_loss_and_finite_gradients(batch, term):
    logits, labels = batch[0].requires_grad_(), torch.full_like(batch[1], 255)
    labels[0, 4, 4] = 2
    loss = loss_of(**{term: 1})(logits, labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("term", TERMS)
def test_logits_of_half_precision_are_summed_in_float32_also_under_autocast(batch, term):
    logits, labels = batch
    half, loss = logits.bfloat16(), loss_of(**{term: 1})
    wanted = loss(half.float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(half, labels) == loss(half.float(), labels) == wanted
