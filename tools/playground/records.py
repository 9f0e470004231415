"""The numbers of the page, as the records in log/ hold them."""

from utils.cli import UserError
from utils.files import read_csv, read_json

KERNEL = "kernel distance to validation photos"
RECALL, PRECISION = "recall at equal number", "precision at equal number"
LOSSES = {"MLPAE": "valid_per_photo", "AE": "valid_per_photo"}  # mean squared errors
VALUES = 3 * 24 * 24  # of an image


class Missing(Exception):
    """A record that a section needs is not there."""


def present(folder, name):
    """Return the path of a record; raises Missing."""
    if not (folder / name).is_file():
        raise Missing(f"log/{name}")
    return folder / name


def errors(folder):
    """Return the mean squared error on validation photos after the last epoch."""
    found = {}
    for name, column in LOSSES.items():
        rows = read_csv(present(folder, f"{name}.csv"))
        found[name] = float(rows[-1][column])
    # The VAE logs its loss at the mean of the codes: a squared error, plus the KL.
    last = read_csv(present(folder, "VAE.csv"))[-1]
    squared = float(last["valid_loss_at_mean"]) - float(last["valid_kl"])
    return found | {"VAE": squared / VALUES}


def quality(folder):
    """Return quality against minutes of training: models, photos and the machine."""
    ladder = read_json(present(folder, "ladder.json"))
    photos = read_json(present(folder, "evaluate_diffusion.json"))["validation photos"]
    models = {
        # An autoencoder decodes once, and its record has no number of evaluations.
        name: {"minutes": row["minutes"], "nfe": row.get("nfe", 1)} | metrics(row)
        for name, row in ladder["models"].items()
    }
    return {
        "models": models,
        "photos": metrics(photos),
        "photo_count": photos["images"],
        "machine": ladder["machine"],
    }


def metrics(row):
    """Return the metrics of a set of images, each [value, low, high]."""
    return {"kernel": row[KERNEL], "recall": row[RECALL], "precision": row[PRECISION]}


def quality_by_nfe(folder):
    """Return quality against network evaluations: {curve: [{nfe, kernel}]}."""
    reflow = read_json(present(folder, "reflow_diffusion.json"))
    # Before reflow it is the default model, after it the few-step model.
    curves = {
        curve: [point_of(point) for point in reflow[key]]
        for curve, key in (("diffusion", "before"), ("diffusion_fast", "after"))
    }
    return {
        "curves": curves,
        "images": reflow["count"],
    }


def point_of(point):
    """Return what a plot needs of a measured point."""
    return {"nfe": point["nfe"], "kernel": point["kernel_to_validation"]}


def copies(folder):
    """Return the proportion of samples that copy a training photo, and controls."""
    record = read_json(present(folder, "evaluate_diffusion.json"))
    own = next(iter(record.values()))  # the default model's samples
    control = record["training photos, moved by a pixel"]
    photos = record["validation photos"]
    return {
        "images": own["images"],
        "samples": own["copies by pixels"][0],
        "photos": photos["copies by pixels"][0],
        "control": control["copies by pixels"][0],
        "control_images": control["images"],
        "nearest": own["nearest by pixels"][0],
        "nearest_photos": photos["nearest by pixels"][0],
    }


def sections(folder):
    """Return {section: function that reads it} of the records in a folder."""
    groups = {"errors": errors, "quality": quality, "copies": copies}
    groups["evaluations"] = quality_by_nfe
    return {name: reader(group, folder) for name, group in groups.items()}


def reader(group, folder):
    """Return the function that reads a group; it raises UserError, or Missing."""

    def read():
        # An error of a lookup or of a conversion comes from the content of a file.
        try:
            return group(folder)
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(
                f"a file in {folder} is incomplete ({error}); make it again"
            ) from None

    return read
