"""The committed weights, logs and pictures: the assignment's submission list."""

import csv
import json
import re

import pytest
import torch
from PIL import Image

from Autoencoder import Autoencoder
from diffusion import Diffuser
from MLPAutoencoder import MLPAutoencoder
from tests.helpers.project import PROJECT
from utils.checkpoint import find_weights, load_checkpoint
from utils.config import SPECIES
from utils.data.dataset import split_indices
from utils.evaluation.features import load_features
from utils.latents import load_prior
from utils.registry import load_model
from VarAutoencoder import VarAutoencoder

FEATURES = PROJECT / "models" / "features.pt"
NUMBER = r"(\d+\.\d+(?:e-\d+)?)"
LINE = re.compile(rf"Epoch: (\d+), Train Loss: {NUMBER}, Valid Loss: {NUMBER}")
# Diffusion models with committed logs.
TRAINED = (
    *("diffusion", "diffusion_quick", "diffusion_short"),
    *("diffusion_ddpm", "diffusion_64"),
)
LOGS = {  # log/train_<name>.out -> most epochs, bounds of the last train and valid loss
    "MLPAE": (100, 0.03, 0.03),  # M11, M12
    "AE_SGD": (60, 0.015, 1.0),  # M19, M20
    "AE": (15, 0.010, 0.012),  # M22, M24
    "VAE": (20, 800, 800),  # M32, M33
}
KIT = {  # the models with the starter kit's own arguments
    "MLPAE": lambda: MLPAutoencoder(64, 24, 24),
    "AE": lambda: Autoencoder(64),
    "VAE": lambda: VarAutoencoder(64),
    "diffusion": lambda: Diffuser(n_steps=300),
}
PICTURES = {  # M13, M26, M28, M34, M35, M41, M48; M44 and M50 of diffusion
    "MLPAE": "train valid loss latent",
    "AE": "train valid loss latent random_images",
    "VAE": "train valid loss latent random_images",
    "diffusion": "loss random_images denoise species guidance interpolation inpaint "
    "straightness reflow nearest_neighbours one_level estimates one_step",
    "diffusion_short": "loss compare_samplers",
    "diffusion_ddpm": "loss random_images",
    "diffusion_fast": "random_images",
    "diffusion_64": "loss random_images species",
}


def log_lines(name):
    """Return the lines that a training printed."""
    path = PROJECT / "log" / f"train_{name}.out"
    return path.read_text("ascii").splitlines()


def printed_losses(name):
    """Return [(epoch, train loss, valid loss)] of an autoencoder's log."""
    rows = [LINE.fullmatch(line).groups() for line in log_lines(name)]
    return [(int(number), float(train), float(valid)) for number, train, valid in rows]


@pytest.mark.parametrize(
    "file", ["Best_MLPAE.pkl", "Best_AE.pth", "Best_VAE.pth", "Best_diffusion.pkl"]
)
def test_weights_load_in_the_kits_way(file):
    """M10, M25, M31, M41, C1, R28: safely, strictly, and trained on the photos."""
    path = PROJECT / "models" / file
    name = path.stem.removeprefix("Best_")
    assert find_weights(name, PROJECT) == path
    weights = torch.load(path, map_location="cpu", weights_only=True)
    KIT[name]().load_state_dict(weights, strict=True)
    metadata = load_checkpoint(path)[1]
    assert (metadata["model"], metadata["data"]["source"]) == (name, "photos")
    assert metadata["data"]["classes"] == ["astilbe", "bellflower", "calendula"]
    assert metadata["data"]["count"] == 2321 and len(split_indices(2321)[0]) == 1856


def test_weights_of_sixteen_species():
    """Below 12 MB, trained on photos of all sixteen at 64 x 64."""
    path = PROJECT / "models" / "Best_diffusion_64.pkl"
    _, metadata = load_model("diffusion_64", path)
    assert path.stat().st_size < 12e6 and metadata["settings"]["image_size"] == 64
    assert (metadata["data"]["source"], metadata["data"]["count"]) == ("photos", 14112)
    classes = metadata["data"]["classes"]
    assert len(classes) == 16 and set(SPECIES) <= set(classes)
    assert classes == load_features(FEATURES).classes


def read_evaluation(name):
    """Return what tools.evaluate wrote."""
    return json.loads((PROJECT / "log" / f"evaluate_{name}.json").read_text("utf-8"))


def evaluated(name):
    """Return what tools.evaluate wrote: metrics of the model's samples, and all."""
    found = read_evaluation(name)
    return found[f"models/Best_{name}.pkl"], found


def test_samples_are_as_near_and_as_varied_as_asked():
    """And are classified as requested as often as photos."""
    ours, found = evaluated("diffusion")
    assert ours["nfe"] <= 40 and ours["images"] == 2000
    assert ours["kernel distance to validation photos"][0] <= 0.0022
    assert ours["- extrapolated"][0] <= 0.55
    assert ours["recall at equal number"][0] >= 0.72
    assert ours["precision at equal number"][0] >= 0.78
    classified = "classified as requested"
    assert ours[classified][0] >= found["validation photos"][classified][0]


def test_samples_are_far_nearer_than_the_vaes_by_another_extractor():
    """By one that chose no setting."""
    path = PROJECT / "log" / "features_b_diffusion.json"
    ours, vae = json.loads(path.read_text("utf-8")).values()
    assert 12 * ours["Frechet distance"][0] <= vae["Frechet distance"][0]


@pytest.mark.parametrize("file", ["diffusion_64", "diffusion_64_at_24"])
def test_samples_of_sixteen_species_reach_the_required_distance(file):
    """Relative to the VAE's, by all pixels and after shrinking."""
    found = read_evaluation(file)
    ours, vae = (
        found[path]
        for path in ("models/Best_diffusion_64.pkl", "trial_64/models/Best_VAE.pth")
    )
    assert 10 * ours["Frechet distance"][0] <= vae["Frechet distance"][0]


def test_samples_of_sixteen_species_are_classified_as_often_as_photos():
    found, classified = read_evaluation("diffusion_64_at_24"), "classified as requested"
    ours = found["models/Best_diffusion_64.pkl"][classified]
    assert ours[0] >= found["validation photos"][classified][0]


def test_the_fast_model_is_small_and_near():
    """One evaluation: at most 1.7 times the default's distance, from the same noise."""
    path = PROJECT / "models" / "Best_diffusion_fast.pkl"
    model, _ = load_model("diffusion_fast", path)
    assert sum(p.numel() for p in model.parameters()) <= 1.2e6
    found = json.loads((PROJECT / "log" / "reflow_diffusion.json").read_text("utf-8"))
    (one,) = (point for point in found["after"] if point["nfe"] == 1)
    default = found["before"][-1]  # by the default sampler
    assert default["nfe"] > 20 and one["frechet"][0] <= 1.7 * default["frechet"][0]


def test_samples_are_no_copies():
    """At most the proportion of the validation photos, at similar distances."""
    ours, found = evaluated("diffusion")
    photos = found["validation photos"]
    for what in ("pixels", "features"):
        assert ours[f"copies by {what}"][0] <= photos[f"copies by {what}"][0]
        nearest = f"nearest by {what}"
        assert ours[nearest][0] >= 0.95 * photos[nearest][0]


@pytest.mark.slow
def test_ancestral_sampling_through_all_steps_gives_flowers():
    """M41: samples are classified as one of the three of sixteen species; noise not."""
    path = find_weights("diffusion", PROJECT)
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
@pytest.mark.parametrize("name", ["MLPAE", "AE", "VAE"])
def test_priors_belong_to_these_weights(name, prior):
    """Codes drawn from them decode to images."""
    path = find_weights(name, PROJECT)
    model, metadata = load_model(name, path)
    with torch.no_grad():
        images = model.decoder(load_prior(prior, model, metadata, path)(4))
    assert images.shape == (4, 3, 24, 24)


def test_the_extractor_classifies_validation_photos():
    """85 % of them correctly, in the split that all models share."""
    metadata = load_checkpoint(FEATURES)[1]
    assert FEATURES.stat().st_size < 6e6 and metadata["valid_right"] >= 0.85
    data, last = metadata["data"], log_lines("features")[-1]
    assert len(data["classes"]) == 16 and data["split_seed"] == 0
    assert float(last.split()[-1]) == pytest.approx(metadata["valid_right"], abs=1e-4)
    assert load_features(FEATURES)(torch.rand(2, 3, 24, 24)).shape == (2, 256)


@pytest.mark.parametrize("name", LOGS)
def test_log(name):
    """M9, M18, M49, R3: every epoch from 0 in the kit's format; the bounds are met."""
    epochs, train_bound, valid_bound = LOGS[name]
    numbers, train, valid = zip(*printed_losses(name), strict=True)
    assert numbers == tuple(range(len(numbers))) and len(numbers) <= epochs
    assert train[-1] < train_bound and valid[-1] < valid_bound
    steps = train[:: max(1, len(train) // 10)]
    assert list(steps) == sorted(steps, reverse=True)  # falling step by step


def test_sgd_log_of_the_ae_is_below_the_mlpaes():
    """M19: both plain SGD, the same encoding size: both losses are lower."""
    (_, *ae), (_, *mlpae) = (printed_losses(name)[-1] for name in ("AE_SGD", "MLPAE"))
    assert ae[0] < mlpae[0] and ae[1] < mlpae[1]


@pytest.mark.parametrize("name", TRAINED)
def test_log_of_a_diffusion_model(name):
    """M40, B.7: the device, then `Epoch: i/n` from 1 with four decimals, falling."""
    device, *lines = log_lines(name)
    assert re.fullmatch("using device (cpu|cuda|mps)", device)
    form = re.compile(r"Epoch: (\d+)/(\d+), Train Loss: (\d\.\d{4})")
    found = [form.fullmatch(line).groups() for line in lines]
    assert [int(i) for i, _, _ in found] == list(range(1, int(found[0][1]) + 1))
    assert float(found[-1][2]) < 0.5 * float(found[0][2])


@pytest.mark.parametrize("name", ["MLPAE", "AE", "VAE", *TRAINED])
def test_csv_agrees_with_the_log(name):
    """The CSV's printed losses are the log's, epoch by epoch."""
    with open(PROJECT / "log" / f"{name}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [line for line in log_lines(name) if line.startswith("Epoch")]
    for row, line in zip(rows, lines, strict=True):
        printed = re.search(rf"Train Loss: {NUMBER}", line).group(1)
        error = 10 ** -len(printed.split(".")[1]) if name in TRAINED else 1e-17
        assert float(printed) == pytest.approx(float(row["train_loss"]), abs=error)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name):
    """M48: each decodes, and is smaller than 1 MB."""
    for content in PICTURES[name].split():
        path = PROJECT / "vis" / f"{content}_{name}.png"
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
