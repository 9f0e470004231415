"""The command that draws, by a diffusion model: pictures, arrays, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import random_generation
from diffusion import Diffuser
from tests.helpers.commands import command, error_line, files_below
from tests.helpers.diffusion import save_small, small
from tests.helpers.outputs import pixels
from utils.diffusion.sampling import (
    SamplerConfig,
    default_sampler_config,
    labels_for,
    sample_batches,
)
from utils.registry import load_model

NAME = "vis/random_images_diffusion.png"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small model of 8 x 8 photos of three species."""
    return save_small(tmp_path_factory.mktemp("drawn") / "Best_diffusion.pkl")


def draw(weights, out, *args, model="diffusion"):
    here = ("--weights", weights, "--out", out)
    return command("random_generation.py", "--model", model, *here, *args)


def array(weights, folder, *args):
    """Draw to a file -> uint8 (N, H, W, 3)."""
    assert draw(weights, folder, "--save", folder / "x.npy", *args) == (0, "", "")
    return np.load(folder / "x.npy")


# Pictures ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "args, name",
    [
        ([], NAME),
        (["--steps", "1", "--count", "3"], NAME),
        (["--sampler", "ddpm", "--steps", "5", "--guidance", "2"], NAME),
        (["--species", "calendula"], NAME.replace(".", "_calendula.")),
        (
            ["--species", "calendula", "astilbe", "--guidance", "0"],
            NAME.replace(".", "_calendula_astilbe."),
        ),
    ],
)
def test_a_picture_is_named_by_what_it_shows(weights, tmp_path, args, name):
    """As diffusion.py's own; the species that were asked for join the name."""
    assert draw(weights, tmp_path, *args) == (0, "", "")
    assert files_below(tmp_path) == [name]


def test_the_picture_is_that_of_visualize_sampling(weights, tmp_path, monkeypatch):
    """One function draws it in training and here; the title says how."""
    calls = []
    monkeypatch.setattr(
        random_generation, "visualize_sampling", lambda *a: calls.append(a)
    )
    flags = (
        "--count 4 --sampler heun --steps 7 --guidance 1.5 --guidance-interval 0.2 9"
    )
    names = "--species", "calendula", "astilbe"
    assert draw(weights, tmp_path, *flags.split(), *names).code == 0
    ((model, shape, steps, path, title, config, species),) = calls
    assert not model.training and shape == (4, 3, 8, 8) and steps == 7
    assert path == tmp_path / "vis" / "random_images_diffusion_calendula_astilbe"
    assert config == SamplerConfig("heun", 7, 1.5, [0.2, 9.0])
    assert species.tolist() == [2, 2, 0, 0]
    for word in (
        "calendula",
        "astilbe",
        "heun",
        "7 steps",
        "guidance 1.5",
        "30 photos",
    ):
        assert word in title


def test_the_same_seed_draws_the_same_picture(weights, tmp_path):
    """T22: species are drawn under it as well."""
    found = []
    for run, seed in enumerate((0, 0, 1)):
        flags = ("--seed", seed, "--count", 4, "--steps", 2)
        assert draw(weights, tmp_path / str(run), *flags).code == 0
        found.append(pixels(tmp_path / str(run) / NAME))
    assert np.array_equal(*found[:2]) and not np.array_equal(*found[1:])


# Arrays ------------------------------------------------------------------------


def test_any_number_is_saved_and_no_picture(weights, tmp_path):
    """More than a batch; the images are the sampler's own, in order."""
    found = array(weights, tmp_path, "--count", "300", "--steps", "1", "--seed", "3")
    assert found.shape == (300, 8, 8, 3) and found.dtype == np.uint8
    assert files_below(tmp_path) == ["x.npy"]
    torch.manual_seed(3)
    model, metadata = load_model(
        "diffusion", weights
    )  # draws its initial weights first
    species = labels_for(None, metadata, 300)
    config = replace(default_sampler_config(metadata), steps=1)
    batches = sample_batches(model, config, species, 300, 8)
    expected = (torch.cat(list(batches)) * 255).round().byte()
    assert np.array_equal(found, expected.permute(0, 2, 3, 1).numpy())


def test_more_than_a_picture_holds_needs_a_file(weights, tmp_path):
    result = draw(weights, tmp_path, "--count", "1001")
    line = error_line(result.err, "random_generation.py")
    assert result.code == 2 and "got 1001; save more with --save FILE.npy" in line


def test_flags_change_what_is_drawn(weights, tmp_path):
    """Each of them; defaults spelled out change nothing."""
    few = ("--count", "2", "--species", "astilbe")
    plain = array(weights, tmp_path, *few)
    default = default_sampler_config(load_model("diffusion", weights)[1])
    same = ["--sampler", default.sampler, "--steps", default.steps]
    same += ["--guidance", default.guidance]
    assert np.array_equal(array(weights, tmp_path, *few, *same), plain)
    seen = {plain.tobytes()}
    for flags in (
        ["--guidance", "1"],
        ["--guidance", "3"],
        ["--guidance", "0"],
        ["--guidance", "3", "--guidance-interval", "1", "5"],
        ["--steps", "5"],
        ["--sampler", "ddim"],
        ["--sampler", "ddim", "--eta", "0.5"],
        ["--sampler", "heun"],
        ["--species", "bellflower"],
    ):
        seen.add(array(weights, tmp_path, *few, *flags).tobytes())
    assert len(seen) == 10


def test_weights_without_a_description_draw_as_the_kit_would(tmp_path, monkeypatch):
    """A bare state_dict of `Diffuser.save`: 24 x 24, of any species."""
    small().save(tmp_path / "x.pkl")
    found = array(tmp_path / "x.pkl", tmp_path, "--count", "2", "--steps", "1")
    assert found.shape == (2, 24, 24, 3)
    torch.save(Diffuser(300).state_dict(), tmp_path / "bare.pkl")
    flags = ("--count", "1", "--steps", "1", "--save", tmp_path / "y.npy")
    result = draw(tmp_path / "bare.pkl", tmp_path, *flags)
    assert result.code == 0 and "has no metadata" in result.err
    assert np.load(tmp_path / "y.npy").shape == (1, 24, 24, 3)


# Refusals ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, args, words",
    [
        ("diffusion", "--prior gmm", "--prior: a diffusion model has no codes"),
        (
            "VAE",
            "--sampler heun",
            "--sampler: VAE is no diffusion model; omit it",
        ),
        ("AE", "--steps 5", "--steps: AE is no diffusion model"),
        ("MLPAE", "--guidance 1", "--guidance: MLPAE is no"),
        ("VAE", "--species astilbe", "--species: VAE is no"),
        ("VAE", "--eta 0", "--eta: VAE is no"),
        ("VAE", "--guidance-interval 0 1", "--guidance-interval: VAE is no"),
        ("diffusion", "--eta 0.5", "--eta: dpm++3m has none; use --sampler ddim"),
        (
            "diffusion",
            "--sampler ddpm --steps 301",
            "--steps: ddpm takes 1 to 300, got",
        ),
        ("diffusion", "--guidance-interval 3 2", "--guidance-interval: must be LOW"),
        ("diffusion", "--guidance-interval 3", "--guidance-interval: expected 2"),
        ("diffusion", "--species rose", "no 'rose'; choose from astilbe, bellflower"),
    ],
)
def test_what_does_not_fit_is_refused(weights, tmp_path, model, args, words):
    """P25: exit 2, flag and remedy named, no picture."""
    result = draw(weights, tmp_path / "new", *args.split(), model=model)
    line = error_line(result.err, "random_generation.py")
    assert (result.code, result.out) == (2, "") and words in line
    assert not files_below(tmp_path)


def test_weights_of_another_model_are_refused(weights, tmp_path):
    """P9: both names, exit 1."""
    result = draw(weights, tmp_path / "new", model="VAE")
    line = error_line(result.err, "random_generation.py")
    assert result.code == 1 and "holds a diffusion, asked for a VAE" in line
    result = draw(weights, tmp_path / "new", model="diffusion_16")
    line = error_line(result.err, "random_generation.py")
    assert result.code == 1 and "asked for a diffusion_16" in line
