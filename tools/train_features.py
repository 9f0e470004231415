"""Train the classifiers whose features measure distances between sets of flowers.

python -m tools.get_flowers --from ARCHIVE --species all --to flowers_16
python -m tools.train_features --data flowers_16 > log/train_features.out
python -m tools.train_features --model features_b --seed 1 > log/train_features_b.out

By default 18 epochs with batches of 128 on ./flowers_16; the weights of the last epoch
are saved to models/features.pt. The second classifier has another architecture, seed
and augmentation; it only measures, and no setting is chosen by it.
"""

from utils.cli import PROJECT, UserError, guard, memory_for, run
from utils.cli.arguments import command_line
from utils.config import EXTRACTORS, Settings, fields_named

FLAGS = "--model --seed --data --strict-data --cache --device --out"
DEFAULTS = {
    "epochs": 18,
    "batch_size": 128,
    "lr": 4e-3,
    "data": PROJECT / "flowers_16",
}
IMAGE_SIZE = 24  # pixels per side
TRANSLATE = {"features": 2, "features_b": 1}  # pixels, maximum shift of photos
JITTER = {"brightness": 0.25, "contrast": 0.25, "saturation": 0.25}  # of features_b
LABEL_SMOOTHING = 0.1  # proportion of a target that all classes share


def parse(argv=None):
    """Return the checked command line."""
    settings = fields_named(Settings, "epochs", "batch_size", "lr")
    line = command_line(
        __doc__,
        *FLAGS.split(),
        settings=settings,
        choices={"--model": EXTRACTORS},
        model=EXTRACTORS[0],
        **DEFAULTS,
    )
    return line.parse_args(argv)


if __name__ == "__main__":
    guard(parse)

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import OneCycleLR
from torchvision.transforms.v2 import ColorJitter, Compose, Identity, RandomErasing

from utils.checkpoint import save_checkpoint, weights_name
from utils.checkpoint.resume import locked
from utils.cli.progress import TimeEstimate, bar
from utils.data_processor import open_flowers
from utils.device import device_of, has_bfloat16_units, prepare_device, set_seeds
from utils.evaluation.features import FlowerFeatures
from utils.optim.muon import Muon
from utils.train import finite

AUGMENTATIONS = {  # name -> function of images (B, 3, H, W) in [0, 1]
    "features": Identity(),
    "features_b": Compose([ColorJitter(**JITTER), RandomErasing(p=0.5)]),
}


def train_epoch(model, loader, optimizer, scheduler, device, name, estimate):
    """Train on every batch once -> mean loss per photo."""
    model.train()
    total, bfloat16 = 0.0, has_bfloat16_units(device)
    for images, labels in bar(loader, name):
        # Forward, in bfloat16 where the device has units for it.
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            logits = model.classify(AUGMENTATIONS[model.name](images.to(device)))
            loss = F.cross_entropy(
                logits, labels.to(device), label_smoothing=LABEL_SMOOTHING
            )
        # Loss is a mean over the batch; stop at one that is not finite.
        total += len(images) * finite(loss, f"training loss in {name}")
        # Backward; the learning rate changes at every step.
        loss.backward()
        optimizer.step()
        scheduler.step()
        estimate.add()
    return total / len(loader.dataset)


@torch.no_grad()
def accuracy(model, loader, device):
    """Return the proportion of photos whose species has the highest score."""
    model.eval()
    right = 0
    for images, labels in loader:
        predictions = model.classify(images.to(device)).argmax(dim=1).cpu()
        right += (predictions == labels).sum().item()
    return right / len(loader.dataset)


def main(argv=None):
    args = parse(argv)
    # The photos, flipped and translated.
    device = prepare_device(args.device)
    set_seeds(args.seed)
    loaders = open_flowers(
        args.data,
        args.batch_size,
        (IMAGE_SIZE, IMAGE_SIZE),
        seed=args.seed,
        strict=args.strict_data,
        cache=args.cache,
        hflip=True,
        translate=TRANSLATE[args.model],
    )
    data = loaders[0].dataset.metadata
    if len(data["classes"]) < 2:
        raise UserError(f"{args.data} holds one species; at least two are classified")
    model = FlowerFeatures(data["classes"], args.model)
    path = args.out / "models" / weights_name(model.name)
    with locked(path), memory_for(f"--batch-size {args.batch_size}"):
        train(args, model.to(device, memory_format=torch.channels_last), loaders, path)


def train(args, model, loaders, path):
    """Train by one cycle of the learning rate, and save the last weights."""
    device = device_of(model)
    optimizer = Muon(model.parameters(), args.lr, weight_decay=0.05)
    steps = args.epochs * len(loaders[0])
    scheduler = OneCycleLR(optimizer, args.lr, steps, cycle_momentum=False)
    estimate = TimeEstimate("training", steps)
    for epoch in range(args.epochs):
        training = loaders[0], optimizer, scheduler, device, f"epoch {epoch}"
        loss = train_epoch(model, *training, estimate)
        right = accuracy(model, loaders[1], device)
        print(f"Epoch: {epoch}, Train Loss: {loss:.4f}, Valid Right: {right:.4f}")
    metadata = {"data": loaders[0].dataset.metadata, "seed": args.seed}
    metadata |= {"valid_right": right, "epoch": epoch}
    save_checkpoint(path, model.half(), metadata)


if __name__ == "__main__":
    run(main)
