"""The training commands in forked processes that are connected as by torchrun."""

import os
import shutil

import pytest

import diffusion  # noqa: F401  (children find the scripts among the loaded modules)
import train_script  # noqa: F401
from tests.helpers.commands import error_line, files_below, script_of
from tests.helpers.forks import kill_at_step
from tests.helpers.project import write_photos
from tests.helpers.resuming import SMALL, begin, differences, resume
from tests.helpers.together import run_all
from tests.helpers.training import LINE, rows_of
from utils.checkpoint import load_checkpoint, weights_name

ENDED = -9, 1  # by SIGKILL, or since the other process was


def run(processes, name, out, photos, *more, before=None):
    """Run a training of six epochs in some processes -> how each Ended."""
    args = ["--model", name, "--data", photos, "--out", out, "--device", "cpu"]
    if "--resume" not in more:
        args += [*SMALL, *(["--channels", "16,32"] if name == "diffusion" else [])]
    args += more
    folder = out.with_name(f"{out.name}_said")
    return run_all(processes, script_of(name), *args, folder=folder, before=before)


def silent(ended):
    """Return whether processes other than rank 0 said nothing."""
    return all((other.out, other.err) == ("", "") for other in ended[1:])


def losses(out, name):
    """Return (training, validation) losses per photo of a log, by epoch."""
    columns = "train_per_photo", "valid_per_photo"
    found = rows_of(out / "log" / f"{name}.csv")
    return [[float(row[key]) for row in found if row[key]] for key in columns]


def test_the_curves_do_not_depend_on_the_number_of_processes(few_photos, tmp_path):
    """P20, P26: of a model without random numbers, to rounding; same lines, files."""
    alone, said = tmp_path / "1", {}
    assert begin("MLPAE", alone, few_photos, "--device", "cpu") == 0
    (alone / "err.txt").unlink()
    said[1] = (alone / "out.txt").read_text()
    (alone / "out.txt").unlink()
    for processes in (2, 3):
        out = tmp_path / str(processes)
        ended = run(processes, "MLPAE", out, few_photos)
        assert {process.code for process in ended} == {0} and silent(ended)
        said[processes] = ended[0].out
        for found, wanted in zip(
            losses(out, "MLPAE"), losses(alone, "MLPAE"), strict=True
        ):
            assert found == pytest.approx(wanted, rel=1e-4)
        assert files_below(out) == files_below(alone)
    lines = {number: len(LINE.findall(text)) for number, text in said.items()}
    assert lines == {1: 6, 2: 6, 3: 6}


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_five_photos(tmp_path, processes):
    """D05: four train and one validates; it counts once."""
    photos = write_photos(tmp_path / "photos", 2)
    next((photos / "astilbe").iterdir()).unlink()
    ended = run(processes, "MLPAE", tmp_path / "out", photos, "--epochs", "1")
    assert {process.code for process in ended} == {0} and silent(ended)
    assert begin("MLPAE", tmp_path / "alone", photos, "--epochs", "1") == 0
    found, wanted = (losses(tmp_path / name, "MLPAE") for name in ("out", "alone"))
    assert found[1] == pytest.approx(wanted[1], rel=1e-3)
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)


def test_bad_photos_are_named_once(tmp_path):
    """D06: by rank 0; with --strict-data in the one line of an error."""
    photos = write_photos(tmp_path / "photos", 10)
    bad = photos / "calendula" / "bad.png"
    bad.write_bytes(b"no picture")
    first, second = run(2, "MLPAE", tmp_path / "out", photos)
    assert (first.code, second.code) == (0, 0) and silent([first, second])
    assert first.err.count("bad.png") == 1
    first, second = run(2, "MLPAE", tmp_path / "strict", photos, "--strict-data")
    assert (first.code, second.code) == (1, 1) and silent([first, second])
    assert "bad.png" in error_line(first.err, "train_script.py")


def test_hosts_with_other_photos_are_refused(few_photos, tmp_path):
    """P26: once, and nothing is trained."""
    other = shutil.copytree(few_photos, tmp_path / "other")
    next((other / "astilbe").iterdir()).unlink()
    # Each of two hosts has its own folder of one name.
    for rank, target in enumerate((few_photos, other)):
        (tmp_path / f"host_{rank}").mkdir()
        (tmp_path / f"host_{rank}" / "photos").symlink_to(target)

    def go_home():
        os.chdir(tmp_path / f"host_{os.environ['RANK']}")

    args = ["--model", "MLPAE", *SMALL, "--data", "photos", "--out", tmp_path / "out"]
    options = {"folder": tmp_path / "said", "before": go_home, "hosts": 2}
    first, second = run_all(2, "train_script.py", *args, **options)
    assert (first.code, second.code) == (1, 1) and silent([first, second])
    assert "64 photos" in first.err and "63 photos" in first.err


def test_each_host_writes_its_own_cache(few_photos, tmp_path):
    """P26: although only rank 0 writes results."""
    for rank in range(2):
        (tmp_path / f"host_{rank}").mkdir()

    def go_home():
        os.chdir(tmp_path / f"host_{os.environ['RANK']}")

    args = ["--model", "MLPAE", *SMALL, "--data", few_photos, "--cache", "cache"]
    args += ["--out", tmp_path / "out", "--device", "cpu"]
    options = {"folder": tmp_path / "said", "before": go_home, "hosts": 2}
    ended = run_all(2, "train_script.py", *args, **options)
    assert {process.code for process in ended} == {0} and silent(ended)
    first, second = (
        {path.name: path.read_bytes() for path in (home / "cache").glob("photos_*.*y")}
        for home in sorted(tmp_path.glob("host_*"))
    )
    assert first == second and len(first) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["VAE", "diffusion"])
def test_resume(few_photos, tmp_path, name):
    """P5, P26: killed and resumed by two processes, the bits are those of one run."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    ended = run(2, name, whole, few_photos)
    assert [process.code for process in ended] == [0, 0] and silent(ended)
    ended = run(2, name, out, few_photos, before=kill_at_step(14))
    assert {process.code for process in ended} <= {*ENDED}
    copies = [shutil.copytree(out, tmp_path / f"from_2_to_{n}") for n in (1, 3)]
    assert {end.code for end in run(2, name, out, few_photos, "--resume")} == {0}
    assert differences(name, out, whole) == []

    # By another number of processes, the epochs before are the same.
    assert resume(name, copies[0], few_photos) == 0
    ended = run(3, name, copies[1], few_photos, "--resume")
    assert {process.code for process in ended} == {0} and silent(ended)
    for copy in copies:
        rows, wanted = (rows_of(p / "log" / f"{name}.csv") for p in (copy, whole))
        assert len(rows) == len(wanted) == 6
        assert rows[0]["train_loss"] == wanted[0]["train_loss"]
        assert float(rows[-1]["valid_loss"]) == pytest.approx(
            float(wanted[-1]["valid_loss"]), rel=0.2
        )


def test_a_run_of_one_process_continues_on_two(few_photos, tmp_path):
    """P26: the weights are read by all, and saved without a prefix (P6)."""
    out = tmp_path / "out"
    code = begin("MLPAE", out, few_photos, "--device", "cpu", before=kill_at_step(14))
    assert code == -9
    whole = tmp_path / "whole"
    assert begin("MLPAE", whole, few_photos, "--device", "cpu") == 0
    ended = run(2, "MLPAE", out, few_photos, "--resume")
    assert {process.code for process in ended} == {0} and silent(ended)
    weights, _ = load_checkpoint(out / "models" / weights_name("MLPAE"))
    assert not [name for name in weights if name.startswith("module")]
    for found, wanted in zip(losses(out, "MLPAE"), losses(whole, "MLPAE"), strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)
