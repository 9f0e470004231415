"""The figures of a diffusion model, each built from a `FigureContext`."""

from dataclasses import replace
from functools import cached_property

import torch
from matplotlib.figure import Figure

from tools.visualize.animation import animation, evenly_spaced, save_animation
from tools.visualize.estimates import estimates, one_level, one_step
from utils.cli import UserError
from utils.cli.progress import progress
from utils.config import SamplerConfig
from utils.data.photos import decode_one
from utils.device import device_of, fork_rng, set_seeds
from utils.diffusion.editing import inpaint, noise_slerp, sdedit
from utils.diffusion.rectified_flow import (
    deviation_from_straight,
    straightness,
    trajectories,
)
from utils.diffusion.sampling import (
    CFGDenoiser,
    labels_for,
    sample,
    sample_states,
    sampler_config,
    sigmas_for,
)
from utils.evaluation.linear_baselines import fit_pca
from utils.experiment import open_datasets
from utils.figures import DPI, caption, grid, labelled, render, save_stack, scale_for

COLUMNS = 10  # images per row
ROWS = 6
ANIMATED = 8  # images of the animation, in two rows
SCALES = (1, 1.5, 2, 3, 5)  # of guidance
STRENGTHS = (0.2, 0.35, 0.5, 0.65, 0.8, 1)  # of the noise on a photo
TRAJECTORIES = 64  # whose straightness is measured
PLOTTED = 16  # of them
HIDDEN = 0.75  # grey of a hidden part


class FigureContext:
    """A diffusion model, its sampling, its photos, and how its figures are saved."""

    # Photos, noise and images are on the CPU, wherever the model is.
    # args: a command line with the flags of sampling, data, seed, model, out, count
    # (images per row, or None), init and strength. Images are S x S.

    def __init__(self, args, model, metadata):
        if not {"settings", "data"} <= metadata.keys():
            raise UserError("the weights do not name their photos; train them again")
        self.args, self.model, self.metadata = args, model, metadata
        self.config = sampler_config(args, model, metadata)
        self.size = metadata["settings"]["image_size"]
        self.classes = metadata["data"]["classes"]
        self.wanted = args.species or self.classes
        self.columns = args.count or COLUMNS

    def labels(self, count):
        """Return the labels (count,) of the wanted species, in equal proportions."""
        return labels_for(self.wanted, self.metadata, count)

    def names(self, labels):
        """Return the names of labels (N,)."""
        return [self.classes[i].replace("_", " ") for i in labels.tolist()]

    def noise(self, count):
        """Draw noise (count, 3, S, S)."""
        return torch.randn(count, 3, self.size, self.size)

    def generate(self, noise, labels, **changes):
        """Sample from noise -> images (B, 3, S, S) in [0, 1].

        Noise that the sampler adds is the same at every call.
        """
        with fork_rng(self.args.seed):
            config = replace(self.config, **changes)
            return sample(self.model, noise, config, labels)[0]

    @cached_property
    def sides(self):
        """The training and the validation photos, as the weights' training split."""
        return open_datasets(self.metadata, self.args.data)

    @cached_property
    def validation(self):
        """The validation photos, and the rows of those of wanted species."""
        _, data = self.sides
        names = [data.classes[label] for label in data.labels.tolist()]
        rows = [row for row, name in enumerate(names) if name in self.wanted]
        if not rows:
            raise UserError(
                "no validation photo shows " + " or ".join(self.wanted) + "; name the "
                "folder of such photos with --data"
            )
        return data, torch.tensor(rows)

    def photos(self, count):
        """Draw B <= count validation photos (B, 3, S, S), and their labels (B,)."""
        data, rows = self.validation
        rows = rows[torch.randperm(len(rows))[:count]]
        # The folder may number its species otherwise than the weights.
        names = [data.classes[i] for i in data.labels[rows].tolist()]
        labels = torch.tensor([self.classes.index(name) for name in names])
        return data[rows][0], labels

    def path(self, figure, ending="png"):
        """Return the path of a figure."""
        return self.args.out / "vis" / f"{figure}_{self.args.model}.{ending}"

    def save(self, figure, title, *parts):
        """Save the parts of a figure below its title."""
        title = caption(self.args.model, title, self.metadata)
        save_stack([title, *parts], self.path(figure))

    def rows(self, columns, words):
        """Return a picture of columns of images (B, 3, S, S), rows beside words."""
        images = torch.stack(columns, dim=1).flatten(0, 1)  # row by row
        return labelled(images, len(columns), words)

    def save_rows(self, figure, title, heads, words, columns):
        """Save columns of images (B, 3, S, S) below heads, rows beside their words."""
        self.save(figure, title, heads, self.rows(columns, words))


def denoise(context):
    """States from noise to images; an animation from photos to noise to images."""
    # The strip: states at sigmas that are evenly spaced, one image per row.
    config, labels = context.config, context.labels(ROWS)
    sigmas = sigmas_for(context.model, config)
    shown = evenly_spaced(sigmas, context.columns)
    states = sample_states(context.model, context.noise(ROWS), config, labels)
    columns = [(s.cpu() + 1) / 2 for i, s in enumerate(states) if i in shown]
    title = f"from noise to image, {config.steps} steps of {config.sampler}"
    heads = ["noise level", *(f"{sigmas[i]:.2g}" for i in shown)]
    context.save_rows("denoise", title, heads, context.names(labels), columns)
    # The animation.
    photos, _ = context.photos(ANIMATED)
    frames = animation(context.model, photos, config, context.labels(len(photos)))
    save_animation(*frames, context.path("denoise", "gif"), ANIMATED // 2)


def species(context):
    """A heading and a few rows for each species."""
    # One label per species; about ROWS rows in all, and at least one of each.
    labels, parts = context.labels(len(context.wanted)), []
    count = max(1, ROWS // len(labels)) * context.columns
    for label, name in zip(labels, context.names(labels), strict=True):
        images = context.generate(context.noise(count), label.repeat(count))
        parts += [name, grid(images, context.columns, scale_for(images))]
    context.save("species", f"guidance {context.config.guidance:g}", *parts)


def guidance(context):
    """A row for each scale, a column for each noise and species."""
    labels, noise = context.labels(context.columns), context.noise(context.columns)
    rows = [context.generate(noise, labels, guidance=scale) for scale in SCALES]
    heads = ["guidance", *context.names(labels)]
    columns = torch.stack(rows, dim=1).unbind()  # each (scales, 3, S, S)
    words = [f"{scale:g}" for scale in SCALES]
    context.save_rows("guidance", "one noise a column", heads, words, columns)


def straight(context):
    """Trajectories on the images' first principal axis, and their deviation."""
    # A default sampler does not clip estimates, which would bend the trajectories.
    config = replace(context.config, sampler=SamplerConfig.sampler)
    denoiser = CFGDenoiser(context.model, config, context.labels(TRAJECTORIES))
    noise = context.noise(TRAJECTORIES).to(device_of(context.model))
    found = trajectories(denoiser, noise)
    axis = fit_pca(found.points[-1], 1).axes[0].float()
    coordinates = found.points[:, :PLOTTED].flatten(2) @ axis  # (T, PLOTTED)

    figure = Figure(figsize=(9.7, 4.4), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    # Left: trajectories, over the dashed straight lines between their ends.
    ends = [0, -1]
    left.plot(found.times[ends], coordinates[ends], color="0.8", linestyle="--")
    left.set_prop_cycle(None)
    left.plot(found.times, coordinates, linewidth=1)
    left.set(ylabel="coordinate on the images' first principal axis")
    left.set_title("trajectories from noise to images, and straight lines", fontsize=10)
    # Right: the deviation, whose integral over time is S.
    right.plot(found.times, deviation_from_straight(found))
    right.set(ylabel="squared deviation of the velocity", ylim=(0, None))
    words = f"straightness S = {straightness(found):.4f} per pixel value"
    right.set_title(words, fontsize=10)
    # Time runs from noise at the left to images at the right.
    for axes in (left, right):
        axes.set_xlabel("time t: noise at 1, image at 0")
        axes.invert_xaxis()
        axes.grid(alpha=0.3)
    title = f"probability-flow ODE, {len(found.times) - 2} evaluations"
    context.save("straightness", title, render(figure))


def interpolation(context):
    """Rows of images on the arc from one noise to another, of one species each."""
    labels = context.labels(ROWS)
    noises = noise_slerp(context.noise(ROWS), context.noise(ROWS), context.columns)
    # noises: (ROWS, columns, 3, S, S), interpolated along each row.
    columns = [context.generate(noise, labels) for noise in noises.unbind(dim=1)]
    title, words = "spherical interpolation of noise", context.names(labels)
    heads = ["", "one noise", *[""] * (context.columns - 2), "another"]
    context.save_rows("interpolation", title, heads, words, columns)


def known_pixels(count, size):
    """Return masks of known pixels, bool (count, 1, size, size)."""
    # Alternately all but the centre, and the left half.
    known = torch.ones(count, 1, size, size, dtype=torch.bool)
    edge = size // 4
    known[::2, :, edge : size - edge, edge : size - edge] = False
    known[1::2, :, :, size // 2 :] = False
    return known


def inpainting(context):
    """Photos, their known part, and several generated completions."""
    # `count` completions of every photo, in one batch.
    photos, labels = context.photos(ROWS)
    known, count = known_pixels(len(photos), context.size), context.columns
    repeated = [part.repeat_interleave(count, 0) for part in (photos, known, labels)]
    images = inpaint(context.model, *repeated[:2], context.config, repeated[2])
    images = images.unflatten(0, (-1, count)).unbind(dim=1)  # each (B, 3, S, S)
    columns = [photos, torch.where(known, photos, HIDDEN), *images]
    heads = ["", "photo", "known", "inpainted", *[""] * (count - 1)]
    words = context.names(labels)
    context.save_rows("inpaint", "hidden parts generated", heads, words, columns)


def from_photo(context):
    """The photo of --init, and images that start from it, of a few species."""
    # At several strengths from one noise, or at the one of --strength from several.
    args = context.args
    photo = decode_one(args.init, context.size, context.size).float() / 255
    labels = context.labels(min(ROWS, len(context.wanted)))
    noises = context.noise(len(labels) * context.columns)
    noises = noises.unflatten(0, (-1, len(labels)))  # (columns, labels, 3, S, S)
    strengths = [args.strength] * context.columns
    # Without --strength all columns share the first noise.
    if args.strength is None:
        strengths = STRENGTHS
        noises = noises[:1].expand(len(STRENGTHS), *noises[0].shape)
    photos = photo.expand(len(labels), -1, -1, -1)
    columns = [
        sdedit(context.model, photos, strength, noise, context.config, labels)
        for strength, noise in zip(strengths, noises, strict=True)
    ]
    heads = ["strength", "0: photo", *map("{:g}".format, strengths)]
    words = context.names(labels)
    context.save_rows("init", "from a photo", heads, words, [photos, *columns])


FIGURES = {  # of --show: name -> function of a FigureContext
    "one_level": one_level,
    "estimates": estimates,
    "one_step": one_step,
    "denoise": denoise,
    "species": species,
    "guidance": guidance,
    "straightness": straight,
    "interpolation": interpolation,
    "inpaint": inpainting,
    "init": from_photo,
}


def visualize(args, model, metadata):
    """Save the figures that args.show names, each from the same seed."""
    context = FigureContext(args, model, metadata)
    for name in progress(args.show, "figures"):
        set_seeds(args.seed)
        FIGURES[name](context)
