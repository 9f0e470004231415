"""The values of the names in the report's templates, each from a file.

A group of values comes from one or a few files below the root folder: log/, and the
metadata of weights in models/. Each function returns {name in the template: text}.
"""

from tools.report import tables
from utils import files
from utils.checkpoint import load_checkpoint
from utils.cli import UserError
from utils.data.dataset import split_indices

FOLDERS = ("models/", "log/", "vis/")

# Files -------------------------------------------------------------------------------


class Missing(UserError):
    """A file of the figures is not there; its argument is the message."""


def require(root, name):
    """Return the path of a file below a folder, or raise Missing."""
    if not (root / name).is_file():
        raise Missing(
            f"{root / name} is not there; make it: python diffusion.py > "
            "log/train_diffusion.out"
        )
    return root / name


def read_json(root, name):
    """Return the content of log/NAME.json."""
    return files.read_json(require(root, f"log/{name}.json"))


def read_log(root, name):
    """Return the rows of log/NAME.csv, one per epoch, {column: text}."""
    return files.read_csv(require(root, f"log/{name}.csv"))


def read_metadata(root, name):
    """Return the metadata of weights, with the number of parameters."""
    weights, metadata = load_checkpoint(require(root, f"models/Best_{name}.pkl"))
    return metadata | {"parameters": sum(w.numel() for w in weights.values())}


def total_seconds(rows):
    """Return the time of all epochs of a log."""
    return sum(float(row["seconds"]) for row in rows)


def minutes(seconds, say):
    """Return a time in minutes as text."""
    return say("{} min").format(f"{seconds / 60:.1f}")


# Groups of values --------------------------------------------------------------------


def training(root, say):
    """Return settings and training of the default model, which every report has."""
    model, rows = read_metadata(root, "diffusion"), read_log(root, "diffusion")
    models = [model]
    if (root / "models/Best_diffusion_64.pkl").is_file():
        models.append(read_metadata(root, "diffusion_64"))
    # Photos of the whole training: training photos times epochs. Epochs of metadata
    # count from 0.
    photos = len(split_indices(model["data"]["count"])[0]) * len(rows)
    losses = [float(r["valid_per_photo"]) for r in rows if r["valid_per_photo"]]
    return {
        "settings": tables.settings(models, say),
        "torch": model["torch"],
        "threads": model["threads"],
        "epochs": len(rows),
        "minutes": minutes(total_seconds(rows), say),
        "speed": tables.rounded(photos / total_seconds(rows)),
        "train_loss": tables.rounded(float(rows[-1]["train_per_photo"])),
        "valid_loss": tables.rounded(losses[-1]),
        "best_epoch": model["epoch"] + 1,
        "best_loss": tables.rounded(float(rows[model["epoch"]]["valid_per_photo"])),
    }


def samples(root, say):
    """Return the default model's samples beside photos and other models' samples."""
    found = read_json(root, "evaluate_diffusion")
    own, photos = next(iter(found.values())), found["validation photos"]
    vae = found["our VAE"]["Frechet distance"]
    # Distances to the nearest training photo, relative to those of held-out photos.
    ratios = {
        f"{what}_ratio": tables.percent(
            own[f"nearest by {what}"][0] / photos[f"nearest by {what}"][0]
        )
        for what in ("pixels", "features")
    }
    return ratios | {
        "distances": tables.distances(found, say),
        "variety": tables.variety(found, say),
        "species": tables.species(found, say),
        "copies": tables.copies(found, say),
        "sampler": tables.sampler(found, say),
        "vae_ratio": f"{vae[0] / own['Frechet distance'][0]:.1f}",
    }


def second_extractor(root, say):
    """Return the distances by the second extractor: this model, then the VAE."""
    found = read_json(root, "features_b_diffusion")
    ours, vae = (facts["Frechet distance"] for facts in found.values())
    return {
        "distances_b": tables.distances(found, say),
        "vae_ratio_b": f"{vae[0] / ours[0]:.1f}",
    }


def ladder(root, say):
    """Return quality against training time, as tools.ladder measured it."""
    found = read_json(root, "ladder")
    return {
        "ladder": tables.ladder(found["models"], say),
        "ladder_machine": tables.machine(found["machine"], say),
    }


def ddpm(root, say):
    """Return the training and the samples of the assignment's DDPM."""
    found = read_json(root, "evaluate_diffusion_ddpm")
    return {
        "epochs_ddpm": len(read_log(root, "diffusion_ddpm")),
        "count_ddpm": tables.rounded(next(iter(found.values()))["images"]),
        "distances_ddpm": tables.distances(found, say),
        "sampler_ddpm": tables.sampler(found, say),
    }


def samplers(root, say):
    """Return the comparison of samplers."""
    compared = read_json(root, "compare_samplers_diffusion_short")
    return {
        "samplers": tables.samplers(compared, say),
        "samplers_machine": tables.machine(compared["facts"]["machine"], say),
    }


def reflow(root, say):
    """Return few network evaluations, before and after reflow."""
    found = read_json(root, "reflow_diffusion")
    return {
        "couplings": tables.rounded(found["reflow"]["couplings"]),
        "reflow": tables.reflow(found, say),
        "parameters_fast": f"{read_metadata(root, 'diffusion_fast')['parameters']:,}",
    }


def sixteen_species(root, say):
    """Return the training and the samples of the model of sixteen species."""
    rows = read_log(root, "diffusion_64")
    found = read_json(root, "evaluate_diffusion_64")
    # The classifier was trained at 24 x 24.
    at_24 = read_json(root, "evaluate_diffusion_64_at_24")
    return {
        "epochs_64": len(rows),
        "minutes_64": minutes(total_seconds(rows), say),
        "sampler_64": tables.sampler(found, say),
        "distances_64": tables.distances(found, say),
        "distances_64_at_24": tables.distances(at_24, say),
        "species_64": tables.species(at_24, say),
    }


def throughput(root, say):
    """Return the speed of a training step and the parts of its time."""
    step = read_json(root, "throughput_diffusion")
    plain = step["plain_convolution_teraflops"]
    operations = tables.rounded(step["operations_per_photo"] / 1e6)
    return {
        "machine": tables.machine(step["machine"], say),
        "batch_size": step["settings"]["batch_size"],
        "step_ms": say("{} ms").format(tables.rounded(1000 * step["seconds_per_step"])),
        "step_speed": f"{step['photos_per_second']:.1f}",
        "operations": say("{} million").format(operations),
        # TFLOP/s; a multiplication and an addition are two operations.
        "teraflops": tables.rounded(step["teraflops"]),
        "conv_bf16": tables.rounded(plain["bf16"]),
        "conv_fp32": tables.rounded(plain["fp32"]),
        "step_parts": tables.step_parts(step["proportions"], say),
    }


def reproduction(root, say):
    """Return what tools.reproduce wrote down: machine, versions, seeds, durations."""
    found = read_json(root, "manifest")
    steps = {n: facts for n, facts in found["steps"].items() if is_shown(facts)}
    seeds = {found["seeds"].get(name) for name in steps} - {None}
    versions = (f"{name} {number}" for name, number in found["versions"].items())
    return {
        "made_machine": tables.machine(found["machine"], say),
        "made_versions": say(", ").join(versions),
        "made_seeds": say(", ").join(map(str, sorted(seeds))),
        "made_steps": tables.durations(steps, say),
    }


def is_shown(facts):
    """Return whether a step of tools.reproduce has ended and made what is shown."""
    # Not the steps of this report and of the archive: they end when it is written.
    made = facts.get("artefacts", ())
    return facts["state"] == "done" and any(n.startswith(FOLDERS) for n in made)


OPTIONAL = (samples, second_extractor, ladder, ddpm, samplers, reflow)
OPTIONAL += (sixteen_species, throughput, reproduction)


def figures(root, say):
    """Return the values of the templates' names: {name: text}.

    root: folder with log/ and models/; say: of tools.report.words.translator. Groups of
    which a file is missing are left out, but for that of the default model's training.

    Raises:
        UserError: if a file of the training is missing, or another one is incomplete.
    """
    # An error of a lookup or of a conversion comes from the content of a file.
    try:
        values = training(root, say)
        for group in OPTIONAL:
            try:
                values |= group(root, say)
            except Missing:
                continue
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"a file in {root / 'log'} is incomplete ({error}); make it again"
        ) from None
    return values
