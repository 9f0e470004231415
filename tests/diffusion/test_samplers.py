"""Samplers against closed forms: Gaussians, single photos, polynomials."""

import math

import pytest
import torch

import diffusion
from utils.diffusion.samplers import (
    SAMPLERS,
    ddim,
    exponential_step,
    flow_sigmas,
    karras_sigmas,
)

ODE = [name for name in SAMPLERS if name != "ddpm"]
VARIANCE = 0.25  # of the Gaussian that the ideal denoiser below knows


def gaussian(x, sigma):
    """The ideal denoiser of N(0, VARIANCE)."""
    return x * VARIANCE / (VARIANCE + sigma**2)


def last(states):
    """Return the last state of a sampler."""
    *_, x = states
    return x


def test_levels_are_karras():
    """Equation 5 of Karras et al. 2022, with rho 1 and 7 by hand."""
    assert karras_sigmas(3, 10, 2, rho=1) == pytest.approx([10, 6, 2, 0])
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    assert karras_sigmas(3, 80, 0.002) == pytest.approx([80, middle, 0.002, 0])
    assert karras_sigmas(1, 80, 0.002) == pytest.approx([80, 0])


@pytest.mark.parametrize("call", [(0, 80, 0.002), (5, 1, 1), (5, 1, 0)])
def test_levels_that_do_not_fall_are_refused(call):
    with pytest.raises(ValueError, match="at least 1, got 0|must fall"):
        karras_sigmas(*call)


def test_levels_of_a_flow_are_even_in_time():
    """Time is level / (1 + level); from 40, half of 40 / 41 is level 20 / 21."""
    assert flow_sigmas(1, 40) == [40, 0]
    assert flow_sigmas(2, 40) == pytest.approx([40, 20 / 21, 0])
    times = [sigma / (1 + sigma) for sigma in flow_sigmas(5, 3.0)]
    assert times == pytest.approx([0.75, 0.6, 0.45, 0.3, 0.15, 0])


@pytest.mark.parametrize("call", [(0, 40), (3, 0)])
def test_a_flow_that_goes_nowhere_is_refused(call):
    with pytest.raises(ValueError, match="at least 1, got 0|must fall, got 0 to 0"):
        flow_sigmas(*call)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_model_samples_the_photo(name):
    """Whatever the noise, all ways lead to the only photo there is."""
    photo = torch.rand(1, 3, 4, 4)
    sigmas = karras_sigmas(6, 40.0, 0.02)
    states = list(SAMPLERS[name].generate(lambda x, sigma: photo, 40 * photo, sigmas))
    assert len(states) == 7 and torch.equal(states[0], 40 * photo)
    torch.testing.assert_close(states[-1], photo, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_states_have_the_noise_of_their_level(name):
    """From noise to a Gaussian: the variance falls from level to level as it should."""
    torch.manual_seed(0)
    sigmas = karras_sigmas(200, 20.0, 0.01)
    x = torch.randn(20_000).double() * math.sqrt(20.0**2 + VARIANCE)
    states = SAMPLERS[name].generate(gaussian, x, sigmas)
    for index, (sigma, state) in enumerate(zip(sigmas, states, strict=True)):
        if index % 40 == 0:
            expected = VARIANCE + sigma**2
            assert state.var().item() == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize(
    "name, order",
    [("euler", 1), ("ddim", 1), ("heun", 2), ("dpm++2m", 2), ("dpm++3m", 3)],
)
def test_errors_shrink_by_the_order(name, order):
    """Twice the steps, 2^order times less error; levels even in their logarithm.

    At the first levels there is nothing to see yet, and a start of low order is exact.
    """
    x = torch.ones(1).double()
    exact = math.sqrt((VARIANCE + 0.01) / (VARIANCE + 1e8))
    errors = []
    for steps in (128, 256):
        sigmas = torch.logspace(4, -1, steps + 1, dtype=torch.float64).tolist()
        errors.append(
            abs(last(SAMPLERS[name].generate(gaussian, x, sigmas)).item() - exact)
        )
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def test_adams_bashforth_is_of_fourth_order_on_equal_steps():
    """But for its start, whose error is of second order and small."""
    x, start, end = torch.ones(1).double(), 1.0, 0.5
    exact = math.sqrt((VARIANCE + end**2) / (VARIANCE + start**2))
    errors = {}
    for name in ("euler", "ipndm"):
        sigmas = torch.linspace(start, end, 41, dtype=torch.float64).tolist()
        errors[name] = abs(
            last(SAMPLERS[name].generate(gaussian, x, sigmas)).item() - exact
        )
    assert errors["ipndm"] < errors["euler"] / 40


def test_ddim_without_noise_is_euler():
    """Song et al. 2020, section 4.3: one step of either is the same line."""
    sigmas, x = karras_sigmas(7, 30.0, 0.05), torch.randn(2, 3, 4, 4).double()
    ours = ddim(gaussian, 30 * x, sigmas)
    theirs = SAMPLERS["euler"].generate(gaussian, 30 * x, sigmas)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("t", [1, 40, 150, 299])
def test_ddpm_on_the_kits_levels_is_algorithm_2(t):
    """The kit's step from t to t - 1, scaled from x / sqrt(1 + level^2) to x."""
    torch.manual_seed(0)
    model = diffusion.Diffuser(300)
    table = (1 / diffusion.noise_tables(300)["alphas_bar"].double() - 1).sqrt()
    now, after = table[t].item(), table[t - 1].item()
    image, x = torch.full((40_000,), 0.4), torch.full((40_000,), 1.7)
    kit = model.posterior(image[:1], x[:1] / math.sqrt(1 + now**2), t)
    mean, p_std = (value.item() * math.sqrt(1 + after**2) for value in kit)
    found = last(SAMPLERS["ddpm"].generate(lambda x, sigma: image, x, [now, after]))
    error = 5 * p_std / 40_000**0.5 + 2e-3 * abs(mean)
    assert found.mean().item() == pytest.approx(mean, abs=error)
    assert found.std().item() == pytest.approx(p_std, rel=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
def test_evaluations_are_what_the_docstring_says(name):
    """One a step; Heun two, but one in the last."""
    calls = []

    def denoise(x, sigma):
        calls.append(sigma)
        return gaussian(x, sigma)

    last(SAMPLERS[name].generate(denoise, torch.ones(1), karras_sigmas(9, 40.0, 0.02)))
    assert len(calls) == (17 if name == "heun" else 9)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_exponential_step_is_exact_for_polynomials(degree):
    """An estimate that is a polynomial in lambda, against fine integration."""
    preconditioning = torch.tensor([0.3, -1.1, 0.7])[: degree + 1].double()

    def estimate(place):
        place = torch.as_tensor(place, dtype=torch.float64)
        return sum(c * place**i for i, c in enumerate(preconditioning))

    here, after = -math.log(2.0), -math.log(0.7)
    known = [(p, estimate(p)) for p in (here, here - 0.3, here - 0.8)][: degree + 1]
    found = exponential_step(torch.tensor(1.9).double(), known, 2.0, 0.7)
    places = torch.linspace(here, after, 20_001, dtype=torch.float64)
    inside = torch.trapezoid(torch.exp(places - after) * estimate(places), places)
    expected = 1.9 * math.exp(here - after) + inside.item()
    assert found.item() == pytest.approx(expected, rel=1e-7)
