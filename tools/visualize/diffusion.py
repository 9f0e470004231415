"""Pictures of what a diffusion model can do, each composed from `Stage`.

The model is known by what utils.sampling asks of it, and its photos and species by the
description in its file.
"""

from functools import cached_property

import torch
from matplotlib.figure import Figure

from tools.visualize.animation import film, save_film, telling
from utils.cli import UserError
from utils.data.photos import decode_one
from utils.data_processor import open_flowers
from utils.device import fixed_noise, set_seeds
from utils.diffusion.editing import arcs, filled, redrawn
from utils.diffusion.rectified_flow import bends, straightness, ways
from utils.diffusion.sampling import (
    Guided,
    chosen_species,
    levels_for,
    sampled,
    sampled_states,
    sampling_of,
)
from utils.evaluation.linear_baselines import fit_pca
from utils.experiment import warn_of_other_data
from utils.figures import DPI, caption, factor_for, grid, labelled, rendered, save_stack

COLUMNS = 10  # images in a row
ROWS = 6
FILMED = 8  # images of the film, in two rows
SCALES = (1, 1.5, 2, 3, 5)  # of guidance
STRENGTHS = (0.2, 0.35, 0.5, 0.65, 0.8, 1)  # of the noise on a photo
FOLLOWED = 64  # ways whose straightness is measured
DRAWN = 16  # of them
HIDDEN = 0.75  # grey of a hidden part


class Stage:
    """A diffusion model, how to draw from it, and what its pictures are made of.

    args: a command line with the flags of sampling, data, seed, model, out, count
    (images in a row, or None), init and strength. Images are S x S.
    """

    def __init__(self, args, model, about):
        if not {"settings", "data"} <= about.keys():
            raise UserError("the weights do not tell their photos; train them again")
        self.args, self.model, self.about = args, model, about
        self.how = sampling_of(args, model, about)
        self.size = about["settings"]["image_size"]
        self.known = about["data"]["classes"]
        self.wanted = args.species or self.known
        self.columns = args.count or COLUMNS

    def species(self, count):
        """Return `count` species in even shares: (count,)."""
        return chosen_species(self.wanted, self.about, count)

    def words(self, species):
        """Return the names of species (N,)."""
        return [self.known[i].replace("_", " ") for i in species.tolist()]

    def noise(self, count):
        """Draw noise (count, 3, S, S)."""
        return torch.randn(count, 3, self.size, self.size)

    def draw(self, noise, species, **changes):
        """Sample from noise -> images (B, 3, S, S) in [0, 1].

        Noise that the sampler adds is the same at every call.
        """
        with fixed_noise(self.args.seed):
            how = self.how._replace(**changes)
            return sampled(self.model, noise, how, species)[0]

    @cached_property
    def validation(self):
        """The validation photos, and the rows of those of wanted species."""
        seed, size = self.about["data"].get("split_seed", 0), (self.size, self.size)
        _, loader = open_flowers(self.args.data, 1, size, split_seed=seed)
        data = loader.dataset
        warn_of_other_data(self.about, data.about)
        kinds = [data.classes[label] for label in data.labels.tolist()]
        rows = [row for row, kind in enumerate(kinds) if kind in self.wanted]
        if not rows:
            raise UserError(
                "no validation photo shows " + " or ".join(self.wanted) + "; name the "
                "folder of such photos with --data"
            )
        return data, torch.tensor(rows)

    def photos(self, count):
        """Draw B <= count validation photos (B, 3, S, S), and their species (B,)."""
        data, rows = self.validation
        rows = rows[torch.randperm(len(rows))[:count]]
        kinds = [self.known.index(data.classes[i]) for i in data.labels[rows].tolist()]
        return data.all_images()[rows], torch.tensor(kinds)

    def path(self, what, ending="png"):
        """Return the path of a picture."""
        return self.args.out / "vis" / f"{what}_{self.args.model}.{ending}"

    def save(self, what, title, *parts):
        """Save the parts of a picture below its title."""
        title = caption(self.args.model, title, self.about)
        save_stack([title, *parts], self.path(what))

    def save_rows(self, what, title, heads, words, columns):
        """Save columns of images (B, 3, S, S) below heads, rows beside their words."""
        images = torch.stack(columns, dim=1).flatten(0, 1)
        self.save(what, title, heads, labelled(images, len(columns), words))


def denoising(stage):
    """States from noise to image, in columns; a film from photos to noise and back."""
    how, species = stage.how, stage.species(ROWS)
    levels = levels_for(stage.model, how)
    shown = telling(levels, stage.columns)
    states = sampled_states(stage.model, stage.noise(ROWS), how, species)
    columns = [(state + 1) / 2 for i, state in enumerate(states) if i in shown]
    title = f"from noise to image, {how.steps} steps of {how.sampler}"
    heads = ["noise level", *(f"{levels[i]:.2g}" for i in shown)]
    stage.save_rows("denoise", title, heads, stage.words(species), columns)
    photos, _ = stage.photos(FILMED)
    frames = film(stage.model, photos, how, stage.species(len(photos)))
    save_film(frames, stage.path("denoise", "gif"), FILMED // 2)


def by_species(stage):
    """A heading and a few rows for each species."""
    species, parts = stage.species(len(stage.wanted)), []
    count = max(1, ROWS // len(species)) * stage.columns
    for one, name in zip(species, stage.words(species), strict=True):
        images = stage.draw(stage.noise(count), one.repeat(count))
        parts += [name, grid(images, stage.columns, factor_for(images))]
    stage.save("species", f"guidance {stage.how.guidance:g}", *parts)


def guidance_sweep(stage):
    """A row for each scale, a column for each noise and species."""
    species, noise = stage.species(stage.columns), stage.noise(stage.columns)
    rows = [stage.draw(noise, species, guidance=scale) for scale in SCALES]
    heads = ["guidance", *stage.words(species)]
    words, columns = [f"{scale:g}" for scale in SCALES], torch.stack(rows, 1).unbind()
    stage.save_rows("guidance", "one noise a column", heads, words, columns)


def straight_ways(stage):
    """Ways along the images' first principal axis, and how far they are from chords."""
    how = stage.how._replace(sampler="dpm++3m")  # which sees no clipped estimates
    denoiser = Guided(stage.model, how, stage.species(FOLLOWED))
    found = ways(denoiser, stage.noise(FOLLOWED))
    axis = fit_pca(found.points[-1], 1).axes[0].float()
    places = found.points[:, :DRAWN].flatten(2) @ axis  # (T, DRAWN)
    figure = Figure(figsize=(9.7, 4.4), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(found.times[[0, -1]], places[[0, -1]], color="0.8", linestyle="--")
    left.set_prop_cycle(None)
    left.plot(found.times, places, linewidth=1)
    left.set(ylabel="place on the images' first principal axis")
    left.set_title("ways from noise to images, and their chords", fontsize=10)
    right.plot(found.times, bends(found))
    right.set(ylabel="squared distance of velocity and chord", ylim=(0, None))
    words = f"straightness S = {straightness(found):.4f} per pixel value"
    right.set_title(words, fontsize=10)
    for axes in (left, right):
        axes.set_xlabel("time t: noise at 1, image at 0")
        axes.invert_xaxis()
        axes.grid(alpha=0.3)
    title = f"the flow, {len(found.times) - 2} evaluations"
    stage.save("straightness", title, rendered(figure))


def between_noises(stage):
    """Rows on the arc from one noise to another, of one species each."""
    species = stage.species(ROWS)
    noises = arcs(stage.noise(ROWS), stage.noise(ROWS), stage.columns)
    columns = [stage.draw(noise, species) for noise in noises.unbind(dim=1)]
    title, words = "on the arc between two noises", stage.words(species)
    heads = ["", "one noise", *[""] * (stage.columns - 2), "another"]
    stage.save_rows("interpolation", title, heads, words, columns)


def hidden_parts(count, size):
    """Return what is known of photos, bool (count, 1, size, size).

    All but the middle of one, all but the right half of the next, and so on.
    """
    known = torch.ones(count, 1, size, size, dtype=torch.bool)
    edge = size // 4
    known[::2, :, edge : size - edge, edge : size - edge] = False
    known[1::2, :, :, size // 2 :] = False
    return known


def inpainting(stage):
    """Photos, what is shown of them, and several fillings of the rest."""
    photos, species = stage.photos(ROWS)
    known, count = hidden_parts(len(photos), stage.size), stage.columns
    many = [part.repeat_interleave(count, 0) for part in (photos, known, species)]
    fillings = filled(stage.model, *many[:2], stage.how, many[2])
    fillings = fillings.unflatten(0, (-1, count)).unbind(dim=1)
    columns = [photos, torch.where(known, photos, HIDDEN), *fillings]
    heads = ["", "photo", "shown", "filled in", *[""] * (count - 1)]
    words = stage.words(species)
    stage.save_rows("inpaint", "hidden parts filled in", heads, words, columns)


def from_photo(stage):
    """The photo of --init, and what becomes of it as each of a few species.

    At several strengths from one noise, or at the one of --strength from several.
    """
    photo = decode_one(stage.args.init, stage.size, stage.size).float() / 255
    species = stage.species(min(ROWS, len(stage.wanted)))
    noises = stage.noise(len(species) * stage.columns).unflatten(0, (-1, len(species)))
    strengths = [stage.args.strength] * stage.columns
    if stage.args.strength is None:
        strengths, noises = (
            STRENGTHS,
            noises[:1].expand(len(STRENGTHS), *noises[0].shape),
        )
    photos = photo.expand(len(species), -1, -1, -1)
    columns = [
        redrawn(stage.model, photos, strength, noise, stage.how, species)
        for strength, noise in zip(strengths, noises, strict=True)
    ]
    heads, words = (
        ["strength", "0: photo", *map("{:g}".format, strengths)],
        stage.words(species),
    )
    stage.save_rows("init", "from a photo", heads, words, [photos, *columns])


EXHIBITS = {
    "denoise": denoising,
    "species": by_species,
    "guidance": guidance_sweep,
    "straightness": straight_ways,
    "interpolation": between_noises,
    "inpaint": inpainting,
    "init": from_photo,
}


def show(args, model, about):
    """Save the pictures that args.show names, each from the same seed."""
    stage = Stage(args, model, about)
    for what in args.show:
        set_seeds(args.seed)
        EXHIBITS[what](stage)
