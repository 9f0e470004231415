"""Print what linear models reach on the same split: PCA, and a linear VAE's optimum.

python -m tools.linear_baselines
"""

from utils.cli import run
from utils.cli.arguments import command_line

FLAGS = "--encoding-dim --split-seed --image-size --data"
BATCH = 16  # photos, over which the VAE's loss is summed


def main(argv=None):
    parser = command_line(__doc__, *FLAGS.split(), encoding_dim=64, image_size=24)
    args = parser.parse_args(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.data_processor import open_flowers
    from utils.evaluation.linear_baselines import best_linear_bound, fit_pca

    size = args.image_size, args.image_size
    training, validation = (
        loader.dataset.all_images()
        for loader in open_flowers(args.data, 1, size, split_seed=args.split_seed)
    )
    axes = fit_pca(training, args.encoding_dim)
    train, valid = (
        (axes.reconstruct(side) - side).square().mean().item()
        for side in (training, validation)
    )
    print(
        f"PCA of {args.encoding_dim} components, mean squared error: "
        f"train {train:.5f}, validation {valid:.5f}"
    )
    train, valid = (
        BATCH * best_linear_bound(training, args.encoding_dim, side)
        for side in (training, validation)
    )
    print(
        f"Linear VAE at its optimum, loss per {BATCH} photos: "
        f"train {train:.1f}, validation {valid:.1f}"
    )


if __name__ == "__main__":
    run(main)
