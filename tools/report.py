"""Write diffusion_report.md: prose from a template, every number from a file.

python -m tools.report
python -m tools.report --check

docs/diffusion_report.template.md is a string.Template; `figures` returns what its names
stand for, from log/ and from the metadata of weights in models/. --check writes
nothing, and fails if the report is not what the files say. Files are read, and the
report is written, below --out.
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
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")
DDPM = "diffusion_ddpm"

MADE_BY = {  # pattern of a file name, the first that fits -> the command for it
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
    r"(?:log|vis)/compare_samplers_diffusion\.\w+": "python -m tools.compare_samplers",
    r"(?:log|vis)/reflow_diffusion\.\w+": "python -m tools.reflow --frechet",
    r"vis/nearest_neighbours_(\w+)\.png": "python -m tools.nearest_neighbours --model "
    "{0}",
    r"(?:log|models|vis)/\w*(diffusion_16)\.\w+": "python diffusion.py --model {0} "
    "--data flowers_16 > log/train_{0}.out",
    r"(?:log|models|vis)/(?:Best_|train_|loss_|random_images_)?(diffusion\w*)\.\w+": (
        "python diffusion.py --model {0} > log/train_{0}.out"
    ),
    r"vis/([a-z]+)_(diffusion\w*)\.\w+": "python -m tools.visualize --model {1} "
    "--show {0}",
    r"docs/(\w+)\.md": "python -m tools.ablations docs/{0}.toml > docs/{0}.md",
    r"diffusion_report\.md": "python -m tools.report",
}


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
    """The files below a folder; a missing or damaged one names the command for it."""

    def __init__(self, root):
        self.root = root

    def require(self, name):
        """Return the path of a file."""
        # Raises UserError if it is not there.
        if not (self.root / name).is_file():
            raise UserError(f"{self.root / name} is not there; {remedy(name)}")
        return self.root / name

    def json(self, name):
        """Return the content of a JSON file."""
        return json.loads(self.require(name).read_text("utf-8"))

    def csv(self, name):
        """Return {column: its numbers, without empty cells} of a CSV log."""
        with open(self.require(name), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
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


# The report --------------------------------------------------------------------------


def figures(files):
    """Return what stands for the names of the template: {name: text}."""
    # The files.
    model = files.metadata("models/Best_diffusion.pkl")
    model_16 = files.metadata("models/Best_diffusion_16.pkl")
    losses = {n: files.csv(f"log/diffusion{n}.csv") for n in ("", "_16", "_48")}
    found = {n: files.json(f"log/evaluate_diffusion{n}.json") for n in losses}
    step, few = files.json("log/throughput_diffusion.json"), "log/reflow_diffusion.json"
    compared, few = files.json("log/compare_samplers_diffusion.json"), files.json(few)
    own, vae = next(iter(found[""].values())), found[""]["our VAE"]
    photos = found[""]["validation photos"]
    # Training photos times epochs, for the speed of the whole training.
    trained = (model["data"]["count"] - photos["images"]) * len(losses[""]["seconds"])
    plain = step["plain_convolution_teraflops"]
    parts = sorted(step["proportions"].items(), key=lambda part: -part[1])
    # The texts, by their names in the template.
    texts = {
        "settings": tables.settings(model, model_16),
        "torch": model["torch"],
        "threads": model["threads"],
        "machine": tables.machine(step["machine"]),
        "speed": tables.rounded(trained / sum(losses[""]["seconds"])),
        "train_loss": tables.rounded(losses[""]["train_per_photo"][-1]),
        "valid_loss": tables.rounded(losses[""]["valid_per_photo"][-1]),
        "valid_loss_48": tables.rounded(losses["_48"]["valid_per_photo"][-1]),
        "count": tables.rounded(own["images"]),
        "vae_ratio": f"{vae['Frechet distance'][0] / own['Frechet distance'][0]:.1f}",
        "seeds": tables.seeds(files.json("log/seeds_diffusion.json")),
        "samplers": tables.samplers(compared),
        "samplers_machine": tables.machine(compared["facts"]["machine"]),
        "couplings": tables.rounded(few["reflow"]["couplings"]),
        "reflow": tables.reflow(few),
        "copies": tables.copies(found[""]),
        "batch_size": step["settings"]["batch_size"],
        "step_ms": tables.rounded(1000 * step["seconds_per_step"]) + " ms",
        "step_speed": f"{step['photos_per_second']:.1f}",
        "operations": tables.rounded(step["operations_per_photo"] / 1e6) + " million",
        "teraflops": tables.rounded(step["teraflops"]),
        "conv_bf16": tables.rounded(plain["bf16"]),
        "conv_fp32": tables.rounded(plain["fp32"]),
        "step_parts": markdown_table(
            ["part of a step", "proportion of its time"],
            [[name, tables.percent(value) + " %"] for name, value in parts],
        ),
        "ddpm": ddpm(files),
    }
    for what in ("pixels", "features"):
        ratio = own[f"nearest by {what}"][0] / photos[f"nearest by {what}"][0]
        texts[f"{what}_ratio"] = tables.percent(ratio) + " %"
    # Three models have the same tables: the default, 16 species, and 48 x 48.
    for name, rows in losses.items():
        texts |= {
            f"epochs{name}": len(rows["epoch"]),
            f"minutes{name}": tables.minutes(rows),
        }
        texts[f"distances{name}"] = tables.distances(found[name])
        texts[f"species{name}"] = tables.species(found[name])
        texts[f"sampler{name}"] = tables.sampler(found[name])
    return texts


def ddpm(files):
    """Return the section on the assignment's DDPM, where that was trained."""
    name = f"log/evaluate_{DDPM}.json"
    if not (files.root / name).is_file():
        return ""
    # Both models are in the file, sampled in equal numbers.
    found, losses = files.json(name), files.csv(f"log/{DDPM}.csv")
    rows = [
        [
            f"`{key}`",
            tables.sampler({key: facts}),
            tables.estimate(facts["Frechet distance"]),
        ]
        for key, facts in found.items()
    ]
    head = ["weights", "sampler", "Frechet distance"]
    count = tables.rounded(next(iter(found.values()))["images"])
    return f"""### The assignment's DDPM

`python diffusion.py --model {DDPM} > log/train_{DDPM}.out` trains the same network,
for as many steps, by the book: the starter kit's schedule at uniform steps, noise
prediction and ancestral sampling. {len(losses["epoch"])} epochs took
{tables.minutes(losses)}; a step costs the same in both trainings, so on one machine
they take the same time. Distances of {count} samples of each:

{markdown_table(head, rows, text_columns=2)}

![Samples of the DDPM](vis/random_images_{DDPM}.png)"""


def report(files):
    """Return the text of the report, whose pictures and links all exist."""
    # Raises UserError if a file or a value in it is missing.
    try:
        values = figures(files)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"a file in {files.root / 'log'} lacks {error}") from None
    text = Template(TEMPLATE.read_text("utf-8")).substitute(values)
    for name in LINK.findall(text):
        files.require(name)
    return text


def first_difference(old, new):
    """Return in words the first line in which two lists differ, or None."""
    for number, (there, due) in enumerate(zip(old, new, strict=False), start=1):
        if there != due:
            return f"line {number} is {there!r}, and files say {due!r}"
    if len(old) != len(new):
        return f"{len(old)} lines, and {len(new)} are due"
    return None


def main(argv=None):
    args = parse(argv)
    files = Files(args.out)
    text = report(files)
    if not args.check:
        replace_file(args.out / REPORT, [text.encode()])
        return
    there = files.require(REPORT).read_text("utf-8").splitlines()
    if wrong := first_difference(there, text.splitlines()):
        raise UserError(f"{args.out / REPORT}: {wrong}; {remedy(REPORT)}")


if __name__ == "__main__":
    run(main)
