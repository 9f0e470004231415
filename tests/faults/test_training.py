"""P19 to P21: early stop, determinism, memory."""

import random
import resource
import shutil

import pytest
from hypothesis import HealthCheck, find, given, settings

import diffusion  # noqa: F401  (children find the scripts among the loaded modules)
import train_script  # noqa: F401
from tests.helpers import forks
from tests.helpers.commands import TRAININGS, error_line, script_of
from tests.helpers.early_stop import SEQUENCES, agrees, ties_are_new_bests
from tests.helpers.outputs import pixels, without_seconds
from utils.checkpoint import weights_name
from utils.train import fit


def test_early_stop(report):
    """P19: 2,000 sequences against the oracle."""
    seen = []

    @settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(SEQUENCES)
    def agree(sequence):
        seen.append(sequence)
        assert agrees(fit, *sequence)

    agree()
    report.add("P19", "early-stop sequences, equal to the oracle", len(seen), 0)
    assert len(seen) >= 2000


def test_mutant_ties_are_new_bests():
    find(SEQUENCES, lambda sequence: not agrees(ties_are_new_bests, *sequence))


def run(name, out, photos, *more):
    """Run a small training in a child -> its exit code."""
    out.mkdir(parents=True)
    args = ["--model", name, "--image-size", 8, "--epochs", 2, "--data", photos]
    args += ["--channels", "16,32"] if name == "diffusion" else []
    args += ["--out", out, *more]
    return forks.wait(forks.start(script_of(name), *args, folder=out))


def results(name, out):
    """Return what must be equal: bytes of the weights, log, pixels."""
    best = (out / "models" / weights_name(name)).read_bytes()
    picture = pixels(out / "vis" / f"loss_{name}.png").tolist()
    return best, without_seconds(out / "log" / f"{name}.csv"), picture


def test_determinism(few_photos, tmp_path, report):
    """P20, T12, T13: three repeats, other order of files; another seed differs."""
    shuffled, wrong, different = tmp_path / "shuffled", [], 0
    files = sorted(p.relative_to(few_photos) for p in few_photos.rglob("*.png"))
    random.Random(0).shuffle(files)
    for name in files:
        (shuffled / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(few_photos / name, shuffled / name)
    for name in TRAININGS:
        photos = [few_photos] * 4 + [shuffled]
        outs = [tmp_path / f"{name}_{number}" for number in range(5)]
        for out, root in zip(outs, photos, strict=True):
            assert run(name, out, root) == 0
        first, *others = (results(name, out) for out in outs)
        wrong += [name for other in others if other != first]
        assert run(name, tmp_path / f"{name}_seed", few_photos, "--seed", 1) == 0
        different += results(name, tmp_path / f"{name}_seed")[0] != first[0]
    report.add("P20", "the same command, compared", 16, len(wrong))
    report.add("P20", "another seed gives other bits", 4, 4 - different)
    assert wrong == [] and different == 4


@pytest.mark.parametrize("name", TRAININGS)
def test_not_enough_memory(few_photos, tmp_path, report, name):
    """P21, T14: a real limit; the message names the batch size and its value."""

    def limit():
        with open("/proc/self/statm", encoding="ascii") as sizes:
            taken = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 150 * 2**20,) * 2)

    args = ["--model", name, "--image-size", 512, "--batch-size", 1000]
    args += ["--data", few_photos, "--out", tmp_path / "out"]
    pid = forks.start(script_of(name), *args, folder=tmp_path, before=limit)
    code, said = forks.wait(pid), (tmp_path / "err.txt").read_text()
    line = error_line(said, script_of(name))
    right = code == 1 and "not enough memory for --batch-size 1000" in line
    report.add("P21", f"too little memory for {name}", 1, int(not right))
    assert right, said
