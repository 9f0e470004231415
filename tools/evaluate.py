"""Measure images: how near they are to the photos, and whether they are copies.

python -m tools.evaluate models/Best_VAE.pth
python -m tools.evaluate samples.npy --json

IMAGES is a file of weights, a folder of pictures (which are brought to 24 x 24), or a
.npy of uint8 (N, H, W, 3). All are compared with the training photos; beside them stand
the validation photos (the floor) and samples of the AE and the VAE in models/. Frechet
distances of few images are too large: compare them at equal numbers.
"""

import json
import logging
from collections import deque
from pathlib import Path

from utils.cli import PROJECT, UsageError, UserError, command_line, run

FLAGS = "--count --seed --data --strict-data"
IMAGE_SIZE = 24  # pixels per side of a folder's pictures
BATCH = 200  # images sampled at once
MOST = 10_000  # images of a set; all pairs of them are compared in memory
log = logging.getLogger(__name__)


def parse(argv):
    """Return the checked command line."""
    parser = command_line(__doc__, *FLAGS.split(), count=1000)
    parser.add_argument("images", type=Path, metavar="IMAGES")
    parser.add_argument(
        "--extractor",
        default=PROJECT / "models" / "features.pt",
        help="file of features, pixels, or inception (default: models/features.pt)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    args = parser.parse_args(argv)
    if args.count > MOST:
        raise UsageError(f"argument --count: at most {MOST}, got {args.count}")
    return args


# Where images come from ----------------------------------------------------------


def read_images(path, count):
    """Return the images of a checkpoint, folder or array, (N, 3, H, W) in [0, 1].

    Raises:
        UserError: if there are none, or the file is something else.
    """
    from utils.photos import decode_all, photos_below

    if path.is_dir():
        paths = photos_below(path)
        if not paths:
            raise UserError(f"{path} holds no images; name a folder of pictures")
        return decode_all(paths, IMAGE_SIZE, IMAGE_SIZE)[0].float() / 255
    return read_array(path) if path.suffix == ".npy" else draw(path, count)


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


def draw(path, count):
    """Sample `count` images from a file of weights, (N, 3, H, W) in [0, 1]."""
    import torch

    from utils.checkpoint import load_checkpoint
    from utils.registry import load_model

    weights, about = load_checkpoint(path)
    if about.get("model") == "diffusion":
        return draw_by_diffusion(weights, about, count)
    if "model" not in about:
        raise UserError(f"{path} does not say which model it holds; train it again")
    model, _ = load_model(about["model"], path)
    with torch.no_grad():
        return model.decoder(torch.randn(count, model.args["encoding_dim"]))


def draw_by_diffusion(weights, about, count):
    """Sample by the whole chain, (N, 3, S, S) in [0, 1]."""
    import torch

    from diffusion import Diffuser
    from utils.checkpoint import check_fit
    from utils.train import progress

    model = Diffuser(**about["args"])
    check_fit(model, weights, "the file of weights")
    model.load_state_dict(weights, strict=True)
    size, parts = about.get("settings", {}).get("image_size", 24), []
    for start in progress(range(0, count, BATCH), "images"):
        noise = torch.randn(min(BATCH, count - start), 3, size, size)
        x_0 = deque(model.eval().states(noise, model.n_steps), maxlen=1).pop()
        parts.append(((x_0 + 1) / 2).clamp(0, 1))
    return torch.cat(parts)


def find_extractor(name):
    """Return (B, 3, H, W) -> (B, D): pixels, Inception, or the features of a file."""
    import torch

    from utils.features import load_features

    if str(name) == "pixels":
        return torch.nn.Flatten()
    return inception() if str(name) == "inception" else load_features(Path(name))


def inception():
    """Return torchmetrics' Inception, which downloads its weights at first use."""
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3("inception-v3-compat", ["2048"])
    except ModuleNotFoundError as error:
        raise UserError(f"{error}; install it: pip install -e '.[metrics]'") from None
    return lambda images: network((images * 255).round().byte())


# What is measured ----------------------------------------------------------------


def measures(images, training, extractor):
    """Measure images (N, 3, H, W) against the training photos.

    Returns name -> Estimate, or a str that says why there is none.
    """
    from utils.metrics import (
        extract,
        frechet_distance,
        kernel_distance,
        nearest_training_images,
        precision_and_recall,
        share,
        with_interval,
    )

    ones, others = extract(extractor, images), extract(extractor, training)
    found = {"kernel distance": kernel_distance(ones, others)}
    width = ones.shape[1]
    fewest = min(len(ones), len(others))
    if fewest <= width:
        found["Frechet distance"] = f"needs more than {width} images, got {fewest}"
    else:
        found["Frechet distance"] = with_interval(
            lambda some: frechet_distance(some, others), ones
        )
    for place, name in enumerate(("precision", "recall")):
        found[name] = with_interval(
            lambda some, place=place: precision_and_recall(others, some)[place], ones
        )
    for name, by in (("copies by pixels", None), ("copies by features", extractor)):
        found[name] = share(nearest_training_images(images, training, by).copies())
    return found


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


def main(argv=None):
    args = parse(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.checkpoint import find_weights
    from utils.data_processor import open_flowers
    from utils.runtime import set_seeds

    set_seeds(args.seed)
    extractor = find_extractor(args.extractor)
    images = read_images(args.images, args.count)
    height, width = images.shape[2:]
    photos = [
        loader.dataset.images.float() / 255
        for loader in open_flowers(
            args.data, BATCH, (width, height), args.seed, args.strict_data
        )
    ]
    sets = {str(args.images): images, "validation photos": photos[1]}
    for name in ("AE", "VAE"):
        sets[f"our {name}"] = draw(find_weights(PROJECT, name), len(images))
    columns = {}
    for name, others in sets.items():
        if others.shape[2:] == images.shape[2:]:
            columns[name] = len(others), measures(others, photos[0], extractor)
        else:
            log.warning("%s makes images of another size, and is left out", name)
    for name, (_, found) in columns.items():
        for measure, reason in found.items():
            if isinstance(reason, str):
                log.warning("no %s of %s: %s", measure, name, reason)
    if args.json:
        print(json.dumps({n: {"images": c, **f} for n, (c, f) in columns.items()}))
    else:
        print("\n".join(table(columns)))


if __name__ == "__main__":
    run(main)
