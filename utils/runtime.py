"""What a command needs before its work: a device, seeds, folders, photos."""

import logging
from dataclasses import asdict

import numpy as np
import torch

from utils.checkpoint import prepare_folder, warn_of_replacement, weights_name
from utils.cli import UserError
from utils.data_processor import open_flowers
from utils.hardware import has_bfloat16_units, keep_freed_memory

log = logging.getLogger(__name__)


def choose_device(name):
    """Return the torch.device of this name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: if the machine has no such device.
    """
    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, available in here.items() if available)
    if not here[name]:
        raise UserError(f"--device {name} is not on this machine; use --device cpu")
    return torch.device(name)


def prepare_device(name):
    """Return the device of this name, set to bfloat16 products where it has units."""
    device = choose_device(name)
    keep_freed_memory()
    if has_bfloat16_units(device):
        torch.set_float32_matmul_precision("medium")  # float32 sums
    return device


def set_seeds(seed):
    """Seed torch and numpy; ask CUDA for its repeatable kernels."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)


def warn_of_other_data(about, data):
    """Say so where weights, described by `about`, were trained on other images."""
    trained_on = about.get("data", data)
    if trained_on["source"] != data["source"]:
        log.warning(
            "the weights were trained on %s, and are shown on %s",
            trained_on["source"],
            data["source"],
        )
    elif trained_on["split"] != data["split"]:
        log.warning(
            "the weights know another split: training photos may be among these"
        )


def start_training(args, settings, name):
    """Do what every training begins with, for a command line and its settings.

    Returns (device, (training, validation) loaders, description of the run).
    """
    device = prepare_device(args.device)
    size = settings.image_size, settings.image_size
    loaders = open_flowers(
        args.data,
        settings.batch_size,
        size,
        seed=args.seed,
        split_seed=args.split_seed,
        strict=args.strict_data,
        flips=settings.flips,
        shift=settings.shift,
        species=getattr(args, "species", None),
    )
    for folder in ("models", "log", "vis"):
        prepare_folder(args.out / folder)
    data = loaders[0].dataset.about
    warn_of_replacement(args.out / "models" / weights_name(name), data)
    about = {"seed": args.seed, "settings": asdict(settings), "data": data}
    return device, loaders, about
