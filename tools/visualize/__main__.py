"""Show what a trained model has learned.

python -m tools.visualize --model VAE
python -m tools.visualize --model diffusion --show guidance inpaint
python -m tools.visualize --model diffusion --init PHOTO --strength 0.5

Of an autoencoder: the codes of the training photos on their first two principal axes,
what each dimension encodes, and linear and spherical interpolations between validation
photos.

Of a diffusion model, one figure each:
one_level      photos in noise of a few known levels, and the estimates of the photos
estimates      estimates at right and at wrong levels, and during sampling
one_step       the estimate from pure noise, beside the mean of the photos
denoise        states from noise to images, and an animation of both directions (a GIF)
species        images of every species
guidance       the same noise with rising guidance
straightness   trajectories from noise to images, and their deviation from straight
interpolation  images between those of two noises
inpaint        validation photos, a part of which is hidden and generated
init           images that start from the photo of --init with added noise
"""

from dataclasses import fields
from pathlib import Path

from utils.cli import UsageError, guard, run
from utils.cli.arguments import command_line, proportion, refuse_given, whole_number
from utils.config import AUTOENCODERS, DIFFUSION_MODELS, SAMPLER_FLAGS, SamplerConfig

FLAGS = "--model --species --seed --data --weights --device --out"  # and of sampling
# Rows of the table FIGURES of tools.visualize.diffusion; a test holds both equal.
WITHOUT_PHOTO = (
    *("one_level", "estimates", "one_step"),
    *("denoise", "species", "guidance", "straightness", "interpolation", "inpaint"),
)
NEEDS_PHOTO = "init"  # the figure that --init and --strength belong to
FIGURES = (*WITHOUT_PHOTO, NEEDS_PHOTO)


def parse(argv=None):
    """Return the checked command line."""
    line = command_line(
        __doc__,
        *FLAGS.split(),
        settings=fields(SamplerConfig),
        choices={"--model": (*AUTOENCODERS, *DIFFUSION_MODELS)},
        model="VAE",
    )
    # Of a diffusion model only, which has several figures.
    line.add_argument(
        "--show",
        nargs="+",
        choices=FIGURES,
        metavar="FIGURE",
        help=f"of a diffusion model: {', '.join(FIGURES)} (default: all without a "
        "photo; with --init only that one)",
    )
    # Of any model; the default depends on the figure.
    line.add_argument(
        "--count",
        type=whole_number(1, 1000),
        help="interpolations (default: 3), or images per row (default: 10)",
    )
    # Of the figure that starts from a photo.
    line.add_argument("--init", type=Path, metavar="PHOTO", help="photo to start from")
    line.add_argument(
        "--strength",
        type=proportion,
        help="proportion of noise in it: 0 keeps the photo, 1 ignores it (default: "
        "several)",
    )
    return checked(line.parse_args(argv))


def checked(args):
    """Return the command line, or refuse flags that exclude each other."""
    # An autoencoder has one figure, and no sampler.
    if args.model in AUTOENCODERS:
        flags = ["--show", "--init", "--strength", "--species", *SAMPLER_FLAGS]
        refuse_given(args, flags, f"{args.model} is no diffusion model")
    # Without a photo: the figures that need none.
    elif not args.init:
        refuse_given(args, ["--strength"], "there is no photo of --init")
        if NEEDS_PHOTO in (args.show or []):
            raise UsageError("argument --show: init needs a photo; name it with --init")
        args.show = args.show or [*WITHOUT_PHOTO]
    # With a photo: a file, and a figure that shows it.
    elif not args.init.is_file():
        raise UsageError(f"argument --init: {args.init} is not a file; name a photo")
    else:
        args.show = args.show or [NEEDS_PHOTO]
        if NEEDS_PHOTO not in args.show:
            refuse_given(args, ["--init"], "it belongs to --show init")
    return args


if __name__ == "__main__":
    guard(parse)

from tools.visualize import diffusion, latents
from utils.device import choose_device, set_seeds
from utils.experiment import chosen_weights
from utils.files import prepare_folder
from utils.registry import load_model


def main(argv=None):
    args = parse(argv)
    device = choose_device(args.device)
    set_seeds(args.seed)
    model, metadata = load_model(args.model, chosen_weights(args), device)
    # Refuse a folder that cannot be written before any work.
    prepare_folder(args.out / "vis")
    family = latents if args.model in AUTOENCODERS else diffusion
    family.visualize(args, model, metadata)


if __name__ == "__main__":
    run(main)
