"""A film of diffusion: photos drown in noise, and other images come out of it."""

import math

import torch
from PIL import Image

from utils.diffusion.sampling import levels_for, sampled_states
from utils.figures import grid

FRAMES = 20  # of either half
SMOOTH = 150  # steps at least, so that some of them are at the levels of the frames
SHORT, LONG = 80, 1500  # milliseconds of a frame, and of the first and the last
PIXELS = 480  # width of a film, about


def telling(levels, count):
    """Return at most `count` places of falling noise levels, from first to last.

    Evenly spaced, as far as there are such levels, in the angle whose tangent is the
    level: by as much as an image scaled to its own variance turns into noise.
    """
    angles = torch.tensor(levels).atan()
    wanted = torch.linspace(angles[0], angles[-1], count)
    places = (angles - wanted[:, None]).abs().argmin(dim=1).tolist()
    return list(dict.fromkeys(places))


def drowned(photos, levels):
    """Yield photos (B, C, H, W) in [-1, 1], then with noise of each rising level.

    The forward process (Ho et al. 2020, equation 2): noise is added to noise. Scaled to
    the variance of the photos.
    """
    yield photos
    x, before = photos, 0.0
    for level in levels:
        x = x + math.sqrt(level**2 - before**2) * torch.randn_like(x)
        yield x / math.sqrt(1 + level**2)
        before = level


def film(model, photos, how, species=None):
    """Return 2 * FRAMES images (B, C, H, W) in [0, 1], from photos to new images.

    Noise is added up to the model's highest level; what has become of the photos then
    is where the sampler starts.
    """
    top = math.atan(model.levels[-1])
    rising = torch.linspace(0, top, FRAMES)[1:].tan().tolist()
    there = list(drowned(2 * photos - 1, rising))
    how = how._replace(steps=max(how.steps, SMOOTH))
    shown = telling(levels_for(model, how), FRAMES + 1)[1:]
    states = enumerate(sampled_states(model, there[-1], how, species))
    frames = there + [state for place, state in states if place in shown]
    return [((frame + 1) / 2).clamp(0, 1) for frame in frames]


def save_film(frames, path, columns):
    """Save frames (B, 3, H, W) in [0, 1] as a GIF that repeats, `columns` a row.

    Enlarged by a whole number, without smoothing or dithering.
    """
    pictures = [
        (255 * grid(frame, columns)).round().astype("uint8") for frame in frames
    ]
    height, width = pictures[0].shape[:2]
    factor = max(1, round(PIXELS / width))
    first, *rest = [
        Image.fromarray(picture)
        .quantize(256, dither=Image.Dither.NONE)
        .resize((factor * width, factor * height), Image.Resampling.NEAREST)
        for picture in pictures
    ]
    times = [LONG, *[SHORT] * (len(frames) - 2), LONG]
    first.save(path, save_all=True, append_images=rest, duration=times, loop=0)
