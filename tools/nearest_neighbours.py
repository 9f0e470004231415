"""Show samples of a diffusion model above the training photos nearest to them.

python -m tools.nearest_neighbours --guidance 2

The first forty samples, then the ten of all --count whose nearest photo is nearest
against the next: the most like copies. Under each sample the nearest photo by pixels,
then by features, mirrored where that is nearer, with the distance and, in brackets, its
share of the distance to the next. Makes vis/memorisation_NAME.png.
"""

from utils.cli import PROJECT, UsageError, UserError, run
from utils.cli.arguments import DIFFUSIONS, SAMPLING, command_line

FLAGS = ["--model", "--count", "--seed", "--data", "--weights", "--out", *SAMPLING]
SHOWN = 40  # samples as they come
COLUMNS = 10  # samples a row, and suspects
MOST = 10_000  # samples; all are compared with all photos


def parse(argv):
    """Return the checked command line."""
    line = command_line(__doc__, *FLAGS, choices={"--model": DIFFUSIONS})
    line.set_defaults(model="diffusion", count=2000)
    args = line.parse_args(argv)
    if not SHOWN <= args.count <= MOST:
        raise UsageError(
            f"argument --count: must be from {SHOWN} to {MOST}, got {args.count}"
        )
    return args


def drawn(model, about, args):
    """Sample as the flags say -> images (count, 3, S, S) of bytes, in [0, 1]."""
    import torch

    from utils.diffusion.sampling import chosen_species, sampled_batches, sampling_of

    species = chosen_species(args.species, about, args.count)
    size, how = about["settings"]["image_size"], sampling_of(args, model, about)
    batches = sampled_batches(model, how, species, args.count, size)
    return (torch.cat(list(batches)) * 255).round() / 255


def facing(images, photos, extractor):
    """Return the photos (N, 3, H, W), each mirrored where that is nearer to its image.

    By Euclidean distance of what the extractor makes of them.
    """
    import torch

    from utils.evaluation.metrics import extract

    own = extract(extractor, images)
    plain, turned = (
        (extract(extractor, some) - own).norm(dim=1)
        for some in (photos, photos.flip(3))
    )
    return torch.where((turned < plain)[:, None, None, None], photos.flip(3), photos)


def shares(near):
    """Distance to the nearest photo as a share of that to the next: (N,)."""
    return near.first / near.second.clamp(min=1e-9)  # photos there twice


def words(near, rows):
    """Return what stands above nearest photos: distance (share of the next one's)."""
    return [f"{near.first[i]:.2f} ({shares(near)[i]:.2f})" for i in rows]


def block(rows, samples, photos, found):
    """Return the parts of a picture: samples (rows) above their nearest photos.

    found: {what: (extractor, utils.metrics.Nearest)}.
    """
    from utils.figures import factor_for, grid

    some = samples[rows]
    parts = [grid(some, COLUMNS, factor_for(some))]
    for extractor, near in found.values():
        nearest = facing(some, photos[near.indices[rows]], extractor)
        parts += [words(near, rows), grid(nearest, COLUMNS, factor_for(some))]
    return parts


def suspects(found):
    """Return the COLUMNS samples whose nearest photo is nearest against the next.

    found: as `block`'s; by the smaller of the shares, the smallest first.
    """
    import torch

    least = torch.stack([shares(near) for _, near in found.values()]).amin(dim=0)
    return least.argsort()[:COLUMNS].tolist()


def sheet(samples, photos, found, title):
    """Return all parts of the picture: the first samples, then the suspects."""
    ways = ", below it by ".join(found)
    parts = [title, f"Each sample above its nearest training photo by {ways}"]
    for start in range(0, SHOWN, COLUMNS):
        parts += block(list(range(start, start + COLUMNS)), samples, photos, found)
    most = f"The {COLUMNS} most like copies of {len(samples)} samples"
    return [*parts, most, *block(suspects(found), samples, photos, found)]


def main(argv=None):
    args = parse(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)
    import torch

    from utils.checkpoint import find_weights, prepare_folder
    from utils.data_processor import open_flowers
    from utils.device import set_seeds
    from utils.evaluation.features import load_features
    from utils.evaluation.metrics import nearest_training_images
    from utils.experiment import warn_of_other_data
    from utils.figures import caption, save_stack
    from utils.registry import load_model

    set_seeds(args.seed)
    model, about = load_model(
        args.model, args.weights or find_weights(PROJECT, args.model)
    )
    size, data = about["settings"]["image_size"], about["data"]
    training, _ = open_flowers(
        args.data, 1, (size, size), split_seed=data["split_seed"]
    )
    warn_of_other_data(about, training.dataset.about)
    if len(training.dataset) < 2:
        raise UserError("a nearest photo and a next need two of training; add photos")
    prepare_folder(args.out / "vis")
    samples, photos = drawn(model, about, args), training.dataset.all_images()
    extractors = {
        "pixels": torch.nn.Flatten(),
        "features": load_features(PROJECT / "models" / "features.pt"),
    }
    found = {
        what: (extractor, nearest_training_images(samples, photos, extractor))
        for what, extractor in extractors.items()
    }
    title = caption(args.model, "samples and nearest photos", about)
    path = args.out / "vis" / f"memorisation_{args.model}.png"
    save_stack(sheet(samples, photos, found, title), path)


if __name__ == "__main__":
    run(main)
