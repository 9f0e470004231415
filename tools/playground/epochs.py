"""Sample the diffusion model while it is trained, for the last section of the page.

python -m tools.playground.epochs

Trains as `python diffusion.py` does, but ends after epoch 20 and leaves models/ as it
is. Writes samples after epochs 1, 5 and 20, all from the noise of the page, and the
training losses, into log/epochs_diffusion.json.
"""

import tempfile

from utils.cli import guard, run
from utils.cli.arguments import command_line

EPOCHS = (1, 5, 20)  # after which samples are drawn


def parse(argv=None):
    """Return the checked command line."""
    return command_line(__doc__, "--data", "--device", "--out").parse_args(argv)


if __name__ == "__main__":
    guard(parse)

import torch

import diffusion
from tools.playground.content import EPOCHS_RECORD, history_samples, pixels
from utils.device import choose_device, set_seeds
from utils.experiment import start_training
from utils.files import prepare_target, write_json
from utils.optim.factory import prepare_training
from utils.train import Trainer


def stages(args, settings, epochs):
    """Yield (epoch, its training loss, samples or None) up to the last of `epochs`.

    args, settings: of a training by diffusion.py, whose files in args.out are the
    caller's to remove.
    """
    # As in diffusion.py, in the same order, so that the random numbers are the same.
    set_seeds(args.seed)
    device, loaders, metadata = start_training(args, settings)
    classes = loaders[0].dataset.classes
    model = diffusion.build(settings, len(classes), args.model)
    model.to(device, memory_format=torch.channels_last)
    steps = settings.epochs * len(loaders[0])
    optimizer, scheduler, ema = prepare_training(settings, model, steps)
    loss = diffusion.training_loss(settings)
    trainer = Trainer(optimizer, scheduler, model, loaders, loss, device, ema=ema)
    stopping = settings.epochs, settings.patience, diffusion.PICTURE_EVERY
    for epoch in trainer.fit(args.out / "models", *stopping, metadata=metadata):
        done = epoch.number + 1
        images = None
        if done in epochs:
            images = history_samples(trainer.eval_model, metadata)
        yield done, epoch.train_loss, images
        if done == max(epochs):
            return


def main(argv=None):
    args = parse(argv)
    choose_device(args.device)  # refused before anything is written
    target = prepare_target(args.out / "log" / EPOCHS_RECORD)
    with tempfile.TemporaryDirectory() as folder:
        words = ["--seed", "0", "--split-seed", "0"]  # the defaults of diffusion.py
        words += ["--out", folder, "--device", args.device]
        words += ["--data", str(args.data)] if args.data else []
        found = {"losses": [], "stages": []}
        for epoch, loss, images in stages(*diffusion.parse(words), EPOCHS):
            print(f"Epoch: {epoch}/{max(EPOCHS)}, Train Loss: {loss:.4f}", flush=True)
            found["losses"].append(loss)
            if images is not None:
                found["stages"].append({"epoch": epoch, "images": pixels(images)})
    write_json(target, found)


if __name__ == "__main__":
    run(main)
