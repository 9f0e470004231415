"""Draw vectors from N(0, 1) and let a trained decoder paint them.

python random_generation.py --model VAE
"""

from math import isqrt

from utils.cli import PROJECT, UsageError, command_line, run
from utils.registry import load_model

FLAGS = "--model --count --seed --weights --save --out"
COLUMNS = 10  # images per row, at least
MOST_SHOWN = 1000  # images on a picture
BATCH = 256  # images painted at once


def paint(model, count):
    """Yield `count` random images in batches (B, 3, H, W) in [0, 1]."""
    import torch

    from utils.train import progress

    for start in progress(range(0, count, BATCH), "batches"):
        size = min(BATCH, count - start)
        with torch.no_grad():
            images = model.decoder(torch.randn(size, model.args["encoding_dim"]))
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
    from utils.runtime import set_seeds

    set_seeds(args.seed)
    model, about = load_model(
        args.model, args.weights or find_weights(PROJECT, args.model)
    )
    batches = paint(model, args.count)
    if args.save:
        size = model.args["img_height"], model.args["img_width"]
        save_images(args.save, batches, (args.count, *size, 3))
        return
    prepare_folder(args.out / "vis")
    save_grid(
        torch.cat(list(batches)),
        args.out / "vis" / f"random_images_{args.model}.png",
        columns=max(COLUMNS, isqrt(args.count)),
        title=caption(args.model, f"{args.count} samples, z ~ N(0, 1)", about),
    )


if __name__ == "__main__":
    run(main)
