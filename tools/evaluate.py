"""Measure how close images are to the photos, and whether they are copies.

python -m tools.evaluate models/Best_VAE.pth
python -m tools.evaluate samples.npy --json

IMAGES are files of weights, folders of pictures (which are resized to 24 x 24), or .npy
files of uint8 (N, H, W, 3). They are compared to the validation photos first, then to
all photos; copies are sought among the training photos. For comparison also: an
autoencoder's own reconstructions of the training photos, the validation photos against
the training photos, samples of the AE and the VAE in models/, and copies of altered
training photos. --frechet leaves out these and all metrics but distances. With
--image-size all images are resized to it, as photos are. The same photos from files of
other sizes are not the same images: compare what was trained and measured on one
source.

The Frechet distance of few images is biased upwards; the extrapolated one is an
estimate for infinitely many images on both sides. Precision and recall, against the
training photos, are means over parts of as many images as there are validation photos.
"""

import json
import logging
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

from utils.cli import PROJECT, UsageError, UserError, guard, memory_for, run
from utils.cli.arguments import command_line, refuse_given
from utils.cli.tables import markdown_table
from utils.config import (
    AUTOENCODERS,
    DIFFUSION_MODELS,
    METRICS,
    PRIORS,
    SAMPLER_FLAGS,
    SamplerConfig,
    Settings,
    fields_named,
)

FLAGS = "--prior --species --count --seed --extractor --data --strict-data --device"
IMAGE_SIZE = 24  # pixels per side of a folder's pictures
MAX_IMAGES = 10_000  # of a set; all pairs of them are compared in memory
CLASSIFIED = "classified as requested"  # a metric of images of given species
DISTANCES = tuple(name for name in METRICS if "distance" in name or name[0] == "-")
log = logging.getLogger(__name__)


def parse(argv=None):
    """Return the checked command line."""
    parser = command_line(
        __doc__,
        *FLAGS.split(),
        settings=[*fields(SamplerConfig), *fields_named(Settings, "image_size")],
        choices={"--prior": PRIORS},
        count=2000,
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGES")
    parser.add_argument(
        "--frechet", action="store_true", help="only distances, and only of IMAGES"
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
from utils.data.photos import decode_all, photos_below, resized
from utils.data_processor import open_flowers
from utils.device import choose_device, device_of, fork_rng, set_seeds
from utils.diffusion.sampling import labels_for, sample, sampler_config
from utils.evaluation.evaluate import (
    ALTERATIONS,
    Comparison,
    ReferencePhotos,
    copies_found,
    evaluate,
)
from utils.evaluation.features import find_extractor
from utils.evaluation.metrics import proportion
from utils.experiment import generate, image_size, warn_of_other_data
from utils.files import open_regular
from utils.latents import decode, encode
from utils.registry import load_model

# Where images come from ------------------------------------------------------------


class ImageSet(NamedTuple):
    """Images that are measured."""

    images: torch.Tensor  # (N, 3, H, W) in [0, 1]
    species: list | None = None  # names (N,) that were requested, or of the photos
    facts: dict | None = None  # how a diffusion model was sampled: names -> values


def read_images(path, args, metadata):
    """Return the ImageSet of one of IMAGES; metadata: path -> metadata of weights."""
    # Raises UserError if there are no images, or the file is something else.
    if path in metadata:
        return sample_weights(metadata[path]["model"], path, args, args.count)
    if not path.is_dir():
        return ImageSet(read_array(path))
    # A folder: pictures of any size and shape.
    paths = photos_below(path)
    if not paths:
        raise UserError(f"{path} holds no images; name a folder of pictures")
    size = args.image_size or IMAGE_SIZE
    return ImageSet(decode_all(paths, size, size)[0].float() / 255)


def read_array(path):
    """Return the images of a .npy file, (N, 3, H, W) in [0, 1]."""
    try:
        # A map compares the size that the file claims with its own. Loads no objects.
        with open_regular(path):
            array = np.array(np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; save it with --save") from None
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
        raise UserError(
            f"{path} holds {array.dtype} {array.shape}; uint8 (N, H, W, 3) is needed"
        )
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255


def read_metadata(paths):
    """Return {path: metadata} of the weights among these paths."""
    # Raises UserError if a file holds something that generates no images.
    metadata = {path: load_checkpoint(path)[1] for path in paths if is_weights(path)}
    models = (*AUTOENCODERS, *DIFFUSION_MODELS)
    for path, found in metadata.items():
        if (name := found.get("model", "not given")) not in models:
            raise UserError(
                f"no images can be generated from {path} (model: {name}); name weights "
                f"of {', '.join(models)}"
            )
    return metadata


def sample_weights(name, path, args, count):
    """Return the ImageSet that the weights of a file generate."""
    model, metadata = load_model(name, path, choose_device(args.device))
    if name in AUTOENCODERS:
        options = {"prior": args.prior or "normal", "weights": path}
        return ImageSet(generate(model, metadata, count, batch_size=count, **options))
    # A diffusion model, of the requested species.
    refuse_given(args, ["--prior"], f"{path} has no codes")
    labels = labels_for(args.species, metadata, count)
    config = sampler_config(args, model, metadata)
    images = generate(model, metadata, count, config=config, labels=labels)
    names = metadata.get("data", {}).get("classes", [])
    requested = None if labels is None else [names[i] for i in labels.tolist()]
    images = (images * 255).round() / 255  # as they would be saved
    return ImageSet(images, requested, sampling_facts(model, config, images, labels))


def sampling_facts(model, config, images, labels):
    """Return how images (N, 3, S, S) were sampled: names -> values."""
    # The evaluations of the network are counted on one image. Its noise has a seed of
    # its own, so that the next images do not depend on it.
    with fork_rng(0):
        noise = torch.randn_like(images[:1])
        _, nfe = sample(model, noise, config, None if labels is None else labels[:1])
    low, high = config.guidance_interval
    interval = [low, None if math.isinf(high) else high]  # JSON has no infinity
    return asdict(config) | {"guidance_interval": interval, "nfe": nfe}


def reconstructions(name, path, images, device):
    """Return an autoencoder's reconstructions of images (N, 3, H, W)."""
    # The model is built anew, which draws random numbers: the samples of the models
    # after it, in published results, depend on them.
    model, _ = load_model(name, path, device)
    return decode(model, encode(model, images))


def open_photos(args, metadata):
    """Return (training, validation) FlowerImages of the size and split of IMAGES."""
    # metadata: path -> metadata of weights. Raises UsageError if IMAGES differ in them.
    found = set()
    for path in args.images:
        width = height = args.image_size or image_size(metadata.get(path, {}))
        if path.suffix == ".npy" and not args.image_size:
            height, width = read_array(path).shape[2:]
        split_seed = metadata.get(path, {}).get("data", {}).get("split_seed", 0)
        found.add((width, height, split_seed))
    if len(found) > 1:
        raise UsageError("IMAGES differ in size or split; evaluate them one by one")
    # Photos of that size, split as for the weights.
    options = {"split_seed": split_seed, "strict": args.strict_data}
    loaders = open_flowers(args.data, 1, (width, height), **options)
    for path in metadata:
        warn_of_other_data(metadata[path], loaders[0].dataset.metadata)
    return [loader.dataset.fitting_memory() for loader in loaders]


# What is reported -------------------------------------------------------------------


def sets_to_compare(args, metadata, training, validation):
    """Return name -> ImageSet: first IMAGES, then what they are compared to."""
    # metadata: path -> metadata of weights; training, validation: FlowerImages.
    photos, sets = training.all_images(), {}
    for path in args.images:
        requested = sets[str(path)] = read_images(path, args, metadata)
        name = metadata.get(path, {}).get("model")
        if name in AUTOENCODERS and not (args.frechet or args.image_size):
            device = choose_device(args.device)
            rebuilt = reconstructions(name, path, photos, device)
            sets[f"reconstructions by {path}"] = ImageSet(rebuilt)
    if not args.frechet:
        names = [validation.classes[i] for i in validation.labels.tolist()]
        sets["validation photos"] = ImageSet(validation.all_images(), names)
        for name in ("AE", "VAE"):
            path, count = find_weights(name, PROJECT), len(requested.images)
            trained_on = load_checkpoint(path)[1].get("data", training.metadata)
            same = trained_on["split"] == training.metadata["split"]
            title = f"our {name}" if same else f"our {name}, of other photos"
            sets[title] = sample_weights(name, path, args, count)
    # Images of another size have other features.
    for name, found in list(sets.items()):
        if args.image_size:
            sets[name] = found._replace(images=resized(found.images, args.image_size))
        elif found.images.shape[2:] != photos.shape[2:]:
            log.warning("%s has images of another size, and is left out", name)
            del sets[name]
    return sets


def classified_as_requested(images, names, extractor):
    """Return the proportion of images that a classifier assigns to their species."""
    known = getattr(extractor, "classes", [])
    if names is None or not set(names) <= set(known):
        return "no species was requested, or the extractor does not classify it"
    # The classes of the extractor may have another order than those of the weights.
    labels = torch.tensor([known.index(name) for name in names])  # (N,)
    parts = images.to(device_of(extractor)).split(256)
    with torch.no_grad():
        found = [extractor.classify(part).argmax(dim=1) for part in parts]
    return proportion(torch.cat(found).cpu() == labels)


def table(columns):
    """Return Markdown; columns: {name: (count, {metric: Estimate or reason})}."""
    head = ["measure", *(f"{name} ({count})" for name, (count, _) in columns.items())]
    rows = [
        [metric, *(cell(found.get(metric, "")) for _, found in columns.values())]
        for metric in next(iter(columns.values()))[1]
    ]
    return markdown_table(head, rows)


def cell(found):
    """Return an Estimate with its interval as text, or a dash."""
    if isinstance(found, str):
        return "-"
    return "{:.4g} [{:.4g}, {:.4g}]".format(*found)


def main(argv=None):
    args = parse(argv)
    set_seeds(args.seed)
    extractor = find_extractor(args.extractor, choose_device(args.device))
    metadata = read_metadata(args.images)
    training, validation = open_photos(args, metadata)

    # Measure every set of images.
    with memory_for(f"--count {args.count}"):
        sets, columns = sets_to_compare(args, metadata, training, validation), {}
    sides = [
        ReferencePhotos(side.all_images(), extractor) for side in (training, validation)
    ]
    for name, (images, names, _) in sets.items():
        # Validation photos are compared to training photos only.
        against = sides[:1] if name == "validation photos" else sides
        comparison = Comparison(images, extractor, *against)
        found = evaluate(comparison, DISTANCES if args.frechet else METRICS)
        if not args.frechet:
            found[CLASSIFIED] = classified_as_requested(images, names, extractor)
        columns[name] = len(images), found
    if not args.frechet:
        count = len(validation)
        for name in ALTERATIONS:
            found = copies_found(name, count, sides[0], extractor)
            columns[f"training photos, {name}"] = count, found

    report(columns, sets, args.json)


def report(columns, sets, as_json):
    """Print a table or JSON, and log why a metric has no value."""
    # columns: {name: (count, {metric: Estimate or reason})}; sets: {name: ImageSet}.
    for name, (_, found) in columns.items():
        for metric, reason in found.items():
            if isinstance(reason, str):
                log.warning("no %s of %s: %s", metric.strip("- "), name, reason)
    if not as_json:
        print(table(columns))
        return
    facts = {name: found.facts or {} for name, found in sets.items()}
    rows = {
        name: {"images": count, **facts.get(name, {}), **found}
        for name, (count, found) in columns.items()
    }
    print(json.dumps(rows))


if __name__ == "__main__":
    run(main)
