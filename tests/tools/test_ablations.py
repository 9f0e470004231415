"""The command that trains rows of settings and reports the results of each."""

import csv
import importlib
import json
import shlex

import pytest
import torch

from tests.helpers.project import PROJECT, write_photos
from tools import ablations, evaluate
from utils.cli import UserError
from utils.diffusion.denoiser import SIGMA_DATA, TAIL, sigma_quantile

TABLE = """
title = "Trial"
[[tables]]
title = "MLP"
text = "A word about it."
train = "train_script.py --model MLPAE --image-size 8"
log = "log/MLPAE.csv"
columns = [["valid_per_photo", "validation", 2], ["lr", "last rate", 1]]
seeds = [0, 1]
rows = [["one", "--epochs 1"], ["two", "--epochs 2 --lr 0.5 --scheduler constant"]]
"""
OBJECTIVES = "Objectives, each with several settings"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with photos and a table."""
    folder = tmp_path_factory.mktemp("ablations")
    write_photos(folder / "photos", 10)
    (folder / "trial.toml").write_text(TABLE)
    return folder


@pytest.fixture
def commands(monkeypatch):
    """Replace trainings by one that only writes its log -> the list of commands."""
    commands = []

    def execute(command, stdout, jobs, running):
        commands.append(command)
        out, seed = stdout.parent, int(stdout.parent.name)
        out.mkdir(parents=True, exist_ok=True)
        found = {"images": 9, "distance": [2 + seed, 1, 5], "refused": "too few"}
        stdout.write_text(json.dumps({str(out / "models/x.pth"): found}))
        if command[0].endswith(".py"):
            (out / "log").mkdir(exist_ok=True)
            row = f"valid_per_photo,lr\n0.5,{1 + seed}\n"
            (out / "log" / "MLPAE.csv").write_text(row)

    monkeypatch.setattr(ablations, "execute", execute)
    return commands


def output(folder, capsys, *arguments):
    """Run the command -> the lines that it prints."""
    data = ["--data", str(folder / "photos"), "--out", str(folder / "runs")]
    ablations.main([str(folder / "trial.toml"), *data, *arguments])
    return capsys.readouterr().out.splitlines()


def cells(lines, name):
    """Return the cells of the row of this name."""
    (line,) = [line for line in lines if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


# Runs ----------------------------------------------------------------------------


@pytest.mark.slow
def test_rows_contain_the_last_values_of_their_logs(folder, capsys):
    """Of two trainings at the same time; with the same bits as one after the other."""
    table = folder / "trial.toml"
    table.write_text(TABLE.replace('["one", "--epochs 1"], ', ""))
    lines = output(folder, capsys, "--jobs", "2")
    assert lines[0] == "# Trial" and "## MLP" in lines and "A word about it." in lines
    losses = []
    for seed in "01":
        path = folder / "runs" / "trial" / "MLP" / "two" / seed / "log" / "MLPAE.csv"
        with open(path, newline="") as file:
            losses.append(2 * float(list(csv.DictReader(file))[-1]["valid_per_photo"]))
    low, high = sorted(losses)
    name, flags, validation, rate = cells(lines, "two")
    assert flags == "`--epochs 2 --lr 0.5 --scheduler constant`" and rate == "0.5"
    assert validation == f"{sum(losses) / 2:.4g} ({low:.4g}-{high:.4g})"
    # Finished runs are kept.
    before = path.stat().st_mtime_ns
    assert output(folder, capsys) == lines and path.stat().st_mtime_ns == before
    table.write_text(TABLE)


def test_a_training_that_fails_is_an_error(folder, tmp_path):
    path = tmp_path / "trial.toml"
    path.write_text(TABLE.replace("--epochs 1", "--lr nan"))
    data = ["--data", str(folder / "photos"), "--out", str(tmp_path / "runs")]
    with pytest.raises(UserError, match="failed: .*must be a finite number > 0"):
        ablations.main([str(path), *data])


def test_a_result_of_other_code_is_not_kept(
    folder, tmp_path, capsys, monkeypatch, commands
):
    where = "--out", str(tmp_path)
    lines = output(folder, capsys, *where)
    assert len(commands) == 4 and cells(lines, "one")[-1] == "1.5 (1-2)"
    assert output(folder, capsys, *where) == lines and len(commands) == 4
    path = tmp_path / "trial" / "MLP" / "one" / "0" / "result.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "last": {**kept["last"], "lr": 7.0}}))
    assert cells(output(folder, capsys, *where), "one")[-1] == "4.5 (2-7)"  # was kept
    monkeypatch.setattr(ablations, "code_hash", lambda *_: "other")
    assert cells(output(folder, capsys, *where), "one") == cells(lines, "one")


def test_metrics_are_columns_too(tmp_path, capsys, commands):
    """One seed gives its interval, several the range; a refusal is not a number."""
    for seeds, cell in (("[0]", "20 [10, 50]"), ("[0, 1]", "25 (20-30)")):
        text = TABLE.replace(
            '"valid_per_photo", "validation", 2', '"distance", "distance", 10'
        )
        text = text.replace("[0, 1]", seeds) + 'measure = "tools.metric models/x.pth"'
        (tmp_path / "trial.toml").write_text(text)
        trial = [str(tmp_path / "trial.toml"), "--out", str(tmp_path / seeds)]
        ablations.main(trial)
        assert cells(capsys.readouterr().out.splitlines(), "one")[2] == cell
    assert commands[1][:1] == ["tools.metric"] and commands[1][1].endswith("/x.pth")
    # A third entry of a row is flags of the measurement.
    more = text.replace('["one", "--epochs 1"]', '["one", "--epochs 1", "--steps 4"]')
    (tmp_path / "trial.toml").write_text(more)
    ablations.main(trial)
    assert ["--steps", "4"] in [command[-2:] for command in commands]
    lines = capsys.readouterr().out.splitlines()
    assert cells(lines, "one")[1] == "`--epochs 1`, then `--steps 4`"
    (tmp_path / "trial.toml").write_text(
        text.replace('"distance", "d', '"refused", "d')
    )
    with pytest.raises(UserError, match="has no refused; correct"):
        ablations.main(trial)


def test_a_column_that_no_log_has_is_named(tmp_path, commands):
    path = tmp_path / "trial.toml"
    path.write_text(TABLE.replace("valid_per_photo", "valid_per_image"))
    with pytest.raises(UserError, match="has no valid_per_image; correct the table"):
        ablations.main([str(path), "--out", str(tmp_path / "runs")])


def test_the_hash_changes_with_scripts_and_with_packages_at_any_depth(tmp_path):
    (tmp_path / "utils" / "data").mkdir(parents=True)
    found = set()
    for name in ("model.py", "utils/part.py", "utils/data/photos.py"):
        for text in ("a = 1", "a = 2"):
            (tmp_path / name).write_text(text)
            found.add(ablations.code_hash(tmp_path))
    assert len(found) == 6
    # What measures changes the hash of a table that has a measurement.
    (tmp_path / "tools").mkdir()
    (tmp_path / "models").mkdir()
    measured = {ablations.code_hash(tmp_path, measured=True)}
    for name in ("tools/evaluate.py", "models/features.pt"):
        (tmp_path / name).write_text("a = 1")
        measured.add(ablations.code_hash(tmp_path, measured=True))
        found.add(ablations.code_hash(tmp_path))
    assert len(measured) == 3 and len(found) == 6


# Tables --------------------------------------------------------------------------


def committed_rows(name):
    """Yield (table's title, row, parsed training, parsed measurement or None)."""
    for table in ablations.read_tables(PROJECT / "docs" / f"{name}.toml")["tables"]:
        script, *train = shlex.split(table["train"])
        parse = importlib.import_module(script.removesuffix(".py")).parse
        for row in table["rows"]:
            measure = " ".join([table.get("measure", ""), *row[2:]]).split()
            measured = evaluate.parse(measure[1:]) if measure else None
            yield table["title"], row, parse(train + shlex.split(row[1])), measured


@pytest.mark.parametrize("name", ["autoencoders", "diffusion_ablations"])
def test_committed_tables_can_be_run_and_have_results(name):
    """The commands have these flags, and the Markdown file has these rows."""
    text = (PROJECT / "docs" / f"{name}.md").read_text("utf-8")
    sections = {part.splitlines()[0]: part for part in text.split("\n## ")}
    for title, (row, flags, *_), _, _ in committed_rows(name):
        assert flags in cells(sections[title].splitlines(), row)[1]


def test_objectives_are_sampled_from_the_highest_level_of_their_training():
    """The quantile of the density that training never exceeds, to three digits."""
    count = 0
    for title, _, (_, settings), measured in committed_rows("diffusion_ablations"):
        if title == OBJECTIVES:
            assert settings.density == "lognormal"
            top = torch.tensor([1 - TAIL], dtype=torch.float64)
            args = settings.density, top, None, settings.p_mean, settings.p_std
            sigma = SIGMA_DATA * sigma_quantile(*args).item()
            assert measured.sigma_max == float(f"{sigma:.3g}")
            count += 1
    assert count == 15


@pytest.mark.parametrize(
    "text, message",
    [
        ("title = [", "is no TOML"),
        ("title = 'x'", r"holds no \[\[tables\]\]"),
        ("[[tables]]\ntitle = 'x'", "lacks train, log, columns, seeds, rows"),
        (TABLE.replace('"two"', '"one"'), "different names"),
        (TABLE.replace('"one", ', ""), "different names"),
        (TABLE.replace('--epochs 1"', '--epochs 1", "--steps 4"'), "different names"),
    ],
)
def test_a_table_that_cannot_be_run_is_refused(tmp_path, text, message):
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        ablations.read_tables(path)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot read .*none.toml"):
        ablations.read_tables(tmp_path / "none.toml")
