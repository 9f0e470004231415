"""Show the time of an epoch against photos, pixels and processes.

python -m tools.scaling

Each number is that of a training by diffusion.py with one thread for each process, on
some of the photos: the median time of its epochs without a validation. Nothing else
should run at the same time. Prints a table; writes log/scaling.json and
vis/scaling.png.
"""

import os
import shutil
import tempfile
from itertools import chain
from pathlib import Path
from statistics import median

from utils.cli import PROJECT, UserError, guard, run
from utils.cli.arguments import command_line, flag_of
from utils.cli.tables import markdown_table
from utils.config import DiffusionSettings, fields_named

FLAGS = ("--data", "--device", "--out")
SETTINGS = ("channels", "batch_size")  # flags that the trainings are given
PHOTOS = (200, 400, 800, 1600)
SIZES = (16, 24, 32, 48)  # pixels per side
PROCESSES = (1, 2)
BASE = (400, 24, 1)  # photos, size and processes where another one varies
EPOCHS = 5  # of which the first and the last are validated


def parse(argv=None):
    """Return the checked command line."""
    settings = fields_named(DiffusionSettings, *SETTINGS)
    args = command_line(__doc__, *FLAGS, settings=settings).parse_args(argv)
    args.data = (args.data or PROJECT / "flowers").absolute()
    return args


if __name__ == "__main__":
    guard(parse)

import numpy as np

from tools.ablations import execute
from utils.data.photos import find_photos
from utils.device import choose_device, machine_facts
from utils.figures import plot_scaling
from utils.files import prepare_folder, read_csv, write_json


def trainings():
    """Return {panel: {its number: (photos, size, processes)}} of the figure."""
    photos, size, processes = BASE
    return {
        "photos": {n: (n, size, processes) for n in PHOTOS},
        "pixels": {s * s: (photos, s, processes) for s in SIZES},
        "processes": {p: (photos, size, p) for p in PROCESSES},
    }


def copy_photos(root, count, target):
    """Copy evenly spaced photos of all classes into class folders below target."""
    # Raises UserError if there are fewer.
    classes, samples = find_photos(root) if root.is_dir() else ([], [])
    if len(samples) < count:
        raise UserError(
            f"{root} holds {len(samples)} photos, need {count}; get them: "
            "python -m tools.get_flowers"
        )
    for i in range(count):
        path, label = samples[i * len(samples) // count]
        folder = target / classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{i}{path.suffix}")


def seconds_per_epoch(log):
    """Return the median time of the epochs that have no validation."""
    rows = read_csv(log)
    return median(float(r["seconds"]) for r in rows if not r["valid_per_photo"])


def train(photos, size, processes, args, place):
    """Train on so many photos -> seconds per epoch."""
    data, out = place / f"photos_{photos}", place / f"{photos}_{size}_{processes}"
    if not data.exists():
        copy_photos(args.data, photos, data)
    command = ["diffusion.py", "--data", data, "--out", out, "--image-size", size]
    command += ["--device", args.device, "--epochs", EPOCHS, "--patience", EPOCHS]
    for name in SETTINGS:
        if (value := getattr(args, name)) is not None:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else value
            command += [flag_of(name), text]
    if processes > 1:
        launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node"]
        command = [*launcher, processes, *command]
    running = []
    try:
        execute(list(map(str, command)), place / "stdout.txt", 1, running)
    finally:
        for process in running:
            process.terminate()
    return seconds_per_epoch(out / "log" / "diffusion.csv")


def line_through(points):
    """Return (slope, start, deviation) of a line through {x: seconds}.

    deviation: the largest relative distance from the line, which is that of the least
    squares of these distances.
    """
    x, seconds = np.array([*map(int, points)]), np.array([*points.values()])
    line = np.polyfit(x, seconds, 1, w=1 / seconds)
    deviation = np.abs(np.polyval(line, x) / seconds - 1).max()
    return *line.tolist(), float(deviation)


def measure(args):
    """Return {panel: {its number: seconds per epoch}}."""
    panels, seconds = trainings(), {}
    with tempfile.TemporaryDirectory() as place:
        for point in chain.from_iterable(panel.values() for panel in panels.values()):
            if point not in seconds:
                seconds[point] = train(*point, args, Path(place))
    return {
        name: {str(number): seconds[point] for number, point in panel.items()}
        for name, panel in panels.items()
    }


def table(found):
    """Return the Markdown of what was measured."""
    head, (photos, size, _) = ["seconds per epoch", "measured", "line within"], BASE
    names = {
        "photos": f"photos, {size} x {size}",
        "pixels": f"pixels, {photos} photos",
        "processes": f"processes, {photos} photos, {size} x {size}",
    }
    rows = []
    for panel, name in names.items():
        points = found[panel].items()
        cells = ", ".join(f"{number}: {seconds:.3g}" for number, seconds in points)
        line = found["lines"].get(panel)
        rows.append([name, cells, f"{line[-1]:.1%}" if line else ""])
    return markdown_table(head, rows, text_columns=2)


def main(argv=None):
    args = parse(argv)
    choose_device(args.device)  # refused before the first training
    # Of the trainings, which inherit it; torchrun would choose the same.
    os.environ["OMP_NUM_THREADS"] = "1"
    prepare_folder(args.out / "log")
    found = measure(args)
    found["lines"] = {name: line_through(found[name]) for name in ("photos", "pixels")}
    found["machine"] = machine_facts() | {"threads": 1}
    write_json(args.out / "log" / "scaling.json", found)
    plot_scaling(found, args.out / "vis" / "scaling.png")
    print(table(found))


if __name__ == "__main__":
    run(main)
