import numpy as np
import pytest
import torch

from cvmh.train.losses import SegmentationLoss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    # Class 3 is in no label.
    labels = torch.randint(0, 3, (2, 5, 6), generator=generator)
    labels[0, :2] = 255
    return logits, labels


def probabilities(logits, labels):
    """Softmax (pixels, classes) and ids (pixels,) of the labelled pixels, in float64."""
    values = logits.numpy().astype("float64").transpose(0, 2, 3, 1)[labels.numpy() != 255]
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True), labels[labels != 255].numpy()


def cross_entropy_by_hand(logits, labels):
    shares, ids = probabilities(logits, labels)
    return -np.log(shares[np.arange(len(ids)), ids]).mean()


def dice_by_hand(logits, labels):
    shares, ids = probabilities(logits, labels)
    truth = np.eye(4)[ids]
    dice = 2 * (shares * truth).sum(axis=0) / (shares.sum(axis=0) + truth.sum(axis=0))
    # smp: the mean is over all classes, and a class without a label adds nothing.
    return np.where(truth.any(axis=0), 1 - dice, 0).mean()


@pytest.mark.parametrize(
    ("weights", "by_hand"),
    [
        ({"cross_entropy": 1, "dice": 0}, cross_entropy_by_hand),
        ({"cross_entropy": 0, "dice": 1}, dice_by_hand),
        (
            {"cross_entropy": 0.5, "dice": 2},
            lambda *batch: 0.5 * cross_entropy_by_hand(*batch) + 2 * dice_by_hand(*batch),
        ),
    ],
    ids=["cross_entropy", "dice", "both"],
)
def test_the_loss_is_what_a_hand_computation_over_labelled_pixels_gives(batch, weights, by_hand):
    assert SegmentationLoss(**weights)(*batch).item() == pytest.approx(by_hand(*batch), rel=1e-5)


def test_pixels_that_are_labelled_255_neither_count_nor_get_a_gradient(batch):
    logits, labels = batch
    logits.requires_grad_()
    loss = SegmentationLoss()(logits, labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[0, :, :2] == 0).all() and (gradient[0, :, 2:] != 0).all()
    changed = logits.detach().clone()
    changed[0, :, :2] += 10
    assert SegmentationLoss()(changed, labels) == loss


def test_a_batch_without_labelled_pixels_has_loss_zero_and_gradients_zero(batch):
    logits = batch[0].requires_grad_()
    loss = SegmentationLoss()(logits, torch.full((2, 5, 6), 255))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_logits_of_half_precision_are_summed_in_float32(batch):
    logits, labels = batch
    half = logits.bfloat16()
    assert SegmentationLoss()(half, labels) == SegmentationLoss()(half.float(), labels)
