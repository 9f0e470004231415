"""The committed weights, logs and pictures: the assignment's submission list."""

import csv
import json
import re

import pytest
import torch
from PIL import Image

from diffusion import Diffuser
from MLPAutoencoder import MLPAutoencoder
from tests.helpers.project import PROJECT
from utils.checkpoint import find_weights, load_checkpoint
from utils.config import SPECIES
from utils.data.dataset import split_indices
from utils.evaluation.features import load_features
from utils.latents import load_prior
from utils.registry import autoencoders, load_model

FEATURES = PROJECT / "models" / "features.pt"
NUMBER = r"(\d+\.\d+(?:e-\d+)?)"
LINE = re.compile(rf"Epoch: (\d+), Train Loss: {NUMBER}, Valid Loss: {NUMBER}")
TRAINED = ("diffusion", "diffusion_16", "diffusion_48")  # with committed logs
LOGS = {  # name of the log -> most epochs, bounds of the last train and valid loss
    "train_MLPAE": (100, 0.03, 0.03),  # M11, M12
    "train_AE_SGD": (60, 0.015, 1.0),  # M19, M20
    "train_AE": (15, 0.010, 0.012),  # M22, M24
    "train_VAE": (20, 800, 800),  # M32, M33
}
PICTURES = [  # M13, M26, M28, M34, M35, M41, M48
    *(
        f"{side}_{name}"
        for side in ("train", "valid")
        for name in ("MLPAE", "AE", "VAE")
    ),
    *(f"random_images_{name}" for name in ("AE", "VAE", *TRAINED)),
    *(f"loss_{name}" for name in ("MLPAE", "AE", "VAE", *TRAINED)),
    *(f"latent_{name}" for name in ("MLPAE", "AE", "VAE")),
    *(  # M44, M50
        f"{what}_diffusion"
        for what in (
            *("denoise", "species", "guidance", "interpolation", "inpaint"),
            *("straightness", "compare_samplers", "reflow", "nearest_neighbours"),
        )
    ),
]


def build(name):
    """Return the model with the starter kit's own arguments."""
    if name == "diffusion":
        return Diffuser(n_steps=300)
    return (
        MLPAutoencoder(64, 24, 24)
        if name == "MLPAE"
        else autoencoders()[name].model(64)
    )


@pytest.mark.parametrize(
    "file", ["Best_MLPAE.pkl", "Best_AE.pth", "Best_VAE.pth", "Best_diffusion.pkl"]
)
def test_weights_load_in_the_kits_way(file):
    """M10, M25, M31, M41, C1, R28: safely, strictly, and trained on the photos."""
    path = PROJECT / "models" / file
    name = path.stem.removeprefix("Best_")
    assert find_weights(PROJECT, name) == path
    weights = torch.load(path, map_location="cpu", weights_only=True)
    build(name).load_state_dict(weights, strict=True)
    metadata = load_checkpoint(path)[1]
    assert (metadata["model"], metadata["data"]["source"]) == (name, "photos")
    assert metadata["data"]["classes"] == ["astilbe", "bellflower", "calendula"]
    assert metadata["data"]["count"] == 2321 and len(split_indices(2321)[0]) == 1856


def test_weights_of_sixteen_species():
    """In float32, below 12 MB, trained on photos of all sixteen."""
    path = PROJECT / "models" / "Best_diffusion_16.pkl"
    model, metadata = load_model("diffusion_16", path)
    assert path.stat().st_size < 12e6
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert (metadata["data"]["source"], metadata["data"]["count"]) == ("photos", 14112)
    classes = metadata["data"]["classes"]
    assert len(classes) == 16 and set(SPECIES) <= set(classes)
    assert classes == load_features(FEATURES).classes


def evaluated(name):
    """Return what tools.evaluate wrote: metrics of the model's samples, and all."""
    text = (PROJECT / "log" / f"evaluate_{name}.json").read_text("utf-8")
    found = json.loads(text)
    return found[f"models/Best_{name}.pkl"], found


@pytest.mark.parametrize(
    "name, vae, times",
    [
        ("diffusion", "our VAE", 16),
        ("diffusion_16", "trial/models/Best_VAE.pth", 8),
    ],
)
def test_samples_reach_the_required_distance(name, vae, times):
    """Relative to the VAE's; and are classified as requested as often as photos."""
    ours, found = evaluated(name)
    photos = found["validation photos"]
    assert times * ours["Frechet distance"][0] <= found[vae]["Frechet distance"][0]
    assert ours["nfe"] <= 40
    classified = "classified as requested"
    assert ours[classified][0] >= photos[classified][0]


def test_samples_are_no_copies():
    """At most the proportion of the validation photos, at similar distances."""
    ours, found = evaluated("diffusion")
    photos = found["validation photos"]
    for what in ("pixels", "features"):
        assert ours[f"copies by {what}"][0] <= photos[f"copies by {what}"][0]
        nearest = f"nearest by {what}"
        assert ours[nearest][0] >= 0.95 * photos[nearest][0]


def test_ancestral_sampling_through_all_steps_gives_flowers():
    """M41: samples are classified as one of the three of sixteen species; noise not."""
    path = find_weights(PROJECT, "diffusion")
    model, features = Diffuser(n_steps=300), load_features(FEATURES)
    model.load_state_dict(torch.load(path, weights_only=True), strict=True)
    torch.manual_seed(0)
    x = model.sample((4, 3, 24, 24), 300)[-1]

    def proportion_of_flowers(images):
        with torch.no_grad():
            found = features.classify(images.clamp(0, 1)).argmax(dim=1).tolist()
        return sum(features.classes[i] in SPECIES for i in found) / len(images)

    assert proportion_of_flowers((x + 1) / 2) >= 0.5
    assert proportion_of_flowers(torch.rand(64, 3, 24, 24)) < 0.1


@pytest.mark.parametrize("prior", ["gaussian", "gmm"])
@pytest.mark.parametrize("name", autoencoders())
def test_priors_belong_to_these_weights(name, prior):
    """Codes drawn from them decode to images."""
    path = find_weights(PROJECT, name)
    model, metadata = load_model(name, path)
    with torch.no_grad():
        images = model.decoder(load_prior(prior, model, metadata, path)(4))
    assert images.shape == (4, 3, 24, 24)


def test_the_extractor_classifies_validation_photos():
    """85 % of them correctly, in the split that all models share."""
    metadata = load_checkpoint(FEATURES)[1]
    assert FEATURES.stat().st_size < 6e6 and metadata["valid_right"] >= 0.85
    assert (
        len(metadata["data"]["classes"]) == 16 and metadata["data"]["split_seed"] == 0
    )
    last = (PROJECT / "log" / "train_features.out").read_text("ascii").splitlines()[-1]
    assert float(last.split()[-1]) == pytest.approx(metadata["valid_right"], abs=1e-4)
    assert load_features(FEATURES)(torch.rand(2, 3, 24, 24)).shape == (2, 256)


@pytest.mark.parametrize("name", LOGS)
def test_log(name):
    """M9, M18, M49, R3: every epoch from 0 in the kit's format; the bounds are met."""
    epochs, train_bound, valid_bound = LOGS[name]
    text = (PROJECT / "log" / f"{name}.out").read_text("ascii")
    rows = [LINE.fullmatch(line).groups() for line in text.splitlines()]
    assert [int(number) for number, _, _ in rows] == list(range(len(rows)))
    losses = [
        (float(train_loss), float(valid_loss)) for _, train_loss, valid_loss in rows
    ]
    assert len(rows) <= epochs
    assert losses[-1][0] < train_bound and losses[-1][1] < valid_bound
    tenth = max(1, len(rows) // 10)
    steps = [row[0] for row in losses[::tenth]]
    assert steps == sorted(steps, reverse=True)  # falling step by step


def test_sgd_log_of_the_ae_is_below_the_mlpaes():
    """M19: both plain SGD, the same encoding size: both losses are lower."""
    last = {}
    for name in ("train_AE_SGD", "train_MLPAE"):
        lines = (PROJECT / "log" / f"{name}.out").read_text("ascii").splitlines()
        last[name] = [float(x) for x in LINE.fullmatch(lines[-1]).groups()[1:]]
    assert all(
        a < b for a, b in zip(last["train_AE_SGD"], last["train_MLPAE"], strict=True)
    )


@pytest.mark.parametrize("name", TRAINED)
def test_log_of_a_diffusion_model(name):
    """M40, B.7: the device, then `Epoch: i/n` from 1 with four decimals, falling."""
    lines = (PROJECT / "log" / f"train_{name}.out").read_text("ascii").splitlines()
    assert re.fullmatch("using device (cpu|cuda|mps)", lines[0])
    found = [
        re.fullmatch(r"Epoch: (\d+)/(\d+), Train Loss: (\d\.\d{4})", line).groups()
        for line in lines[1:]
    ]
    assert [int(i) for i, _, _ in found] == list(range(1, int(found[0][1]) + 1))
    assert float(found[-1][2]) < 0.5 * float(found[0][2])


@pytest.mark.parametrize("name", ["MLPAE", "AE", "VAE", *TRAINED])
def test_csv_agrees_with_the_log(name):
    """The CSV's printed losses are the log's, epoch by epoch."""
    with open(PROJECT / "log" / f"{name}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = (PROJECT / "log" / f"train_{name}.out").read_text("ascii").splitlines()
    lines = [line for line in lines if line.startswith("Epoch")]
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        printed = re.search(rf"Train Loss: {NUMBER}", line).group(1)
        decimals = len(printed.split(".")[1]) if name in TRAINED else 17
        assert float(printed) == pytest.approx(
            float(row["train_loss"]), abs=10**-decimals
        )


@pytest.mark.parametrize("name", PICTURES)
def test_picture(name):
    """M48: it decodes, and is smaller than 1 MB."""
    path = PROJECT / "vis" / f"{name}.png"
    assert path.stat().st_size < 1_000_000
    with Image.open(path) as picture:
        picture.load()
        assert min(picture.size) > 100


def test_animation():
    """M50: from photos to noise and to images, smaller than 2 MB."""
    path = PROJECT / "vis" / "denoise_diffusion.gif"
    assert path.stat().st_size < 2_000_000
    with Image.open(path) as animation:
        assert animation.n_frames >= 20
