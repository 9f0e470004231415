"""P7 to P10: files of weights that are damaged, foreign or malicious."""

import random
import re
import shutil
import time
import zipfile

import pytest
import torch

from tests.helpers.commands import TRAININGS, command, files_below
from tests.helpers.damage import (
    FOREIGN,
    NAMES,
    as_torch_file,
    flipped,
    flips_inside_weights,
    outcome,
    tiny_checkpoint,
    trap,
)
from tests.helpers.project import run_command
from utils.checkpoint import last_name, loading, weights_name

READERS = {  # command -> (its flags, the file that it reads)
    "visualization.py": ("--weights", weights_name("AE")),
    "random_generation.py": ("--weights", weights_name("AE")),
    "train_script.py": ("--resume", last_name("AE")),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint of 2 KB -> (path, its bytes, its tensors)."""
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "Best_AE.pth")


def read(script, path, out):
    """Let a command read the file in place of its own -> Result."""
    flag, name = READERS[script]
    place = out / "models" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, place)
    more = [flag, place] if flag == "--weights" else [flag]
    return command(script, "--model", "AE", *more, "--out", out, project=out)


@pytest.mark.parametrize("forced", ["0", "1"])
def test_malicious_files(tmp_path, monkeypatch, report, forced):
    """P7, L07 to L10: 12 payloads, 3 readers, with and without torch's override."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forced)
    wrong, canaries = [], 0
    for number, name in enumerate(NAMES):
        folder = tmp_path / str(number)
        folder.mkdir()
        path, canary = trap(folder, name, as_torch_file)
        for script in READERS:
            result = read(script, path, folder / "out")
            canaries += canary.exists()
            if result.code != 1 or "weights_only" in result.err:
                wrong.append((name, script, result))
    what = f"malicious files, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD={forced}"
    report.add("P7", what, 36, len(wrong) + canaries, f"{canaries} canaries")
    assert wrong == [] and canaries == 0


def test_mutant_both_defences_dropped(tmp_path, monkeypatch):
    path, canary = trap(tmp_path, "os.system", as_torch_file)
    load = torch.load
    monkeypatch.setattr(loading, "refuse_code", lambda *_: None)
    monkeypatch.setattr(torch, "load", lambda f, **_: load(f, weights_only=False))
    read("visualization.py", path, tmp_path / "out")
    assert canary.exists()


def record(report, what, outcomes):
    """Record outcomes of damage, none of which may be other tensors."""
    wrong = outcomes.count("different")
    report.add("P8", what, len(outcomes), wrong, f"{outcomes.count('same')} bit-equal")
    assert wrong == 0 and outcomes.count("refused") > len(outcomes) // 2


def test_truncations(tiny, report):
    """P8, L02 to L04: the lengths to 64, then random ones."""
    rng, content = random.Random(0), tiny[1]
    lengths = [*range(65), *(rng.randrange(65, len(content)) for _ in range(35))]
    record(report, "truncations", [outcome(tiny, content[:n]) for n in lengths])


def test_bit_flips(tiny, report):
    """P8, L05."""
    rng, content = random.Random(1), tiny[1]
    bits = [rng.randrange(8 * len(content)) for _ in range(1000)]
    record(report, "one-bit flips", [outcome(tiny, flipped(content, b)) for b in bits])


def test_splices(tiny, report):
    """P8: 16 bytes, random or from elsewhere in the file."""
    rng, content, found = random.Random(2), tiny[1], []
    for trial in range(200):
        here, there = (rng.randrange(len(content) - 16) for _ in range(2))
        patch = content[there : there + 16] if trial % 2 else rng.randbytes(16)
        found.append(outcome(tiny, content[:here] + patch + content[here + 16 :]))
    record(report, "splices of 16 bytes", found)


def test_foreign_files(tiny, report):
    """P8, L06."""
    seconds, found = [], []
    for content in FOREIGN.values():
        start = time.monotonic()
        found.append(outcome(tiny, content))
        seconds.append(time.monotonic() - start)
    report.add("P8", "foreign files", len(found), len(found) - found.count("refused"))
    assert set(found) == {"refused"} and max(seconds) < 5


def test_damage_end_to_end(tmp_path, report):
    """P8: 20 flips in files of weights that a process opens."""
    rng, wrong = random.Random(3), []
    for trial in range(20):
        out = tmp_path / "out"
        if not out.exists():
            few = ("--epochs", 1, "--image-size", 8, "--out", out)
            run = run_command("train_script.py", "--model", "MLPAE", *few)
            assert run.returncode == 0, run.stderr
            content = (out / "models" / weights_name("MLPAE")).read_bytes()
        path = tmp_path / "Best_MLPAE.pkl"
        path.write_bytes(flipped(content, rng.randrange(8 * len(content))))
        args = ("--model", "MLPAE", "--weights", path, "--out", tmp_path / "shown")
        done = run_command("random_generation.py", *args)
        line = done.stderr.splitlines()[-1]
        refused = done.returncode == 1 and re.match(
            r"random_generation\.py: error: ", line
        )
        if "Traceback" in done.stderr or not (refused or done.returncode == 0):
            wrong.append((trial, done))
    report.add("P8", "one-bit flips, end to end", 20, len(wrong))
    assert wrong == []


def test_mutant_no_checksums(tiny, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda self: None)
    assert "different" in flips_inside_weights(tiny)


def test_wrong_models(tmp_path, few_photos, report):
    """P9, L12: every swap of two of the four models."""
    wrong, trials = [], 0
    for name in TRAININGS:
        script = "diffusion.py" if name == "diffusion" else "train_script.py"
        small = ["--image-size", 8, "--epochs", 1, "--data", few_photos]
        small += ["--channels", "16,32"] if name == "diffusion" else []
        made = command(script, "--model", name, *small, "--out", tmp_path / name)
        assert made.code == 0, made.err
        for asked in TRAININGS:
            if asked == name:
                continue
            path = tmp_path / name / "models" / weights_name(name)
            args = ("--model", asked, "--weights", path, "--out", tmp_path / "shown")
            result = command("random_generation.py", *args)
            trials += 1
            if result.code != 1 or f"holds a {name}, asked for a {asked}" not in (
                result.err
            ):
                wrong.append((name, asked, result))
    report.add("P9", "weights of another model", trials, len(wrong))
    assert wrong == [] and not files_below(tmp_path / "shown")
