"""Look into a trained model.

python -m tools.visualize --model VAE
python -m tools.visualize --model diffusion --show guidance inpaint
python -m tools.visualize --model diffusion --init PHOTO --strength 0.5

Of an autoencoder: a map of the training photos' codes on their first two principal
axes, its dimensions, and walks from one validation photo to another, by a line and by
an arc.

Of a diffusion model, one picture each:
denoise        states on the way from noise to images, and a film of both ways (a GIF)
species        images of every species
guidance       the same noise under rising guidance
straightness   the ways from noise to images, and how far they are from straight
interpolation  images between those of two noises
inpaint        validation photos, of which a part is hidden and filled in
init           images that begin as the photo of --init, in noise
"""

from pathlib import Path

from tools.visualize.latents import explore_codes
from utils.cli import PROJECT, UsageError, run
from utils.cli.arguments import (
    DIFFUSIONS,
    MODELS,
    SAMPLING,
    command_line,
    refuse_given,
    share,
    whole_number,
)
from utils.registry import load_model

FLAGS = "--model --seed --data --weights --out"
PICTURES = (  # of a diffusion model; `init` with a photo of --init alone
    "denoise",
    "species",
    "guidance",
    "straightness",
    "interpolation",
    "inpaint",
    "init",
)


def parse(argv):
    """Return the checked command line."""
    models, flags = (*MODELS, *DIFFUSIONS), [*FLAGS.split(), *SAMPLING]
    line = command_line(__doc__, *flags, choices={"--model": models}, model="VAE")
    line.add_argument(
        "--show",
        nargs="+",
        choices=PICTURES,
        metavar="WHAT",
        help="of a diffusion model: " + ", ".join(PICTURES) + " (default: all that "
        "need no photo of --init; with it that one alone)",
    )
    line.add_argument(
        "--count",
        type=whole_number(1, 1000),
        help="walks (default: 3), or images in a row (default: 10)",
    )
    line.add_argument("--init", type=Path, metavar="PHOTO", help="photo to begin with")
    line.add_argument(
        "--strength",
        type=share,
        help="of the noise it is put into: 0 keeps the photo, 1 ignores it (default: "
        "several)",
    )
    return checked(line.parse_args(argv))


def checked(args):
    """Return the command line, or refuse what does not go together."""
    if args.model in MODELS:
        flags = ["--show", "--init", "--strength", *SAMPLING]
        refuse_given(args, flags, f"{args.model} is no diffusion model")
    elif not args.init:
        refuse_given(args, ["--strength"], "there is no photo of --init")
        if "init" in (args.show or []):
            raise UsageError("argument --show: init needs a photo; name it with --init")
        args.show = args.show or [what for what in PICTURES if what != "init"]
    elif not args.init.is_file():
        raise UsageError(f"argument --init: {args.init} is not a file; name a photo")
    else:
        args.show = args.show or ["init"]
        if "init" not in args.show:
            refuse_given(args, ["--init"], "it belongs to --show init")
    return args


# Autoencoders ---------------------------------------------------------------------


def explore_noise(args, model, about):
    """Save the pictures of a diffusion model."""
    from tools.visualize.diffusion import show

    show(args, model, about)


FAMILIES = dict.fromkeys(MODELS, explore_codes)
FAMILIES |= dict.fromkeys(DIFFUSIONS, explore_noise)


def main(argv=None):
    args = parse(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.checkpoint import find_weights, prepare_folder
    from utils.device import set_seeds

    set_seeds(args.seed)
    weights = args.weights or find_weights(PROJECT, args.model)
    model, about = load_model(args.model, weights)
    prepare_folder(args.out / "vis")
    FAMILIES[args.model](args, model, about)


if __name__ == "__main__":
    run(main)
