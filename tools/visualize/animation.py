"""An animation of diffusion: noise is added to photos, and removed to other images."""

import io
import math
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from utils.diffusion.sampling import sample_states, sigmas_for
from utils.figures import grid, text_line
from utils.files import write_file

FRAMES = 20  # of each half
MIN_STEPS = 150  # of the sampler, so that its sigmas are close to those of the frames
SHORT, LONG = 80, 1500  # milliseconds of a frame, and of the first and the last
WIDTH = 480  # pixels, about


def evenly_spaced(sigmas, count):
    """Return at most `count` indices of falling sigmas, from the first to the last."""
    # Evenly spaced, as far as possible, in the angle whose tangent is sigma: the noise
    # in images that are scaled to unit variance then changes evenly.
    angles = torch.tensor(sigmas).atan()
    wanted = torch.linspace(angles[0], angles[-1], count)
    indices = (angles - wanted[:, None]).abs().argmin(dim=1).tolist()
    return list(dict.fromkeys(indices))


def noised_states(photos, sigmas):
    """Yield photos (B, C, H, W) in [-1, 1], then with noise of each rising sigma."""
    # The forward process (Ho et al. 2020, equation 2), scaled to the photos' variance.
    yield photos
    x, before = photos, 0.0
    for sigma in sigmas:
        x = x + math.sqrt(sigma**2 - before**2) * torch.randn_like(x)
        yield x / math.sqrt(1 + sigma**2)
        before = sigma


def animation(model, photos, config, labels=None):
    """Return 2 * FRAMES images (B, C, H, W) in [0, 1], and a caption of each.

    From photos to noise, and from noise to new images; all on the CPU.
    """
    # First half: noise is added, up to the last level of the model's schedule.
    top = math.atan(model.sigmas[-1])
    rising = torch.linspace(0, top, FRAMES)[1:].tan().tolist()
    first = list(noised_states(2 * photos - 1, rising))
    # Second half: sampling starts from the state with the most noise.
    config = replace(config, steps=max(config.steps, MIN_STEPS))
    sigmas = sigmas_for(model, config)
    shown = evenly_spaced(sigmas, FRAMES + 1)[1:]
    states = enumerate(sample_states(model, first[-1], config, labels))
    frames = first + [state.cpu() for index, state in states if index in shown]
    # What each frame shows.
    captions = ["photos", *(f"noise is added: sigma {s:.2g}" for s in rising)]
    captions += [f"noise is removed: sigma {sigmas[i]:.2g}" for i in shown[:-1]]
    captions.append("new images")
    return [((frame + 1) / 2).clamp(0, 1) for frame in frames], captions


def captioned(frame, caption, columns, scale):
    """Return a frame (B, 3, H, W) below its caption, enlarged -> (H', W', 3)."""
    picture = grid(frame, columns, scale)
    return np.concatenate([text_line(caption, picture.shape[1]), picture])


def save_animation(frames, captions, path, columns):
    """Save frames (B, 3, H, W) in [0, 1] as a repeating GIF, `columns` per row."""
    height, width = grid(frames[0], columns).shape[:2]
    scale = max(1, round(WIDTH / width))
    # Each frame has its own palette; no smoothing, no dithering.
    first, *rest = [
        Image.fromarray(
            (255 * captioned(frame, caption, columns, scale)).round().astype("uint8")
        ).quantize(256, dither=Image.Dither.NONE)
        for frame, caption in zip(frames, captions, strict=True)
    ]
    times = [LONG, *[SHORT] * (len(frames) - 2), LONG]
    content, more = io.BytesIO(), {"append_images": rest, "duration": times}
    first.save(content, format="GIF", save_all=True, loop=0, **more)
    write_file(path, content.getbuffer())
