"""Show samples of a diffusion model above their nearest training photos.

python -m tools.nearest_neighbours --guidance 2

The first forty samples, then the ten of all --count with the smallest ratio of the
distances to the nearest and the second nearest photo: the most similar to copies. Under
each sample the nearest photo by pixels, then by features, flipped where that is nearer,
with the distance and, in brackets, that ratio. Writes vis/nearest_neighbours_NAME.png.
"""

from dataclasses import fields

from utils.cli import PROJECT, UsageError, UserError, guard, run
from utils.cli.arguments import command_line
from utils.config import DIFFUSION_MODELS, SamplerConfig

FLAGS = "--model --species --count --seed --data --weights --device --out"
SHOWN = 40  # samples, the first ones
COLUMNS = 10  # samples per row, and number of the most similar ones
MAX_SAMPLES = 10_000  # all are compared to all photos


def parse(argv=None):
    """Return the checked command line."""
    line = command_line(
        __doc__,
        *FLAGS.split(),
        settings=fields(SamplerConfig),
        choices={"--model": DIFFUSION_MODELS},
        model="diffusion",
        count=2000,
    )
    args = line.parse_args(argv)
    # At least the ones that are shown.
    if not SHOWN <= args.count <= MAX_SAMPLES:
        raise UsageError(
            f"argument --count: must be from {SHOWN} to {MAX_SAMPLES}, got {args.count}"
        )
    return args


if __name__ == "__main__":
    guard(parse)

import torch

from utils.device import choose_device, set_seeds
from utils.diffusion.sampling import sampler_config
from utils.evaluation.evaluate import ReferencePhotos
from utils.evaluation.features import load_features
from utils.evaluation.metrics import nearest_training_images
from utils.experiment import chosen_weights, generate, open_datasets
from utils.figures import caption, grid, save_stack, scale_for
from utils.files import prepare_folder
from utils.registry import load_model


def ratios(near):
    """Return the ratios of the distances to nearest and second nearest photo: (N,)."""
    return near.first / near.second.clamp(min=1e-9)


def block(rows, samples, photos, found):
    """Return the parts of a picture: samples (rows) above their nearest photos."""
    # found: {name: utils.evaluation.metrics.Nearest}.
    chosen = samples[rows]
    parts = [grid(chosen, COLUMNS, scale_for(chosen))]
    for near in found.values():
        nearest = photos[near.indices[rows]]  # flipped where that is nearer
        flipped = near.flipped[rows, None, None, None]
        nearest = torch.where(flipped, nearest.flip(3), nearest)
        heads = [f"{near.first[i]:.2f} ({ratios(near)[i]:.2f})" for i in rows]
        parts += [heads, grid(nearest, COLUMNS, scale_for(chosen))]
    return parts


def most_similar(found):
    """Return the COLUMNS samples with the smallest ratio by any of the distances."""
    # found: as of `block`.
    least = torch.stack([ratios(near) for near in found.values()]).amin(dim=0)
    return least.argsort()[:COLUMNS].tolist()


def sheet(samples, photos, found, title):
    """Return all parts of the picture: the first samples, then the most similar."""
    names = ", below it by ".join(found)
    # The first samples, in order.
    parts = [title, f"Each sample above its nearest training photo by {names}"]
    for start in range(0, SHOWN, COLUMNS):
        parts += block(list(range(start, start + COLUMNS)), samples, photos, found)
    # Then those that are most likely copies.
    head = f"The {COLUMNS} most similar to a photo of {len(samples)} samples"
    return [*parts, head, *block(most_similar(found), samples, photos, found)]


def main(argv=None):
    args = parse(argv)
    device = choose_device(args.device)
    set_seeds(args.seed)
    model, metadata = load_model(args.model, chosen_weights(args), device)
    training, _ = open_datasets(metadata, args.data)
    if len(training) < 2:
        raise UserError("two training photos are needed for two distances; add photos")
    prepare_folder(args.out / "vis")

    # Samples as they would be saved, in 8 bits.
    config = sampler_config(args, model, metadata)
    options = {"species": args.species, "config": config}
    samples = (generate(model, metadata, args.count, **options) * 255).round() / 255

    # The nearest photos by both distances.
    features = load_features(PROJECT / "models" / "features.pt", device)
    reference = ReferencePhotos(training.all_images(), features)
    photos = reference.images[reference.unique]
    found = {
        "pixels": nearest_training_images(samples, photos),
        "features": nearest_training_images(samples, photos, features),
    }
    title = caption(args.model, "samples and nearest photos", metadata)
    path = args.out / "vis" / f"nearest_neighbours_{args.model}.png"
    save_stack(sheet(samples, photos, found, title), path)


if __name__ == "__main__":
    run(main)
