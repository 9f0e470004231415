"""Measure images: how near they are to the photos, and whether they are copies.

python -m tools.evaluate models/Best_VAE.pth
python -m tools.evaluate samples.npy --json

Each of IMAGES is a file of weights, a folder of pictures (which are brought to 24 x
24), or a .npy of uint8 (N, H, W, 3). They are compared with all photos; copies are
sought among those of training. Beside them stand an autoencoder's own reconstructions
of the training photos, the validation photos against the training photos (the floor),
and samples of the AE and the VAE in models/; with --frechet nothing, and no other
measure. Frechet distances of few images are too large: compare them at equal numbers.
"""

import json
import logging
import math
from pathlib import Path

from utils.cli import PROJECT, UsageError, UserError, run
from utils.cli.arguments import DIFFUSIONS, MODELS, SAMPLING, command_line, refuse_given

FLAGS = "--prior --count --seed --extractor --data --strict-data"
IMAGE_SIZE = 24  # pixels per side of a folder's pictures
BATCH = 200  # photos decoded at once
MOST = 10_000  # images of a set; all pairs of them are compared in memory
log = logging.getLogger(__name__)


def parse(argv):
    """Return the checked command line."""
    parser = command_line(__doc__, *FLAGS.split(), *SAMPLING, count=2000)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGES")
    parser.add_argument(
        "--frechet", action="store_true", help="Frechet distances of IMAGES alone"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    args = parser.parse_args(argv)
    if args.count > MOST:
        raise UsageError(f"argument --count: at most {MOST}, got {args.count}")
    if not all(map(is_weights, args.images)):
        refuse_given(
            args, ["--prior", *SAMPLING], "IMAGES that are there are not drawn"
        )
    return args


# Where images come from ----------------------------------------------------------


def is_weights(path):
    """Tell whether images are to be drawn from this path, not read."""
    return path.suffix != ".npy" and not path.is_dir()


def what_it_saw(path):
    """Return (width, height) and split seed of IMAGES: its own, or 24 x 24 and 0."""
    from utils.checkpoint import load_checkpoint

    size, split_seed = IMAGE_SIZE, 0
    if is_weights(path):
        _, about = load_checkpoint(path)
        size = about.get("settings", {}).get("image_size", size)
        split_seed = about.get("data", {}).get("split_seed", split_seed)
    elif path.is_file():
        height, width = read_array(path).shape[2:]
        return (width, height), split_seed
    return (size, size), split_seed


def read_images(path, args):
    """Return the images of a checkpoint, folder or array, (N, 3, H, W) in [0, 1].

    With them the names of the species that were asked for, or None.

    Raises:
        UserError: if there are none, or the file is something else.
    """
    from utils.data.photos import decode_all, photos_below

    if path.is_dir():
        paths = photos_below(path)
        if not paths:
            raise UserError(f"{path} holds no images; name a folder of pictures")
        return decode_all(paths, IMAGE_SIZE, IMAGE_SIZE)[0].float() / 255, None
    return draw(path, args) if is_weights(path) else (read_array(path), None)


def read_array(path):
    """Return the images of a .npy file, (N, 3, H, W) in [0, 1]."""
    import numpy as np
    import torch

    try:
        array = np.load(path)  # refuses objects, as by default
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; save it with --save") from None
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
        raise UserError(
            f"{path} holds {array.dtype} {array.shape}; uint8 (N, H, W, 3) is needed"
        )
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255


def draw(path, args, count=None):
    """Sample images from a file of weights, (N, 3, H, W) in [0, 1].

    With them the names of the species that were asked for, or None.
    """
    import torch

    from utils.checkpoint import load_checkpoint
    from utils.latents import load_prior
    from utils.registry import load_model

    name, count = load_checkpoint(path)[1].get("model"), count or args.count
    if name not in (*MODELS, *DIFFUSIONS):
        raise UserError(
            f"nothing is drawn from {path} (model: {name or 'does not say which'}); "
            "name weights of " + ", ".join((*MODELS, *DIFFUSIONS))
        )
    model, about = load_model(name, path)
    if name in DIFFUSIONS:
        refuse_given(args, ["--prior"], f"{path} has no codes")
        return draw_by_diffusion(model, about, args, count)
    prior = load_prior(args.prior or "normal", model, about, path)
    with torch.no_grad():
        return model.decoder(prior(count)), None


def draw_by_diffusion(model, about, args, count):
    """Sample as the flags say -> images (N, 3, S, S) in [0, 1], names or None."""
    import torch

    from utils.diffusion.sampling import chosen_species, sampled_batches, sampling_of

    species = chosen_species(args.species, about, count)
    size = about.get("settings", {}).get("image_size", IMAGE_SIZE)
    how = sampling_of(args, model, about)
    batches = sampled_batches(model, how, species, count, size)
    names = about.get("data", {}).get("classes", [])
    asked = None if species is None else [names[i] for i in species.tolist()]
    return (torch.cat(list(batches)) * 255).round() / 255, asked


def how_drawn(path, args):
    """Return how a diffusion model's file was sampled: names -> values; else nothing.

    The evaluations of the network are counted, on an image.
    """
    import torch

    from utils.checkpoint import load_checkpoint
    from utils.diffusion.sampling import chosen_species, sampled, sampling_of
    from utils.registry import load_diffusion

    if not is_weights(path) or load_checkpoint(path)[1].get("model") not in DIFFUSIONS:
        return {}
    model, about = load_diffusion(path)
    how = sampling_of(args, model, about)
    species = chosen_species(args.species, about, 1)
    size = about.get("settings", {}).get("image_size", IMAGE_SIZE)
    _, evaluations = sampled(model, torch.randn(1, 3, size, size), how, species)
    known = {name: v for name, v in how._asdict().items() if v != math.inf}
    return known | {"evaluations": evaluations}


def reconstructions(path, images):
    """Return what an autoencoder's file makes of images (N, 3, H, W), or None."""
    import torch

    from utils.checkpoint import load_checkpoint
    from utils.latents import encode
    from utils.registry import load_model

    name = load_checkpoint(path)[1].get("model")
    if name not in MODELS:
        return None
    model, _ = load_model(name, path)
    with torch.no_grad():
        return model.decoder(encode(model, images))


# What is told ---------------------------------------------------------------------


def table(columns):
    """{column: (number of images, {measure: Estimate or reason})} -> lines of text."""
    head = ["measure", *(f"{name} ({count})" for name, (count, _) in columns.items())]
    rows = [head]
    for name in next(iter(columns.values()))[1]:
        cells = [found[name] for _, found in columns.values()]
        rows.append([name, *map(cell, cells)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in rows
    ]


def cell(found):
    """Write an estimate with its interval, or a dash."""
    if isinstance(found, str):
        return "-"
    return "{:.4g} [{:.4g}, {:.4g}]".format(*found)


def sets_to_compare(args, training, validation):
    """Return name -> (images (N, 3, H, W), their species' names or None).

    training, validation: data sets. First what is asked, then what stands beside it.
    """
    from utils.checkpoint import find_weights

    photos, sets = training.all_images(), {}
    for path in args.images:
        asked = sets[str(path)] = read_images(path, args)
        if is_weights(path) and not args.frechet:
            rebuilt = reconstructions(path, photos)
            sets[f"reconstructions by {path}"] = rebuilt, None
    if not args.frechet:
        named = [validation.classes[i] for i in validation.labels.tolist()]
        sets["validation photos"] = validation.all_images(), named
        for name in ("AE", "VAE"):
            weights = find_weights(PROJECT, name)
            sets[f"our {name}"] = draw(weights, args, len(asked[0]))
    fitting = {}
    for name, (images, names) in sets.items():
        if images is not None and images.shape[2:] == photos.shape[2:]:
            fitting[name] = images, names
        elif images is not None:
            log.warning("%s has images of another size, and is left out", name)
    return fitting


def named_right(images, names, extractor):
    """Return the share whose species a classifier names as asked, or why not."""
    import torch

    from utils.evaluation.metrics import share

    known = getattr(extractor, "classes", [])
    if names is None or not set(names) <= set(known):
        return "no species was asked, or the extractor knows no names"
    asked = torch.tensor([known.index(name) for name in names])
    with torch.no_grad():
        found = [extractor.classify(part).argmax(dim=1) for part in images.split(256)]
    return share(torch.cat(found) == asked)


def main(argv=None):
    args = parse(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.data_processor import open_flowers
    from utils.device import set_seeds
    from utils.evaluation.evaluate import Photos, measures
    from utils.evaluation.features import find_extractor

    set_seeds(args.seed)
    extractor = find_extractor(args.extractor)
    (size, split_seed), *others = {what_it_saw(path) for path in args.images}
    if others:
        raise UsageError("IMAGES differ in size or split; evaluate them one by one")
    training, validation = (
        loader.dataset
        for loader in open_flowers(
            args.data, BATCH, size, split_seed=split_seed, strict=args.strict_data
        )
    )
    sets = sets_to_compare(args, training, validation)
    sides = [Photos(side.all_images(), extractor) for side in (training, validation)]
    columns = {}
    for name, (images, names) in sets.items():
        against = sides[:1] if name == "validation photos" else sides
        found = measures(images, extractor, *against, only_frechet=args.frechet)
        if not args.frechet:
            found["species named right"] = named_right(images, names, extractor)
        columns[name] = len(images), found
    for name, (_, found) in columns.items():
        for measure, reason in found.items():
            if isinstance(reason, str):
                log.warning("no %s of %s: %s", measure.strip("- "), name, reason)
    if args.json:
        ways = {str(path): how_drawn(path, args) for path in args.images}
        told = ((n, c, ways.get(n, {}), f) for n, (c, f) in columns.items())
        print(json.dumps({n: {"images": c, **way, **f} for n, c, way, f in told}))
    else:
        print("\n".join(table(columns)))


if __name__ == "__main__":
    run(main)
