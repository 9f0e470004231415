"""A small tree that meets every requirement of the submission list, and its photos."""

from dataclasses import asdict

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from diffusion import Diffuser, training_loss
from tools.submit.tree import KIT_FILES
from utils.checkpoint import save_checkpoint, weights_name
from utils.config import PRESETS, SPECIES, DiffusionSettings
from utils.registry import build_model, model_args
from VarAutoencoder import VAE_loss_function

PER_SPECIES = 10
SIDE, COLOUR, SPREAD = 24, 120, 10  # of photos that a constant image nearly equals
REPORT = "# Report\n\n![Denoising](vis/denoise_diffusion.png) of *{}*\n"


def write_pale_photos(root):
    """Save photos of one colour and little noise; return the folder of species."""
    random = np.random.default_rng(0)
    for species in SPECIES:
        (root / species).mkdir(parents=True)
        for number in range(PER_SPECIES):
            noise = random.integers(-SPREAD, SPREAD + 1, (SIDE, SIDE, 3))
            image = Image.fromarray((COLOUR + noise).astype(np.uint8))
            image.save(root / species / f"{number:02}.png")
    return root


def write_picture(path, width=300, height=60):
    """Save a picture of random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)


# Losses, as the assignment defines them ----------------------------------------------


def mean_loss(photos, size, batch_loss):
    """Return the mean of the losses of batches of photos, with noise from seed 0."""
    torch.manual_seed(0)
    starts = range(0, len(photos), size)
    with torch.no_grad():
        found = [batch_loss(*photos[start : start + size]).item() for start in starts]
    return sum(found) / len(found)


def autoencoder_loss(name, model, photos):
    """Return the validation loss of an autoencoder, in batches of 16."""
    loss_fn = VAE_loss_function if name == "VAE" else F.mse_loss
    return mean_loss(photos, 16, lambda images, _: loss_fn(model(images), images))


# Weights -----------------------------------------------------------------------------


def pale_model(name, photos, **args):
    """Return an untrained autoencoder of the assignment's size, which shows one colour.

    args: of the model, in place of its own.
    """
    torch.manual_seed(0)
    args = model_args(name, PRESETS[name][0]) | args
    model = build_model(name, **args).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 0.3
        model.init_output_bias(photos.channel_means())
    return model


def save_autoencoder(path, name, photos, **changes):
    """Save weights with the metadata of a training; return its validation loss."""
    args = changes.pop("args", {})
    model = pale_model(name, photos, **args)
    loss = autoencoder_loss(name, model, photos) if not args else 1.0
    metadata = {
        "settings": asdict(PRESETS[name][0]),
        "data": photos.metadata,
        "epoch": 0,
        "valid_loss": loss,
    }
    save_checkpoint(path, model, metadata | changes)
    return loss


def save_diffusion(path, photos, **changes):
    """Save the weights of a small diffusion model, the best of epoch 2 of 3."""
    torch.manual_seed(0)
    model = Diffuser(300, channels=(16,), num_classes=len(SPECIES)).eval()
    settings = DiffusionSettings(
        epochs=3, batch_size=8, lr=1e-3, optimizer="adam", scheduler="constant"
    )
    loss_fn = training_loss(settings)
    loss = mean_loss(photos, 8, lambda images, y: loss_fn(model, images, y))
    metadata = {
        "settings": asdict(settings),
        "data": photos.metadata,
        "class_proportions": [1 / 3] * 3,
        "epoch": 1,
        "train_loss": 0.71234567,
        "valid_loss": loss,
    }
    save_checkpoint(path, model, metadata | changes)


# The tree ----------------------------------------------------------------------------


def log_text(epochs, first, last, valid):
    """Return an autoencoder's log: losses that fall to these last ones."""
    lines = []
    for epoch in range(epochs):
        rest = 1 - epoch / max(1, epochs - 1)
        train = last + (first - last) * rest
        losses = f"Train Loss: {train}, Valid Loss: {valid + (first - last) * rest}"
        lines.append(f"Epoch: {epoch}, {losses}\n")
    return "".join(lines)


def diffusion_log(losses, total):
    """Return a diffusion model's log."""
    lines = [
        f"Epoch: {number}/{total}, Train Loss: {loss:.4f}\n"
        for number, loss in enumerate(losses, start=1)
    ]
    return "using device cpu\n" + "".join(lines)


def make_tree(folder, photos):
    """Write models, logs, pictures, report and code of a submission; return it.

    photos: FlowerImages, the validation photos of the weights.
    """
    losses = {}
    for name in ("MLPAE", "AE", "VAE"):
        path = folder / "models" / weights_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        losses[name] = save_autoencoder(path, name, photos)
    save_diffusion(folder / "models" / "Best_diffusion.pkl", photos)
    # Logs whose best validation losses are those of the weights.
    logs = {
        "MLPAE": log_text(100, 0.06, 0.025, losses["MLPAE"]),
        "AE_SGD": log_text(60, 0.06, 0.002, losses["MLPAE"] / 2),
        "AE": log_text(15, 0.06, 0.006, losses["AE"]),
        "VAE": log_text(20, 1500.0, 700.0, losses["VAE"]),
        "diffusion": diffusion_log([0.9, 0.71234567, 0.6], 3),
    }
    (folder / "log").mkdir()
    for name, text in logs.items():
        (folder / "log" / f"train_{name}.out").write_text(text, "utf-8")
    # Pictures, the report and the code.
    for name in ("MLPAE", "AE", "VAE"):
        write_picture(folder / "vis" / f"train_{name}.png")
        write_picture(folder / "vis" / f"valid_{name}.png")
    for name in ("AE", "VAE", "diffusion"):
        write_picture(folder / "vis" / f"random_images_{name}.png")
    write_picture(folder / "vis" / "denoise_diffusion.png")
    (folder / "diffusion_report.md").write_text(REPORT.format("花"), "utf-8")
    for name in KIT_FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f'"""{name}"""\n', "utf-8")
    return folder
