"""Draw vectors from N(0, 1) and let a trained decoder paint them.

python random_generation.py --model VAE

With --prior gaussian or gmm they are drawn from what was fitted, at the end of the
training, to the codes of the training photos.
"""

from math import isqrt

from utils.cli import PROJECT, UsageError, run
from utils.flags import command_line
from utils.registry import load_model

FLAGS = "--model --prior --count --seed --weights --save --out"
COLUMNS = 10  # images per row, at least
MOST_SHOWN = 1000  # images on a picture
BATCH = 256  # images painted at once
DRAWN_FROM = {
    "normal": "z ~ N(0, 1)",
    "gaussian": "z from a Gaussian fitted to the codes",
    "gmm": "z from a mixture fitted to the codes",
}


def paint(model, draw_codes, count):
    """Yield `count` images of `draw_codes(B)` in batches (B, 3, H, W) in [0, 1]."""
    import torch

    from utils.train import progress

    for start in progress(range(0, count, BATCH), "batches"):
        size = min(BATCH, count - start)
        with torch.no_grad():
            images = model.decoder(draw_codes(size))
        yield images


def main(argv=None):
    args = command_line(__doc__, *FLAGS.split(), model="VAE").parse_args(argv)
    if args.count > MOST_SHOWN and not args.save:
        raise UsageError(
            f"argument --count: a picture shows at most {MOST_SHOWN} images, got "
            f"{args.count}; save more with --save FILE.npy"
        )

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)
    import torch

    from utils.arrays import save_images
    from utils.checkpoint import find_weights, prepare_folder
    from utils.figures import caption, save_grid
    from utils.priors import load_prior
    from utils.runtime import set_seeds

    set_seeds(args.seed)
    weights = args.weights or find_weights(PROJECT, args.model)
    model, about = load_model(args.model, weights)
    batches = paint(model, load_prior(args.prior, model, about, weights), args.count)
    if args.save:
        size = model.args["img_height"], model.args["img_width"]
        save_images(args.save, batches, (args.count, *size, 3))
        return
    prepare_folder(args.out / "vis")
    save_grid(
        torch.cat(list(batches)),
        args.out / "vis" / f"random_images_{args.model}.png",
        columns=max(COLUMNS, isqrt(args.count)),
        title=caption(
            args.model, f"{args.count} samples, {DRAWN_FROM[args.prior]}", about
        ),
    )


if __name__ == "__main__":
    run(main)
