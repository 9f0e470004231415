"""The parts of tools.reproduce: hashes, estimates, results, and real states."""

from types import SimpleNamespace

import pytest

from tests.helpers.commands import train
from tests.helpers.project import PROJECT
from tools.reproduce import estimates
from tools.reproduce.estimates import StepEstimate, duration, expected_seconds
from tools.reproduce.hashes import code_hash, photos_hash
from tools.reproduce.manifest import inputs_of
from tools.reproduce.results import asked_and_reached, last_losses, report
from tools.reproduce.resuming import can_resume
from tools.reproduce.steps import Place, Step
from utils.files import write_json

HERE, ELSEWHERE = {"processor": "one"}, {"processor": "another"}
STEPS = [Step("a", (), cost=10), Step("b", (), cost=30), Step("c", (), cost=60)]


# Estimates ---------------------------------------------------------------------------


def manifest(**seconds):
    """Return a stand-in for a manifest: step's name -> (seconds, machine)."""
    records = {
        name: {"state": "done", "seconds": spent, "machine": machine}
        for name, (spent, machine) in seconds.items()
    }
    return SimpleNamespace(machine=HERE, record=lambda step: records.get(step.name, {}))


@pytest.mark.parametrize(
    "seconds, expected",
    [
        ({}, [10, 30, 60]),
        ({"a": (20, HERE)}, [20, 60, 120]),  # twice as slow as the table
        ({"a": (20, HERE), "b": (20, HERE)}, [20, 20, 60]),  # 40 s in place of 40
        ({"a": (20, ELSEWHERE)}, [10, 30, 60]),
    ],
)
def test_measured_times_scale_the_others(seconds, expected):
    found = expected_seconds(STEPS, manifest(**seconds))
    assert list(found.values()) == expected


def test_processors_with_bfloat16_have_costs_of_their_own():
    steps = [*STEPS, Step("d", (), cost=100, cost_bf16=7)]
    assert expected_seconds(steps, manifest(), bfloat16=True)["d"] == 7
    assert expected_seconds(steps, manifest(), bfloat16=False)["d"] == 100
    assert expected_seconds(steps, manifest(), bfloat16=True)["a"] == 10


def test_the_time_left_while_a_step_runs(monkeypatch):
    """By its expected time, and then by what it says itself; once a minute."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(estimates.time, "monotonic", lambda: now.seconds)
    estimate = StepEstimate(expected=100, after=50)
    assert estimate.left() == 150
    now.seconds += 30
    assert estimate.left() == 120 and estimate.update("a line") is None
    # A tenth is done after 40 s, so that 360 s are left.
    now.seconds += 10
    assert estimate.update("x.py: training: 10 % done, expected end 1:00") is None
    assert estimate.left() == 410
    now.seconds += 20
    assert estimate.update("a line").startswith("all steps: about 6 min left, expected")
    assert estimate.update("a line") is None
    # A step that takes longer than expected has nothing left.
    now.seconds += 1000
    assert estimate.left() == 50


def test_durations_in_words():
    assert [duration(s) for s in (40, 200, 5400)] == ["40 s", "3 min", "1.5 h"]


# Results -----------------------------------------------------------------------------


def write_log(root, name, epochs, train, valid, encoding="ascii"):
    """Write log/train_NAME.out of so many epochs with these losses at the end."""
    lines = [f"Epoch: {n}, Train Loss: 900.5, Valid Loss: 1e3" for n in range(epochs)]
    lines[-1] = f"Epoch: {epochs - 1}, Train Loss: {train}, Valid Loss: {valid}"
    path = root / "log" / f"train_{name}.out"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding)
    return path


def reached(root):
    """Return the last column of the table."""
    return [row[-1] for row in asked_and_reached(root)]


def test_all_thresholds_are_reached(tmp_path):
    """M12, M19, M22, M33; the run of the kit's SGD is for comparison."""
    assert reached(tmp_path) == ["not made"] * 5
    write_log(tmp_path, "MLPAE", 100, 0.029, 0.0299)
    write_log(tmp_path, "AE_SGD", 60, 0.0149, 0.0298)
    write_log(tmp_path, "AE_SGD_kit", 60, 0.2, 0.2)
    write_log(tmp_path, "AE", 15, "9.9e-3", 0.0119)
    write_log(tmp_path, "VAE", 20, 799.9, 799.9)
    assert reached(tmp_path) == ["yes", "yes", "-", "yes", "yes"]
    assert "| VAE | 20 epochs, train < 800, validation < 800 | 20 | 799.9 |" in report(
        tmp_path, measured=False
    )


@pytest.mark.parametrize(
    "name, row, log",
    [
        ("MLPAE", 0, (101, 0.01, 0.01)),
        ("MLPAE", 0, (100, 0.03, 0.01)),
        ("MLPAE", 0, (100, 0.01, 0.03)),
        ("AE_SGD", 1, (60, 0.015, 0.01)),
        ("AE_SGD", 1, (60, 0.012, 0.01)),  # not below the MLPAE's 0.012
        ("AE_SGD", 1, (60, 0.011, 0.013)),
        ("AE", 3, (16, 0.009, 0.011)),
        ("AE", 3, (15, 0.010, 0.011)),
        ("AE", 3, (15, 0.009, 0.012)),
        ("VAE", 4, (20, 800.0, 700)),
        ("VAE", 4, (20, 700, 800.0)),
    ],
)
def test_each_bound_is_a_bound(tmp_path, name, row, log):
    write_log(tmp_path, "MLPAE", 100, 0.012, 0.013)
    write_log(tmp_path, name, *log)
    assert reached(tmp_path)[row] == "NO"


def test_without_the_mlpae_nothing_is_below_it(tmp_path):
    write_log(tmp_path, "AE_SGD", 60, 0.001, 0.001)
    assert reached(tmp_path)[1] == "NO"


def test_a_log_without_epochs_is_none(tmp_path):
    path = write_log(tmp_path, "AE", 2, 0.5, 0.25)
    assert last_losses(path) == (2, 0.5, 0.25)
    path.write_text("using device cpu\n")
    assert last_losses(path) is None


def test_the_diffusion_model_is_shown_where_it_was_measured(tmp_path):
    metrics = {
        "kernel distance to validation photos": [0.00196, 0, 1],
        "recall at equal number": [0.777, 0, 1],
    }
    path = tmp_path / "log" / "evaluate_diffusion.json"
    write_json(path, {"models/Best_diffusion.pkl": metrics})
    *_, last = report(tmp_path, measured=True).splitlines()
    assert last == "diffusion: KID x 1000 1.96, recall 0.777"
    assert "diffusion" not in report(tmp_path, measured=False)


# Hashes ------------------------------------------------------------------------------


def test_code_is_that_of_all_imports(tmp_path):
    """Also of imports inside functions, in a cycle; files of others do not count."""
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("import json\ndef f():\n    from two import g\n")
    two.write_text("import one\nimport numpy.linalg\ng = 1\n")
    first = code_hash(tmp_path, [one])
    assert code_hash(tmp_path, [one]) == first
    two.write_text("import one  # comment\nimport numpy.linalg\n\n\ng  =  (1)\n")
    assert code_hash(tmp_path, [one]) == first
    two.write_text("import one\nimport numpy.linalg\ng = '1'\n")
    assert code_hash(tmp_path, [one]) != first
    # A text that is no docstring is code.
    two.write_text("import one\nimport numpy.linalg\ng = '2'\n")
    assert code_hash(tmp_path, [one]) != first


def test_the_real_code_is_found():
    """A training depends on the models and the loop, and on no tool."""
    script = PROJECT / "train_script.py"
    before = code_hash(PROJECT, [script])
    assert before != code_hash(PROJECT, [PROJECT / "visualization.py"])
    assert before == code_hash(PROJECT, [script, PROJECT / "utils" / "train.py"])
    assert before == code_hash(PROJECT, [script, PROJECT / "VarAutoencoder.py"])
    assert before != code_hash(PROJECT, [script, PROJECT / "tools" / "evaluate.py"])


def test_photos_are_known_by_name_and_size(tmp_path):
    """Class folders may be links; files of systems are no photos."""
    assert photos_hash(tmp_path / "nothing") is None
    root = tmp_path / "photos"
    root.mkdir()
    assert photos_hash(root) is None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "1.jpg").write_bytes(b"12")
    (root / "rose").symlink_to(elsewhere)
    first = photos_hash(root)
    assert first
    for junk in (".DS_Store", "Thumbs.db", "._1.jpg"):
        (elsewhere / junk).write_bytes(b"1")
    assert photos_hash(root) == first
    (elsewhere / "1.jpg").rename(elsewhere / "2.jpg")
    assert photos_hash(root) != first


# Resuming ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, weights",
    [
        (["train_script.py", "--model", "VAE"], "models/Best_VAE.pth"),
        (["diffusion.py", "--channels", "16,32"], "models/Best_diffusion.pkl"),
    ],
)
def test_only_a_state_of_the_same_training_is_continued(
    tmp_path, photo_folder, argv, weights
):
    """Settings and seed are those of the state, which was written since the start."""
    small = ["--image-size", "8", "--epochs", "1", "--device", "cpu"]
    name = "VAE" if "VAE" in argv else "diffusion"
    assert train(name, tmp_path, photo_folder).code == 0
    place = Place(PROJECT, tmp_path, photo_folder)

    def resumes(*more, **changed):
        step = Step("train", (*argv, *small, *more), photos="flowers", trains=weights)
        facts = {"machine": HERE, "state": "started", "state_before": None}
        record = {**facts, "inputs": inputs_of(step, place), **changed}
        return can_resume(step, place, record, HERE)

    assert resumes()
    assert not resumes("--batch-size", "8")
    assert not resumes("--seed", "1")
    assert not resumes(machine=ELSEWHERE)
    assert not resumes(state="done", artefacts={})
    assert not resumes(inputs={"code": "other"})
    last = tmp_path / "models" / f"Last_{name}.pth"
    assert not resumes(state_before=last.stat().st_mtime_ns)
    last.write_bytes(b"damaged")
    assert not resumes()
    last.unlink()
    assert not resumes()
