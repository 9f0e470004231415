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
from collections import deque
from pathlib import Path

from utils.cli import PROJECT, UsageError, UserError, run
from utils.flags import MODELS, command_line

FLAGS = "--prior --count --seed --data --strict-data"
IMAGE_SIZE = 24  # pixels per side of a folder's pictures
BATCH = 200  # images sampled at once
MOST = 10_000  # images of a set; all pairs of them are compared in memory
log = logging.getLogger(__name__)


def parse(argv):
    """Return the checked command line."""
    parser = command_line(__doc__, *FLAGS.split(), count=2000)
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGES")
    parser.add_argument(
        "--extractor",
        default=PROJECT / "models" / "features.pt",
        help="file of features, pixels, or inception (default: models/features.pt)",
    )
    parser.add_argument(
        "--frechet", action="store_true", help="Frechet distances of IMAGES alone"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    args = parser.parse_args(argv)
    if args.count > MOST:
        raise UsageError(f"argument --count: at most {MOST}, got {args.count}")
    if args.prior != "normal" and not all(map(is_weights, args.images)):
        raise UsageError("argument --prior: IMAGES that are there are not drawn again")
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


def read_images(path, count, prior="normal"):
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
    return draw(path, count, prior) if is_weights(path) else read_array(path)


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


def draw(path, count, prior="normal"):
    """Sample `count` images from a file of weights, (N, 3, H, W) in [0, 1]."""
    import torch

    from utils.checkpoint import load_checkpoint
    from utils.priors import load_prior
    from utils.registry import load_model

    weights, about = load_checkpoint(path)
    if about.get("model") == "diffusion" and prior == "normal":
        return draw_by_diffusion(weights, about, count)
    if about.get("model") not in MODELS:
        held = about.get("model", "does not say which")
        raise UserError(
            f"nothing is drawn from {path} (model: {held}) with --prior {prior}; "
            "name weights of " + ", ".join(MODELS)
        )
    model, _ = load_model(about["model"], path)
    with torch.no_grad():
        return model.decoder(load_prior(prior, model, about, path)(count))


def reconstructions(path, images):
    """Return what an autoencoder's file makes of images (N, 3, H, W), or None."""
    import torch

    from utils.checkpoint import load_checkpoint
    from utils.latent import encode
    from utils.registry import load_model

    name = load_checkpoint(path)[1].get("model")
    if name not in MODELS:
        return None
    model, _ = load_model(name, path)
    with torch.no_grad():
        return model.decoder(encode(model, images))


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
    """Return name -> images (N, 3, H, W): what is asked, and what stands beside it."""
    from utils.checkpoint import find_weights

    sets = {}
    for path in args.images:
        asked = sets[str(path)] = read_images(path, args.count, args.prior)
        if is_weights(path) and not args.frechet:
            sets[f"reconstructions by {path}"] = reconstructions(path, training)
    if not args.frechet:
        sets["validation photos"] = validation
        for name in ("AE", "VAE"):
            sets[f"our {name}"] = draw(find_weights(PROJECT, name), len(asked))
    fitting = {}
    for name, images in sets.items():
        if images is not None and images.shape[2:] == training.shape[2:]:
            fitting[name] = images
        elif images is not None:
            log.warning("%s has images of another size, and is left out", name)
    return fitting


def main(argv=None):
    args = parse(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.data_processor import open_flowers
    from utils.runtime import set_seeds
    from utils.yardsticks import measures, photos_of

    set_seeds(args.seed)
    extractor = find_extractor(args.extractor)
    (size, split_seed), *others = {what_it_saw(path) for path in args.images}
    if others:
        raise UsageError("IMAGES differ in size or split; evaluate them one by one")
    photos = [
        loader.dataset.all_images()
        for loader in open_flowers(
            args.data, BATCH, size, split_seed=split_seed, strict=args.strict_data
        )
    ]
    sets = sets_to_compare(args, *photos)
    sides = [photos_of(images, extractor) for images in photos]
    columns = {}
    for name, images in sets.items():
        against = sides[:1] if images is photos[1] else sides
        found = measures(images, extractor, *against, only_frechet=args.frechet)
        columns[name] = len(images), found
    for name, (_, found) in columns.items():
        for measure, reason in found.items():
            if isinstance(reason, str):
                log.warning("no %s of %s: %s", measure.strip("- "), name, reason)
    if args.json:
        print(json.dumps({n: {"images": c, **f} for n, (c, f) in columns.items()}))
    else:
        print("\n".join(table(columns)))


if __name__ == "__main__":
    run(main)
