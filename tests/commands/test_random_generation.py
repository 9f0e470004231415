"""The command that draws, by a diffusion model: pictures, arrays, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import random_generation
from diffusion import Diffuser
from tests.helpers.commands import command, files_below, refused
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
        ("", ""),
        ("--steps 1 --count 3", ""),
        ("--sampler ddpm --steps 5 --guidance 2", ""),
        ("--species calendula", "_calendula"),
        ("--species calendula astilbe --guidance 0", "_calendula_astilbe"),
    ],
)
def test_a_picture_is_named_by_what_it_shows(weights, tmp_path, args, name):
    """As diffusion.py's own; the species that were asked for join the name."""
    assert draw(weights, tmp_path, *args.split()) == (0, "", "")
    assert files_below(tmp_path) == [NAME.replace(".", f"{name}.")]


def test_the_picture_is_that_of_visualize_sampling(weights, tmp_path, monkeypatch):
    """One function draws it in training and here; the title says how."""
    calls = []
    monkeypatch.setattr(
        random_generation, "visualize_sampling", lambda *a: calls.append(a)
    )
    sampler = "--sampler heun --steps 7 --guidance 1.5 --guidance-interval 0.2 9"
    images = "--count 4 --species calendula astilbe"
    assert draw(weights, tmp_path, *sampler.split(), *images.split()).code == 0
    ((model, shape, steps, path, title, config, species),) = calls
    assert not model.training and shape == (4, 3, 8, 8) and steps == 7
    assert path == tmp_path / "vis" / "random_images_diffusion_calendula_astilbe"
    assert config == SamplerConfig("heun", 7, 1.5, [0.2, 9.0])
    assert species.tolist() == [2, 2, 0, 0]
    for words in ("calendula, astilbe, heun, 7 steps, guidance 1.5", "30 photos"):
        assert words in title


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
    model, metadata = load_model("diffusion", weights)  # draws its initial weights
    species = labels_for(None, metadata, 300)
    config = replace(default_sampler_config(metadata), steps=1)
    batches = sample_batches(model, config, species, 300, 8)
    expected = (torch.cat(list(batches)) * 255).round().byte()
    assert np.array_equal(found, expected.permute(0, 2, 3, 1).numpy())


def test_flags_change_what_is_drawn(weights, tmp_path):
    """Each of them; defaults spelled out change nothing."""
    default = default_sampler_config(load_model("diffusion", weights)[1])
    same = f"--sampler {default.sampler} --steps {default.steps}"
    assert default.guidance == 1
    flags = (
        *("", "--guidance 2", "--guidance 3", "--guidance 0", "--steps 5"),
        *("--guidance 3 --guidance-interval 1 5", "--species bellflower"),
        *("--sampler ddim", "--sampler ddim --eta 0.5", "--sampler heun"),
        f"{same} --guidance {default.guidance}",
    )
    few = "--count 2 --species astilbe"
    found = [array(weights, tmp_path, *f"{few} {flag}".split()) for flag in flags]
    assert np.array_equal(found[0], found[-1])
    assert len({images.tobytes() for images in found}) == len(flags) - 1


def test_weights_without_a_description_draw_as_the_kit_would(tmp_path):
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
        ("diffusion", "--count 1001", "got 1001; save more with --save FILE.npy"),
        ("VAE", "--sampler heun", "--sampler: VAE is no diffusion model; omit it"),
        ("AE", "--steps 5", "--steps: AE is no diffusion model"),
        ("MLPAE", "--guidance 1", "--guidance: MLPAE is no"),
        ("VAE", "--species astilbe", "--species: VAE is no"),
        ("VAE", "--eta 0", "--eta: VAE is no"),
        ("VAE", "--guidance-interval 0 1", "--guidance-interval: VAE is no"),
        ("diffusion", "--eta 0.5", "--eta: dpm++3m has none; use --sampler ddim"),
        ("diffusion", "--sampler ddpm --steps 301", "--steps: ddpm takes 1 to 300"),
        ("diffusion", "--guidance-interval 3 2", "--guidance-interval: must be LOW"),
        ("diffusion", "--guidance-interval 3", "--guidance-interval: expected 2"),
        ("diffusion", "--species rose", "no 'rose'; choose from astilbe, bellflower"),
    ],
)
def test_what_does_not_fit_is_refused(weights, tmp_path, model, args, words):
    """P25: exit 2, flag and remedy named, no picture."""
    result = draw(weights, tmp_path / "new", *args.split(), model=model)
    refused(result, "random_generation.py", words, code=2)
    assert not files_below(tmp_path)


@pytest.mark.parametrize("asked", ["VAE", "diffusion_64"])
def test_weights_of_another_model_are_refused(weights, tmp_path, asked):
    """L12, P9: exit 1, both names, no picture."""
    result = draw(weights, tmp_path / "new", model=asked)
    words = f"holds a diffusion, asked for a {asked}"
    refused(result, "random_generation.py", words)
    assert not files_below(tmp_path)
