"""The reverse step of a completion, with an ideal network in place.

The reverse step is a linear function of x_t and of the known photo, plus noise. Its
three factors are measured by calls with equal random numbers, and compared with the
posterior of x_{t-1} given x_t and x_0 (Ho et al. 2020, arXiv:2006.11239, equation 7).
"""

import functools
from typing import NamedTuple

import torch

from ..checks import Finding, NotExamined
from . import calls
from .check_noise import forward_noising, table_findings
from .denoisers import denoiser_of, recorded, reported_by, spied
from .noising import ideal, kind_of, process_of

IMAGES = 8
PHOTO = 0.9  # largest value of the known photo, which no clipping changes


class Factors(NamedTuple):
    """A step to x_{t-1}: factors of x_0 and of x_t, deviation of the noise."""

    x_0: float
    x_t: float
    noise: float


class NotLinear(Exception):
    """A step that is no linear function of x_t and x_0."""


class Step(NamedTuple):
    """A call of p_theta_sampling, and alphas_bar before and after it."""

    args: tuple
    kwargs: dict
    t: float  # as the network is given it
    alpha_bar: float  # at t
    previous: float  # at the step's result, 1 for the photo


@functools.cache
def ideal_sampling(subject):
    """Return (states, [Step], photo) of sampling with a network that knows a photo.

    Raises:
        NotExamined: if it is not known what the network should return.
    """
    denoiser, process = denoiser_of(subject), process_of(subject)
    if list(table_findings(subject)) or list(forward_noising(subject)):
        raise NotExamined("the noise tables or the forward noising are wrong")
    # All images of the batch are of this photo.
    photo = denoiser.photos(1, limit=PHOTO, seed=1)
    predict = ideal(process, kind_of(subject), photo)
    shape = (IMAGES, 3, denoiser.size, denoiser.size)
    calls.seed_all(1)
    with (
        torch.no_grad(),
        recorded(denoiser.model, predict) as record,
        spied(denoiser.model, "p_theta_sampling") as steps,
        reported_by("sampling"),
    ):
        states = denoiser.sample(shape, denoiser.n_steps)
    if not record:
        raise NotExamined("sample does not call the network as model(x_t, t)")
    return states, steps_from(process, steps, record), photo


def steps_from(process, steps, record):
    """Return a Step for each call of p_theta_sampling, or [] where there are none."""
    # Each step has the same number of network calls, the first at its own time.
    if not steps or len(record) % len(steps):
        return []
    # The first call of each step, and alpha-bar at its time.
    times = [call.t.double().cpu() for call in record[:: len(record) // len(steps)]]
    index = [int(process.index(t.reshape(-1))[0]) for t in times]
    alphas_bar = [float(process.a[i].square()) for i in index]
    # A step ends where the next one begins.
    after = [*alphas_bar[1:], 1.0]
    return [
        Step(args, kwargs, float(t.reshape(-1)[0]), now, then)
        for (args, kwargs), t, now, then in zip(
            steps, times, alphas_bar, after, strict=True
        )
    ]


# The faults of a step ------------------------------------------------------------


@functools.cache
def reverse_faults(subject):
    """Return the findings of p_theta_sampling, the first of each kind of fault."""
    _, steps, photo = ideal_sampling(subject)
    if len(steps) < 3:
        raise NotExamined("sample does not call p_theta_sampling once per step")
    if any(step.previous <= step.alpha_bar for step in steps):
        raise NotExamined("the times of sampling do not fall")
    # The last step, then one late, one in the middle and the first.
    found = [last_finding(subject, steps[-1], photo)]
    for step in (steps[-2], steps[len(steps) // 2], steps[0]):
        try:
            found.append(step_finding(step, measure(subject, step, photo)))
        except NotLinear:
            found.append(bent_finding(subject, step, photo))
    faults = {}
    for finding in filter(None, found):
        faults.setdefault(finding.name, finding)
    # A wrong mean says more than what follows from it.
    return (
        (faults["reverse_mean"],) if "reverse_mean" in faults else (*faults.values(),)
    )


def run_step(subject, step, x, photo):
    """Return the result of a Step for other noised images, always with equal noise."""
    denoiser, kind = denoiser_of(subject), kind_of(subject)
    predict = ideal(process_of(subject), kind, photo)
    args, kwargs = step.args, dict(step.kwargs)
    # The noised images are the first argument.
    if args:
        args = (x, *args[1:])
    else:
        kwargs[next(iter(kwargs))] = x
    # Equal noise in every call.
    calls.seed_all(2)
    with torch.no_grad(), recorded(denoiser.model, predict):
        result = denoiser.model.p_theta_sampling(*args, **kwargs)
    # Some return the predicted photo as well.
    if isinstance(result, tuple | list):
        result = result[0]
    if not isinstance(result, torch.Tensor) or result.shape != x.shape:
        raise NotExamined("p_theta_sampling does not return images")
    return result.double()


def measure(subject, step, photo):
    """Return the Factors of a step.

    Raises:
        NotLinear: if the step is no linear function.
    """
    size = (IMAGES, *photo.shape[1:])
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(size, generator=generator).to(photo.device)
    zeros, black = torch.zeros_like(x), torch.zeros_like(photo)
    # Without signal the noise alone remains.
    noise = run_step(subject, step, zeros, black)

    def factor(result, image):
        signal, image = result - noise, image.double().expand(size)
        value = (signal * image).sum() / image.square().sum()
        if (signal - value * image).norm() > 0.02 * image.norm():
            raise NotLinear
        return value.item()

    # One of x_t and x_0 at a time.
    x_t = factor(run_step(subject, step, x, black), x)
    x_0 = factor(run_step(subject, step, zeros, photo), photo)
    return Factors(x_0, x_t, noise.square().mean().sqrt().item())


def posterior(step):
    """Return the Factors of the posterior, with the smaller of the two variances."""
    # beta and alpha of a step that may leave out steps between.
    alpha = step.alpha_bar / step.previous
    variance, before = 1 - step.alpha_bar, 1 - step.previous
    x_0 = step.previous**0.5 * (1 - alpha) / variance
    x_t = alpha**0.5 * before / variance
    return Factors(x_0, x_t, (before / variance * (1 - alpha)) ** 0.5)


def implicit(step, noise):
    """Return the Factors of a DDIM step with this noise (arXiv:2010.02502, eq. 12)."""
    rest = max(0.0, 1 - step.previous - noise**2)
    x_t = (rest / (1 - step.alpha_bar)) ** 0.5
    return Factors(step.previous**0.5 - x_t * step.alpha_bar**0.5, x_t, noise)


def same_mean(measured, expected):
    """Tell whether two Factors have the same mean, up to rounding."""
    return (
        abs(measured.x_0 - expected.x_0) < 0.03 * abs(expected.x_0) + 1e-4
        and abs(measured.x_t - expected.x_t) < 0.005 * abs(expected.x_t) + 1e-4
    )


def step_finding(step, measured):
    """Return the finding of a step that is not the last, or None."""
    right = posterior(step)
    upper = (1 - step.alpha_bar / step.previous) ** 0.5  # of the variance beta
    # The mean of the posterior; its noise may have either variance.
    if same_mean(measured, right):
        if measured.noise < 0.001 * right.noise:
            return Finding(
                "reverse_without_noise",
                f"at t = {step.t:g} the step adds noise of deviation "
                f"{measured.noise:.3g}",
                f"{right.noise:.3g} or {upper:.3g}",
            )
        if not 0.93 * right.noise < measured.noise < 1.07 * upper:
            return Finding(
                "reverse_noise",
                f"at t = {step.t:g} noise of deviation {measured.noise:.4g}",
                f"{right.noise:.4g} (posterior) or {upper:.4g} (beta)",
            )
        return None
    # Steps without the posterior's noise have another mean.
    if same_mean(measured, implicit(step, measured.noise)):
        return None  # DDIM, with or without noise
    return Finding(
        "reverse_mean",
        f"at t = {step.t:g} the mean is {measured.x_0:.4g} x_0 + "
        f"{measured.x_t:.4g} x_t",
        f"{right.x_0:.4g} x_0 + {right.x_t:.4g} x_t",
    )


def bent_finding(subject, step, photo):
    """Return the finding of a step that is not linear, or None, by one x_t."""
    right = posterior(step)
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn(IMAGES, *photo.shape[1:], generator=generator).to(photo.device)
    x = step.alpha_bar**0.5 * photo + (1 - step.alpha_bar) ** 0.5 * noise
    # Noise at zeros, which nothing clips, is subtracted.
    added = run_step(subject, step, torch.zeros_like(x), torch.zeros_like(photo))
    mean = run_step(subject, step, x, photo) - added
    # Against the share of the photo, by which the step moves x_t.
    error = (mean - right.x_0 * photo - right.x_t * x).square().mean().sqrt().item()
    tolerance = 0.3 * right.x_0 * photo.square().mean().sqrt().item()
    if error < tolerance:
        return None
    return Finding(
        "reverse_mean",
        f"at t = {step.t:g} the mean differs by {error:.3g} (root mean square), and "
        f"is no linear function of x_0 and x_t",
        f"{right.x_0:.4g} x_0 + {right.x_t:.4g} x_t",
    )


def last_finding(subject, step, photo):
    """Return the finding of the step to the photo, or None."""
    try:
        measured = measure(subject, step, photo)
    except NotLinear:
        return bent_finding(subject, step, photo)
    # Deviation of the last noise in a photo.
    beta = (1 - step.alpha_bar) ** 0.5
    if measured.noise > 0.1 * beta:
        return Finding(
            "noise_at_last_step",
            f"the step at t = {step.t:g} adds noise of deviation {measured.noise:.3g}",
            "no noise: its result is the finished image",
        )
    if abs(measured.x_0 - 1) > 0.03 or abs(measured.x_t) > 0.03:
        return Finding(
            "reverse_mean",
            f"at t = {step.t:g} the mean is {measured.x_0:.4g} x_0 + "
            f"{measured.x_t:.4g} x_t",
            "x_0, the predicted photo",
        )
    return None
