"""What trainings and tools share: data of given weights, metadata, time budgets."""

# Functions are handed a built model; `utils.registry` builds and loads one.

import hashlib
import logging
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch

from utils.checkpoint import find_weights, weights_name
from utils.checkpoint.resume import keep_previous, refuse_other_photos
from utils.cli import PROJECT, UserError
from utils.cli.progress import progress
from utils.config import AUTOENCODERS, NARROW, NO_GUIDE, Settings
from utils.data_processor import open_flowers
from utils.device import device_of, fork_rng, prepare_device, synchronize
from utils.diffusion.sampling import (
    BATCH_SIZE,
    default_sampler_config,
    labels_for,
    sample_batches,
)
from utils.files import prepare_folder, prepare_target
from utils.latents import (
    MAX_CODES,
    decode,
    encode,
    fit_priors,
    load_prior,
    save_priors,
)
from utils.optim.factory import prepare_training

PROBE_STEPS = 12  # of which the first third is a warm-up
MARGIN = 0.94  # of a budget, for a machine whose speed varies
FEW_EPOCHS = 60  # below which a budget trains the narrow diffusion model
GUIDED_FROM = 30  # epochs; the early weights of shorter trainings are too early

log = logging.getLogger(__name__)

# Data ------------------------------------------------------------------------------


def start_training(args, settings, state=None):
    """Prepare device, photos and folders, as a command line and its settings say.

    state: the State of a run that is resumed (utils.checkpoint.resume).

    Returns:
        (device, (training, validation) loaders, metadata of the run).

    Raises:
        UserError: if a folder cannot be written, or the photos are not those of the
            run that is resumed.
    """
    device = prepare_device(args.device)
    loaders = open_flowers(
        args.data,
        settings.batch_size,
        (settings.image_size, settings.image_size),
        seed=args.seed,
        split_seed=args.split_seed,
        strict=args.strict_data,
        hflip=settings.hflip,
        translate=settings.translate,
        species=getattr(args, "species", None),
        cache=args.cache,
    )
    # Folders and earlier weights.
    for folder in ("models", "log", "vis"):
        prepare_folder(args.out / folder)
    data = loaders[0].dataset.metadata
    if state:
        refuse_other_photos(state, data)
    else:
        keep_previous(args.out / "models" / weights_name(args.model), data)
    metadata = {"seed": args.seed, "settings": asdict(settings), "data": data}
    return device, loaders, metadata


def chosen_weights(args, name=None):
    """Return the file of weights: --weights, or that in --out, or the project's."""
    # Logs which it is. Raises UserError if there is none.
    path = args.weights or find_weights(name or args.model, args.out, PROJECT)
    log.info("weights: %s", path)
    return Path(path)


def open_datasets(metadata, data=None, size=None, strict=False):
    """Return (training, validation) FlowerImages, split as for weights of `metadata`.

    data: folder of class folders, by default ./flowers; size: (width, height), by
    default what the weights were trained on. Of sets that are larger than memory an
    evenly spaced part. Warns of other data than theirs.
    """
    size = size or (image_size(metadata), image_size(metadata))
    split_seed = metadata.get("data", {}).get("split_seed", 0)
    loaders = open_flowers(data, 1, size, split_seed=split_seed, strict=strict)
    training, validation = (loader.dataset.fitting_memory() for loader in loaders)
    warn_of_other_data(metadata, training.metadata)
    return training, validation


def image_size(metadata):
    """Return the pixels per side of the images that weights were trained on."""
    return metadata.get("settings", {}).get("image_size", Settings.image_size)


def warn_of_other_data(metadata, data):
    """Warn where weights were trained on other images than `data` describes."""
    trained_on = metadata.get("data", data)
    if trained_on["source"] != data["source"]:
        log.warning(
            "the weights were trained on %s, and are shown on %s",
            trained_on["source"],
            data["source"],
        )
    elif trained_on["split"] != data["split"]:
        log.warning(
            "the weights were trained on another split: training photos may be among "
            "these validation photos"
        )


# Samples -----------------------------------------------------------------------------


def generate(model, metadata, count, **options):
    """Return `count` images (count, 3, H, W) in [0, 1] of any trained model.

    The options are those of `generate_batches`.
    """
    return torch.cat(list(generate_batches(model, metadata, count, **options)))


def generate_batches(
    model,
    metadata,
    count,
    species=None,
    config=None,
    labels=None,
    prior="normal",
    weights=None,
    batch_size=BATCH_SIZE,
):
    """Return a generator of `count` images, in batches (B, 3, H, W) in [0, 1].

    They are on the CPU, wherever the model is. model, metadata: of
    utils.registry.load_model.

    Of a diffusion model: species are names, by default all, in the proportions of the
    training photos; labels (count,) replace them; config: a SamplerConfig, by default
    the weights' own.

    Of an autoencoder: prior is one of utils.config.PRIORS; weights: the file of the
    model's weights, beside which the fitted priors are, by default the one in models/.
    """
    if model.name in AUTOENCODERS:
        if prior != "normal":  # fitted to the codes of these weights
            weights = Path(weights or find_weights(model.name, PROJECT))
        fit = partial(fit_missing_priors, model, metadata, weights)
        draw_codes = load_prior(prior, model, metadata, weights, fit)
        return decode_batches(model, draw_codes, count, batch_size)
    config = config or default_sampler_config(metadata)
    if labels is None:
        labels = labels_for(species, metadata, count)
    return sample_batches(model, config, labels, count, image_size(metadata))


def decode_batches(model, draw_codes, count, batch_size):
    """Yield `count` decoded codes in batches; draw_codes: size -> (size, D)."""
    for start in progress(range(0, count, batch_size), "batches"):
        # Drawn on the CPU, so that a seed gives the same codes for every device.
        yield decode(model, draw_codes(min(batch_size, count - start)))


def fit_missing_priors(model, metadata, weights, path):
    """Fit the priors that a training did not save -> Priors.

    Saves them, unless the file has those of the best weights, and these are others.
    """
    # The global random state is unchanged, as if they had been there. Raises UserError
    # if the photos are not those of the training.
    training = open_flowers(
        None,
        1,
        (model.args["img_width"], model.args["img_height"]),
        split_seed=metadata.get("data", {}).get("split_seed", 0),
    )[0].dataset
    if metadata.get("data") != training.metadata:
        raise UserError(
            f"{path} is missing, and cannot be fitted, since ./flowers does not hold "
            f"the photos of the training; train again: python train_script.py --model "
            f"{model.name}"
        )
    log.info("%s is missing, or of other weights: priors are fitted", path)
    with fork_rng(0):
        codes = encode(model, training.at_most(MAX_CODES))
        if path.exists() and weights.name != weights_name(model.name):
            return fit_priors(model.name, codes)
        return save_priors(prepare_target(path), model, metadata, codes)


# Provenance --------------------------------------------------------------------------


def fingerprint(path):
    """Return 16 hex digits that identify the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def weights_facts(path, metadata):
    """Return plain types that identify the weights of a file; metadata: theirs."""
    keys = ("model", "epoch", "seed", "valid_loss")
    return {key: metadata.get(key) for key in keys} | {"sha256": fingerprint(path)}


# Time --------------------------------------------------------------------------------


def seconds_per_step(model, optimizer, batch_loss, images, labels):
    """Return the median time of a training step, without the first ones."""
    # They allocate memory and choose kernels. The global random state is unchanged.
    device, times = device_of(model), []
    with fork_rng(0):
        for _ in range(PROBE_STEPS):
            synchronize(device)
            start = time.perf_counter()
            optimizer.zero_grad()
            batch_loss(model, images.to(device), labels).backward()
            optimizer.step()
            synchronize(device)
            times.append(time.perf_counter() - start)
    return median(times[PROBE_STEPS // 3 :])


def epochs_within(seconds, per_epoch):
    """Return how many epochs of `per_epoch` seconds fit into `seconds`."""
    # Raises UserError if none does.
    epochs = int(MARGIN * seconds / per_epoch)
    if epochs < 1:
        raise UserError(
            f"--budget leaves {max(0, seconds):.0f} s, and an epoch takes about "
            f"{per_epoch:.0f} s; give more, or fewer photos"
        )
    return epochs


def seconds_per_epoch(args, settings, build, loader, batch_loss):
    """Return the time of an epoch; the global random state is unchanged."""
    # A model is trained for a few steps on the loader's first batch.
    batch = loader.dataset[: settings.batch_size]
    with fork_rng(0):
        model = build(settings).train()
        model.to(prepare_device(args.device), memory_format=torch.channels_last)
        optimizer, *_ = prepare_training(settings, model, len(loader))
        return len(loader) * seconds_per_step(model, optimizer, batch_loss, *batch)


def with_budget(args, settings, started, *training):
    """Return the settings with as many epochs as fit into the budget.

    started: when the command did, by time.monotonic(); training: a function settings ->
    model, the training loader, and the loss. Where fewer than FEW_EPOCHS fit, the
    default model is narrow, unless the command line gives its channels. Where fewer
    than GUIDED_FROM fit, it has no guide, unless the command line gives guide or scale.
    """
    per_epoch = seconds_per_epoch(args, settings, *training)
    few = MARGIN * args.budget < FEW_EPOCHS * per_epoch
    if few and args.model == "diffusion" and args.channels is None:
        settings = replace(settings, channels=NARROW)
        per_epoch = seconds_per_epoch(args, settings, *training)
    epochs = epochs_within(args.budget - (time.monotonic() - started), per_epoch)
    if epochs < GUIDED_FROM and args.guide_at is None and args.autoguidance is None:
        settings = replace(settings, **NO_GUIDE)
    return replace(settings, epochs=epochs)
