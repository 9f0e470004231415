"""Write diffusion_report.md: prose from a template, every number from a file.

python -m tools.report

docs/diffusion_report.template.md is a string.Template; `figures` returns the values of
its names, from log/ and from the metadata of weights in models/. The template lists the
command that makes each file. Files are read, and the report is written, below --out.
"""

import re
from string import Template

from utils.cli import PROJECT, UserError, guard, run
from utils.cli.arguments import command_line
from utils.cli.tables import markdown_table

TEMPLATE = PROJECT / "docs" / "diffusion_report.template.md"
REPORT = "diffusion_report.md"
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")  # of Markdown, to a file of ours


def parse(argv=None):
    """Return the checked command line."""
    return command_line(__doc__, "--out").parse_args(argv)


if __name__ == "__main__":
    guard(parse)

from tools import report_tables as tables
from utils import files
from utils.checkpoint import load_checkpoint

# Files -------------------------------------------------------------------------------


def require(root, name):
    """Return the path of a file below a folder, or raise a UserError."""
    if not (root / name).is_file():
        raise UserError(f"{root / name} is not there; {TEMPLATE} says how to make it")
    return root / name


def read_json(root, name):
    """Return the content of log/NAME.json."""
    return files.read_json(require(root, f"log/{name}.json"))


def read_losses(root, name):
    """Return {column: its numbers, without empty cells} of log/NAME.csv."""
    rows = files.read_csv(require(root, f"log/{name}.csv"))
    # Cells of validation metrics are empty in epochs without a validation.
    return {key: [float(r[key]) for r in rows if r[key]] for key in rows[0]}


def read_metadata(root, name):
    """Return the metadata of weights, with the number of parameters."""
    weights, metadata = load_checkpoint(require(root, f"models/Best_{name}.pkl"))
    return metadata | {"parameters": sum(w.numel() for w in weights.values())}


# The figures -------------------------------------------------------------------------


def figures(root):
    """Return the values of the template's names: {name: text}."""
    model, other = (read_metadata(root, n) for n in ("diffusion", "diffusion_64"))
    values = {
        "settings": tables.settings(model, other),
        "parameters_fast": f"{read_metadata(root, 'diffusion_fast')['parameters']:,}",
        "torch": model["torch"],
        "threads": model["threads"],
    }
    # The default model, the DDPM, and sixteen species at 64 x 64.
    for suffix in ("", "_ddpm", "_64"):
        values |= model_figures(root, suffix)
    # The classifier was trained at 24 x 24.
    at_24 = read_json(root, "evaluate_diffusion_64_at_24")
    values["distances_64_at_24"] = tables.distances(at_24)
    values["species_64"] = tables.species(at_24)
    # The default model in detail.
    values |= sample_figures(root, model) | sampler_figures(root)
    return values | ladder_figures(root) | throughput_figures(root)


def model_figures(root, suffix):
    """Return the training and the metrics of one model, its names with a suffix."""
    losses = read_losses(root, f"diffusion{suffix}")
    found = read_json(root, f"evaluate_diffusion{suffix}")
    values = {
        "epochs": len(losses["epoch"]),
        "minutes": f"{sum(losses['seconds']) / 60:.1f} min",
        "train_loss": tables.rounded(losses["train_per_photo"][-1]),
        "valid_loss": tables.rounded(losses["valid_per_photo"][-1]),
        "count": tables.rounded(next(iter(found.values()))["images"]),
        "distances": tables.distances(found),
        "species": tables.species(found),
        "variety": tables.variety(found),
        "sampler": tables.sampler(found),
    }
    return {name + suffix: value for name, value in values.items()}


def sample_figures(root, model):
    """Return the default model's samples beside photos and other models' samples."""
    found, losses = (
        read_json(root, "evaluate_diffusion"),
        read_losses(root, "diffusion"),
    )
    own, photos = next(iter(found.values())), found["validation photos"]
    vae = found["our VAE"]["Frechet distance"]
    # The same by the second extractor: this model, then the VAE.
    second = read_json(root, "features_b_diffusion")
    ours_b, vae_b = (facts["Frechet distance"] for facts in second.values())
    # Photos of the whole training: training photos times epochs.
    trained = (model["data"]["count"] - photos["images"]) * len(losses["seconds"])
    # Distances to the nearest training photo, relative to those of held-out photos.
    ratios = {
        f"{what}_ratio": tables.percent(
            own[f"nearest by {what}"][0] / photos[f"nearest by {what}"][0]
        )
        for what in ("pixels", "features")
    }
    return {
        "speed": tables.rounded(trained / sum(losses["seconds"])),
        "vae_ratio": f"{vae[0] / own['Frechet distance'][0]:.1f}",
        "vae_ratio_b": f"{vae_b[0] / ours_b[0]:.1f}",
        "distances_b": tables.distances(second),
        "copies": tables.copies(found),
    } | ratios


def sampler_figures(root):
    """Return the comparison of samplers, and few evaluations after reflow."""
    compared = read_json(root, "compare_samplers_diffusion_short")
    reflow = read_json(root, "reflow_diffusion")
    return {
        "samplers": tables.samplers(compared),
        "samplers_machine": tables.machine(compared["facts"]["machine"]),
        "couplings": tables.rounded(reflow["reflow"]["couplings"]),
        "reflow": tables.reflow(reflow),
    }


def ladder_figures(root):
    """Return quality against training time, as tools.ladder measured it."""
    found = read_json(root, "ladder")
    return {
        "ladder": tables.ladder(found["models"]),
        "ladder_machine": tables.machine(found["machine"]),
    }


def throughput_figures(root):
    """Return the speed of a training step and the parts of its time."""
    step = read_json(root, "throughput_diffusion")
    plain = step["plain_convolution_teraflops"]
    # The longest part first.
    parts = sorted(step["proportions"].items(), key=lambda part: -part[1])
    rows = [[name, tables.percent(value) + " %"] for name, value in parts]
    return {
        "machine": tables.machine(step["machine"]),
        "batch_size": step["settings"]["batch_size"],
        "step_ms": tables.rounded(1000 * step["seconds_per_step"]) + " ms",
        "step_speed": f"{step['photos_per_second']:.1f}",
        "operations": tables.rounded(step["operations_per_photo"] / 1e6) + " million",
        # TFLOP/s; a multiplication and an addition are two operations.
        "teraflops": tables.rounded(step["teraflops"]),
        "conv_bf16": tables.rounded(plain["bf16"]),
        "conv_fp32": tables.rounded(plain["fp32"]),
        "step_parts": markdown_table(
            ["part of a step", "proportion of its time"], rows
        ),
    }


# The report --------------------------------------------------------------------------


def report(root):
    """Return the text of the report, whose pictures and links all exist.

    Raises:
        UserError: if a file, or a value in it, is missing.
    """
    # An error of a lookup or of a conversion comes from the content of a file.
    try:
        values = figures(root)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"a file in {root / 'log'} is incomplete ({error}); make it again"
        ) from None
    text = Template(TEMPLATE.read_text("utf-8")).substitute(values)
    # Pictures are not read for the figures, so they are checked here.
    for name in LINK.findall(text):
        require(root, name)
    return text


def main(argv=None):
    args = parse(argv)
    files.write_file(args.out / REPORT, report(args.out).encode())


if __name__ == "__main__":
    run(main)
