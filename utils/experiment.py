"""How fast a training goes, when it will end, and how much fits into a budget."""

import hashlib
import logging
import os
import platform
import re
import sys
import time
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import torch

from utils.checkpoint import prepare_folder, warn_of_replacement, weights_name
from utils.cli import UserError
from utils.cli.process import program
from utils.data_processor import open_flowers
from utils.device import fixed_noise, has_bfloat16_units, prepare_device
from utils.diffusion.denoiser import training_loss
from utils.optim.factory import prepare_training

log = logging.getLogger(__name__)

TELL_EVERY = 30.0  # seconds between lines, and the shortest rest worth one
PROBE_STEPS = 12  # of which the first third warms up
MARGIN = 0.94  # of a budget, for a machine whose speed drifts


class Pace:
    """Tells photos per second and the expected end on stderr, now and then."""

    def __init__(self, photos, settings):
        self.photos, self.epochs = photos, settings.epochs
        self.start = self.told = time.monotonic()

    def after(self, done):
        """Say how it goes after `done` epochs, if that has not been said just now."""
        now = time.monotonic()
        rest = (self.epochs - done) * (now - self.start) / done
        if rest < TELL_EVERY or now - self.told < TELL_EVERY:
            return
        self.told = now
        speed = done * self.photos / (now - self.start)
        end = time.strftime("%H:%M:%S", time.localtime(time.time() + rest))
        print(
            f"{program()}: epoch {done}/{self.epochs}, {speed:.0f} photos/s, "
            f"expected end {end}",
            file=sys.stderr,
            flush=True,
        )


def seconds_per_step(model, optimizer, batch_loss, images, labels):
    """Median time of a training step; the global random state is as before.

    The first steps pay for memory and kernels, and are not counted.
    """
    device, times = next(model.parameters()).device, []
    with fixed_noise(0):
        for _ in range(PROBE_STEPS):
            start = time.perf_counter()
            optimizer.zero_grad()
            batch_loss(model, images.to(device), labels).backward()
            optimizer.step()
            times.append(time.perf_counter() - start)
    return median(times[PROBE_STEPS // 3 :])


def epochs_within(seconds, per_epoch):
    """Return how many epochs of `per_epoch` seconds fit into `seconds`.

    Raises:
        UserError: if not a single one does.
    """
    epochs = int(MARGIN * seconds / per_epoch)
    if epochs < 1:
        raise UserError(
            f"--budget leaves {max(0, seconds):.0f} s, and an epoch takes about "
            f"{per_epoch:.0f} s; give more, or fewer photos"
        )
    return epochs


def machine_facts():
    """Return what a time depends on -> {"processor", "cores", "threads", "torch"}."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def processor_name():
    """The processor as Linux calls it, and whether it has units for bfloat16."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
        found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    except OSError:
        found = None
    name = found[1] if found else platform.processor() or platform.machine()
    units = has_bfloat16_units(torch.device("cpu"))
    return f"{name}, {'with' if units else 'without'} bfloat16 units"


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


def fingerprint(*paths):
    """Return 16 digits that tell the contents of files from others."""
    content = b"".join(path.read_bytes() for path in paths)
    return hashlib.sha256(content).hexdigest()[:16]


def weights_facts(path, about):
    """Return which weights a file holds, of plain types; about: their description."""
    trained = {key: about.get(key) for key in ("model", "epoch", "seed", "valid_loss")}
    return trained | {"sha256": fingerprint(path)}


def within(budget, settings, model, loader):
    """Return the settings with as many epochs as fit into so many seconds.

    A copy of the model is trained for a few steps, to see how long they take.
    """
    from utils.experiment import epochs_within, seconds_per_step

    batch = [part[: settings.batch_size] for part in loader.dataset[:]]
    twin = deepcopy(model).train()
    _, optimizer, _ = prepare_training(settings, twin, len(loader))
    seconds = seconds_per_step(twin, optimizer, training_loss(settings), *batch)
    return replace(settings, epochs=epochs_within(budget, len(loader) * seconds))
