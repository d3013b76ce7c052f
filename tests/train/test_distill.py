"""The loss of a teacher against NumPy, and networks that learn from one."""

import copy
import warnings

import lightning
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from cvmh.classes import ClassTable, SegClass
from cvmh.config import DistillSettings, TrainSettings
from cvmh.errors import ShapeError
from cvmh.train.distill import Distillation, distillation_loss, has_data
from cvmh.train.losses import SegmentationLoss
from cvmh.train.module import SegmentationModule

NAMES = "abc"
CLASSES = ClassTable(
    tuple(SegClass(id=i, name=name, rgb=(i, i, i)) for i, name in enumerate(NAMES))
)
SOFT = DistillSettings(kind="soft", temperature=3.0)
HARD = DistillSettings()


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def by_hand(logits, taught, is_counted, settings):
    """Return the loss pixel by pixel, from its formula."""
    logits, taught = (z.permute(0, 2, 3, 1).numpy() for z in (logits, taught))
    terms = []
    for own, wanted in zip(logits[is_counted], taught[is_counted], strict=True):
        if settings.kind == "hard":
            terms.append(np.log(np.exp(own).sum()) - own[wanted.argmax()])
            continue
        p, q = (np.exp(z / settings.temperature) for z in (own, wanted))
        p, q = p / p.sum(), q / q.sum()
        terms.append(settings.temperature**2 * (q * np.log(q / p)).sum())
    return np.mean(terms)


@pytest.mark.parametrize("settings", [HARD, SOFT], ids=["hard", "soft"])
def test_the_loss_is_that_of_its_formula_over_the_pixels_that_count(settings):
    logits, taught = draw(2, 3, 5, 4), draw(2, 3, 5, 4, seed=1)
    is_counted = draw(2, 5, 4, seed=2) > 0
    found = distillation_loss(logits, taught, is_counted, settings)
    expected = by_hand(logits, taught, is_counted.numpy(), settings)
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("settings", [HARD, SOFT], ids=["hard", "soft"])
def test_the_gradient_is_that_of_the_loss_and_none_flows_where_nothing_counts(settings):
    taught, is_counted = draw(1, 3, 2, 3, seed=1), torch.tensor([[[1, 0, 1], [0, 1, 1]]]) > 0
    logits = draw(1, 3, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: distillation_loss(z, taught, is_counted, settings), logits
    )
    distillation_loss(logits, taught, is_counted, settings).backward()
    assert (logits.grad.abs().sum(1) > 0).equal(is_counted)


@pytest.mark.parametrize("settings", [HARD, SOFT], ids=["hard", "soft"])
def test_a_batch_without_data_gives_zero(settings):
    logits = draw(1, 3, 2, 2).requires_grad_()
    loss = distillation_loss(logits, draw(1, 3, 2, 2), torch.zeros(1, 2, 2) > 0, settings)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_a_soft_loss_is_zero_where_both_agree_and_a_hard_one_is_not():
    logits = draw(1, 3, 2, 2)
    everywhere = torch.ones(1, 2, 2) > 0
    assert distillation_loss(logits, logits, everywhere, SOFT) == pytest.approx(0, abs=1e-12)
    assert distillation_loss(logits, logits, everywhere, HARD) > 0


class Answer(nn.Module):
    """Answers what it was told, and notes whether it was in eval mode and had gradients."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, torch.is_grad_enabled()))
        return self.logits


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_the_objective_weighs_labels_and_teacher_and_counts_unlabelled_pixels_that_have_data(
    weight,
):
    images, logits, taught = draw(1, 2, 4, 4), draw(1, 3, 4, 4), draw(1, 3, 4, 4, seed=1)
    images[:, :, 0] = 0
    # One band alone that is 0 is a value.
    images[:, 0, 1] = 0
    labels = torch.full((1, 4, 4), 255)
    labels[0, 3] = torch.tensor([0, 1, 2, 1])
    is_counted = np.ones((1, 4, 4), dtype=bool)
    is_counted[:, 0] = False
    assert has_data(images).numpy().tolist() == is_counted.tolist()
    loss = SegmentationLoss({"cross_entropy": 1.0}.items())(logits, labels)
    teacher = Answer(taught)
    settings = DistillSettings(weight=weight)
    mixed = Distillation(teacher, settings).mix(loss, images, logits)
    expected = (1 - weight) * loss + weight * by_hand(logits, taught, is_counted, settings)
    assert mixed.item() == pytest.approx(expected.item(), rel=1e-12)
    assert teacher.seen == [(False, False)]


def test_a_teacher_whose_answer_has_another_shape_is_refused():
    logits = draw(1, 3, 4, 4)
    with pytest.raises(ShapeError, match=r"shape \(1, 3, 4, 4\), as the network does, got \(1, 2"):
        Distillation(Answer(draw(1, 2, 4, 4)), HARD).mix(logits.sum(), logits, logits)


def fit(network, data, *, teacher=None, **settings):
    settings = TrainSettings(**{"warmup": 0, "clip_gradient": 9, **settings})
    module = SegmentationModule(copy.deepcopy(network), CLASSES, settings, teacher=teacher)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=settings.epochs,
        accumulate_grad_batches=settings.accumulate,
        precision="bf16-mixed" if settings.precision == "bf16" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        trainer.fit(module, DataLoader(data, batch_size=2))
    return module


def samples(count, *, labels=None):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 8, 8, generator=generator)
    if labels is None:
        labels = torch.randint(0, 3, (count, 8, 8), generator=generator)
    return [(images[index], labels[index], index) for index in range(count)]


@pytest.fixture
def teacher():
    torch.manual_seed(7)
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))


@pytest.fixture
def student():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.GELU(), nn.Conv2d(8, 3, 1))


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_network_that_only_a_teacher_teaches_comes_to_answer_as_it_does(
    teacher, student, kind, precision
):
    # Not a pixel of the data is labelled.
    data = samples(8, labels=torch.full((8, 8, 8), 255))
    images = torch.stack([image for image, _, _ in data])
    before = copy.deepcopy(teacher.state_dict())
    distill = {"weight": 1.0, "kind": kind}
    learnt = fit(
        student,
        data,
        teacher=teacher,
        epochs=40,
        learning_rate=0.03,
        precision=precision,
        ema=0.9,
        accumulate=2,
        distill=distill,
    )
    assert all(value.equal(before[key]) for key, value in teacher.state_dict().items())

    def agreement(network):
        with torch.no_grad():
            return (network(images).argmax(1) == teacher(images).argmax(1)).float().mean()

    assert agreement(student) < 0.7
    assert agreement(learnt.kept) > 0.97


def test_neither_checkpoint_nor_optimiser_knows_the_teacher(teacher, student):
    taught = fit(student, samples(2), teacher=teacher)
    alone = fit(student, samples(2))
    assert taught.state_dict().keys() == alone.state_dict().keys()
    numbers = [
        sum(p.numel() for group in module.optimizers().param_groups for p in group["params"])
        for module in (taught, alone)
    ]
    assert numbers[0] == numbers[1]


def test_a_teacher_changes_the_step_that_the_labels_alone_would_take(teacher, student):
    taught = fit(student, samples(2), teacher=teacher).network
    alone = fit(student, samples(2)).network
    assert not taught[0].weight.equal(alone[0].weight)
