"""Draw vectors from N(0, 1) and let a trained decoder paint them.

python random_generation.py --model VAE
"""

from math import isqrt

from utils.cli import PROJECT, command_line, run
from utils.registry import load_model

FLAGS = "--model --count --seed --weights --out"
COLUMNS = 10  # images per row, at least


def main(argv=None):
    args = command_line(__doc__, *FLAGS.split(), model="VAE").parse_args(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)
    import torch

    from utils.checkpoint import find_weights, prepare_folder
    from utils.figures import caption, save_grid
    from utils.runtime import set_seeds

    set_seeds(args.seed)
    model, about = load_model(
        args.model, args.weights or find_weights(PROJECT, args.model)
    )
    prepare_folder(args.out / "vis")
    with torch.no_grad():
        z = torch.randn(args.count, model.args["encoding_dim"])  # (B, D)
        random_images = model.decoder(z)  # (B, 3, H, W) in [0, 1]
    save_grid(
        random_images,
        args.out / "vis" / f"random_images_{args.model}.png",
        columns=max(COLUMNS, isqrt(args.count)),
        title=caption(args.model, f"{args.count} samples, z ~ N(0, 1)", about),
    )


if __name__ == "__main__":
    run(main)
