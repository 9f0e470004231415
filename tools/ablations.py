"""Train rows of settings over seeds, and write the results as Markdown.

python -m tools.ablations docs/autoencoders.toml > docs/autoencoders.md

TABLE is a TOML file: a `title`, a `text`, and [[tables]] with `title`, `text`,
`train` (a command of this project), `log` (the CSV file it writes below --out),
`columns` (each [column of its last row, heading, factor]), `seeds`, and `rows` (each
[name, flags]). With `measure`, such as "tools.evaluate models/Best_VAE.pth --frechet
--json" (a path below --out), its metrics are columns too; a third entry of a row is
flags of it. Finished runs of the same code are kept and not repeated.
"""

import hashlib
import json
import os
import shlex
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

from utils.cli import PROJECT, UserError, guard, run
from utils.cli.arguments import command_line, whole_number
from utils.cli.progress import progress
from utils.cli.tables import markdown_table

# Keys of a table in the TOML file; `text` and `measure` are optional.
REQUIRED = ("title", "train", "log", "columns", "seeds", "rows")


def parse(argv=None):
    """Return the checked command line."""
    flags = ("--data", "--device", "--out")
    parser = command_line(__doc__, *flags, out=PROJECT / "ablations")
    parser.add_argument("table", type=Path, metavar="TABLE")
    parser.add_argument(
        "--jobs",
        type=whole_number(1, 64),
        default=1,
        help="runs at the same time, which share the cores (default: 1)",
    )
    args = parser.parse_args(argv)
    # The runs have the project as their working directory.
    args.out = args.out.absolute()
    args.data = args.data and args.data.absolute()
    return args


if __name__ == "__main__":
    guard(parse)

from utils.device import choose_device
from utils.files import read_csv, read_json, read_regular, replace_file, writing


def read_tables(path):
    """Return the content of a TOML file, or raise a UserError."""
    try:
        content = tomllib.loads(read_regular(path).decode("utf-8"))
    except OSError as error:
        why = f"cannot read {path}: {error.strerror}; name a TOML file"
        raise UserError(why) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML: {error}; correct it") from None
    # Every table must have all keys, and rows with different names.
    if not content.get("tables"):
        raise UserError(f"{path} holds no [[tables]]; add one")
    for table in content["tables"]:
        if missing := [key for key in REQUIRED if not table.get(key)]:
            raise UserError(f"a table of {path} lacks {', '.join(missing)}; add them")
        # A third entry, flags of the measurement, needs a measurement.
        lengths = (2, 3) if table.get("measure") else (2,)
        names = {row[0] for row in table["rows"] if len(row) in lengths}
        if len(names) < len(table["rows"]):
            why = f"rows of {path} must be [name, flags] with different names"
            raise UserError(f"{why}; correct them")
    return content


# Runs --------------------------------------------------------------------------------


def code_hash(project, measured=False):
    """Return a hash of what trains: the scripts and everything in utils/.

    Of what measures too, if `measured`: the tools and the feature extractors.
    """
    patterns = ["*.py", "utils/**/*.py"]
    patterns += ["tools/**/*.py", "models/features*"] if measured else []
    paths = sorted(path for pattern in patterns for path in project.glob(pattern))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def run_all(tables, args):
    """Run what is not finished -> {(title, row's name): last rows of the logs}."""
    # Raises UserError if a training fails.
    jobs = [
        (table, row, seed)
        for table in tables
        for row in table["rows"]
        for seed in table["seeds"]
    ]
    # Threads only wait: each run is a process, which is listed in `running`.
    results, running = {}, []
    with ThreadPoolExecutor(args.jobs) as pool:
        lasts = pool.map(lambda job: result_of(*job, args, running), jobs)
        try:
            runs = zip(progress(jobs, "runs"), lasts, strict=True)
            for (table, (name, *_), _), last in runs:
                results.setdefault((table["title"], name), []).append(last)
        except BaseException:
            # Stop the other runs before the reason is reported.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise
    return results


def result_of(table, row, seed, args, running):
    """Return the last row of a run's log, with its metrics; run it if needed."""
    # Raises UserError if it fails, or its log lacks a column.
    name, flags, *measure_flags = row
    out = args.out / args.table.stem / table["title"] / name / str(seed)
    data = ["--data", str(args.data)] if args.data else []
    train = [*shlex.split(table["train"]), *shlex.split(flags), "--seed", str(seed)]
    # The default is that of the commands themselves.
    shared = data if args.device == "auto" else [*data, "--device", args.device]
    train += ["--out", str(out), *shared]
    measure = " ".join([*filter(None, [table.get("measure")]), *measure_flags])

    # A finished run of the same commands and code is kept.
    code = code_hash(PROJECT, bool(measure))
    key = {"command": train, "measure": measure, "code": code}
    kept = out / "result.json"
    if kept.is_file():
        result = read_json(kept)
        if all(result.get(name) == value for name, value in key.items()):
            return result["last"]

    execute(train, out / "stdout.txt", args.jobs, running)
    *_, epoch = read_csv(out / table["log"])
    last = {column: float(value) for column, value in epoch.items() if value}
    if measure:
        last |= measured(measure, out, shared, args.jobs, running)
    missing = [column for column, _, _ in table["columns"] if column not in last]
    if missing:
        raise UserError(f"{out} has no {', '.join(missing)}; correct the table")
    with writing(kept):
        replace_file(kept, [json.dumps({**key, "last": last}).encode()])
    return last


def measured(measure, out, shared, jobs, running):
    """Measure the result of a run in `out` -> {metric: [value, low, high]}."""
    # shared: flags of trainings and measurements.
    tool, path, *flags = shlex.split(measure)
    output = out / "measures.json"
    execute([tool, str(out / path), *flags, *shared], output, jobs, running)
    found = read_json(output)
    # A str is the reason why there is no value.
    return {k: v for k, v in found[str(out / path)].items() if isinstance(v, list)}


def execute(command, stdout, jobs, running):
    """Run a command of the project, with its output in the file `stdout`."""
    # With several `jobs` it gets its part of the cores; `running` gains its process.
    # Raises UserError if it fails.
    print(f"running {shlex.join(command)}", file=sys.stderr, flush=True)
    stdout.parent.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": str(max(1, os.cpu_count() // jobs))}
    # A script is a file name, a tool is a module name.
    start = [] if command[0].endswith(".py") else ["-m"]
    with open(stdout, "w", encoding="utf-8") as file:
        # A process of its own has its own threads, and starts from the seed.
        process = subprocess.Popen(
            [sys.executable, *start, *command],
            stdout=file,
            stderr=subprocess.PIPE,
            env=os.environ | (threads if jobs > 1 else {}),
            cwd=PROJECT,
            text=True,
        )
        running.append(process)
        _, errors = process.communicate()
    # The last line on stderr is the reason.
    if process.returncode:
        reason = errors.strip().splitlines()[-1:]
        raise UserError(f"{shlex.join(command)} failed: {' '.join(reason)}")


# Markdown ----------------------------------------------------------------------------


def spread(values, factor):
    """Return numbers as mean (min-max), and one Estimate as value [low, high]."""
    if len(values) == 1 and isinstance(values[0], list):
        return "{:.4g} [{:.4g}, {:.4g}]".format(*(factor * v for v in values[0]))
    values = [factor * (v[0] if isinstance(v, list) else v) for v in values]
    low, middle, high = (f"{v:.4g}" for v in (min(values), mean(values), max(values)))
    return middle if low == high else f"{middle} ({low}-{high})"


def markdown(table, results):
    """Return the Markdown of one table."""
    columns, rows = table["columns"], []
    for name, *flags in table["rows"]:
        lasts = results[table["title"], name]
        words = ", then ".join(f"`{text}`" for text in flags if text)
        cells = [spread([last[key] for last in lasts], f) for key, _, f in columns]
        rows.append([name, words, *cells])
    head = ["row", "flags", *(heading for _, heading, _ in columns)]
    seeds = ", ".join(map(str, table["seeds"]))
    parts = [f"## {table['title']}", table.get("text", "").strip()]
    parts += [markdown_table(head, rows, text_columns=2)]
    parts += [f"`python {table['train']}` + flags, seeds {seeds}: mean (min-max)."]
    return "\n\n".join(filter(None, parts))


def main(argv=None):
    args = parse(argv)
    choose_device(args.device)  # refused before the first run
    content = read_tables(args.table)
    tables = content["tables"]
    results = run_all(tables, args)
    parts = [f"# {content.get('title', args.table.stem)}", content.get("text", "")]
    parts += [markdown(table, results) for table in tables]
    print("\n\n".join(part.strip() for part in parts))


if __name__ == "__main__":
    run(main)
