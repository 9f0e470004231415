"""Trials of a denoiser: the same noise through any sampler, timed, and how good it is.

All on the CPU.
"""

import hashlib
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch

from utils.cli import UsageError
from utils.data_processor import open_flowers
from utils.features import find_extractor
from utils.metrics import extract
from utils.runtime import warn_of_other_data
from utils.sampling import BATCH, Sampling, drawn_species, sampled
from utils.train import fixed_noise, progress
from utils.yardsticks import frechet


class Start(NamedTuple):
    """What all trials start from."""

    noise: torch.Tensor  # (N, 3, S, S) ~ N(0, 1)
    species: torch.Tensor | None  # (N,) int64
    seed: int  # of it, and of what a sampler adds

    def parts(self):
        """Return [(noise (B, 3, S, S), species (B,) or None), ...]."""
        noise = self.noise.split(BATCH)
        if self.species is None:
            return [(part, None) for part in noise]
        return list(zip(noise, self.species.split(BATCH), strict=True))


class Drawn(NamedTuple):
    """What a sampler made of a start."""

    images: torch.Tensor  # (N, 3, S, S) in [0, 1]
    evaluations: int  # of the network, counted, per image
    seconds: float  # per image, in the median batch


class Judge(NamedTuple):
    """What images are compared with."""

    extractor: Callable  # images (B, 3, S, S) in [0, 1] -> (B, D)
    photos: torch.Tensor  # features (N, D) of all photos
    validation: torch.Tensor  # features (M, D) of those of validation
    data: dict  # description of the photos

    def distances(self, images):
        """Images (N, 3, S, S) -> Frechet distances: name -> Estimate, or why not."""
        features = extract(self.extractor, images)
        return {
            "frechet": frechet(features, self.photos),
            "frechet_to_validation": frechet(features, self.validation),
        }


def fingerprint(*paths):
    """Return 16 digits that tell the contents of files from others."""
    content = b"".join(path.read_bytes() for path in paths)
    return hashlib.sha256(content).hexdigest()[:16]


def weights_facts(path, about):
    """Return which weights a file holds, of plain types; about: their description."""
    trained = {key: about.get(key) for key in ("model", "epoch", "seed", "valid_loss")}
    return trained | {"sha256": fingerprint(path)}


def start_of(about, count, seed):
    """Draw a Start for weights of this description: its species by their shares."""
    size, shares = about["settings"]["image_size"], about.get("species_shares")
    with fixed_noise(seed):
        noise = torch.randn(count, 3, size, size)
        species = drawn_species(shares, count) if shares else None
    return Start(noise, species, seed)


def draw(model, how, start):
    """Return Drawn: images as `how`, a Sampling, makes them from the start.

    Noise that the sampler adds has the next seed, and is the same at every call.
    """
    images, times = [], []
    with fixed_noise(start.seed + 1):
        for noise, species in progress(start.parts(), f"{how.sampler}, {how.steps}"):
            begin = time.perf_counter()
            some, evaluations = sampled(model, noise, how, species)
            times.append((time.perf_counter() - begin) / len(noise))
            images.append(some)
    return Drawn(torch.cat(images), evaluations, median(times))


def warm_up(model, start):
    """Draw a few images, so that the first that are timed pay for nothing more."""
    some = [part if part is None else part[:BATCH] for part in start[:2]]
    draw(model, Sampling("euler", 2, guidance=1.0), Start(*some, start.seed))


def judge_for(args, about):
    """Return the Judge that a command line asks for, for weights described by `about`.

    Raises:
        UsageError: if no distance of so few images, or to so few photos, is known.
    """
    extractor, size = find_extractor(args.extractor), about["settings"]["image_size"]
    split_seed = about.get("data", {}).get("split_seed", 0)
    options = {"split_seed": split_seed, "strict": args.strict_data}
    loaders = open_flowers(args.data, BATCH, (size, size), **options)
    sides = [loader.dataset for loader in loaders]
    warn_of_other_data(about, sides[0].about)
    training, validation = (extract(extractor, side.all_images()) for side in sides)
    photos = torch.cat([training, validation])
    for what, number in (("--count", args.count), ("--data", len(photos))):
        if number <= photos.shape[1]:
            raise UsageError(
                f"argument {what}: distances by these features need more than "
                f"{photos.shape[1]} images, got {number}"
            )
    return Judge(extractor, photos, validation, sides[0].about)
