"""Samplers against closed forms: Gaussians, single photos, polynomials."""

import math

import pytest
import torch

from tests.helpers.diffusion import VARIANCE, gaussian
from utils.diffusion.samplers import (
    ADAMS_BASHFORTH,
    SAMPLERS,
    adams_bashforth,
    ddim,
    exponential_step,
    flow_sigmas,
    integral_weights,
    karras_sigmas,
)


def error_of(name, sigmas):
    """How far a sampler takes 1 from where the Gaussian's ODE does, in float64."""
    sigmas = sigmas.tolist()
    *_, x = SAMPLERS[name].generate(gaussian, torch.ones(1).double(), sigmas)
    first, last = (VARIANCE + sigmas[place] ** 2 for place in (0, -1))
    return abs(x.item() - math.sqrt(last / first))


def test_levels_are_karras():
    """Equation 5 of Karras et al. 2022, with rho 1 and 7 by hand."""
    assert karras_sigmas(3, 10, 2, rho=1) == pytest.approx([10, 6, 2, 0])
    middle = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    assert karras_sigmas(3, 80, 0.002) == pytest.approx([80, middle, 0.002, 0])
    assert karras_sigmas(1, 80, 0.002) == pytest.approx([80, 0])


def test_levels_of_a_flow_are_even_in_time():
    """Time is level / (1 + level); from 40, half of 40 / 41 is level 20 / 21."""
    assert flow_sigmas(1, 40) == [40, 0]
    assert flow_sigmas(2, 40) == pytest.approx([40, 20 / 21, 0])
    times = [sigma / (1 + sigma) for sigma in flow_sigmas(5, 3.0)]
    assert times == pytest.approx([0.75, 0.6, 0.45, 0.3, 0.15, 0])


@pytest.mark.parametrize(
    "levels, call",
    [
        (karras_sigmas, (0, 80, 0.002)),
        (karras_sigmas, (5, 1, 1)),
        (karras_sigmas, (5, 1, 0)),
        (flow_sigmas, (0, 40)),
        (flow_sigmas, (3, 0)),
    ],
)
def test_levels_that_do_not_fall_are_refused(levels, call):
    with pytest.raises(ValueError, match="at least 1, got 0|must fall.*, got [01] to"):
        levels(*call)


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
    errors = [
        error_of(name, torch.logspace(4, -1, steps + 1, dtype=torch.float64))
        for steps in (128, 256)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def test_lms_has_the_weights_of_adams_bashforth_on_equal_steps():
    """On others they integrate every polynomial of lower degree exactly."""
    for order, weights in enumerate(ADAMS_BASHFORTH, start=1):
        points = [0.5 - 0.25 * step for step in range(order)][::-1]
        found = integral_weights(points[::-1], 0.75)
        assert found == pytest.approx([0.25 * weight for weight in weights])
    points, end = [2.0, 3.5, 4.0, 7.0], 1.2
    weights = integral_weights(points, end)
    for power in range(4):
        integral = (end ** (power + 1) - 2.0 ** (power + 1)) / (power + 1)
        found = sum(w * p**power for w, p in zip(weights, points, strict=True))
        assert found == pytest.approx(integral)


def test_lms_is_of_fourth_order_on_unequal_steps():
    """Half the steps, sixteen times the error; at the start the order is lower."""
    coarse, fine = (torch.linspace(2, 1, n).double() ** 3 for n in (41, 81))
    assert error_of("lms", fine) < error_of("lms", coarse) / 8


@pytest.mark.parametrize("order", [3, 4])
def test_adams_bashforth_of_fourth_order_integrates_cubics(order):
    """On equal steps, where the slope depends on sigma only; of third order it fails.

    The first three steps are of lower orders.
    """
    sigmas = torch.linspace(1.0, 0.5, 11, dtype=torch.float64)

    def denoise(x, sigma):
        return x - sigma * (4 * sigma**3 - 3 * sigma**2 + 1)

    x = torch.zeros(1, dtype=torch.float64)
    states = torch.cat(list(adams_bashforth(denoise, x, sigmas.tolist(), order=order)))
    exact = sigmas**4 - sigmas**3 + sigmas
    error = (states.diff() - exact.diff())[3:].abs().max()
    assert (error < 1e-12) == (order == 4)


def test_ddim_without_noise_is_euler():
    """Song et al. 2020, section 4.3: one step of either is the same line."""
    sigmas, x = karras_sigmas(7, 30.0, 0.05), torch.randn(2, 3, 4, 4).double()
    ours = ddim(gaussian, 30 * x, sigmas)
    theirs = SAMPLERS["euler"].generate(gaussian, 30 * x, sigmas)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


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
