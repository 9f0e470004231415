"""Write diffusion_report.md: prose from a template, every number from a file.

python -m tools.report
python -m tools.report --check

docs/diffusion_report.template.md holds the prose, and placeholders for what stands in
log/ and in the descriptions of weights in models/: utils/template.py tells their forms,
TABLES here the tables. --check writes nothing, and fails where the report is not what
the files say. Files are read, and the report is written, below --out.
"""

import re

from utils.cli import PROJECT, UserError, run
from utils.cli.arguments import command_line
from utils.template import (
    Files,
    exact,
    filled,
    markdown,
    number,
    percent,
    plain,
    rounded,
)

TEMPLATE = PROJECT / "docs" / "diffusion_report.template.md"
REPORT = "diffusion_report.md"
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")
WITHIN = (4, 8, 16, 40)  # evaluations; the best sampler within each has a row
UNUSED = {"encoding_dim", "beta", "pairs", "start", "patience"}  # by these models
NAMES = {"our VAE": "VAE of part 3", "our AE": "AE of part 2"}

MADE_BY = {  # pattern of a file's name, the first that fits -> what makes it
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
    r"(?:log|vis)/steps_diffusion\.\w+": "python -m tools.compare_samplers",
    r"(?:log|vis)/reflow_diffusion\.\w+": "python -m tools.reflow --frechet",
    r"vis/memorisation_(\w+)\.png": "python -m tools.nearest_neighbours --model {0}",
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


def remedy(name):
    """Return how to make the file of this name."""
    for pattern, command in MADE_BY.items():
        if found := re.fullmatch(pattern, name):
            return "make it: " + command.format(*found.groups())
    return f"name another in {TEMPLATE.name}"


# Tables: contents of files -> Markdown --------------------------------------------


def measures(found, columns):
    """Tell measures of every set of images: {heading: (measure, how to write it)}.

    The first set is this model's; what an autoencoder rebuilt is left out.
    """
    sets = {k: facts for k, facts in found.items() if not k.startswith("recon")}
    this, rows = next(iter(sets)), []
    for name, facts in sets.items():
        values = [(facts.get(measure, ""), form) for measure, form in columns.values()]
        told = ["-" if isinstance(v, str) else form(v) for v, form in values]
        rows.append(["this model" if name == this else NAMES.get(name, name), *told])
    return markdown(["images", *columns], rows)


def drawn(found):
    """How this model's images were drawn, in words."""
    how = next(iter(found.values()))
    words = "{sampler}, {steps} steps, guidance {guidance:g}".format(**how)
    if how["above"] or "below" in how:
        below = f"{how['below']:g}" if "below" in how else "the highest"
        words += f" at noise levels from {how['above']:g} to {below}"
    return f"{words}; {how['evaluations']} evaluations of the network for an image"


def distances(found):
    """Frechet and kernel distances; and how many times this model's the former is."""
    own = number(next(iter(found.values()))["Frechet distance"])
    columns = {
        "number": ("images", plain),
        "Frechet distance": ("Frechet distance", plain),
        "times this model's": ("Frechet distance", lambda f: f"{f[0] / own:.1f}"),
        "to validation photos": ("- to validation photos", plain),
        "kernel distance": ("kernel distance", plain),
    }
    return measures(found, columns)


def species(found):
    """Shares of images whose species is named right, precision and recall."""
    names = ("species named right", "precision", "recall")
    return measures(found, {name: (name, percent) for name in names})


def memorisation(found):
    """Shares of copies, and median distances to the nearest training photo."""
    columns = {}
    for what in ("pixels", "features"):
        columns[f"copies by {what}"] = f"copies by {what}", percent
        columns[f"nearest by {what}"] = f"nearest by {what}", plain
    return measures(found, columns)


def settings(*abouts):
    """Descriptions of weights: a row per setting, a column per model."""
    facts = {
        "photos": lambda about: about["data"]["count"],
        "species": lambda about: len(about["data"]["classes"]),
        "parameters": lambda about: about["parameters"],
        "seed": lambda about: about["seed"],
    }
    rows = [[name, *(exact(fact(a)) for a in abouts)] for name, fact in facts.items()]
    for name in abouts[0]["settings"]:
        if name not in UNUSED:
            values = (about["settings"].get(name) for about in abouts)
            rows.append([name.replace("_", " "), *map(exact, values)])
    return markdown(["setting", *(f"`{about['model']}`" for about in abouts)], rows)


def pace(about, losses, found):
    """Training photos per second of a whole training, validation included.

    Photos less those of validation, times epochs, over the sum of the log's seconds.
    """
    photos = about["data"]["count"] - found["validation photos"]["images"]
    return rounded(photos * len(losses["seconds"]) / sum(losses["seconds"]))


def machine(found):
    """The machine that took a time, in words."""
    facts = found.get("machine") or found["facts"]["machine"]
    words = "{processor}; {cores} cores, {threads} threads; torch {torch}"
    return words.format(**facts)


def steps(found):
    """The whole ancestral chain, and the best sampler within so many evaluations."""
    points = [p for p in found["points"] if not isinstance(p["frechet"], str)]
    chains = [point for point in points if point["sampler"] == "ddpm"]
    chain = max(chains, key=lambda point: point["steps"])
    rows = [step_row("the whole chain", chain, chain)]
    for most in WITHIN:
        within = [point for point in points if point["evaluations"] <= most]
        if within:
            best = min(within, key=lambda point: point["frechet"][0])
            rows.append(step_row(f"at most {most}", best, chain))
    head = "evaluations;sampler;steps;counted;Frechet distance;against the chain"
    return markdown([*head.split(";"), "ms per image", "times faster"], rows)


def step_row(name, point, chain):
    """Tell one point of `steps`; chain: the one that it is compared with."""
    more = point["frechet"][0] / chain["frechet"][0] - 1
    seconds = point["seconds_per_image"]
    counts = point["sampler"], str(point["steps"]), str(point["evaluations"])
    times = rounded(1000 * seconds), f"{chain['seconds_per_image'] / seconds:.1f}"
    return [name, *counts, plain(point["frechet"]), f"{100 * more:+.1f} %", *times]


def reflow(found):
    """Frechet distances in few evaluations, a row per model and number."""
    models = {name: points for name, points in found.items() if is_points(points)}
    rows = [
        [
            name,
            str(point["evaluations"]),
            plain(point["frechet"]),
            rounded(1000 * point["seconds_per_image"]),
        ]
        for name, points in models.items()
        for point in points
    ]
    return markdown(["model", "evaluations", "Frechet distance", "ms per image"], rows)


def is_points(value):
    """Tell measured points from other facts of a file."""
    return isinstance(value, list) and all(
        isinstance(point, dict) and "frechet" in point for point in value
    )


def seeds(found):
    """Distances of several trainings; the last set is the VAE's samples."""
    vae = number(list(found.values())[-1]["Frechet distance"])
    columns = {
        "Frechet distance": ("Frechet distance", plain),
        "to validation photos": ("- to validation photos", plain),
        "times nearer than the last": (
            "Frechet distance",
            lambda f: f"{vae / number(f):.1f}",
        ),
    }
    return measures(found, columns)


def shares(found):
    """Where the time of a training step goes, the largest share first."""
    parts = sorted(found["shares"].items(), key=lambda part: -part[1])
    return markdown(["part of a step", "share"], [[k, percent(v)] for k, v in parts])


TABLES = {
    table.__name__: table
    for table in (
        *(drawn, distances, species, memorisation, settings, pace, machine),
        *(steps, reflow, seeds, shares),
    )
}


# The report ----------------------------------------------------------------------


def report(template, files):
    """Return the report, whose pictures and links are all there.

    Raises:
        UserError: if a file or a value in it is not.
    """
    text = filled(template, files, TABLES)
    for name in LINK.findall(text):
        files.require(name)
    return text


def first_difference(there, text):
    """Return the first line in which a report is not the text, or None."""
    for place, (old, new) in enumerate(zip(there, text, strict=False), start=1):
        if old != new:
            return f"line {place} is {old!r}, and files say {new!r}"
    longer = len(there) != len(text)
    return f"{len(there)} lines, and {len(text)} are due" if longer else None


def main(argv=None):
    line = command_line(__doc__, "--out")
    line.add_argument("--check", action="store_true", help="compare, and write nothing")
    args = line.parse_args(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.checkpoint import replace_file

    files = Files(args.out, remedy)
    text = report(TEMPLATE.read_text("utf-8"), files)
    if not args.check:
        replace_file(args.out / REPORT, [text.encode()])
        return
    files.require(REPORT)
    there = (args.out / REPORT).read_text("utf-8")
    if wrong := first_difference(there.splitlines(), text.splitlines()):
        raise UserError(f"{args.out / REPORT}: {wrong}; {remedy(REPORT)}")


if __name__ == "__main__":
    run(main)
