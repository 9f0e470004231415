"""The forward process of a completion, as its network sees it.

x_t = a x_0 + b noise. The loss is called twice with equal random numbers, for photos
and for black images; the difference is a x_0 exactly, and the second is b noise.

Two forms are known: a^2 + b^2 = 1, that of DDPM (Ho et al. 2020, arXiv:2006.11239,
equation 4), and a + b = 1, that of rectified flow (Liu et al. 2022, arXiv:2209.03003).
"""

import functools
from typing import NamedTuple

import torch

from ..checks import NotExamined
from .calls import seed_all
from .denoisers import denoiser_of, only_call, recorded, reported_by

DRAWS = 20  # of each time, on average
CHUNK = 1.8e6  # values of the images of one call of the loss, about
DDPM, FLOW = "DDPM", "flow"

KINDS = {  # of prediction -> (x_0, noise, a, b) -> what an ideal network returns
    "noise": lambda x_0, noise, a, b: noise,
    "photo": lambda x_0, noise, a, b: x_0,
    "velocity (Salimans & Ho)": lambda x_0, noise, a, b: a * noise - b * x_0,
    "velocity to noise": lambda x_0, noise, a, b: noise - x_0,
    "velocity to photo": lambda x_0, noise, a, b: x_0 - noise,
}


class Draws(NamedTuple):
    """What the network was given for N photos: times and factors, each (N,)."""

    t: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor  # estimated from the pixels of one image, to about 2 %
    residual: float  # of x_t as a linear function of x_0, relative


class Process(NamedTuple):
    """The forward process: factors at the times that the loss draws, rising."""

    times: torch.Tensor  # (K,), as the network is given them
    a: torch.Tensor  # (K,)
    b: torch.Tensor  # (K,), estimated
    discrete: bool
    form: str | None  # DDPM, FLOW or None

    def rates(self, t):
        """Return a and b, each (B, 1, 1, 1) or (1, 1, 1, 1), at times of the network.

        Raises:
            NotExamined: if the process has none of the known forms.
        """
        t = t.reshape(-1).double()
        # The nearest time that was drawn.
        a = self.a[self.index(t)]
        if self.form is None:
            raise NotExamined("the noised images fit no known forward process")
        if self.form == FLOW:
            # a is a straight line in t, also beyond the times that were drawn.
            first, last = self.times[0], self.times[-1]
            slope = (self.a[-1] - self.a[0]) / (last - first)
            a = (self.a[0] + slope * (t - first)).clamp(0, 1)
        a = a.view(-1, 1, 1, 1)
        return a, 1 - a if self.form == FLOW else (1 - a.square()).clamp(min=0).sqrt()

    def index(self, t):
        """Return the indices (B,) of the times that are nearest to t (B,)."""
        right = torch.searchsorted(self.times, t).clamp(1, len(self.times) - 1)
        middle = (self.times[right - 1] + self.times[right]) / 2
        return torch.where(t < middle, right - 1, right)


def noised_batch(denoiser, x_0, seed):
    """Return the NetworkCall of the loss for photos x_0 (B, C, H, W)."""
    seed_all(seed)
    with (
        recorded(denoiser.model, lambda x, t: torch.zeros_like(x)) as record,
        reported_by("diffusion_loss"),
    ):
        denoiser.loss(x_0)
    call = only_call(record, len(x_0))
    if call.x.shape != x_0.shape:
        raise NotExamined("the network is not given images of the photos' shape")
    return call


def draw_batch(denoiser, count, seed):
    """Return Draws for `count` photos, of double precision, on the CPU."""
    # Equal random numbers: the same times, the same noise.
    x_0 = denoiser.photos(count, seed=seed)
    noised = noised_batch(denoiser, x_0, seed)
    black = noised_batch(denoiser, torch.zeros_like(x_0), seed)
    if not torch.equal(noised.t, black.t):
        raise NotExamined("the times of the loss do not follow torch.manual_seed")
    # What the photo adds is a x_0; a by least squares.
    signal = (noised.x.double() - black.x.double()).flatten(1)
    x_0 = x_0.double().flatten(1)
    a = (signal * x_0).sum(dim=1) / x_0.square().sum(dim=1)
    residual = (signal - a[:, None] * x_0).norm() / signal.norm().clamp(min=1e-9)
    b = black.x.double().flatten(1).square().mean(dim=1).sqrt()
    t = noised.t.reshape(-1).double()
    return Draws(t.cpu(), a.cpu(), b.cpu(), residual.item())


@functools.cache
def draws_of(subject):
    """Return Draws of DRAWS photos per time of a completion."""
    denoiser = denoiser_of(subject)
    size = 2 * max(32, int(CHUNK / (6 * denoiser.size**2)))  # images, an even number
    count = -(-DRAWS * denoiser.n_steps // size)
    batches = [draw_batch(denoiser, size, seed) for seed in range(count)]
    t, a, b = (torch.cat(parts) for parts in list(zip(*batches, strict=True))[:3])
    return Draws(t, a, b, max(batch.residual for batch in batches))


@functools.cache
def process_of(subject):
    """Return the Process of a completion.

    Raises:
        NotExamined: if x_t is no linear function of the photo.
    """
    draws = draws_of(subject)
    if len(draws.t) != len(draws.a):
        raise NotExamined("the network is not given one time per image")
    if draws.residual > 0.01:
        raise NotExamined("the noised image is no linear function of the photo")
    # One row per time: the means of a, and of the variance b^2.
    times, group = draws.t.unique(return_inverse=True)
    counts = torch.bincount(group)
    a = torch.bincount(group, draws.a) / counts
    b = (torch.bincount(group, draws.b.square()) / counts).sqrt()
    if len(times) < 2:
        raise NotExamined("the loss draws one time only")
    discrete = len(times) <= len(draws.t) / 4
    return Process(times, a, b, discrete, form_of(a, b))


def form_of(a, b):
    """Return the form that factors a, b (K,) have, or None."""

    # b is estimated: to 2 % at one image, better where a time was drawn often.
    def is_one(total):
        return (total - 1).square().mean().sqrt() < 0.03 and (
            (total - 1).abs().max() < 0.3
        )

    if is_one(a.square() + b.square()):
        return DDPM
    return FLOW if is_one(a + b) else None


# The target of the loss --------------------------------------------------------


def ideal(process, kind, x_0):
    """Return predict(x, t) of an ideal network that knows the photo x_0."""

    def predict(x, t):
        a, b = (rate.to(x.device) for rate in process.rates(t.cpu()))
        noise = (x.double() - a * x_0.double()) / b.clamp(min=1e-6)
        return KINDS[kind](x_0.double(), noise, a, b)

    return predict


@functools.cache
def losses_of(subject):
    """Return {kind: loss of an ideal network}, {"zero": loss of zeros}, 64 photos."""
    denoiser, process = denoiser_of(subject), process_of(subject)
    x_0 = denoiser.photos(64)
    losses = {}
    # The same times and noise for each, so that only the output differs.
    for kind in ("zero", *KINDS):
        zero = kind == "zero"
        predict = (lambda x, t: torch.zeros_like(x)) if zero else None
        predict = predict or ideal(process, kind, x_0)
        seed_all(0)
        with (
            recorded(denoiser.model, predict) as record,
            reported_by("diffusion_loss"),
        ):
            loss = denoiser.loss(x_0)
        only_call(record, len(x_0))
        losses[kind] = float(loss.detach().mean())
    return losses


def kind_of(subject):
    """Return the kind of prediction that the loss trains.

    Raises:
        NotExamined: if it is none of KINDS.
    """
    losses = losses_of(subject)
    best = min(KINDS, key=losses.get)
    # Weights of a loss scale both, so that only their ratio counts.
    if not losses[best] < 0.01 * losses["zero"]:
        raise NotExamined("the loss is zero for no known kind of prediction")
    return best


# The noise tables --------------------------------------------------------------


class Tables(NamedTuple):
    """The noise tables that a completion has, each (T,) in double precision."""

    betas: torch.Tensor
    alphas_bar: torch.Tensor


def table(subject, *names):
    """Return the first of these tables that the module or its model has, or None."""
    denoiser = denoiser_of(subject)
    # Tables stand in the module, as in the starter kit, or in buffers of the model.
    for name in names:
        for owner in (denoiser.module, denoiser.model):
            value = getattr(owner, name, None)
            if isinstance(value, torch.Tensor) and value.dim() == 1 and len(value) > 1:
                return value.detach().double().cpu()
    return None


def tables_of(subject):
    """Return the Tables of a completion, or None where it has none by a known name."""
    betas = table(subject, "betas", "beta")
    names = ("alphas_bar", "alpha_bar", "alphas_cumprod", "alpha_hat", "alphas_prod")
    alphas_bar = table(subject, *names, "alphas_bars", "alpha_bars")
    if betas is None or alphas_bar is None or len(betas) != len(alphas_bar):
        return None
    # Tables whose steps count from 1 may begin with a step 0 that adds nothing.
    first = int(betas[0] == 0)
    return Tables(betas[first:], alphas_bar[first:])
