"""Figures of single estimates: what a denoiser sees in noise of one level."""

# Each is built from a `FigureContext` of tools.visualize.diffusion.

import math

import torch
from matplotlib.figure import Figure

from tools.visualize.animation import evenly_spaced
from utils.device import device_of
from utils.diffusion.sampling import CFGDenoiser, sample_states, sigmas_for
from utils.figures import DPI, render

LEVELS = (0.25, 0.5, 1, 2)  # of noise, for images in [-1, 1]
STATED = (0.125, 0.25, 0.5, 1, 2, 4)  # levels that the model is given in their place
PHOTOS = 4  # of a row; each has two columns
MEASURED = 24  # photos of the curves
CURVE = [2 ** (i / 2) for i in range(-8, 7)]  # stated levels, 1/16 to 8
WALKS = 3  # from noise to image
NOISES = 4  # per row of the figure of one step


# Noise and its measure -------------------------------------------------------------


def add_noise(photos, sigma):
    """Return x = x_0 + sigma * noise of photos (B, C, H, W) in [0, 1]."""
    return 2 * photos - 1 + sigma * torch.randn_like(photos)


def visible(x, sigma):
    """Return x, scaled to the variance of photos, as images in [0, 1]."""
    return (x / math.sqrt(1 + sigma**2) + 1) / 2


@torch.no_grad()
def estimate(model, x, sigma, labels=None):
    """Estimate the photos (B, C, H, W) in [0, 1] in x, for a stated noise level."""
    device = device_of(model)
    sigmas = torch.full((len(x),), float(sigma), device=device)
    labels = None if labels is None else labels.to(device)
    return (model.denoise(x.to(device), sigmas, labels).cpu() + 1) / 2


def psnr(images, photos):
    """Return the peak signal-to-noise ratio in dB of images in [0, 1]: a float.

    -10 log10 of the mean squared error over all images; higher is better, at most 120.
    """
    error = (images - photos).square().mean().item()
    return -10 * math.log10(max(error, 1e-12))


# One known level -------------------------------------------------------------------


def one_level(context):
    """Noised photos beside estimates by the model, which is given the level."""
    photos, _ = context.photos(PHOTOS)
    columns, words = [], []
    for photo in photos:
        noised = [add_noise(photo[None], sigma) for sigma in LEVELS]
        pairs = list(zip(noised, LEVELS, strict=True))
        columns.append(torch.cat([visible(x, sigma) for x, sigma in pairs]))
        columns.append(torch.cat([estimate(context.model, *pair) for pair in pairs]))
    # The error of all photos of a row, before and after.
    for row, sigma in enumerate(LEVELS):
        found = torch.stack([column[row] for column in columns[1::2]])
        before = 20 * math.log10(2 / sigma)  # of noise that is added in [-1, 1]
        words.append(
            f"level {sigma:g}:\n{before:.1f} dB to\n{psnr(found, photos):.1f} dB"
        )
    # The photos themselves, above both of their columns.
    columns = [
        torch.cat([photos[[i // 2]], column]) for i, column in enumerate(columns)
    ]
    heads = ["PSNR", *["noised", "estimate"] * len(photos)]
    title = "photos (first row) in noise of a known level"
    context.save_rows("one_level", title, heads, ["photo", *words], columns)


# Levels that the model does not know -----------------------------------------------


def psnr_curves(model, photos, stated):
    """Return, for each of LEVELS, the PSNR of estimates at the stated levels."""
    curves = []
    for sigma in LEVELS:
        x = add_noise(photos, sigma)
        curves.append([psnr(estimate(model, x, level), photos) for level in stated])
    return curves


def plot_curves(stated, curves):
    """Plot the PSNR against the stated level -> picture (H, W, 3)."""
    figure = Figure(figsize=(8, 3.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="level that the model is given")
    axes.set_ylabel("PSNR of the estimate (dB)")
    for sigma, curve in zip(LEVELS, curves, strict=True):
        (line,) = axes.plot(stated, curve, label=f"true level {sigma:g}")
        axes.axvline(sigma, color=line.get_color(), linestyle=":")
    axes.set_xticks(STATED, [f"{level:g}" for level in STATED])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return render(figure)


def walk(context):
    """Return heads, words and columns: states above estimates, from noise to image."""
    config = context.config
    labels = context.labels(min(WALKS, len(context.wanted)))
    denoiser = CFGDenoiser(context.model, config, labels)
    sigmas = sigmas_for(context.model, config)
    shown = evenly_spaced(sigmas, context.columns)
    # Below each state the sampler's estimate at its level.
    columns, noise = [], context.noise(len(labels))
    states = sample_states(context.model, noise, config, labels)
    for i, state in enumerate(states):
        if i not in shown:
            continue
        # At level 0 the state is the image.
        found, sigma = state, sigmas[i]
        if sigma:
            found = denoiser(state * math.sqrt(1 + sigma**2), sigma)
        both = torch.stack([state, found], dim=1).flatten(0, 1).cpu()
        columns.append((both + 1) / 2)
    words = [w for name in context.names(labels) for w in (name, "- estimate")]
    return ["level", *(f"{sigmas[i]:.2g}" for i in shown)], words, columns


def estimates(context):
    """Estimates at stated levels, right and wrong ones, and along a walk."""
    photos, _ = context.photos(MEASURED)
    # A table of one photo: rows by the true level, columns by the stated one.
    noised = [add_noise(photos[:1], sigma) for sigma in LEVELS]
    pairs = list(zip(noised, LEVELS, strict=True))
    columns = [torch.cat([visible(x, sigma) for x, sigma in pairs])]
    for level in STATED:
        columns.append(torch.cat([estimate(context.model, x, level) for x in noised]))
    words = [f"level {sigma:g}" for sigma in LEVELS]
    heads = ["true", "noised", *(f"as {level:g}" for level in STATED)]
    # Curves of more photos.
    curves = plot_curves(CURVE, psnr_curves(context.model, photos, CURVE))
    # The walk, whose levels the sampler knows.
    walk_heads, walk_words, walk_columns = walk(context)
    context.save(
        "estimates",
        "estimates of the photo",
        "Noise of a true level, and estimates by a model that is given another",
        heads,
        context.rows(columns, words),
        f"The same for {len(photos)} photos",
        curves,
        "From noise to image: the state, and below it the estimate of the image",
        walk_heads,
        context.rows(walk_columns, walk_words),
    )


# Pure noise in one evaluation ------------------------------------------------------


def mean_photo(context, name=None):
    """Return the mean (1, 3, S, S) of training photos, of one species or of all."""
    data, _ = context.sides
    images = data.all_images()
    if name is not None:
        images = images[data.labels == data.classes.index(name)]
    mean = images.mean(dim=0, keepdim=True)
    # The model saw half of them flipped.
    if context.metadata["settings"].get("hflip"):
        mean = (mean + mean.flip(-1)) / 2
    return mean


def one_step(context):
    """Estimates from pure noise in one evaluation, beside the mean of the photos."""
    # At the level at which the sampler starts.
    noise, sigma = context.noise(NOISES), sigmas_for(context.model, context.config)[0]
    # Any species, then each of those with photos.
    known = [name for name in context.wanted if name in context.sides[0].classes]
    means, found, words = [], [], []
    for name in (None, *known):
        labels = None
        if name is not None:
            labels = torch.full((NOISES,), context.classes.index(name))
        means.append(mean_photo(context, name))
        found.append(estimate(context.model, sigma * noise, sigma, labels))
        error = psnr(found[-1], means[-1].expand_as(found[-1]))
        words.append(f"{name or 'any'}\n{error:.1f} dB".replace("_", " "))
    # Columns: the mean, then each noise and what the model makes of it.
    columns = [torch.cat(means)]
    for i, image in enumerate(visible(sigma * noise, sigma)):
        columns.append(image.expand(len(found), -1, -1, -1))
        columns.append(torch.stack([images[i] for images in found]))
    heads = ["", "mean photo", *["noise", "estimate"] * NOISES]
    title = f"one evaluation at level {sigma:g}"
    context.save_rows("one_step", title, heads, words, columns)
