"""Samplers: each is a generator of states, from noise to images.

A state x (B, C, H, W) is image + level * noise, and `denoise(x, level)` estimates the
image. The levels fall and end in 0; a sampler yields the state at each of them, so that
the last is the image. All but the ancestral chain follow the probability-flow equation
of Song et al. 2021 (arXiv:2011.13456), dx / dlevel = (x - denoise(x, level)) / level.
"""

import math

import torch

RHO = 7.0  # how much closer levels stand near 0 (Karras et al. 2022, equation 5)


def noise_levels(steps, highest, lowest, rho=RHO):
    """Return steps + 1 falling levels, from `highest` by `lowest` to 0, as floats.

    Karras et al. 2022, arXiv:2206.00364, equation 5.

    Raises:
        ValueError: if there is no step, or the ends do not fall.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not 0 < lowest < highest:
        raise ValueError(f"levels must fall to above 0, got {highest} to {lowest}")
    places = torch.linspace(0, 1, steps, dtype=torch.float64)
    start, end = highest ** (1 / rho), lowest ** (1 / rho)
    return [*((start + places * (end - start)) ** rho).tolist(), 0.0]


def even_levels(steps, highest):
    """Return steps + 1 falling levels, from `highest` to 0, as floats.

    Evenly spaced in time = level / (1 + level) of the straight line from image to noise
    (Liu et al. 2022, arXiv:2209.03003), where the state is scaled by 1 / (1 + level).

    Raises:
        ValueError: if there is no step, or nothing to fall from.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if highest <= 0:
        raise ValueError(f"levels must fall, got {highest} to 0")
    last = highest / (1 + highest)
    times = [last * (steps - step) / steps for step in range(1, steps)]
    return [float(highest), *(time / (1 - time) for time in times), 0.0]


def pairs(levels):
    """Return (level, next level) of each step."""
    return zip(levels[:-1], levels[1:], strict=True)


def ddim(denoise, x, levels, eta=0.0):
    """DDIM (Song et al. 2020, arXiv:2010.02502, equation 12): 1 evaluation a step.

    eta is the share of the ancestral chain's noise: with 0 none is added.
    """
    yield x
    for now, after in pairs(levels):
        image = denoise(x, now)
        fresh = eta * after / now * math.sqrt(now**2 - after**2)
        kept = math.sqrt(after**2 - fresh**2)
        x = image + kept / now * (x - image)
        if fresh:
            x = x + fresh * torch.randn_like(x)
        yield x


def ddpm(denoise, x, levels):
    """The ancestral chain (Ho et al. 2020, equation 7): 1 evaluation a step.

    On the starter kit's 300 levels it is Algorithm 2.
    """
    yield from ddim(denoise, x, levels, eta=1.0)


def euler(denoise, x, levels):
    """Euler's steps: 1 evaluation a step."""
    yield from adams_bashforth(denoise, x, levels, order=1)


def heun(denoise, x, levels):
    """Heun's second-order steps (Karras et al. 2022, algorithm 1, deterministic).

    2 evaluations a step, 1 in the last.
    """
    yield x
    for now, after in pairs(levels):
        slope = (x - denoise(x, now)) / now
        ahead = x + (after - now) * slope
        if after:
            slope = (slope + (ahead - denoise(ahead, after)) / after) / 2
            ahead = x + (after - now) * slope
        x = ahead
        yield x


ADAMS_BASHFORTH = (  # weights of the latest slopes, newest first
    (1,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def adams_bashforth(denoise, x, levels, order=4):
    """iPNDM (Zhang & Chen 2022, arXiv:2204.13902): 1 evaluation a step.

    The weights are those of equal steps; the order rises from 1 as slopes are known.
    """
    slopes = []
    yield x
    for now, after in pairs(levels):
        slopes = [(x - denoise(x, now)) / now, *slopes][:order]
        weights = ADAMS_BASHFORTH[len(slopes) - 1]
        slope = sum(w * s for w, s in zip(weights, slopes, strict=True))
        x = x + (after - now) * slope
        yield x


def dpm_solver(denoise, x, levels, order):
    """DPM-Solver++ multistep (Lu et al. 2022, arXiv:2211.01095, section 4).

    Exact for an estimate that is a polynomial in -ln(level) through the latest ones;
    1 evaluation a step. The last step, to level 0, takes the estimate itself.
    """
    known = []  # [(-ln level, estimate), ...], newest first
    yield x
    for now, after in pairs(levels):
        known = [(-math.log(now), denoise(x, now)), *known][:order]
        x = exponential_step(x, known, now, after) if after else known[0][1]
        yield x


def exponential_step(x, known, now, after):
    """Solve dx/dlambda = estimate(lambda) - x over a step, lambda = -ln(level).

    known: [(lambda, estimate)] of the latest evaluations, newest first.
    """
    (here, image), *before = known
    step = math.log(now / after)
    first = -math.expm1(-step)  # integral of exp(s - step) over 0 .. step
    second = step - first  # of s * exp(s - step)
    x = x * after / now + first * image
    if before:
        gap, slope = slope_between(known[0], before[0])
        if len(before) > 1:
            older_gap, older = slope_between(before[0], before[1])
            bend = (slope - older) / (gap + older_gap)  # half the second derivative
            third = step**2 - 2 * second  # of s^2 * exp(s - step)
            slope = slope + bend * gap
            x = x + third * bend
        x = x + second * slope
    return x


def slope_between(newer, older):
    """Return (distance in lambda, divided difference) of two (lambda, estimate)."""
    gap = newer[0] - older[0]
    return gap, (newer[1] - older[1]) / gap


def dpm_solver_2m(denoise, x, levels):
    """DPM-Solver++(2M): second order."""
    yield from dpm_solver(denoise, x, levels, order=2)


def dpm_solver_3m(denoise, x, levels):
    """DPM-Solver++(3M): third order."""
    yield from dpm_solver(denoise, x, levels, order=3)


SAMPLERS = {
    "ddpm": ddpm,
    "ddim": ddim,
    "euler": euler,
    "flow": euler,  # on even_levels, the steps of a flow along straight lines
    "heun": heun,
    "dpm++2m": dpm_solver_2m,
    "dpm++3m": dpm_solver_3m,
    "ipndm": adams_bashforth,
}
