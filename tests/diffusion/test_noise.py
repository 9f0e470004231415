"""Noise levels and what the network is asked for: one line from each to each."""

import math

import pytest
import torch

from utils.diffusion.denoiser import (
    BUCKETS,
    DENSITIES,
    OBJECTIVES,
    bucket_means,
    preconditioning,
    sigma_quantile,
    stratified_uniform,
    training_target,
)

KIT = torch.logspace(-2, 2, 300)  # levels of a schedule, rising


def best_answers(objective, x, points, sigma):
    """Return (the ideal denoiser's image, the answer of least squared error).

    For photos `points` (N, D), each as likely: means over which of them x (D,) shows.
    """
    noise = (x - points) / sigma  # (N, D)
    shares = torch.softmax(-noise.square().sum(dim=1) / 2, dim=0)
    answers = OBJECTIVES[objective].target(points, noise, sigma)
    return shares @ points, shares @ answers


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("sigma", [0.02, 0.5, 1.0, 40.0])
def test_every_objective_knows_the_ideal_denoiser(objective, sigma):
    """The best answer, whatever was asked, converts to the same image."""
    torch.manual_seed(0)
    points, sigma = torch.randn(4, 6).double(), torch.tensor(sigma).double()
    for _ in range(5):
        x = points[0] + sigma * torch.randn(6)
        image, model_output = best_answers(objective, x, points, sigma)
        c_skip, c_out = OBJECTIVES[objective].coefficients(sigma)
        torch.testing.assert_close(c_skip * x + c_out * model_output, image)


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 1e3])
def test_velocities_are_derivatives_of_their_paths(sigma):
    """v by the angle on the circle, flow by the time on the straight line."""
    x_0, noise = torch.tensor(0.7).double(), torch.tensor(-1.3).double()
    sigma = torch.tensor(sigma).double()
    angle = torch.atan(sigma).requires_grad_()
    circle = angle.cos() * x_0 + angle.sin() * noise
    (slope,) = torch.autograd.grad(circle, angle)
    torch.testing.assert_close(OBJECTIVES["v"].target(x_0, noise, sigma), slope)
    time = (sigma / (1 + sigma)).requires_grad_()
    line = (1 - time) * x_0 + time * noise
    (slope,) = torch.autograd.grad(line, time)
    torch.testing.assert_close(OBJECTIVES["flow"].target(x_0, noise, sigma), slope)


def test_targets_of_unit_data_are_of_unit_size():
    """So that one rate suits every level: v exactly 1, flow twice that variance."""
    torch.manual_seed(0)
    x_0, noise = torch.randn(2, 100_000)
    for sigma in torch.tensor([0.01, 1.0, 30.0]):
        for objective, size in (("v", 1), ("eps", 1), ("x0", 1), ("flow", 2)):
            variance = OBJECTIVES[objective].target(x_0, noise, sigma).var().item()
            assert variance == pytest.approx(size, rel=0.02)


def test_stratified_numbers_fill_every_part():
    shares = stratified_uniform(50)
    assert ((shares * 50).floor() == torch.arange(50)).all()


def test_densities_by_hand():
    """Medians, and one more quantile of each."""
    shares = torch.tensor([0.5, 0.75])
    found = sigma_quantile("lognormal", shares, KIT, p_mean=-0.4, p_std=1.2).log()
    expected = torch.tensor([-0.4, -0.4 + 1.2 * 0.67449])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    cosine = sigma_quantile("cosine", shares, KIT)
    torch.testing.assert_close(cosine, torch.tensor([1.0, math.tan(3 * math.pi / 8)]))
    assert sigma_quantile("kit", shares, KIT).tolist() == KIT[[150, 225]].tolist()


@pytest.mark.parametrize("density", DENSITIES)
def test_every_share_has_a_finite_level(density):
    """Also 0 and 1, which a random number in float32 can be."""
    sigmas = sigma_quantile(density, torch.tensor([0.0, 0.3, 1.0]), KIT)
    assert sigmas.isfinite().all() and (sigmas > 0).all() and (sigmas.diff() > 0).all()


def test_bucket_means_by_hand():
    """A level on a bound belongs below it; a bucket without any has no mean."""
    sigmas = torch.tensor([0.1, 0.25, 0.3, 2.0, 2.1, 5.0, 900.0])
    found = bucket_means(sigmas, torch.arange(7.0))
    assert found == {
        "error_to_0.25": 0.5,
        "error_to_0.5": 2.0,
        "error_to_1": None,
        "error_to_2": 3.0,
        "error_to_4": 4.0,
        "error_above_4": 5.5,
    }


def test_buckets_lose_no_level():
    """Of a thousand, the means weighed by their counts are the mean of all."""
    sigmas, errors = torch.logspace(-3, 3, 1000), torch.rand(1000)
    means = [mean for mean in bucket_means(sigmas, errors).values() if mean]
    counts = torch.histogram(sigmas, torch.tensor(BUCKETS[:-1] + (1e9,))).hist
    assert counts.sum() == 1000 and len(means) == len(counts)
    total = sum(c * m for c, m in zip(counts.tolist(), means, strict=True))
    assert total / 1000 == pytest.approx(errors.mean().item(), rel=1e-5)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="one of .*'eps'.*, got 'score'"):
        preconditioning("score", torch.ones(1))
    with pytest.raises(ValueError, match="one of .*'eps'.*, got 'score'"):
        training_target("score", *torch.ones(3))
    with pytest.raises(ValueError, match="one of .*'kit'.*, got 'linear'"):
        sigma_quantile("linear", torch.ones(1), KIT)
