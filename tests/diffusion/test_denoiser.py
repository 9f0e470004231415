"""What the network is shown and asked for in training, against closed forms."""

import math
from dataclasses import replace

import pytest
import torch

from diffusion import diffusion_loss_fn, training_loss
from tests.helpers.diffusion import SIGMA_DATA, ideal_for, randomize_zeros, small
from tests.helpers.training import descend
from utils.config import DiffusionSettings
from utils.data.synthetic import draw_flowers
from utils.diffusion.denoiser import OBJECTIVES

SETTINGS = DiffusionSettings(epochs=1, lr=1e-3, optimizer="adamw", scheduler="constant")
every_objective = pytest.mark.parametrize("objective", OBJECTIVES)


def overheard(model):
    """Let the network answer zero -> list of what it is asked: (x, level, species)."""
    asked = []
    model.network.forward = lambda *call: (
        asked.append(call) or torch.zeros_like(call[0])
    )
    return asked


def photos_of(*values):
    """One-pixel photos in [0, 1] of these values, (N, 3, 1, 1)."""
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)


# The estimate ------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.01, 0.5, 40.0])
def test_the_network_sees_unit_variance_at_every_level(sigma):
    """Equation 7 of Karras et al. 2022, for photos of deviation 0.5."""
    model = small()
    asked = overheard(model)
    torch.manual_seed(0)
    sigmas = torch.full((2000,), sigma)
    x = SIGMA_DATA * torch.randn(2000, 3, 4, 4) + sigma * torch.randn(2000, 3, 4, 4)
    model.denoise(x, sigmas, torch.zeros(2000, dtype=int))
    shown, told, _ = asked[0]
    assert shown.var().item() == pytest.approx(1, rel=0.03)
    torch.testing.assert_close(told, sigmas / SIGMA_DATA)


def test_an_untrained_network_takes_the_likeliest_image():
    """It answers zero; by v that is the best guess that knows a variance alone."""
    model, x = small(objective="v"), torch.randn(3, 3, 4, 4)
    sigmas = torch.tensor([0.1, 0.5, 7.0])
    guess = x * SIGMA_DATA**2 / (SIGMA_DATA**2 + sigmas.view(-1, 1, 1, 1) ** 2)
    torch.testing.assert_close(model.denoise(x, sigmas), guess)


@every_objective
def test_the_ideal_estimate_is_the_same_by_every_objective(objective):
    """The mean over photos, by hand for two of them on a line."""
    model = ideal_for(small(objective=objective), 2 * photos_of(0.2, 0.7) - 1)
    sigmas = torch.tensor([0.05, 0.4, 3.0])
    x = torch.tensor([-0.4, 0.1, 2.0]).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    odds = (3 * ((x - 0.4) ** 2 - (x + 0.6) ** 2)[:, 0, 0, 0]) / (2 * sigmas**2)
    share = torch.sigmoid(odds)  # of the darker one, -0.6
    expected = (0.4 - share).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    torch.testing.assert_close(model.denoise(x, sigmas), expected, atol=1e-5, rtol=0)


# The loss at given levels ------------------------------------------------------


@every_objective
def test_a_perfect_answer_costs_nothing_and_a_blind_one_its_variance(objective):
    """Of the noise 1, of photos theirs in units of 0.25; v and flow by their lines.

    So all are of about unit size for photos of unit size, and one rate suits them.
    """
    torch.manual_seed(0)
    values, sigma = torch.rand(20_000) - 0.5, 0.8
    photos = values.view(-1, 1, 1, 1)
    model = small(objective=objective, img_channels=1)
    overheard(model)
    by = {"weight": objective}
    loss = diffusion_loss_fn(model, photos, sigma=torch.full((20_000,), sigma), **by)
    size = values.square().mean().item() / SIGMA_DATA**2
    angle = math.atan(sigma / SIGMA_DATA)
    sizes = {"eps": 1, "x0": size, "flow": 1 + size}
    sizes["v"] = math.cos(angle) ** 2 + math.sin(angle) ** 2 * size
    assert loss.shape == ()
    assert loss.item() == pytest.approx(sizes[objective], rel=0.05)
    ideal_for(model, photos[:1])
    alike = photos[:1].expand(50, -1, -1, -1)
    loss = diffusion_loss_fn(model, alike, sigma=torch.logspace(-1, 1, 50), **by)
    assert loss.item() == pytest.approx(0, abs=1e-6)


@every_objective
def test_every_objective_can_be_learned(objective):
    """A batch is overfitted to below half of what the first answer costs."""
    model = small(objective=objective, channels=(16, 32)).train()
    photos = (draw_flowers(2, 8, 8)[0].float() / 255).repeat(4, 1, 1, 1)
    labels = torch.arange(24) % 3
    loss_fn = training_loss(replace(SETTINGS, objective=objective))
    losses = descend(model, lambda: loss_fn(model, photos, labels), 5e-3, 60)
    assert sum(losses[-10:]) / 10 < losses[0] / 2


# What training draws -----------------------------------------------------------


def drawn(model, count=20_000, **changes):
    """Take the loss of one-pixel photos -> what the network was asked."""
    asked = overheard(model)
    torch.manual_seed(0)
    loss_fn = training_loss(replace(SETTINGS, **changes))
    loss_fn(model, photos_of(0.75).expand(count, -1, -1, -1), torch.arange(count) % 3)
    return asked[0]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_some_species_are_not_told_in_training_and_all_are_in_validation(share):
    """Ho & Salimans 2022; those that are told are the photo's own."""
    model, own = small(), torch.arange(20_000) % 3
    *_, labels = drawn(model.train(), label_dropout=share)
    told = labels != model.network.null_label
    assert 1 - told.float().mean().item() == pytest.approx(share, abs=0.012)
    assert torch.equal(labels[told], own[told])
    *_, labels = drawn(model.eval(), label_dropout=share)
    assert torch.equal(labels, own)


def test_log_normal_levels_have_their_moments():
    """Of noise over signal, the signal's deviation being 0.5."""
    _, sigma, _ = drawn(small(), p_mean=-0.4, p_std=1.2)
    assert sigma.log().mean().item() == pytest.approx(-0.4, abs=0.002)
    assert sigma.log().std().item() == pytest.approx(1.2, rel=0.003)
    quantile = (sigma < math.exp(-0.4 + 1.2 * 0.67449)).float().mean().item()
    assert quantile == pytest.approx(0.75, abs=0.001)


def test_cosine_levels_are_even_in_their_angle():
    _, sigma, _ = drawn(small(), density="cosine")
    angles = torch.atan(sigma) / (math.pi / 2)
    torch.testing.assert_close(
        angles, torch.arange(20_000) / 20_000 + 2.5e-5, atol=1e-4, rtol=0
    )


def test_the_kits_levels_are_each_as_likely():
    """STYLE 17: training sees each of the 300 levels that sampling takes."""
    model = small()
    _, sigma, _ = drawn(model, 30_000, density="kit")
    found, counts = (SIGMA_DATA * sigma).unique(return_counts=True)
    torch.testing.assert_close(found, model.sigmas)
    assert counts.min() >= 96 and counts.max() <= 104  # stratified: 100 but for ends


def test_photos_are_brought_to_the_samplers_range():
    """[0, 1] -> [-1, 1], seen where there is nearly no noise."""
    x, sigma, _ = drawn(small(), p_mean=-9.0, p_std=0.1)
    torch.testing.assert_close(
        x, torch.full_like(x, 0.5 / SIGMA_DATA), atol=2e-3, rtol=0
    )
    assert sigma.max() < 2e-4


def test_seeds_repeat_the_loss():
    """P20: levels, noise and dropout are all drawn from the global state."""
    model, losses = randomize_zeros(small()).train(), []
    photos, labels = torch.rand(6, 3, 8, 8), torch.arange(6) % 3
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(training_loss(SETTINGS)(model, photos, labels).item())
    assert losses[0] == losses[1] != losses[2]


# What a check tells besides ----------------------------------------------------


def test_errors_of_all_objectives_can_be_compared():
    """The same estimate is judged the same; by v it is the loss of the answer."""
    values = 0.3, 0.5, 0.8
    photos, labels = photos_of(*values).repeat(40, 1, 1, 1), torch.zeros(120).long()
    found = {}
    for objective in sorted(OBJECTIVES):  # "eps" is the first
        model = ideal_for(small(objective=objective), 2 * photos_of(*values) - 1)
        torch.manual_seed(0)
        found[objective] = model.validation_details(photos, labels)
        torch.testing.assert_close(
            found[objective]["error"], found["eps"]["error"], atol=1e-4, rtol=1e-3
        )
    assert found["flow"]["error"].mean() > 0.1
    blind = small(objective="v")  # answers zero: the error is the velocity's square
    overheard(blind)
    torch.manual_seed(0)
    details = blind.validation_details(photos.expand(-1, -1, 32, 32), labels)
    angle = torch.atan(details["sigma"]).double()
    size = (2 * photos[:, 0, 0, 0] - 1).double().square() / SIGMA_DATA**2
    expected = angle.cos() ** 2 + angle.sin() ** 2 * size
    off = details["error"] / expected - 1
    assert off.abs().mean() < 0.1 and off.mean().abs() < 0.02
