"""Look into a trained model.

python -m tools.explore --model VAE
python -m tools.explore --model diffusion --show guidance inpaint
python -m tools.explore --model diffusion --init PHOTO --strength 0.5

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

from utils.cli import PROJECT, UsageError, UserError, run
from utils.flag_types import share, whole_number
from utils.flags import DIFFUSIONS, MODELS, SAMPLING, command_line, refuse_given
from utils.registry import load_model

FLAGS = "--model --seed --data --weights --out"
STEPS = 10  # images of a walk, ends included
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


def plot(codes, labels, classes, bars):
    """Draw the map of codes (N, D) beside bars -> picture (H, W, 3) in [0, 1].

    bars: (values (D,), what they are, title).
    """
    import torch.nn.functional as F
    from matplotlib.figure import Figure

    from utils.figures import DPI, rendered
    from utils.metrics import fit_pca

    figure = Figure(figsize=(9.7, 4.4), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    axes = fit_pca(codes, min(2, *codes.shape))
    points = F.pad(axes.codes(codes), (0, 2 - len(axes.axes)))  # (N, 2)
    for label, name in enumerate(classes):
        left.scatter(*points[labels == label].T, s=6, alpha=0.5, label=name)
    left.set(xlabel="first principal axis", ylabel="second principal axis")
    left.set_title("codes of the training photos", fontsize=10)
    if len(classes) <= 20:
        left.legend(fontsize=8)
    values, what, title = bars
    right.bar(range(len(values)), sorted(values, reverse=True))
    right.set(xlabel="dimension, the largest first", ylabel=what)
    right.set_title(title, fontsize=10)
    return rendered(figure)


def dimensions(model, images, codes):
    """Return what each dimension holds, as `plot` wants its bars.

    KL of a VAE's, else the variance on each principal axis.
    """
    import torch

    from utils.metrics import covariance
    from utils.train import validation_details

    if hasattr(model, "details"):
        batches = [(batch, None) for batch in images.split(256)]
        found = validation_details(model, batches, images.device)
        kl = [value for name, value in found.items() if name.startswith("valid_kl_")]
        active = found["valid_active_units"]
        return kl, "KL (nats)", f"{active} of {len(kl)} dimensions are in use"
    variances = torch.linalg.eigvalsh(covariance(codes))
    return variances.tolist(), "variance", "variance on each principal axis"


def walks(model, images):
    """Images (2 N, 3, H, W) -> walks between neighbours, (2 N STEPS, 3, H, W).

    Two rows for a pair: by a line, then by an arc.
    """
    import torch

    from utils.latent import encode, linear, spherical

    codes = encode(model, images, draw=False)
    ways = [
        way(start, end, STEPS)
        for start, end in zip(codes[::2], codes[1::2], strict=True)
        for way in (linear, spherical)
    ]
    with torch.no_grad():
        return model.decoder(torch.cat(ways))


def explore_codes(args, model, about):
    """Save the picture of an autoencoder's latent space."""
    import torch

    from utils.data_processor import open_flowers
    from utils.figures import caption, factor_for, grid, save_stack
    from utils.latent import encode
    from utils.runtime import warn_of_other_data

    size = model.args["img_width"], model.args["img_height"]
    split_seed = about.get("data", {}).get("split_seed", 0)
    training, validation = (
        loader.dataset
        for loader in open_flowers(args.data, 1, size, split_seed=split_seed)
    )
    warn_of_other_data(about, training.about)
    if min(len(training), len(validation)) < 2:
        raise UserError(
            "a walk needs two photos of training and two of validation, got "
            f"{len(training)} and {len(validation)}; add photos"
        )
    photos = training.all_images()
    codes = encode(model, photos, draw=False)
    bars = dimensions(model, photos, codes)
    ends = torch.randperm(len(validation))[: 2 * (args.count or 3)]
    ends = ends[: len(ends) // 2 * 2]
    steps = walks(model, validation.all_images()[ends])
    save_stack(
        [
            caption(args.model, "latent space", about),
            plot(codes, training.labels, training.classes, bars),
            "Walks between validation photos: by a line, below it by an arc",
            grid(steps, STEPS, factor_for(steps)),
        ],
        args.out / "vis" / f"latent_{args.model}.png",
    )


def explore_noise(args, model, about):
    """Save the pictures of a diffusion model."""
    from utils.exhibits import show

    show(args, model, about)


FAMILIES = dict.fromkeys(MODELS, explore_codes)
FAMILIES |= dict.fromkeys(DIFFUSIONS, explore_noise)


def main(argv=None):
    args = parse(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.checkpoint import find_weights, prepare_folder
    from utils.runtime import set_seeds

    set_seeds(args.seed)
    weights = args.weights or find_weights(PROJECT, args.model)
    model, about = load_model(args.model, weights)
    prepare_folder(args.out / "vis")
    FAMILIES[args.model](args, model, about)


if __name__ == "__main__":
    run(main)
