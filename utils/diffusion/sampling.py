"""Images from a trained denoiser: by any sampler, of any species, guided.

A model has `denoise(x, level, species)`, the image in x = image + level * noise (B, C,
H, W), with level and species (B,), and `levels`, those of its own schedule, rising.
"""

import math
from typing import NamedTuple

import torch

from utils.cli import UsageError
from utils.cli.progress import progress
from utils.diffusion.samplers import SAMPLERS, even_levels, noise_levels

BATCH = 256  # images sampled at once
HIGHEST, LOWEST = 80.0, 0.07  # noise levels of images in [-1, 1]


class Sampling(NamedTuple):
    """How to draw."""

    sampler: str = "dpm++3m"  # one of utils.samplers.SAMPLERS
    steps: int = 16  # of the sampler
    guidance: float = 1.0  # 1 is plain conditional
    above: float = 0.2  # noise level from which guidance acts
    below: float = math.inf  # noise level to which guidance acts
    eta: float = 0.0  # ddim's share of the ancestral chain's noise


class Guided:
    """What a sampler calls: denoise(x, level) -> image; counts its evaluations.

    Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598): the estimate is
    u + guidance * (c - u), c with the species and u without, where the level lies in
    the interval (Kynkaanniemi et al. 2024, arXiv:2404.07724), and c elsewhere. For the
    ancestral chain it is clipped to [-1, 1], as in the authors' code.
    """

    def __init__(self, model, how, species=None):
        self.model, self.how, self.species = model, how, species
        self.evaluations = 0  # of the network, per image

    @torch.no_grad()
    def __call__(self, x, level):
        """x (B, C, H, W), level: a float -> (B, C, H, W)."""
        image = self.estimate(x, level, self.species)
        how = self.how
        guided = self.species is not None and how.guidance != 1
        if guided and how.above <= level <= how.below:
            without = self.estimate(x, level, None)
            image = without + how.guidance * (image - without)
        return image.clamp(-1, 1) if how.sampler == "ddpm" else image

    def estimate(self, x, level, species):
        """One evaluation of the network."""
        self.evaluations += 1
        levels = torch.full((len(x),), level, device=x.device)
        return self.model.denoise(x, levels, species)


def levels_for(model, how):
    """Return the falling noise levels of a sampler's steps, 0 at the end.

    The ancestral chain takes them from the model's schedule, evenly; a flow's times are
    even; all others follow Karras et al. 2022.

    Raises:
        ValueError: if the schedule has fewer steps.
    """
    if how.sampler == "flow":
        return even_levels(how.steps, HIGHEST)
    if how.sampler != "ddpm":
        return noise_levels(how.steps, HIGHEST, LOWEST)
    if not 1 <= how.steps <= model.n_steps:
        raise ValueError(f"ddpm takes 1 to {model.n_steps} steps, got {how.steps}")
    places = torch.linspace(0, model.n_steps - 1, how.steps + 1)[1:].round().long()
    if how.steps == model.n_steps:
        places = torch.arange(model.n_steps)
    return [*model.levels[places].flip(0).tolist(), 0.0]


def sampled_states(model, noise, how, species=None, denoiser=None):
    """Yield the states from noise (B, C, H, W) ~ N(0, 1) to images, about [-1, 1].

    Each is scaled to the variance that the starter kit's x_t has. A `denoiser` of one's
    own counts evaluations, or changes the estimates.
    """
    levels = levels_for(model, how)
    denoiser = denoiser or Guided(model, how, species)
    states = states_from(levels[0] * noise, denoiser, levels, how)
    for level, x in zip(levels, states, strict=True):
        yield x / math.sqrt(1 + level**2)


def states_from(x, denoiser, levels, how):
    """Yield the states from x, image + levels[0] * noise, at every falling level."""
    options = {"eta": how.eta} if how.sampler == "ddim" else {}
    yield from SAMPLERS[how.sampler](denoiser, x, levels, **options)


def sampled(model, noise, how, species=None):
    """Return (images (B, C, H, W) in [0, 1], evaluations of the network per image)."""
    guided = Guided(model, how, species)
    for state in sampled_states(model, noise, how, species, guided):
        x = state
    return ((x + 1) / 2).clamp(0, 1), guided.evaluations


def sampled_batches(model, how, species, count, size):
    """Yield `count` images in batches (B, 3, size, size) in [0, 1].

    species: (count,), or None.
    """
    for start in progress(range(0, count, BATCH), "batches"):
        some = None if species is None else species[start : start + BATCH]
        noise = torch.randn(min(BATCH, count - start), 3, size, size)
        yield sampled(model, noise, how, some)[0]


def drawn_species(shares, count):
    """Draw `count` species by their shares -> (count,) int64."""
    shares = torch.as_tensor(shares, dtype=torch.float32)
    return torch.multinomial(shares, count, replacement=True)


def chosen_species(names, about, count):
    """Return the species (count,) of images, by a description of weights, or None.

    Equal shares of those named, in their order; without names a draw by the shares of
    the training photos.

    Raises:
        UsageError: if the weights know no such species.
    """
    if not names:
        shares = about.get("species_shares")
        return drawn_species(shares, count) if shares else None
    known = about.get("data", {}).get("classes", [])
    remedy = "choose from " + ", ".join(known) if known else "leave it away"
    for name in names:
        if name not in known:
            raise UsageError(
                f"argument --species: these weights know no {name!r}; {remedy}"
            )
    places = torch.arange(count) * len(names) // count
    return torch.tensor([known.index(name) for name in names])[places]


def usual_sampling(about):
    """Return the Sampling that fits weights of this description: guided as it says."""
    settings = about.get("settings", {})
    return Sampling(guidance=settings.get("guidance", Sampling().guidance))


def sampling_of(args, model, about):
    """Return the Sampling that a command line asks for; about: of the model's weights.

    Raises:
        UsageError: if its parts do not fit together.
    """
    given = {
        name: getattr(args, name)
        for name in ("sampler", "steps", "guidance", "eta")
        if getattr(args, name) is not None
    }
    if given.get("sampler") == "ddpm":
        given.setdefault("steps", model.n_steps)
    if args.guidance_interval:
        given["above"], given["below"] = args.guidance_interval
    how = usual_sampling(about)._replace(**given)
    if how.above > how.below:
        raise UsageError(
            "argument --guidance-interval: must be LOW, then HIGH, got "
            f"{how.above:g} {how.below:g}"
        )
    if how.eta and how.sampler != "ddim":
        raise UsageError(f"argument --eta: {how.sampler} has none; use --sampler ddim")
    if how.sampler == "ddpm" and how.steps > model.n_steps:
        raise UsageError(
            f"argument --steps: ddpm takes 1 to {model.n_steps}, got {how.steps}"
        )
    return how
