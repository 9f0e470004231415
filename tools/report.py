"""Write diffusion_report.md: prose from a template, every number from a file.

python -m tools.report
python -m tools.report --check

docs/diffusion_report.template.md is a string.Template; `figures` returns the values of
its names, from log/ and from the metadata of weights in models/. --check writes
nothing, and fails if the report differs from what the files give. Files are read, and
the report is written, below --out.
"""

import csv
import json
import re
from string import Template

from utils.cli import PROJECT, UserError, guard, run
from utils.cli.arguments import command_line
from utils.cli.tables import markdown_table

TEMPLATE = PROJECT / "docs" / "diffusion_report.template.md"
REPORT = "diffusion_report.md"
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")  # of Markdown, to a file of ours
TRAINED_FILES = r"(?:log|models|vis)/(?:Best_|train_|loss_|random_images_)?"

MADE_BY = {  # pattern of a file name, the first that fits -> the command for it
    # Measurements. Several sets of images share one file.
    r"log/evaluate_(\w+_16)\.json": "python -m tools.evaluate models/Best_{0}.pkl "
    "trial/models/Best_VAE.pth --data flowers_16 --json > log/evaluate_{0}.json, after "
    "python train_script.py --model VAE --data flowers_16 --out trial",
    r"log/evaluate_(\w+)\.json": "python -m tools.evaluate models/Best_{0}.pkl --json "
    "> log/evaluate_{0}.json",
    r"log/throughput_(\w+)\.json": "python -m tools.benchmark --model {0}",
    r"log/seeds_(\w+)\.json": "python -m tools.evaluate models/Best_{0}.pkl "
    "seed_1/models/Best_{0}.pkl seed_2/models/Best_{0}.pkl models/Best_VAE.pth "
    "--frechet --json > log/seeds_{0}.json, after python diffusion.py --seed 1 --out "
    "seed_1, and the same for 2",
    # Comparisons, with the flags that the committed files were made with.
    r"(?:log|vis)/compare_samplers_diffusion\.\w+": "python -m tools.compare_samplers "
    "--nfe 4 8 16 32",
    r"(?:log|vis)/reflow_diffusion\.\w+": "python -m tools.reflow --couplings 6000 "
    "--epochs 16 --frechet",
    r"vis/nearest_neighbours_(\w+)\.png": "python -m tools.nearest_neighbours --model "
    "{0}",
    # What a training writes, then every other picture.
    TRAINED_FILES + r"(diffusion_16)\.\w+": "python diffusion.py --model {0} "
    "--data flowers_16 > log/train_{0}.out",
    TRAINED_FILES + r"(diffusion\w*)\.\w+": "python diffusion.py --model {0} "
    "> log/train_{0}.out",
    r"vis/([a-z]+)_(diffusion\w*)\.\w+": "python -m tools.visualize --model {1} "
    "--show {0}",
    # Documents.
    r"docs/(\w+)\.md": "python -m tools.ablations docs/{0}.toml > docs/{0}.md",
    r"diffusion_report\.md": "python -m tools.report",
}

# The section on the assignment's DDPM, whose weights are not committed. It takes its
# place in the template if its evaluation is there.
DDPM_PLACE = "$ddpm_section\n\n"
DDPM_EVALUATION = "log/evaluate_diffusion_ddpm.json"
DDPM_SECTION = """## The assignment's DDPM

`python diffusion.py --model diffusion_ddpm > log/train_diffusion_ddpm.out` trains the
same network as the assignment describes it: noise prediction at uniform steps of the
starter kit's schedule, and ancestral sampling through all steps. `python -m
tools.evaluate models/Best_diffusion_ddpm.pkl --frechet --json >
log/evaluate_diffusion_ddpm.json` measures its samples ($count_ddpm); its weights are
not committed.

$trainings

The number of operations per training step is the same; the time also depends on the
machine. The losses ([log/diffusion_ddpm.csv](log/diffusion_ddpm.csv),
[log/train_diffusion_ddpm.out](log/train_diffusion_ddpm.out)) are not comparable with
those above: they are squared errors of another quantity, at other noise levels.

![Samples of the DDPM](vis/random_images_diffusion_ddpm.png)

"""


def parse(argv=None):
    """Return the checked command line."""
    line = command_line(__doc__, "--out")
    line.add_argument("--check", action="store_true", help="compare, and write nothing")
    return line.parse_args(argv)


if __name__ == "__main__":
    guard(parse)

from tools import report_tables as tables
from utils.checkpoint import load_checkpoint
from utils.files import replace_file

# Files -------------------------------------------------------------------------------


class Files:
    """The files below a folder; a missing one is an error with the command for it."""

    def __init__(self, root):
        self.root = root

    def require(self, name):
        """Return the path of a file."""
        # Raises UserError if it is not there.
        if not self.has(name):
            raise UserError(f"{self.root / name} is not there; {remedy(name)}")
        return self.root / name

    def has(self, name):
        """Return whether a file is there."""
        return (self.root / name).is_file()

    def json(self, name):
        """Return the content of a JSON file."""
        return json.loads(self.require(name).read_text("utf-8"))

    def csv(self, name):
        """Return {column: its numbers, without empty cells} of a CSV log."""
        with open(self.require(name), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        # Cells of validation metrics are empty in epochs without a validation.
        return {key: [float(r[key]) for r in rows if r[key]] for key in rows[0]}

    def metadata(self, name):
        """Return the metadata of a file of weights, with the number of parameters."""
        weights, metadata = load_checkpoint(self.require(name))
        return metadata | {"parameters": sum(w.numel() for w in weights.values())}


def remedy(name):
    """Return how to make the file of this name."""
    for pattern, command in MADE_BY.items():
        if found := re.fullmatch(pattern, name):
            return "make it: " + command.format(*found.groups())
    return f"name another in {TEMPLATE.name}"


# The figures -------------------------------------------------------------------------


def figures(files):
    """Return the values of the template's names: {name: text}."""
    model = files.metadata("models/Best_diffusion.pkl")
    model_16 = files.metadata("models/Best_diffusion_16.pkl")
    values = {
        "settings": tables.settings(model, model_16),
        "torch": model["torch"],
        "threads": model["threads"],
    }
    # The default model, 16 species, and 48 x 48; the DDPM if it was measured.
    for suffix in ("", "_16", "_48"):
        values |= model_figures(files, suffix)
    if files.has(DDPM_EVALUATION):
        values |= model_figures(files, "_ddpm") | ddpm_figures(files)
    # The default model in detail.
    values |= sample_figures(files, model) | sampler_figures(files)
    return values | throughput_figures(files)


def model_figures(files, suffix):
    """Return the training and the metrics of one model, its names with a suffix."""
    losses = files.csv(f"log/diffusion{suffix}.csv")
    found = files.json(f"log/evaluate_diffusion{suffix}.json")
    values = {
        "epochs": len(losses["epoch"]),
        "minutes": tables.minutes(losses),
        "train_loss": tables.rounded(losses["train_per_photo"][-1]),
        "valid_loss": tables.rounded(losses["valid_per_photo"][-1]),
        "count": tables.rounded(next(iter(found.values()))["images"]),
        "distances": tables.distances(found),
        "species": tables.species(found),
        "sampler": tables.sampler(found),
    }
    return {name + suffix: value for name, value in values.items()}


def ddpm_figures(files):
    """Return the table of the default model and the assignment's DDPM."""
    # Both were measured with the same number of samples, by tools.evaluate's default.
    models = {}
    for name in ("diffusion", "diffusion_ddpm"):
        found = files.json(f"log/evaluate_{name}.json")
        models[name] = files.csv(f"log/{name}.csv"), found
    return {"trainings": tables.trainings(models)}


def sample_figures(files, model):
    """Return the default model's samples beside photos and other models' samples."""
    found = files.json("log/evaluate_diffusion.json")
    losses = files.csv("log/diffusion.csv")
    own, photos = next(iter(found.values())), found["validation photos"]
    vae = found["our VAE"]["Frechet distance"]
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
        "copies": tables.copies(found),
        "seeds": tables.seeds(files.json("log/seeds_diffusion.json")),
    } | ratios


def sampler_figures(files):
    """Return the comparison of samplers, and few evaluations after reflow."""
    compared = files.json("log/compare_samplers_diffusion.json")
    reflow = files.json("log/reflow_diffusion.json")
    return {
        "samplers": tables.samplers(compared),
        "samplers_machine": tables.machine(compared["facts"]["machine"]),
        "couplings": tables.rounded(reflow["reflow"]["couplings"]),
        "reflow": tables.reflow(reflow),
    }


def throughput_figures(files):
    """Return the speed of a training step and the parts of its time."""
    step = files.json("log/throughput_diffusion.json")
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


def report(files):
    """Return the text of the report, whose pictures and links all exist."""
    # Raises UserError if a file or a value in it is missing. An error of a lookup or of
    # a conversion comes from the content of a file.
    try:
        values = figures(files)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"a file in {files.root / 'log'} is incomplete ({error}); repeat the "
            "command that makes it"
        ) from None
    section = DDPM_SECTION if files.has(DDPM_EVALUATION) else ""
    text = TEMPLATE.read_text("utf-8").replace(DDPM_PLACE, section)
    text = Template(text).substitute(values)
    # Pictures are not read for the figures, so they are checked here.
    for name in LINK.findall(text):
        files.require(name)
    return text


def first_difference(old, new):
    """Return in words the first line in which two lists differ, or None."""
    # One of the lists may be the beginning of the other.
    for number, (there, expected) in enumerate(zip(old, new, strict=False), start=1):
        if there != expected:
            return f"line {number} is {there!r}, expected {expected!r}"
    if len(old) != len(new):
        return f"has {len(old)} lines, expected {len(new)}"
    return None


def main(argv=None):
    args = parse(argv)
    files = Files(args.out)
    text = report(files)
    if not args.check:
        replace_file(args.out / REPORT, [text.encode()])
        return
    # Compared by lines: line ends differ after a checkout on Windows.
    there = files.require(REPORT).read_text("utf-8").splitlines()
    if wrong := first_difference(there, text.splitlines()):
        raise UserError(f"{args.out / REPORT}: {wrong}; {remedy(REPORT)}")


if __name__ == "__main__":
    run(main)
