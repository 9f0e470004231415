"""Samplers: generators of states, from noise to images.

A state x (B, C, H, W) is image + sigma * noise, and `denoise(x, sigma)` estimates the
image. The sigmas fall and end at 0; a sampler yields the state at each of them, so the
last state is the image. All but the ancestral sampler follow the probability-flow ODE
of Song et al. 2021 (arXiv:2011.13456), dx / dsigma = (x - denoise(x, sigma)) / sigma.

SAMPLERS holds every sampler with its properties; no other module asks for a name.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch

RHO = 7.0  # larger values put more of the sigmas near 0

# Noise levels of the steps -------------------------------------------------------


def karras_sigmas(steps, sigma_max, sigma_min, rho=RHO):
    """Return steps + 1 falling sigmas, from sigma_max over sigma_min to 0, as floats.

    Karras et al. 2022, arXiv:2206.00364, equation 5.

    Raises:
        ValueError: if there is no step, or the ends do not fall.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"sigmas must fall to above 0, got {sigma_max} to {sigma_min}")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    start, end = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [*((start + ramp * (end - start)) ** rho).tolist(), 0.0]


def flow_sigmas(steps, sigma_max, sigma_min=None):
    """Return steps + 1 falling sigmas, from sigma_max to 0, as floats.

    Evenly spaced in t = sigma / (1 + sigma), the time of the straight line from image
    to noise (Liu et al. 2022, arXiv:2209.03003), so that the last step starts at t of
    about 1 / steps; sigma_min is not used.

    Raises:
        ValueError: if there is no step, or sigma_max is not above 0.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if sigma_max <= 0:
        raise ValueError(f"sigmas must fall, got {sigma_max} to 0")
    last = sigma_max / (1 + sigma_max)
    times = [last * (steps - step) / steps for step in range(1, steps)]
    return [float(sigma_max), *(time / (1 - time) for time in times), 0.0]


def schedule_sigmas(steps, schedule):
    """Return steps + 1 falling sigmas of a model's own schedule (T,), 0 at the end."""
    # Evenly spaced steps of the schedule.
    # Raises ValueError if the schedule has fewer steps.
    if not 1 <= steps <= len(schedule):
        raise ValueError(f"steps must be 1 to {len(schedule)}, got {steps}")
    indices = torch.linspace(0, len(schedule) - 1, steps + 1)[1:].round().long()
    if steps == len(schedule):
        indices = torch.arange(steps)
    return [*schedule[indices].flip(0).tolist(), 0.0]


# Samplers ------------------------------------------------------------------------


def ddim(denoise, x, sigmas, eta=0.0):
    """DDIM (Song et al. 2020, arXiv:2010.02502, equation 12).

    eta: the added noise, as a proportion of the ancestral sampler's; 0 adds none.
    """
    yield x
    for sigma, sigma_next in pairwise(sigmas):
        denoised = denoise(x, sigma)
        # Fresh noise replaces a part of the old.
        added = eta * sigma_next / sigma * math.sqrt(sigma**2 - sigma_next**2)
        kept = math.sqrt(sigma_next**2 - added**2)
        x = denoised + kept / sigma * (x - denoised)
        if added:
            x = x + added * torch.randn_like(x)
        yield x


# The ancestral sampler (Ho et al. 2020, equation 7); over the starter kit's 300 sigmas
# it is Algorithm 2.
ddpm = partial(ddim, eta=1.0)


def heun(denoise, x, sigmas):
    """Heun's second-order method (Karras et al. 2022, algorithm 1, deterministic).

    Two evaluations per step, one in the last.
    """
    yield x
    for sigma, sigma_next in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        x_next = x + (sigma_next - sigma) * slope
        # Correct the slope by that at the next level, but not at 0.
        if sigma_next:
            slope_next = (x_next - denoise(x_next, sigma_next)) / sigma_next
            slope = (slope + slope_next) / 2
            x_next = x + (sigma_next - sigma) * slope
        x = x_next
        yield x


ADAMS_BASHFORTH = (  # weights of the latest slopes, newest first
    (1,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def adams_bashforth(denoise, x, sigmas, order=4):
    """iPNDM (Zhang & Chen 2022, arXiv:2204.13902).

    The weights are those of equal steps, although the steps in sigma are not equal;
    `lms` has those of the steps. The order rises from 1 with the known slopes.
    """
    slopes = []
    yield x
    for sigma, sigma_next in pairwise(sigmas):
        # The newest slope first, at most `order` of them.
        slopes = [(x - denoise(x, sigma)) / sigma, *slopes][:order]
        weights = ADAMS_BASHFORTH[len(slopes) - 1]
        slope = sum(w * s for w, s in zip(weights, slopes, strict=True))
        x = x + (sigma_next - sigma) * slope
        yield x


euler = partial(adams_bashforth, order=1)  # Euler's method


def lms(denoise, x, sigmas, order=4):
    """Linear multistep: the integral of the polynomial through the latest slopes.

    Adams-Bashforth for steps of any size, as k-diffusion's LMS; the order rises from 1
    with the known slopes.
    """
    slopes, known = [], []  # of the latest sigmas, newest first
    yield x
    for sigma, sigma_next in pairwise(sigmas):
        known = [sigma, *known][:order]
        slopes = [(x - denoise(x, sigma)) / sigma, *slopes][:order]
        weights = integral_weights(known, sigma_next)
        x = x + sum(w * s for w, s in zip(weights, slopes, strict=True))
        yield x


def integral_weights(points, end):
    """Return weights of values at points, whose sum is the integral to `end`."""
    # From points[0]; exact for polynomials of a degree below the number of points.
    step, powers = end - points[0], torch.arange(len(points)).double()
    points = torch.tensor(points, dtype=torch.float64) - points[0]
    moments = step ** (powers + 1) / (powers + 1)
    return torch.linalg.solve(points ** powers[:, None], moments).tolist()


def dpm_solver(denoise, x, sigmas, order):
    """DPM-Solver++ multistep (Lu et al. 2022, arXiv:2211.01095, section 4).

    Exact for an estimate that is a polynomial in -ln(sigma) through the latest ones. So
    order 2 is what diffusers calls solver type "heun", not "midpoint", and order 3
    integrates the parabola exactly, where diffusers approximates its coefficients. The
    last step, to sigma 0, returns the estimate itself.
    """
    history = []  # [(-ln sigma, denoised), ...], newest first
    yield x
    for sigma, sigma_next in pairwise(sigmas):
        history = [(-math.log(sigma), denoise(x, sigma)), *history][:order]
        if sigma_next:
            x = exponential_step(x, history, sigma, sigma_next)
        else:
            x = history[0][1]
        yield x


def exponential_step(x, history, sigma, sigma_next):
    """Solve dx/dlambda = denoised(lambda) - x over a step, with lambda = -ln(sigma)."""
    # history: [(lambda, denoised)] of the latest evaluations, newest first.
    (_, denoised), *older = history
    h = math.log(sigma / sigma_next)

    # Integrals of exp(s - h), s * exp(s - h) and s^2 * exp(s - h) over 0 .. h.
    first = -math.expm1(-h)
    second = h - first

    x = x * sigma_next / sigma + first * denoised
    if older:
        gap, slope = divided_difference(history[0], older[0])
        if len(older) > 1:
            older_gap, older_slope = divided_difference(older[0], older[1])
            curvature = (slope - older_slope) / (gap + older_gap)  # half of it
            third = h**2 - 2 * second
            slope = slope + curvature * gap
            x = x + third * curvature
        x = x + second * slope
    return x


def divided_difference(newer, older):
    """Return (distance in lambda, divided difference) of two (lambda, denoised)."""
    gap = newer[0] - older[0]
    return gap, (newer[1] - older[1]) / gap


dpm_solver_2m = partial(dpm_solver, order=2)  # DPM-Solver++(2M)
dpm_solver_3m = partial(dpm_solver, order=3)  # DPM-Solver++(3M)

# Properties ----------------------------------------------------------------------


class Sampler(NamedTuple):
    """A sampler and its properties."""

    generate: Callable  # (denoise, x, sigmas, **options) -> states
    sigmas: Callable = karras_sigmas  # (steps, sigma_max, sigma_min) -> falling sigmas
    uses_schedule: bool = False  # sigmas are the model's own: schedule_sigmas
    nfe: Callable = int  # steps -> network evaluations per image, without guidance
    clip_denoised: bool = False  # estimates are clipped to [-1, 1]
    adds_noise: bool = False  # at every step, also without options
    options: tuple = ()  # fields of SamplerConfig that `generate` takes


SAMPLERS = {
    # Clipped as in the code of Ho et al. 2020.
    "ddpm": Sampler(ddpm, uses_schedule=True, clip_denoised=True, adds_noise=True),
    "ddim": Sampler(ddim, options=("eta",)),
    "euler": Sampler(euler),
    "flow": Sampler(euler, sigmas=flow_sigmas),
    "heun": Sampler(heun, nfe=lambda steps: 2 * steps - 1),
    "dpm++2m": Sampler(dpm_solver_2m),
    "dpm++3m": Sampler(dpm_solver_3m),
    "ipndm": Sampler(adams_bashforth),
    "lms": Sampler(lms),
}
