"""Train rows of settings over seeds; write what each brought as Markdown.

python -m tools.ablations docs/autoencoders.toml > docs/autoencoders.md

TABLE is a TOML file: a `title`, a `text`, and [[tables]] with `title`, `text`,
`train` (a command of this project), `log` (the CSV file it writes below --out),
`columns` (each [column of its last row, heading, factor]), `seeds`, and `rows` (each
[name, flags]). With `measure`, as "tools.evaluate models/Best_VAE.pth --frechet --json"
(a path below --out), its measures are columns too; a third entry of a row is flags of
it. A run that is done is kept and not run again, but for those of --row.
"""

import csv
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

from utils.cli import PROJECT, UserError, run
from utils.cli.arguments import command_line, whole_number

REQUIRED = ("title", "train", "log", "columns", "seeds", "rows")


def parse(argv):
    """Return the checked command line."""
    parser = command_line(__doc__, "--data", "--out", out=PROJECT / "search")
    parser.add_argument("table", type=Path, metavar="TABLE")
    parser.add_argument(
        "--row", metavar="NAME", help="run this row again, and tell of it alone"
    )
    parser.add_argument(
        "--jobs",
        type=whole_number(1, 64),
        default=1,
        help="runs at once, which share the cores (default: 1)",
    )
    args = parser.parse_args(argv)
    args.out = args.out.absolute()
    args.data = args.data and args.data.absolute()
    return args


def read_tables(path):
    """Return the whole file, checked as far as running it needs.

    Raises:
        UserError: if it cannot be read, is no TOML, or lacks a key.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; name a TOML file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML: {error}; mend it") from None
    for table in content.get("tables", []):
        missing = [key for key in REQUIRED if not table.get(key)]
        if missing:
            raise UserError(f"a table of {path} lacks {', '.join(missing)}; add them")
        lengths = (2, 3) if table.get("measure") else (2,)
        names = [row[0] for row in table["rows"] if len(row) in lengths]
        if len(set(names)) < len(table["rows"]):
            raise UserError(
                f"rows of {path} are not each a [name, flags] of its own; mend them"
            )
    if not content.get("tables"):
        raise UserError(f"{path} holds no [[tables]]; add one")
    return content


# Runs ----------------------------------------------------------------------------


def code_of(project):
    """Return a fingerprint of the code that trains: the modules and their parts."""
    paths = sorted([*project.glob("*.py"), *project.glob("utils/*.py")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def run_all(tables, args):
    """Run what is not done yet -> {(title, row's name): last rows of the logs}.

    Raises:
        UserError: if a training fails.
    """
    jobs = [
        (table, row, seed)
        for table in tables
        for row in table["rows"]
        if args.row in (None, row[0])
        for seed in table["seeds"]
    ]
    results, running = {}, []
    with ThreadPoolExecutor(args.jobs) as pool:
        lasts = pool.map(lambda job: result_of(*job, args, running), jobs)
        try:
            for (table, (name, *_), _), last in zip(jobs, lasts, strict=True):
                results.setdefault((table["title"], name), []).append(last)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise
    return results


def result_of(table, row, seed, args, running):
    """Run one command, unless its result is there -> the last row of its log.

    Raises:
        UserError: if it fails, or its log lacks a column.
    """
    name, flags, *of_measure = row
    out = args.out / args.table.stem / table["title"] / name / str(seed)
    data = ["--data", str(args.data)] if args.data else []
    train = [*shlex.split(table["train"]), *shlex.split(flags), "--seed", str(seed)]
    train += ["--out", str(out), *data]
    measure = " ".join([*filter(None, [table.get("measure")]), *of_measure])
    asked = {"command": train, "measure": measure, "code": code_of(PROJECT)}
    kept = out / "result.json"
    if kept.is_file() and not args.row:
        result = json.loads(kept.read_text("utf-8"))
        if all(result.get(key) == value for key, value in asked.items()):
            return result["last"]
    execute(train, out / "stdout.txt", args.jobs, running)
    with open(out / table["log"], newline="", encoding="utf-8") as file:
        *_, epoch = csv.DictReader(file)
    last = {key: float(value) for key, value in epoch.items() if value}
    if measure:
        last |= measured(measure, out, data, args.jobs, running)
    missing = [key for key, _, _ in table["columns"] if key not in last]
    if missing:
        raise UserError(f"{out} has no {', '.join(missing)}; mend the table")
    kept.write_text(json.dumps({**asked, "last": last}), "utf-8")
    return last


def measured(measure, out, data, jobs, running):
    """Measure what a run left in `out` -> {measure: [value, low, high]}."""
    tool, path, *flags = shlex.split(measure)
    told = out / "measures.json"
    execute([tool, str(out / path), *flags, *data], told, jobs, running)
    found = json.loads(told.read_text("utf-8"))
    return {k: v for k, v in found[str(out / path)].items() if not isinstance(v, str)}


def execute(command, stdout, jobs, running):
    """Run a command of the project, its output kept in the file `stdout`.

    With other `jobs` beside it, it gets its share of the cores; `running` gains its
    process.

    Raises:
        UserError: if it fails.
    """
    print(f"running {shlex.join(command)}", file=sys.stderr, flush=True)
    stdout.parent.mkdir(parents=True, exist_ok=True)
    threads = {"OMP_NUM_THREADS": str(max(1, os.cpu_count() // jobs))}
    start = [] if command[0].endswith(".py") else ["-m"]
    with open(stdout, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *start, *command],
            stdout=file,
            stderr=subprocess.PIPE,
            env=os.environ | (threads if jobs > 1 else {}),
            cwd=PROJECT,
            text=True,
        )
        running.append(process)
        _, told = process.communicate()
    if process.returncode:
        reason = told.strip().splitlines()[-1:]
        raise UserError(f"{shlex.join(command)} failed: {' '.join(reason)}")


# Markdown ------------------------------------------------------------------------


def spread(values, factor):
    """Write numbers as mean (least-most), and one Estimate as value [low, high]."""
    if len(values) == 1 and isinstance(values[0], list):
        return "{:.4g} [{:.4g}, {:.4g}]".format(*(factor * v for v in values[0]))
    values = [factor * (v[0] if isinstance(v, list) else v) for v in values]
    low, middle, high = (f"{v:.4g}" for v in (min(values), mean(values), max(values)))
    return middle if low == high else f"{middle} ({low}-{high})"


def lines_of(table, results):
    """Yield the Markdown of one table."""
    columns = table["columns"]
    yield f"\n## {table['title']}\n"
    if table.get("text"):
        yield table["text"].strip() + "\n"
    yield (
        "| "
        + " | ".join(["row", "flags", *(heading for _, heading, _ in columns)])
        + " |"
    )
    yield "|---|---|" + "--:|" * len(columns)
    for name, *flags in table["rows"]:
        lasts = results.get((table["title"], name), [])
        told = ", then ".join(f"`{words}`" for words in flags if words)
        if lasts:
            cells = [spread([last[key] for last in lasts], f) for key, _, f in columns]
            yield "| " + " | ".join([name, told, *cells]) + " |"
    seeds = ", ".join(map(str, table["seeds"]))
    yield f"\n`python {table['train']}` + flags, seeds {seeds}: mean (least-most)."


def main(argv=None):
    args = parse(argv)
    content = read_tables(args.table)
    tables = content["tables"]
    rows = [row[0] for table in tables for row in table["rows"]]
    if args.row not in (None, *rows):
        raise UserError(f"{args.table} has no row {args.row!r}; one of: {rows}")
    results = run_all(tables, args)
    print(f"# {content.get('title', args.table.stem)}\n")
    print(content.get("text", "").strip())
    for table in tables:
        print("\n".join(lines_of(table, results)))


if __name__ == "__main__":
    run(main)
