"""Print what linear models reach on the same split: PCA, and the optimal linear VAE.

python -m tools.linear_baselines
"""

from utils.cli import guard, run
from utils.cli.arguments import command_line
from utils.config import AutoencoderSettings, fields_named

FLAGS = "--split-seed --data"
BATCH_SIZE = 16  # photos, over which the VAE's loss is a sum


def parse(argv=None):
    """Return the checked command line."""
    settings = fields_named(AutoencoderSettings, "encoding_dim", "image_size")
    defaults = {f.name: f.default for f in settings}
    line = command_line(__doc__, *FLAGS.split(), settings=settings, **defaults)
    return line.parse_args(argv)


if __name__ == "__main__":
    guard(parse)

from utils.data_processor import open_flowers
from utils.evaluation.linear_baselines import best_linear_bound, fit_pca


def main(argv=None):
    args = parse(argv)
    # The photos, (N, 3, S, S) in [0, 1], with the split of the autoencoders.
    size = args.image_size, args.image_size
    training, validation = (
        loader.dataset.fitting_memory().all_images()
        for loader in open_flowers(args.data, 1, size, split_seed=args.split_seed)
    )
    # PCA: the best linear autoencoder, by mean squared error over all values.
    axes = fit_pca(training, args.encoding_dim)
    train, valid = (
        (axes.reconstruct(side) - side).square().mean().item()
        for side in (training, validation)
    )
    print(
        f"PCA of {args.encoding_dim} components, mean squared error: "
        f"train {train:.5f}, validation {valid:.5f}"
    )
    # The VAE: the loss of the assignment, a sum over a batch.
    train, valid = (
        # The bound is a mean over photos.
        BATCH_SIZE * best_linear_bound(training, args.encoding_dim, side)
        for side in (training, validation)
    )
    print(
        f"Linear VAE at its optimum, loss per {BATCH_SIZE} photos: "
        f"train {train:.1f}, validation {valid:.1f}"
    )


if __name__ == "__main__":
    run(main)
