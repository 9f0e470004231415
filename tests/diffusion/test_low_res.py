"""The first epochs of a training may be at half the resolution."""

from dataclasses import replace

import pytest
import torch

import diffusion
from tests.helpers.diffusion import small
from utils.config import PRESETS
from utils.diffusion.denoiser import SIGMA_DATA, training_inputs
from utils.experiment import MARGIN, with_budget

SETTINGS = replace(PRESETS["diffusion"][0], batch_size=8, epochs=8, low_res=0.6)


def test_images_and_noise_are_averaged():
    """Images of half the size, and half the noise levels of the same density."""
    torch.manual_seed(0)
    model, images = small().eval(), torch.rand(64, 3, 8, 8)
    labels = torch.zeros(64, dtype=torch.long)
    torch.manual_seed(1)
    full = training_inputs(model, images, labels, SETTINGS)
    torch.manual_seed(1)
    half = training_inputs(model, images, labels, SETTINGS, low_res=True)
    expected = (2 * images - 1).unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    torch.testing.assert_close(half["x_0"], expected)
    torch.testing.assert_close(half["sigma"], full["sigma"] / 2)
    assert torch.equal(full["x_0"], 2 * images - 1)
    # White noise, averaged over 2 x 2 pixels, has half its level.
    noise = torch.nn.functional.avg_pool2d(torch.randn(200, 3, 8, 8), 2)
    assert noise.std().item() == pytest.approx(0.5, abs=0.02)
    assert full["sigma"].median().item() == pytest.approx(
        SIGMA_DATA * torch.tensor(SETTINGS.p_mean).exp().item(), rel=0.1
    )


def test_only_the_first_epochs_of_a_training_are_at_half_the_resolution(monkeypatch):
    """0.6 of eight are five; validation never is."""
    sizes, epoch = [], [0]
    monkeypatch.setattr(
        diffusion,
        "diffusion_loss_fn",
        lambda model, x_0, **_: sizes.append(len(x_0[0, 0])),
    )
    loss = diffusion.training_loss(SETTINGS, lambda: epoch[0])
    batch = small().train(), torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    for epoch[0] in range(8):
        loss(*batch)
    assert sizes == [4] * 5 + [8] * 3
    epoch[0] = 0
    loss(batch[0].eval(), *batch[1:])
    diffusion.training_loss(SETTINGS)(*batch)
    assert sizes[8:] == [8, 8]


def test_an_epoch_at_half_the_resolution_is_a_quarter_of_the_work(monkeypatch):
    """So a budget has room for more of them."""
    costs = [SETTINGS.epoch_cost(number) for number in range(8)]
    assert costs == [0.25] * 5 + [1] * 3
    monkeypatch.setattr("utils.experiment.seconds_per_step", lambda *_: 0.5)
    images = torch.zeros(16, 3, 8, 8), torch.zeros(16, dtype=torch.long)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*images), 8)
    found = with_budget(SETTINGS, 600.0, small(), loader, None)
    mean = 0.6 * 0.25 + 0.4
    assert found.epochs == int(MARGIN * 600 / (2 * 0.5 * mean))
