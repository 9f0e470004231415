"""P5: a training that is killed and resumed ends with the bits of one that is not."""

import random
import signal

import pytest
import torch

import utils.train
from tests.helpers.commands import TRAININGS
from tests.helpers.forks import kill_at_rename, kill_at_step
from tests.helpers.outputs import without_seconds
from tests.helpers.resuming import begin, differences, equal, resume
from utils.checkpoint import last_name
from utils.checkpoint import resume as resume_module
from utils.checkpoint.resume import read_state

STEPS = 6 * 4  # epochs, and steps of an epoch: 51 photos in batches of 16


@pytest.fixture(scope="module")
def whole(tmp_path_factory, few_photos):
    """Uninterrupted trainings: name -> its folder."""
    root = tmp_path_factory.mktemp("whole")
    for name in TRAININGS:
        assert begin(name, root / name, few_photos) == 0
    return root


def points():
    """25 moments of death: after training steps, and around renames."""
    steps = random.Random(0).sample(range(1, STEPS + 1), 15)
    renames = [(number, after) for number in range(1, 6) for after in (False, True)]
    return [kill_at_step(n) for n in sorted(steps)] + [
        kill_at_rename(*rename) for rename in renames
    ]


def test_the_comparison_sees_one_bit(whole, tmp_path):
    state = read_state(whole / "AE" / "models" / last_name("AE")).content
    other = read_state(whole / "AE" / "models" / last_name("AE")).content
    assert equal(state, other)
    weight = next(iter(other["model"].values()))
    weight.view(torch.int32).flatten()[0] ^= 1
    assert not equal(state, other)


def test_a_killed_training_is_resumed_to_the_same_bits(
    whole, few_photos, tmp_path, report
):
    """P5, C04: 4 trainings, each killed at 25 moments."""
    trials, wrong = 0, []
    for name in TRAININGS:
        for number, point in enumerate(points()):
            out = tmp_path / f"{name}_{number}"
            assert begin(name, out, few_photos, before=point) == -signal.SIGKILL
            code = resume(name, out, few_photos)
            found = differences(name, whole / name, out) if code == 0 else [code]
            trials += 1
            wrong += [(name, number, found)] if found else []
    report.add("P5", "kill, then resume: bits of the whole run", trials, len(wrong))
    assert wrong == [] and trials == 100


def test_a_training_that_is_killed_three_times(whole, few_photos, tmp_path, report):
    """P5: 10 chains."""
    rng, wrong = random.Random(1), []
    for chain in range(10):
        name = TRAININGS[chain % len(TRAININGS)]
        out = tmp_path / str(chain)
        begin(name, out, few_photos, before=kill_at_step(rng.randint(1, 8)))
        for _ in range(2):
            point = kill_at_step(rng.randint(1, 8))
            assert resume(name, out, few_photos, before=point) == -signal.SIGKILL
        assert resume(name, out, few_photos) == 0
        wrong += [(chain, found) for found in [differences(name, whole / name, out)]]
    wrong = [pair for pair in wrong if pair[1]]
    report.add("P5", "chains of three kills", 10, len(wrong))
    assert wrong == []


def test_a_resumed_training_stops_early_at_the_same_epoch(few_photos, tmp_path, report):
    """P5, P19: 10 seeds of a training that is too fast to converge."""
    wrong, stopped = [], 0
    for seed in range(10):
        flags = ("--seed", seed, "--lr", 3, "--patience", 1, "--epochs", 30)
        outs = [tmp_path / f"{kind}_{seed}" for kind in ("whole", "killed")]
        assert begin("MLPAE", outs[0], few_photos, *flags) == 0
        point = kill_at_step(6 + seed % 3)
        killed = begin("MLPAE", outs[1], few_photos, *flags, before=point)
        assert killed == -signal.SIGKILL
        assert resume("MLPAE", outs[1], few_photos) == 0
        found = differences("MLPAE", *outs)
        wrong += [(seed, found)] if found else []
        stopped += len(without_seconds(outs[0] / "log" / "MLPAE.csv")) < 30
    report.add("P5", "early stop after a resume", 10, len(wrong))
    assert wrong == [] and stopped >= 5


@pytest.mark.parametrize("key", ["torch", "generators"])
def test_a_forgotten_random_state_is_caught(
    whole, few_photos, tmp_path, monkeypatch, key
):
    """The mutant: one of the random states is not restored."""
    set_random_state = resume_module.set_random_state

    def forget(state, generators):
        fresh = resume_module.random_state(generators)
        set_random_state(state | {key: fresh[key]}, generators)

    monkeypatch.setattr(resume_module, "set_random_state", forget)
    begin("VAE", tmp_path, few_photos, before=kill_at_step(10))
    assert resume("VAE", tmp_path, few_photos) == 0
    assert "best" in differences("VAE", whole / "VAE", tmp_path)


def test_a_best_that_is_forgotten_is_caught(whole, few_photos, tmp_path, monkeypatch):
    """The mutant: the resumed run takes no later check for better."""
    restore = utils.train.restore

    def forget(*args):
        fitted, rows = restore(*args)
        return fitted | {"best": 0.0}, rows

    monkeypatch.setattr(utils.train, "restore", forget)
    begin("AE", tmp_path, few_photos, before=kill_at_step(10))
    assert resume("AE", tmp_path, few_photos) == 0
    assert {"best", "last"} <= set(differences("AE", whole / "AE", tmp_path))
