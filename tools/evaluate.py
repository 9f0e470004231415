"""Measure how close images are to the photos, and whether they are copies.

python -m tools.evaluate models/Best_VAE.pth
python -m tools.evaluate samples.npy --json

IMAGES are files of weights, folders of pictures (which are resized to 24 x 24), or .npy
files of uint8 (N, H, W, 3). They are compared to all photos; copies are sought among
the training photos. For comparison also: an autoencoder's own reconstructions of the
training photos, the validation photos against the training photos, and samples of the
AE and the VAE in models/. --frechet leaves out these and all other metrics. The Frechet
distance of few images is biased upwards: compare distances at equal numbers.
"""

import json
import logging
import math
from dataclasses import asdict, fields
from pathlib import Path

from utils.cli import PROJECT, UsageError, UserError, guard, run
from utils.cli.arguments import command_line, refuse_given
from utils.cli.tables import text_table
from utils.config import (
    AUTOENCODERS,
    DIFFUSION_MODELS,
    METRICS,
    PRIORS,
    SAMPLER_FLAGS,
    SamplerConfig,
)

FLAGS = "--prior --species --count --seed --extractor --data --strict-data"
IMAGE_SIZE = 24  # pixels per side of a folder's pictures
MAX_IMAGES = 10_000  # of a set; all pairs of them are compared in memory
CLASSIFIED = "classified as requested"
log = logging.getLogger(__name__)


def parse(argv=None):
    """Return the checked command line."""
    parser = command_line(
        __doc__,
        *FLAGS.split(),
        settings=fields(SamplerConfig),
        choices={"--prior": PRIORS},
        count=2000,
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGES")
    parser.add_argument(
        "--frechet", action="store_true", help="only Frechet distances of IMAGES"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    args = parser.parse_args(argv)
    # All pairs of images are compared in memory.
    if args.count > MAX_IMAGES:
        raise UsageError(f"argument --count: at most {MAX_IMAGES}, got {args.count}")
    # Files and folders of images cannot be sampled.
    if not all(map(is_weights, args.images)):
        flags = ["--prior", "--species", *SAMPLER_FLAGS]
        refuse_given(args, flags, "existing IMAGES are not sampled")
    return args


def is_weights(path):
    """Return whether images are sampled from this path, not read."""
    return path.suffix != ".npy" and not path.is_dir()


if __name__ == "__main__":
    guard(parse)

import numpy as np
import torch

from utils.checkpoint import find_weights, load_checkpoint
from utils.data.photos import decode_all, photos_below
from utils.data_processor import open_flowers
from utils.device import set_seeds
from utils.diffusion.sampling import labels_for, sample, sampler_config
from utils.evaluation.evaluate import Comparison, ReferencePhotos, evaluate
from utils.evaluation.features import find_extractor
from utils.evaluation.metrics import proportion
from utils.experiment import generate, image_size
from utils.latents import encode
from utils.registry import load_diffusion, load_model

# Where images come from ------------------------------------------------------------


def read_images(path, args, count=None):
    """Return images (N, 3, H, W) in [0, 1], and the requested species or None."""
    # Raises UserError if there are none, or the file is something else.
    if is_weights(path):
        return sample_weights(path, args, count or args.count)
    if not path.is_dir():
        return read_array(path), None
    paths = photos_below(path)
    if not paths:
        raise UserError(f"{path} holds no images; name a folder of pictures")
    return decode_all(paths, IMAGE_SIZE, IMAGE_SIZE)[0].float() / 255, None


def read_array(path):
    """Return the images of a .npy file, (N, 3, H, W) in [0, 1]."""
    try:
        array = np.load(path)  # does not load objects
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; save it with --save") from None
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
        raise UserError(
            f"{path} holds {array.dtype} {array.shape}; uint8 (N, H, W, 3) is needed"
        )
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255


def model_of(path):
    """Return the name of the model whose weights are in a file."""
    # Raises UserError if the file holds something that generates no images.
    name = load_checkpoint(path)[1].get("model")
    if name not in (*AUTOENCODERS, *DIFFUSION_MODELS):
        raise UserError(
            f"no images can be generated from {path} (model: {name or 'not given'}); "
            "name weights of " + ", ".join((*AUTOENCODERS, *DIFFUSION_MODELS))
        )
    return name


def sample_weights(path, args, count):
    """Generate images from a file of weights, as `read_images` returns them."""
    name = model_of(path)
    model, metadata = load_model(name, path)
    if name in AUTOENCODERS:
        options = {"prior": args.prior or "normal", "weights": path}
        return generate(model, metadata, count, batch_size=count, **options), None
    refuse_given(args, ["--prior"], f"{path} has no codes")
    labels = labels_for(args.species, metadata, count)
    config = sampler_config(args, model, metadata)
    images = generate(model, metadata, count, config=config, labels=labels)
    names = metadata.get("data", {}).get("classes", [])
    requested = None if labels is None else [names[i] for i in labels.tolist()]
    return (images * 255).round() / 255, requested  # as they would be saved


def sampling_facts(path, args):
    """Return how a diffusion model's file was sampled: names -> values."""
    # The evaluations of the network are counted on one image.
    if not is_weights(path) or model_of(path) in AUTOENCODERS:
        return {}
    model, metadata = load_diffusion(path)
    config = sampler_config(args, model, metadata)
    labels, size = labels_for(args.species, metadata, 1), image_size(metadata)
    _, nfe = sample(model, torch.randn(1, 3, size, size), config, labels)
    low, high = config.guidance_interval
    interval = [low, None if math.isinf(high) else high]  # JSON has no infinity
    return asdict(config) | {"guidance_interval": interval, "nfe": nfe}


def reconstructions(path, images):
    """Return an autoencoder's reconstructions of images (N, 3, H, W), or None."""
    name = model_of(path)
    if name in DIFFUSION_MODELS:
        return None
    model, _ = load_model(name, path)
    with torch.no_grad():
        return model.decoder(encode(model, images))


def open_photos(args):
    """Return (training, validation) photos of the size and split of IMAGES."""
    # Raises UsageError if IMAGES differ in size or split.
    found = set()
    # Size and split seed of each of IMAGES.
    for path in args.images:
        width = height = IMAGE_SIZE
        split_seed = 0
        if is_weights(path):
            _, metadata = load_checkpoint(path)
            width = height = image_size(metadata)
            split_seed = metadata.get("data", {}).get("split_seed", 0)
        elif path.is_file():
            height, width = read_array(path).shape[2:]
        found.add((width, height, split_seed))
    if len(found) > 1:
        raise UsageError("IMAGES differ in size or split; evaluate them one by one")
    # Photos of that size, split as for the weights.
    options = {"split_seed": split_seed, "strict": args.strict_data}
    loaders = open_flowers(args.data, 1, (width, height), **options)
    return [loader.dataset for loader in loaders]


# What is reported -------------------------------------------------------------------


def sets_to_compare(args, training, validation):
    """Return name -> (images (N, 3, H, W), their species' names or None)."""
    # training, validation: data sets. First IMAGES, then what they are compared to.
    photos, sets = training.all_images(), {}
    for path in args.images:
        requested = sets[str(path)] = read_images(path, args)
        if is_weights(path) and not args.frechet:
            sets[f"reconstructions by {path}"] = reconstructions(path, photos), None
    if not args.frechet:
        names = [validation.classes[i] for i in validation.labels.tolist()]
        sets["validation photos"] = validation.all_images(), names
        for name in ("AE", "VAE"):
            weights = find_weights(PROJECT, name)
            sets[f"our {name}"] = read_images(weights, args, len(requested[0]))
    # Images of another size have other features.
    fitting = {}
    for name, (images, names) in sets.items():
        if images is not None and images.shape[2:] == photos.shape[2:]:
            fitting[name] = images, names
        elif images is not None:
            log.warning("%s has images of another size, and is left out", name)
    return fitting


def classified_as_requested(images, names, extractor):
    """Return the proportion of images that a classifier assigns to their species."""
    known = getattr(extractor, "classes", [])
    if names is None or not set(names) <= set(known):
        return "no species was requested, or the extractor does not classify it"
    labels = torch.tensor([known.index(name) for name in names])
    with torch.no_grad():
        found = [extractor.classify(part).argmax(dim=1) for part in images.split(256)]
    return proportion(torch.cat(found) == labels)


def table(columns):
    """Return lines of text; columns: {name: (count, {metric: Estimate or reason})}."""
    head = ["measure", *(f"{name} ({count})" for name, (count, _) in columns.items())]
    rows = [head]
    for name in next(iter(columns.values()))[1]:
        cells = (found[name] for _, found in columns.values())
        rows.append([name, *map(cell, cells)])
    return text_table(rows)


def cell(found):
    """Return an Estimate with its interval as text, or a dash."""
    if isinstance(found, str):
        return "-"
    return "{:.4g} [{:.4g}, {:.4g}]".format(*found)


def main(argv=None):
    args = parse(argv)
    set_seeds(args.seed)
    extractor = find_extractor(args.extractor)
    training, validation = open_photos(args)

    # Measure every set of images.
    sets, columns = sets_to_compare(args, training, validation), {}
    sides = [
        ReferencePhotos(side.all_images(), extractor) for side in (training, validation)
    ]
    for name, (images, names) in sets.items():
        against = sides[:1] if name == "validation photos" else sides
        comparison = Comparison(images, extractor, *against)
        found = evaluate(comparison, METRICS[:2] if args.frechet else METRICS)
        if not args.frechet:
            found[CLASSIFIED] = classified_as_requested(images, names, extractor)
        columns[name] = len(images), found

    # Report.
    for name, (_, found) in columns.items():
        for metric, reason in found.items():
            if isinstance(reason, str):
                log.warning("no %s of %s: %s", metric.strip("- "), name, reason)
    if args.json:
        facts = {str(path): sampling_facts(path, args) for path in args.images}
        rows = {
            name: {"images": count, **facts.get(name, {}), **found}
            for name, (count, found) in columns.items()
        }
        print(json.dumps(rows))
    else:
        print("\n".join(table(columns)))


if __name__ == "__main__":
    run(main)
