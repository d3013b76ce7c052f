"""The module under Lightning's own trainer, with networks of a few weights."""

import copy
import warnings

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from cvmh.classes import ClassTable, SegClass
from cvmh.config import TrainSettings
from cvmh.models.zoo import create_model
from cvmh.train.module import SegmentationModule

CLASSES = ClassTable(
    (SegClass(id=0, name="a", rgb=(0, 0, 0)), SegClass(id=1, name="b", rgb=(9, 9, 9)))
)
PIXELWISE = {"cross_entropy": 1.0}


@pytest.fixture
def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))


def samples(count):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 8, 8, generator=generator)
    labels = torch.randint(0, 2, (count, 8, 8), generator=generator)
    return [(images[index], labels[index], index) for index in range(count)]


def fit(network, data, *, batch, epochs=1, **settings):
    """Train a copy of a network on batches in their order, and return the module."""
    settings = TrainSettings(**{"warmup": 0, "clip_gradient": 9, **settings})
    module = SegmentationModule(copy.deepcopy(network), CLASSES, settings)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        accumulate_grad_batches=module.settings.accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        trainer.fit(module, DataLoader(data, batch_size=batch))
    return module


def assert_same_weights(one, other, **tolerance):
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


def differ(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return any(not torch.equal(mine, theirs) for mine, theirs in pairs)


@pytest.mark.parametrize("count", [8, 10, 14], ids=["whole steps", "a half step", "a long step"])
def test_accumulated_batches_step_as_the_large_batch_does_also_in_the_last_step(network, count):
    # With 4 batches of 2 a step, 10 samples leave one batch, and 14 leave three.
    data = samples(count)
    common = {"learning_rate": 0.05, "loss": PIXELWISE, "epochs": 2}
    accumulated = fit(network, data, batch=2, accumulate=4, **common)
    large = fit(network, data, batch=8, **common)
    assert accumulated.global_step == large.global_step
    assert_same_weights(accumulated.network, large.network, rtol=1e-4, atol=1e-5)


class EncoderAndHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, images):
        return self.head(self.encoder(images))


def test_the_learning_rate_of_a_group_is_the_schedule_times_its_factor():
    module = fit(EncoderAndHead(), samples(2), batch=2, encoder_rate=0.1, learning_rate=0.01)
    rates = {group["factor"]: group["lr"] for group in module.optimizers().param_groups}
    assert rates == pytest.approx({1.0: 0.01, 0.1: 0.001})


def test_the_average_moves_once_a_step_and_not_once_a_batch(network):
    module = fit(network, samples(8), batch=2, accumulate=2, ema=0.9)
    assert module.average.n_averaged == module.global_step == 2
    assert module.kept is module.average.module
    assert differ(module.kept, module.network)


def test_gradients_whose_norm_alone_is_too_large_for_a_number_do_not_stop_a_run(network):
    # Each is finite, the square of some is not; clipping takes them all to zero.
    large = [(image * 1e30, label, index) for image, label, index in samples(2)]
    module = fit(network, large, batch=2, loss=PIXELWISE)
    assert all(parameter.isfinite().all() for parameter in module.network.parameters())


@pytest.mark.parametrize("ema", [None, 0.5])
def test_processes_validate_one_network_with_one_set_of_statistics(network, ema, monkeypatch):
    shared = []
    monkeypatch.setattr("cvmh.train.module.share_statistics", shared.append)
    module = SegmentationModule(network, CLASSES, TrainSettings(ema=ema))
    module.on_validation_start()
    assert {id(part) for part in shared} == {id(module.network), id(module.kept)}


def test_without_an_average_the_network_itself_is_kept(network):
    module = fit(network, samples(2), batch=2)
    assert module.kept is module.network


def test_a_step_in_bfloat16_is_finite_and_near_that_of_float32():
    torch.manual_seed(0)
    small = {
        "widths": [8, 8, 16, 16],
        "encoder_depths": [1, 1, 1, 1],
        "decoder_depths": [1, 1, 1, 1],
        "num_frequencies": 2,
        "stem_widths": [8, 16],
    }
    network = create_model("cvmh_unet_nano", num_classes=2, **small).train()
    labels = torch.randint(0, 2, (4, 8, 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    images = 2.0 * labels[:, None] - 1 + 0.1 * torch.randn(4, 3, 64, 64)
    module = SegmentationModule(network, CLASSES, TrainSettings())
    losses, gradients = [], []
    for is_half in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half):
            losses.append(module.loss(network(images), labels))
        losses[-1].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(*losses, rtol=0.01, atol=0)
    # A change of all weights in their ninth bit, where bfloat16 ends, turns the gradient of a
    # network that has learnt nothing yet as far.
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.6


@pytest.mark.slow
def test_a_compiled_network_learns_and_keeps_the_names_of_its_weights(network):
    compiler = torch._inductor.cpp_builder
    try:
        compiler.get_cpp_compiler()
    except compiler.exc.InvalidCxxCompiler:
        pytest.skip("no C++ compiler is here")
    common = {"learning_rate": 0.05, "loss": PIXELWISE, "ema": 0.9}
    plain = fit(network, samples(4), batch=2, **common)
    compiled = fit(network, samples(4), batch=2, compile=True, **common)
    assert compiled.kept.state_dict().keys() == network.state_dict().keys()
    assert_same_weights(compiled.kept, plain.kept, rtol=1e-3, atol=1e-4)
