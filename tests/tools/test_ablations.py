"""The command that trains rows of settings and tells what each brought."""

import csv
import json

import pytest

from tests.helpers.project import write_photos
from tools import ablations
from utils.cli import UserError

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


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablations")
    write_photos(folder / "photos", 10)
    (folder / "trial.toml").write_text(TABLE)
    return folder


def told(place, capsys, *arguments):
    """Run the command -> the lines that it prints."""
    where = ["--data", str(place / "photos"), "--out", str(place / "runs")]
    ablations.main([str(place / "trial.toml"), *where, *arguments])
    return capsys.readouterr().out.splitlines()


def cells(lines, name):
    """Return the cells of the row of this name."""
    (line,) = [line for line in lines if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_rows_tell_what_their_logs_hold_and_are_run_once(place, capsys):
    table = place / "trial.toml"
    table.write_text(TABLE.replace('["one", "--epochs 1"], ', ""))
    lines = told(place, capsys, "--jobs", "2")
    assert lines[0] == "# Trial" and "## MLP" in lines and "A word about it." in lines
    losses = []
    for seed in "01":
        path = place / "runs" / "trial" / "MLP" / "two" / seed / "log" / "MLPAE.csv"
        with open(path, newline="") as file:
            losses.append(2 * float(list(csv.DictReader(file))[-1]["valid_per_photo"]))
    low, high = sorted(losses)
    name, flags, validation, rate = cells(lines, "two")
    assert flags == "`--epochs 2 --lr 0.5 --scheduler constant`" and rate == "0.5"
    assert validation == f"{sum(losses) / 2:.4g} ({low:.4g}-{high:.4g})"
    before = path.stat().st_mtime_ns
    assert told(place, capsys) == lines and path.stat().st_mtime_ns == before
    again = told(place, capsys, "--row", "two", "--jobs", "2")
    assert path.stat().st_mtime_ns > before
    assert again == lines
    table.write_text(TABLE)


def test_a_result_of_other_code_is_not_taken(place, tmp_path, capsys, monkeypatch):
    """A kept number would be another version's."""

    def execute(command, stdout, jobs, running):
        out = stdout.parent
        (out / "log").mkdir(parents=True, exist_ok=True)
        rate = 1 + int(command[command.index("--seed") + 1])
        text = f"valid_per_photo,lr\n0.5,{rate}\n"
        (out / "log" / "MLPAE.csv").write_text(text)

    monkeypatch.setattr(ablations, "execute", execute)
    where = "--out", str(tmp_path)
    lines = told(place, capsys, *where)
    assert cells(lines, "one")[-1] == "1.5 (1-2)"
    alone = told(place, capsys, *where, "--row", "two")
    assert not [line for line in alone if line.startswith("| one |")]
    path = tmp_path / "trial" / "MLP" / "one" / "0" / "result.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "last": {**kept["last"], "lr": 7.0}}))
    assert cells(told(place, capsys, *where), "one")[-1] == "4.5 (2-7)"  # as it is kept
    monkeypatch.setattr(ablations, "code_hash", lambda project: "other")
    assert cells(told(place, capsys, *where), "one") == cells(lines, "one")


def test_measures_are_columns_too(tmp_path, capsys, monkeypatch):
    """One seed tells the interval, more tell the spread; a refusal is no number."""
    commands = []

    def execute(command, stdout, jobs, running):
        commands.append(command)
        out, seed = stdout.parent, int(stdout.parent.name)
        found = {"images": 9, "near": [2 + seed, 1, 5], "far": "too few"}
        stdout.write_text(json.dumps({str(out / "models/x.pth"): found}))
        if command[0].endswith(".py"):
            (out / "log").mkdir(exist_ok=True)
            (out / "log" / "MLPAE.csv").write_text("valid_per_photo,lr\n0.5,1\n")

    monkeypatch.setattr(ablations, "execute", execute)
    for seeds, cell in (("[0]", "20 [10, 50]"), ("[0, 1]", "25 (20-30)")):
        out = tmp_path / seeds
        for seed in "01":
            (out / "trial" / "MLP" / "one" / seed).mkdir(parents=True)
        text = TABLE.replace('"valid_per_photo", "validation", 2', '"near", "near", 10')
        text = text.replace("[0, 1]", seeds) + 'measure = "tools.judge models/x.pth"'
        (tmp_path / "trial.toml").write_text(text)
        trial = [str(tmp_path / "trial.toml"), "--row", "one", "--out", str(out)]
        ablations.main(trial)
        assert cells(capsys.readouterr().out.splitlines(), "one")[2] == cell
    assert commands[1][:1] == ["tools.judge"] and commands[1][1].endswith("/x.pth")
    more = text.replace('["one", "--epochs 1"]', '["one", "--epochs 1", "--steps 4"]')
    (tmp_path / "trial.toml").write_text(more)
    ablations.main(trial)
    assert commands[-1][-2:] == ["--steps", "4"]
    told = capsys.readouterr().out
    assert cells(told.splitlines(), "one")[1] == "`--epochs 1`, then `--steps 4`"
    (tmp_path / "trial.toml").write_text(text.replace('"near"', '"far"'))
    with pytest.raises(UserError, match="has no far; correct"):
        ablations.main(trial)


def test_the_fingerprint_knows_models_and_parts(tmp_path):
    (tmp_path / "utils").mkdir()
    found = set()
    for name in ("model.py", "utils/part.py"):
        for text in ("a = 1", "a = 2"):
            (tmp_path / name).write_text(text)
            found.add(ablations.code_hash(tmp_path))
    assert len(found) == 4


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("--epochs 1", "--lr nan", "failed: .*must be a finite number > 0"),
        ("valid_per_photo", "valid_per_image", "has no valid_per_image"),
    ],
)
def test_a_training_that_fails_is_told(place, tmp_path, capsys, old, new, message):
    path = tmp_path / "trial.toml"
    path.write_text(TABLE.replace(old, new))
    where = ["--data", str(place / "photos"), "--out", str(tmp_path / "runs")]
    with pytest.raises(UserError, match=message):
        ablations.main([str(path), *where])


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


def test_a_missing_table_or_row_is_named(place, tmp_path):
    with pytest.raises(UserError, match="cannot read .*none.toml"):
        ablations.read_tables(tmp_path / "none.toml")
    with pytest.raises(UserError, match="has no row 'three'"):
        ablations.main([str(place / "trial.toml"), "--row", "three"])
