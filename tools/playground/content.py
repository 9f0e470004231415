"""The pictures and codes of the page, computed from the trained weights.

No photo is used or shown: the images are drawn flowers and generated ones, so that the
same weights make the same page with and without photos.
"""

import base64
from dataclasses import replace

import torch

from tools.playground import records
from utils.checkpoint import load_checkpoint, weights_name
from utils.cli import UserError
from utils.config import AUTOENCODERS, FAST, SPECIES, SamplerConfig
from utils.data.synthetic import draw_flowers
from utils.diffusion.sampling import default_sampler_config, sample
from utils.evaluation.linear_baselines import fit_pca
from utils.evaluation.metrics import nearest_training_images
from utils.files import read_json
from utils.latents import encode
from utils.registry import load_model

SIZE = 24  # pixels per side of every image
REFERENCE = 1024  # images to which principal axes are fitted
MAPPED = 600  # codes on the map
EXAMPLE_SEED, REFERENCE_SEED, HISTORY_SEED = 3, 1, 0
COMPONENTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
AXES = 12  # of the VAE's codes that have a slider
PER_SPECIES = 2  # samples of each species at each stage of the training
EPOCHS_RECORD = "epochs_diffusion.json"  # in log/
SIGMA_LOW = 0.02  # smallest noise level of the slider, which no eye sees


class Missing(Exception):
    """A file that a section needs is not there."""


# Encoding for the page ---------------------------------------------------------------


def pixels(images):
    """Return images (B, 3, H, W) in [0, 1] as base64 of RGB bytes, row by row."""
    # Not PNG, whose bytes depend on the version of a library.
    rows = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
    return [base64.b64encode(image.numpy().tobytes()).decode() for image in rows]


def rounded(values, digits=4):
    """Return a tensor as nested lists of numbers with so many significant digits."""
    if values.ndim:
        return [rounded(value, digits) for value in values]
    return float(f"{values.item():.{digits}g}")


# Images and models -------------------------------------------------------------------


def load(root, name):
    """Return (model, metadata) of weights below root; raises Missing."""
    path = root / "models" / weights_name(name)
    if not path.is_file():
        raise Missing(f"models/{path.name}")
    return load_model(name, path)


def seeded_noise(count, seed):
    """Return noise (count, 3, SIZE, SIZE) that depends on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, SIZE, SIZE, generator=generator)


def drawn(count, seed):
    """Return `count` drawn flowers in [0, 1] and labels, the species in turn."""
    images, labels = draw_flowers(-(-count // 3), SIZE, SIZE, seed)
    order = torch.arange(len(images)).view(3, -1).T.flatten()[:count]
    return images[order].float() / 255, labels[order]


def reference(root):
    """Return (images, labels, facts about them) of images in place of the photos."""
    # Samples of the fast model, whose distribution is near that of the photos.
    facts = {"count": REFERENCE, "source": "generated"}
    try:
        model, metadata = load(root, FAST)
    except Missing:
        return *drawn(REFERENCE, REFERENCE_SEED), facts | {"source": "drawn"}
    facts["couplings"] = metadata["reflow"]["couplings"]
    config, labels = default_sampler_config(metadata), torch.arange(REFERENCE) % 3
    noise = seeded_noise(REFERENCE, REFERENCE_SEED)
    batches = zip(noise.split(256), labels.split(256), strict=True)
    images = torch.cat([sample(model, n, config, batch)[0] for n, batch in batches])
    return images, labels, facts


def examples(root):
    """Return [(kind, label, image)]: a drawn and a generated flower of each species."""
    images, labels = drawn(3, EXAMPLE_SEED)
    found = [("drawn", *pair) for pair in zip(labels.tolist(), images, strict=True)]
    try:
        model, metadata = load(root, "diffusion")
    except Missing:
        return found
    config = default_sampler_config(metadata)
    made, _ = sample(model, seeded_noise(3, EXAMPLE_SEED), config, labels)
    pairs = zip(labels.tolist(), made, strict=True)
    return [("generated", *pair) for pair in pairs] + found


# Sections ----------------------------------------------------------------------------


def squared_errors(made, images):
    """Return the mean squared error of each image, as numbers."""
    return rounded((made - images).square().flatten(1).mean(dim=1))


def reconstruction(root, images, fitted):
    """Return reconstructions by each autoencoder and by principal components."""
    rows = {}
    for name in AUTOENCODERS:
        model, _ = load(root, name)
        with torch.no_grad():
            made = model.decoder(encode(model, images, draw=False)).view(images.shape)
        rows[name] = {"images": pixels(made), "errors": squared_errors(made, images)}

    length = model.args["encoding_dim"]
    return {"models": rows, "control": control(images, fitted), "length": length}


def control(images, fitted):
    """Return the images from their best linear codes, of lengths COMPONENTS."""
    # fitted: images (N, 3, H, W) to which the principal components are fitted.
    axes, rows = fit_pca(fitted, max(COMPONENTS)), []
    for count in COMPONENTS:
        made = axes._replace(axes=axes.axes[:count]).reconstruct(images)
        errors = squared_errors(made, images)
        rows.append({"count": count, "images": pixels(made), "errors": errors})
    return rows


def principal_axes(codes):
    """Return (mean, axes (AXES, D), deviations (AXES,)) of codes (N, D)."""
    fitted = fit_pca(codes, AXES)
    # An axis has no direction of its own: its largest entry is made positive.
    largest = fitted.axes.gather(1, fitted.axes.abs().argmax(dim=1, keepdim=True))
    axes = fitted.axes * largest.sign()
    return fitted.mean, axes, ((codes.double() - fitted.mean) @ axes.T).std(dim=0)


def latent(root, images, labels):
    """Return the principal axes of the VAE's codes, their map, and fitted Gaussians."""
    codes = {}
    for name in ("VAE", "AE"):
        codes[name] = encode(load(root, name)[0], images, draw=False)
    mean, axes, deviations = principal_axes(codes["VAE"])
    places = (codes["VAE"][:MAPPED].double() - mean) @ axes[:2].T / deviations[:2]
    variances = (codes["VAE"].double() - mean).square().mean(dim=0).sum()
    return {
        "mean": rounded(mean),
        "axes": rounded(axes),
        "deviations": rounded(deviations),
        "explained": rounded(deviations.square().cumsum(0) / variances),
        "map": [
            [*rounded(place, 3), label]
            for place, label in zip(places, labels[:MAPPED].tolist(), strict=True)
        ],
        "lengths": {
            name: rounded(c.norm(dim=1).mean(), 3) for name, c in codes.items()
        },
        "gaussians": {name: gaussian(root, name) for name in codes},
    }


def gaussian(root, name):
    """Return mean and Cholesky factor of the Gaussian fitted to a model's codes."""
    path = root / "models" / weights_name(f"prior_{name}")
    if not path.is_file():
        raise Missing(f"models/{path.name}")
    weights, _ = load_checkpoint(path)
    factor = weights["gaussian.cholesky"][0]
    rows = [rounded(factor[i, : i + 1]) for i in range(len(factor))]
    return {"mean": rounded(weights["gaussian.means"][0]), "factor": rows}


def history_labels():
    """Return the labels of the samples at each stage of the training."""
    return torch.arange(3).repeat_interleave(PER_SPECIES)


def history_samples(model, metadata, autoguidance=1.0):
    """Return the samples of a stage, all from one noise: (B, 3, H, W) in [0, 1]."""
    config = default_sampler_config(metadata)
    config, labels = replace(config, autoguidance=autoguidance), history_labels()
    return sample(model, seeded_noise(len(labels), HISTORY_SEED), config, labels)[0]


def history(root, others):
    """Return samples of one noise at stages of the training.

    others: images (N, 3, H, W), of which the nearest to each last sample is shown.
    """
    # The early stages are those of tools.playground.epochs. The last is shown without
    # the guide too, since the others are.
    model, metadata = load(root, "diffusion")
    path = root / "log" / EPOCHS_RECORD
    if not path.is_file():
        raise Missing(f"log/{path.name}")
    rows = [row | {"guided": False} for row in early_stages(path)]
    epoch = metadata["epoch"] + 1
    autoguidance = default_sampler_config(metadata).autoguidance
    for value in dict.fromkeys((1.0, autoguidance)):
        images = history_samples(model, metadata, value)
        row = {"epoch": epoch, "guided": value != 1, "images": pixels(images)}
        rows.append(row)

    near = nearest_training_images(images, others)
    chosen = others[near.indices]
    chosen = torch.where(near.flipped[:, None, None, None], chosen.flip(3), chosen)
    return {
        "epochs": metadata["settings"]["epochs"],
        "labels": history_labels().tolist(),
        "stages": rows,
        "nearest": {"images": pixels(chosen), "distances": rounded(near.first)},
        "others": len(others),
    }


def early_stages(path):
    """Return the stages of a record of tools.playground.epochs."""
    try:
        found = read_json(path)["stages"]
        return [{"epoch": row["epoch"], "images": row["images"]} for row in found]
    except (KeyError, TypeError):
        raise UserError(f"{path} is incomplete; make it again") from None


# The page ----------------------------------------------------------------------------


def content(root):
    """Return (facts for the page as plain types, what was left out as lines).

    root: folder with models/ and log/. A section of which a file is missing is left
    out.

    Raises:
        UserError: if a file is damaged.
    """
    # The images of all sections.
    shown = examples(root)
    images, labels, described = reference(root)
    kinds, species, stack = zip(*shown, strict=True)
    stack = torch.stack(stack)
    facts = {
        "size": SIZE,
        "classes": SPECIES,
        "sigmas": [SIGMA_LOW, SamplerConfig.sigma_max],
        "reference": described,
        "examples": {"kinds": kinds, "labels": species, "images": pixels(stack)},
    }
    # The sections, of which those without their files are left out.
    sections = {
        "reconstruction": lambda: reconstruction(root, stack, images),
        "latent": lambda: latent(root, images, labels),
        "history": lambda: history(root, images),
        **records.sections(root / "log"),
    }
    left_out = []
    for name, build in sections.items():
        try:
            facts[name] = build()
        except (Missing, records.Missing) as missing:
            left_out.append(f"{name} is left out: {missing} is missing")
    return facts, left_out
