"""Train the classifier whose features measure distances between sets of flowers.

python -m tools.get_flowers --from ARCHIVE --species all --to flowers_16
python -m tools.train_features --data flowers_16 > log/train_features.out

Eighteen epochs of batches of 128 by default, from ./flowers_16; the weights of the last
epoch are kept.
"""

from utils.cli import PROJECT, UserError, run
from utils.cli.arguments import command_line

FLAGS = "--epochs --batch-size --lr --seed --data --strict-data --device --out"
DEFAULTS = {
    "epochs": 18,
    "batch_size": 128,
    "lr": 4e-3,
    "data": PROJECT / "flowers_16",
}
IMAGE_SIZE = 24  # pixels per side, of all that is compared here
SHIFT = 2  # pixels by which training moves the photos, at most
SMOOTHING = 0.1  # share of a label that goes to all species alike


def train_epoch(model, loader, optimizer, scheduler, device, name):
    """Train on every batch once -> mean loss per photo."""
    import torch
    import torch.nn.functional as F

    from utils.cli.progress import progress
    from utils.device import has_bfloat16_units
    from utils.train import finite

    model.train()
    total, fast = 0.0, has_bfloat16_units(device)
    for images, labels in progress(loader, name):
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=fast):
            scores = model.classify(images.to(device))
            loss = F.cross_entropy(scores, labels.to(device), label_smoothing=SMOOTHING)
        total += len(images) * finite(loss, f"training loss in {name}")
        loss.backward()
        optimizer.step()
        scheduler.step()
    return total / len(loader.dataset)


def share_right(model, loader, device):
    """Return the share of photos whose species has the highest score."""
    import torch

    model.eval()
    right = 0
    with torch.no_grad():
        for images, labels in loader:
            guesses = model.classify(images.to(device)).argmax(dim=1).cpu()
            right += (guesses == labels).sum().item()
    return right / len(loader.dataset)


def main(argv=None):
    args = command_line(__doc__, *FLAGS.split(), **DEFAULTS).parse_args(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)
    import torch
    from torch.optim.lr_scheduler import OneCycleLR

    from utils.checkpoint import prepare_target, save_checkpoint, weights_name
    from utils.data_processor import open_flowers
    from utils.device import prepare_device, set_seeds
    from utils.evaluation.features import FlowerFeatures
    from utils.optim.muon import Muon

    device = prepare_device(args.device)
    set_seeds(args.seed)
    loaders = open_flowers(
        args.data,
        args.batch_size,
        (IMAGE_SIZE, IMAGE_SIZE),
        seed=args.seed,
        strict=args.strict_data,
        flips=True,
        shift=SHIFT,
    )
    data = loaders[0].dataset.about
    if len(data["classes"]) < 2:
        raise UserError(f"{args.data} holds one species; at least two are told apart")
    model = FlowerFeatures(data["classes"])
    path = prepare_target(args.out / "models" / weights_name(model.name))
    model.to(device, memory_format=torch.channels_last)
    optimizer = Muon(model.parameters(), args.lr, weight_decay=0.05)
    steps = args.epochs * len(loaders[0])
    scheduler = OneCycleLR(optimizer, args.lr, steps, cycle_momentum=False)
    for epoch in range(args.epochs):
        name = f"epoch {epoch}"
        loss = train_epoch(model, loaders[0], optimizer, scheduler, device, name)
        right = share_right(model, loaders[1], device)
        print(f"Epoch: {epoch}, Train Loss: {loss:.4f}, Valid Right: {right:.4f}")
    about = {"data": data, "seed": args.seed, "valid_right": right, "epoch": epoch}
    save_checkpoint(path, model.half(), about)


if __name__ == "__main__":
    run(main)
