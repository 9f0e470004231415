"""Faults that are made in a good tree, and what tools.submit must say of each."""

import math
import shutil

import torch
from PIL import Image

from tests.helpers.submission import (
    diffusion_log,
    log_text,
    pale_model,
    save_autoencoder,
    save_diffusion,
    write_picture,
)
from utils.checkpoint import load_checkpoint, save_checkpoint

SIZE = {"encoding_dim": 32}
TRAIN_AE = "python train_script.py --model AE"
TRAIN_VAE = "python train_script.py --model VAE"


class Place:
    """A copy of the good tree, to be damaged, and the photos of its weights."""

    def __init__(self, folder, data, photos):
        self.folder, self.data, self.photos = folder, data, photos

    def path(self, name):
        return self.folder / name

    def remove(self, name):
        self.path(name).unlink()

    def write(self, name, content):
        self.path(name).write_bytes(content)

    def replace(self, name, old, new):
        text = self.path(name).read_text("utf-8")
        assert old in text
        self.path(name).write_text(text.replace(old, new), "utf-8")

    def log(self, name, *arguments):
        self.path(f"log/train_{name}.out").write_text(log_text(*arguments), "utf-8")

    def save(self, name, **changes):
        """Replace an autoencoder's weights."""
        (path,) = self.path("models").glob(f"Best_{name}.*")
        return save_autoencoder(path, name, self.photos, **changes)

    def save_diffusion(self, **changes):
        save_diffusion(self.path("models/Best_diffusion.pkl"), self.photos, **changes)


def not_finite(place):
    """One number of the first tensor; saving by our own function would refuse it."""
    weights = torch.load(place.path("models/Best_AE.pth"), weights_only=True)
    next(iter(weights.values())).view(-1)[0] = math.nan
    torch.save(weights, place.path("models/Best_AE.pth"))


def changed_weights(place, factor):
    """Other weights under the metadata of the good ones."""
    path = place.path("models/Best_VAE.pth")
    metadata, model = load_checkpoint(path)[1], pale_model("VAE", place.photos)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= factor
    save_checkpoint(path, model, metadata)


def code_in_weights(place):
    torch.save(torch.nn.Linear(2, 2), place.path("models/Best_MLPAE.pkl"))


def cut(name):
    def damage(place):
        content = place.path(name).read_bytes()
        place.write(name, content[: len(content) // 2])

    return damage


def white(place):
    Image.new("RGB", (300, 60), "white").save(place.path("vis/valid_VAE.png"))


def drawn(place):
    place.save("AE", data=place.photos.metadata | {"source": "drawn flowers"})


def other_kind(place):
    shutil.copy(place.path("models/Best_AE.pth"), place.path("models/Best_VAE.pth"))


DAMAGES = {  # what -> damage, ID, words of its line, IDs that then cannot be checked
    "no weights": (
        lambda p: p.remove("models/Best_MLPAE.pkl"),
        "M47",
        "models/Best_MLPAE.pkl is missing; run: python train_script.py --mo",
    ),
    "no weights of diffusion": (
        lambda p: p.remove("models/Best_diffusion.pkl"),
        "M47",
        "models/Best_diffusion.pkl is missing; run: python diffusion.py",
    ),
    "weights cut off": (
        cut("models/Best_VAE.pth"),
        "M47",
        f"models/Best_VAE.pth is damaged or cut off; run: {TRAIN_VAE}",
    ),
    "weights of another size": (
        lambda p: p.save("AE", args=SIZE),
        "M47",
        "models/Best_AE.pth encodes 24 x 24 pixels in 32 numbers",
    ),
    "weights of another model": (
        other_kind,
        "M47",
        "models/Best_VAE.pth holds a AE, asked for a VAE",
    ),
    "weights of other shapes": (
        lambda p: torch.save({"x": torch.ones(2)}, p.path("models/Best_AE.pth")),
        "M47",
        "models/Best_AE.pth does not fit AE",
    ),
    "weights that are not finite": (
        not_finite,
        "M47",
        "is not finite; run: " + TRAIN_AE,
    ),
    "a pickled module": (
        code_in_weights,
        "M47",
        "models/Best_MLPAE.pkl holds code, not weights",
    ),
    "changed weights": (
        lambda p: changed_weights(p, 5),
        "M47",
        "models/Best_VAE.pth has a validation loss of [0-9.e+]+ on the photos, not 5.",
    ),
    "weights whose loss overflows": (
        lambda p: changed_weights(p, 1e12),
        "M47",
        "models/Best_VAE.pth has a validation loss of nan on the photos",
    ),
    "weights of another training": (
        lambda p: p.save("AE", valid_loss=0.0117),
        "M47",
        "models/Best_AE.pth is not of the training in log/train_AE.out",
    ),
    "diffusion weights of another training": (
        lambda p: p.save_diffusion(train_loss=0.7223),
        "M47",
        "Best_diffusion.pkl is not of the training in log/train_diffusion.o",
    ),
    "weights of drawn flowers": (
        drawn,
        "M47",
        "AE.pth was trained on drawn flowers.*; run: python -m tools.get_fl",
    ),
    "no picture": (
        lambda p: p.remove("vis/train_AE.png"),
        "M48",
        "vis/train_AE.png is missing; run: python visualization.py --model A",
    ),
    "no samples": (
        lambda p: p.remove("vis/random_images_VAE.png"),
        "M48",
        "VAE.png is missing; run: python random_generation.py --model VAE",
    ),
    "a picture of one colour": (
        white,
        "M48",
        "vis/valid_VAE.png is nearly blank: 1 colours",
    ),
    "a picture cut off": (
        cut("vis/valid_MLPAE.png"),
        "M48",
        "vis/valid_MLPAE.png is no picture",
    ),
    "text in place of a picture": (
        lambda p: p.write("vis/train_VAE.png", b"no picture"),
        "M48",
        "vis/train_VAE.png is no picture: damaged, or no PNG",
    ),
    "a small picture": (
        lambda p: write_picture(p.path("vis/random_images_AE.png"), 100, 20),
        "M48",
        "random_images_AE.png has 100 x 20 pixels",
    ),
    "no log": (
        lambda p: p.remove("log/train_AE_SGD.out"),
        "M49",
        "log/train_AE_SGD.out is missing; run: .*--optimizer sgd --out trial ",
        "M19",
        "M20",
    ),
    "an empty log": (
        lambda p: p.write("log/train_VAE.out", b""),
        "M32",
        "log/train_VAE.out has no line of an epoch; run: " + TRAIN_VAE,
        "M33",
    ),
    "a log of two runs": (
        lambda p: p.write(
            "log/train_AE.out", 2 * p.path("log/train_AE.out").read_bytes()
        ),
        "M24",
        "log/train_AE.out, line 16: epoch 0 where 15 belongs",
        "M22",
    ),
    "a log without an epoch": (
        lambda p: p.replace("log/train_MLPAE.out", "Epoch: 7,", "Epoch: 8,"),
        "M11",
        "log/train_MLPAE.out, line 8: epoch 8 where 7 belongs",
        "M12",
        "M19",
    ),
    "a log without validation": (
        lambda p: p.replace("log/train_VAE.out", "Valid", "Val"),
        "M32",
        "log/train_VAE.out, line 1: 'Epoch: 0",
        "M33",
    ),
    "a log with nan": (
        lambda p: p.replace(
            "log/train_AE.out", "Train Loss: 0.06,", "Train Loss: nan,"
        ),
        "M24",
        "log/train_AE.out, line 1: .*nan.* is not an epoch's line",
        "M22",
    ),
    "a log in another encoding": (
        lambda p: p.write("log/train_AE.out", "轮次".encode("gbk")),
        "M24",
        "log/train_AE.out is neither UTF-8 nor UTF-16",
        "M22",
    ),
    "a loss that rises": (
        lambda p: p.write(
            "log/train_diffusion.out", diffusion_log([0.5, 0.7123, 0.9], 3).encode()
        ),
        "M40",
        "log/train_diffusion.out: the train loss does not fall, 0.5 to 0.9",
    ),
    "an interrupted diffusion": (
        lambda p: p.replace("log/train_diffusion.out", "/3", "/9"),
        "M40",
        "ends at epoch 3 of 9; run: python diffusion.py --resume",
    ),
    "an MLPAE that learned little": (
        lambda p: p.log("MLPAE", 100, 0.06, 0.031, p.save("MLPAE")),
        "M12",
        "log/train_MLPAE.out: train 0.031 and validation .* < 0.03 and < 0.03",
    ),
    "an MLPAE that took too long": (
        lambda p: p.log("MLPAE", 101, 0.06, 0.025, p.save("MLPAE")),
        "M12",
        "log/train_MLPAE.out has 101 epochs; asked: at most 100",
    ),
    "an AE by SGD that was stopped": (
        lambda p: p.log("AE_SGD", 59, 0.06, 0.002, 0.0001),
        "M19",
        "log/train_AE_SGD.out has 59 epochs; asked: 60",
    ),
    "an AE by SGD that learned little": (
        lambda p: p.log("AE_SGD", 60, 0.06, 0.0151, 0.0001),
        "M19",
        "log/train_AE_SGD.out: train loss 0.0151 after 60 epochs",
    ),
    "an AE by SGD above the MLPAE": (
        lambda p: p.log("AE_SGD", 60, 0.06, 0.002, 0.05),
        "M19",
        "validation loss 0.05 is not below the MLPAE's",
    ),
    "an AE that learned little": (
        lambda p: p.log("AE", 15, 0.06, 0.0101, p.save("AE")),
        "M22",
        "log/train_AE.out: train 0.0101 .* < 0.01 and < 0.012 within 15",
    ),
    "a VAE that learned little": (
        lambda p: p.log("VAE", 20, 1500.0, 800.5, p.save("VAE")),
        "M33",
        "log/train_VAE.out: train 800.5 .* < 800 and < 800 within 20",
    ),
    "no report": (
        lambda p: p.remove("diffusion_report.md"),
        "M50",
        "diffusion_report.md is missing; run: python -m tools.report",
    ),
    "an empty report": (
        lambda p: p.write("diffusion_report.md", b""),
        "M50",
        "diffusion_report.md is empty",
    ),
    "a report without its picture": (
        lambda p: p.remove("vis/denoise_diffusion.png"),
        "M50",
        "vis/denoise_diffusion.png, which is missing; .*--show denoise",
    ),
    "a report with a picture from elsewhere": (
        lambda p: p.replace("diffusion_report.md", "(vis", "(../vis"),
        "M50",
        "shows ../vis/denoise_diffusion.png, which is not part of the subm",
    ),
    "a report without denoising": (
        lambda p: p.replace("diffusion_report.md", "denoise_diffusion", "train_AE"),
        "M50",
        "diffusion_report.md shows no picture of the denoising process",
    ),
    "no code": (
        lambda p: p.remove("utils/train.py"),
        "M46",
        "utils/train.py is missing; run: git checkout -- utils/train.py",
    ),
}
