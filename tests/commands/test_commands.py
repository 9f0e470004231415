"""Truths about the commands, run in this process through their own wrapper."""

import re

import pytest
import torch

from tests.helpers.commands import (
    TRAININGS,
    command,
    error_line,
    files_below,
    refused,
    script_of,
    train,
)
from utils.checkpoint import load_checkpoint, weights_name

# Wrong commands ----------------------------------------------------------------

COUNTS = ["-3", "0", "1.5", "", "abc", "1" + 10 * "0"]
BOTH = {  # refused by train_script.py and by diffusion.py
    "--epochs": COUNTS,
    "--lr": ["nan", "inf", "0", "-1", "1e999", "", "0,1"],
    "--batch-size": ["0", "-1", "1e3"],
    "--patience": ["-1", "0", "x"],
    "--seed": ["-1", str(2**32), "0.5"],
    "--image-size": ["0", "7", str(10**9), "24x24"],
    "--device": ["tpu"],
    "--ep": ["3"],  # no abbreviations
    "--colour": ["red"],
    "--ema": ["1", "-0.1", "nan"],
    "--split-seed": ["-1", "x"],
    "--optimizer": ["SGD", "lion"],
    "--scheduler": ["cosine"],
    "--warm-up": ["1", "inf"],
    "--weight-decay": ["-1", "nan", "1e999"],
    "--translate": ["-1", "8"],
}
AUTOENCODERS = {
    "--model": ["RNN", "ae", "", "diffusion"],
    "--init-weights": ["zero"],
    "--encoding-dim": ["0", "65537"],
    "--objective": ["flow"],  # a diffusion model's alone
    "--budget": ["10m"],
}
DIFFUSION = {
    "--model": ["AE", "Diffusion", ""],
    "--budget": ["0m", "x", "10", "1h30m", "inf", "300h"],
    "--objective": ["foo", "EPS", ""],
    "--density": ["uniform", "log-normal"],
    "--p-mean": ["nan", "inf", "", "x"],
    "--p-std": ["0", "-1", "nan"],
    "--channels": ["64,,1", "0", "", "1,2,3,4,5,6", "64;128", "10000", "64, 128"],
    "--num-blocks": ["0", "17", "1.5"],
    "--dropout": ["1", "-0.1", "nan"],
    "--label-dropout": ["1", "-0.1", "x"],
    "--precision": ["fp16", "float32"],
    "--encoding-dim": ["64"],  # an autoencoder's alone
    "--init-weights": ["own"],
}
DRAWING = {
    "--model": ["RNN", "diffusion_17"],
    "--count": ["0", "-2", "x"],
    "--steps": ["0", "-1", "10001", "x"],
    "--sampler": ["foo", "DDIM", "euler-a"],
    "--eta": ["-0.1", "1.5", "nan"],
    "--guidance": ["-1", "nan", "1000", "x"],
    "--prior": ["uniform"],
    "--epochs": ["3"],
}
REFUSED = {
    "train_script.py": {**BOTH, **AUTOENCODERS},
    "diffusion.py": {**BOTH, **DIFFUSION},
    "visualization.py": {
        "--model": ["ae", "diffusion"],
        "--epochs": ["3"],
        "--seed": ["-1"],
        "--steps": ["5"],
    },
    "random_generation.py": DRAWING,
}
WRONG = [
    (script, flag, value)
    for script, flags in REFUSED.items()
    for flag, values in flags.items()
    for value in values
]


@pytest.mark.parametrize("script, flag, value", WRONG)
def test_a_wrong_command_is_refused_in_words(tmp_path, script, flag, value):
    """X12-X20, P25: exit 2, flag and value named, nothing on stdout or on disk."""
    result = command(script, "--out", tmp_path / "new", flag, value)
    line = refused(result, script, code=2)
    assert result.err == line + "\n"
    unknown = "unrecognized arguments" in line
    assert (f"{flag} {value}" if unknown else repr(value)) in line
    assert unknown or f"argument {flag}: " in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args, words",
    [
        ("--model MLPAE --optimizer adam", ["--optimizer", "'adam'", "--lr"]),
        ("--model AE --image-size 10", ["multiple of 4", "10"]),
        ("--model VAE --image-size 9", ["multiple of 4", "9"]),
        ("--model AE --beta 2", ["--beta", "AE has no KL"]),
        ("--model MLPAE --antithetic-pairs 0", ["--antithetic-pairs", "MLPAE has no"]),
        ("--model VAE --beta best", ["--beta", "'best'"]),
        ("--model MLPAE --warm-up 0.1", ["--warm-up", "onecycle"]),
        ("--epochs", ["--epochs", "expected one argument"]),
        ("AE", ["AE"]),
    ],
)
def test_flags_that_do_not_fit_are_refused(tmp_path, args, words):
    """P25, STYLE rule 9: also what only the settings or the model can know."""
    result = command("train_script.py", "--out", tmp_path / "new", *args.split())
    refused(result, "train_script.py", *words, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "args, words",
    [
        ("--eta 0.5", ["--eta", "dpm++3m has none"]),
        ("--guidance-interval 5 0.3", ["--guidance-interval", "LOW, then HIGH"]),
        ("--sigma-max 0.05", ["--sigma-max", "0.05"]),
        ("--sampler ddpm --steps 400", ["--steps", "ddpm takes 1 to", "400"]),
        ("--autoguidance 2 --guide-at 0", ["--autoguidance", "--guide-at"]),
        ("--model diffusion_ddpm --autoguidance 2", ["--autoguidance", "--guide-at"]),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused_before_the_training(
    tmp_path, args, words
):
    """Not at the first picture, nor by the commands that use the weights."""
    result = command("diffusion.py", "--out", tmp_path / "new", *args.split())
    refused(result, "diffusion.py", *words, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "stderr",
    [
        "",
        "train_script.py: error: no",
        "train_script.py: error: " + 401 * "x",
        "diffusion.py: error: it broke down, in another script",
        "a stray line\ntrain_script.py: error: it broke down",
        2 * "train_script.py: error: it broke down\n",
        "Traceback (most recent call last):\ntrain_script.py: error: it broke down",
        "Traceback (most recent call last):\n  File x\nValueError: it broke down",
    ],
)
def test_the_grammar_of_messages_refuses_anything_else(stderr):
    """PROMISES section 1: the helper of every error test, on what it must catch."""
    good = "train_script.py: error: it broke down"
    before = "train_script.py: warning: something odd\n"
    assert error_line(before + good, "train_script.py") == good
    with pytest.raises(AssertionError):
        error_line(stderr, "train_script.py")


# Runs that fail ----------------------------------------------------------------


@pytest.mark.parametrize("name", TRAININGS)
def test_a_rate_that_is_far_too_high_ends_in_words(tmp_path, photo_folder, name):
    """T05, P18: exit 1, non-finite, epoch and rate; any weights there are finite."""
    result = train(name, tmp_path, photo_folder, "--lr", "1e30", "--epochs", "6")
    line = error_line(result.err, script_of(name))
    assert result.code == 1 and "non-finite" in line
    for path in (tmp_path / "models").glob("Best_*[lh]"):
        weights, _ = load_checkpoint(path)
        assert all(torch.isfinite(value).all() for value in weights.values())
    assert re.search(r"epoch \d", line) and re.search(r"lr \d\S*e\+?\d\d", line)


@pytest.mark.parametrize("name", TRAININGS)
def test_one_epoch_whose_last_batch_is_one_photo(tmp_path, photo_folder, name):
    """T04, T11: 24 photos in batches of 23; weights, log and pictures are made."""
    result = train(name, tmp_path / "out", photo_folder, "--batch-size", "23")
    assert result.code == 0, result.err
    pictures = [f"vis/loss_{name}.png"]
    pictures += [f"vis/random_images_{name}.png"] if name == "diffusion" else []
    found = files_below(tmp_path / "out")
    assert {f"models/{weights_name(name)}", f"log/{name}.csv", *pictures} <= set(found)


@pytest.mark.parametrize("folder", ["models", "log", "vis"])
@pytest.mark.parametrize("name", ["AE", "diffusion"])
def test_a_folder_that_is_a_file_is_named(tmp_path, photo_folder, name, folder):
    """X10, C08: exit 1 before training, no epoch line, no weights."""
    blocked = tmp_path / "out" / folder
    blocked.parent.mkdir()
    blocked.write_text("mine")
    result = train(name, tmp_path / "out", photo_folder)
    refused(result, script_of(name), f"{blocked} is not a folder")
    assert files_below(tmp_path / "out") == [folder] and blocked.read_text() == "mine"
