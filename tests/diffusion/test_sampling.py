"""Sampling from a denoiser: any sampler, any objective, guided, counted."""

from dataclasses import asdict
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.diffusion import awake, knowing, small
from utils.cli import UsageError
from utils.cli.arguments import DIFFUSIONS
from utils.config import PRESETS
from utils.diffusion.denoiser import OBJECTIVES
from utils.diffusion.samplers import SAMPLERS, noise_levels
from utils.diffusion.sampling import (
    HIGHEST,
    LOWEST,
    Guided,
    Sampling,
    levels_for,
    sampled,
    sampled_batches,
    sampled_states,
    sampling_of,
    usual_sampling,
)

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)
PHOTOS = torch.tensor(  # four of two pixels, in [-1, 1]
    [[-0.8, 0.3], [0.9, 0.6], [0.1, -0.7], [-0.5, -0.6]]
).view(4, 1, 1, 2)


def by_species(x, level, species):
    """Stand in for a model: estimates with species (c) and without (u)."""
    own = -0.6 if species is None else 0.3 * species.view(-1, 1, 1, 1) - 0.3
    return own + 0.1 * x / level.view(-1, 1, 1, 1)


def stand_in(n_steps=300):
    levels = torch.logspace(-2, 1.7, n_steps)
    return SimpleNamespace(denoise=by_species, n_steps=n_steps, levels=levels)


def told(**flags):
    """A command line's part on sampling."""
    names = "sampler", "steps", "guidance", "eta", "guidance_interval"
    return SimpleNamespace(**{**dict.fromkeys(names), **flags})


# Any sampler on any objective --------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
@every_sampler
def test_the_ideal_denoiser_of_a_few_photos_samples_them(sampler, objective):
    """Each sample is near one of them, and each of them is found, as often."""
    model = knowing(small(objective=objective, img_channels=1), PHOTOS)
    torch.manual_seed(0)
    images, _ = sampled(model, torch.randn(400, 1, 1, 2), Sampling(sampler, 160))
    far = torch.cdist(images.flatten(1), (PHOTOS.flatten(1) + 1) / 2)
    nearest = far.min(dim=1)
    assert nearest.values.max() < 0.02
    counts = nearest.indices.bincount(minlength=4)
    assert counts.min() > 65 and counts.max() < 135  # 100 +- 4 s


@every_sampler
def test_objectives_that_agree_sample_the_same(sampler):
    """One conversion between the parametrisations: the same noise, the same image."""
    found = []
    for objective in OBJECTIVES:
        model = knowing(small(objective=objective, img_channels=1), PHOTOS)
        torch.manual_seed(1)
        noise = torch.randn(20, 1, 1, 2)
        found.append(sampled(model, noise, Sampling(sampler, 12))[0])
    for images in found[1:]:
        torch.testing.assert_close(images, found[0], atol=1e-3, rtol=0)


# Guidance ----------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guidance_is_a_line_through_both_estimates(scale):
    """R15: u + s (c - u); 1 is plain conditional, and evaluated once."""
    x, level, species = torch.randn(3, 1, 2, 2), 0.7, torch.tensor([0, 1, 2])
    guided = Guided(stand_in(), Sampling(guidance=scale, above=0.0), species)
    levels = torch.full((3,), level)
    c, u = by_species(x, levels, species), by_species(x, levels, None)
    torch.testing.assert_close(guided(x, level), u + scale * (c - u))
    assert guided.evaluations == (1 if scale == 1 else 2)


@pytest.mark.parametrize(
    "level, inside", [(0.1, False), (0.5, True), (1.0, True), (2.0, True), (3, False)]
)
def test_guidance_acts_within_its_interval(level, inside):
    """Kynkaanniemi et al. 2024: plain conditional and one evaluation outside."""
    x, species = torch.ones(1, 1, 1, 1), torch.tensor([2])
    how = Sampling(guidance=2.0, above=0.5, below=2.0)
    guided = Guided(stand_in(), how, species)
    plain = by_species(x, torch.tensor([float(level)]), species)
    assert torch.equal(guided(x, level), plain) != inside
    assert guided.evaluations == 1 + inside


def test_without_species_there_is_no_guidance():
    x, levels = torch.randn(2, 1, 2, 2), torch.full((2,), 0.7)
    guided = Guided(stand_in(), Sampling(guidance=5.0))
    assert torch.equal(guided(x, 0.7), by_species(x, levels, None))
    assert guided.evaluations == 1


@every_sampler
def test_the_ancestral_chain_alone_is_clipped(sampler):
    """After guidance, as in the authors' code."""
    how = Sampling(sampler, guidance=3.0, above=0.0)
    image = Guided(stand_in(), how, torch.tensor([2]))(torch.zeros(1, 1, 1, 1), 1.0)
    assert image.item() == pytest.approx(1 if sampler == "ddpm" else -0.6 + 3 * 0.9)


@every_sampler
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_evaluations_are_counted(sampler, guidance):
    """Heun's two a step, but for the last; twice as many where guidance acts."""
    how = Sampling(sampler, 6, guidance, above=1.0, below=30.0)
    species = torch.zeros(2, dtype=int)
    _, evaluations = sampled(stand_in(), torch.randn(2, 1, 1, 1), how, species)
    levels = levels_for(stand_in(), how)[:-1]
    asked = levels + levels[1:] if sampler == "heun" else levels
    acting = [level for level in asked if 1 <= level <= 30]
    assert 0 < len(acting) < len(asked)
    assert evaluations == len(asked) + (len(acting) if guidance != 1 else 0)


# States ------------------------------------------------------------------------


@every_sampler
@pytest.mark.parametrize("steps", [1, 5])
def test_states_go_from_noise_to_the_image(sampler, steps):
    """steps + 1 of them, scaled like the kit's x_t; the last is what is sampled."""
    model, how = awake(small()), Sampling(sampler, steps)
    torch.manual_seed(0)
    noise = torch.randn(2, 3, 4, 4)
    states = list(sampled_states(model, noise, how))
    assert len(states) == steps + 1
    level = levels_for(model, how)[0]
    torch.testing.assert_close(states[0], noise * level / (1 + level**2) ** 0.5)
    torch.manual_seed(0)
    images, _ = sampled(model, torch.randn(2, 3, 4, 4), how)
    assert torch.equal(images, ((states[-1] + 1) / 2).clamp(0, 1))
    assert not images.requires_grad and 0 <= images.min() < images.max() <= 1


def test_the_ancestral_chain_visits_the_models_own_levels():
    """All of them with all steps; fewer are spread evenly, from the highest down."""
    model = small()
    whole = levels_for(model, Sampling("ddpm", 300))
    assert whole == [*model.levels.flip(0).tolist(), 0.0]
    for steps in (1, 2, 7, 150, 298, 299):
        some = levels_for(model, Sampling("ddpm", steps))
        assert len(some) == steps + 1 and some[0] == whole[0] and some[-1] == 0
        places = [whole.index(level) for level in some]
        gaps = {after - now for now, after in pairwise(places[:-1])}
        assert not gaps or min(gaps) >= 1 and max(gaps) - min(gaps) <= 1


def test_the_ancestral_chain_is_the_models_own():
    """`sample` and the sampler, step for step: the same noise in, nearly the same."""
    model = awake(small())
    model.network.bfloat16 = False
    ways = []
    for way in (model.states, None):
        torch.manual_seed(3)
        x = torch.randn(1, 3, 4, 4)
        states = way(x, 300) if way else sampled_states(model, x, Sampling("ddpm", 300))
        ways.append(torch.stack(list(states)))
    torch.testing.assert_close(*ways, atol=2e-3, rtol=0)


@pytest.mark.parametrize("sampler", set(SAMPLERS) - {"ddpm", "flow"})
def test_the_others_take_karras_levels(sampler):
    levels = levels_for(small(), Sampling(sampler, 9))
    assert levels == noise_levels(9, HIGHEST, LOWEST)


def test_a_flow_takes_even_times_on_its_line():
    """Level over 1 + level, from noise to image."""
    levels = torch.tensor(levels_for(small(), Sampling("flow", 9))).double()
    steps = (levels / (1 + levels)).diff()
    torch.testing.assert_close(steps, steps.mean().expand(9), atol=1e-6, rtol=0)
    assert levels[0] == HIGHEST and levels[-1] == 0


@pytest.mark.parametrize("steps", [0, 301])
def test_steps_beyond_the_schedule_are_refused(steps):
    with pytest.raises(ValueError, match=f"ddpm takes 1 to 300 steps, got {steps}"):
        list(sampled_states(small(), torch.randn(1, 3, 4, 4), Sampling("ddpm", steps)))


def test_eta_is_ddims_alone():
    """0 is no noise at all; 1 is the ancestral chain on the same levels."""
    model, noise = knowing(small(img_channels=1), PHOTOS), torch.randn(50, 1, 1, 2)
    spread = []
    for eta in (0.0, 1.0):
        images = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            images.append(sampled(model, noise, Sampling("ddim", 20, eta=eta))[0])
        spread.append((images[0] - images[1]).abs().max().item())
    assert spread[0] == 0 < 0.1 < spread[1]


def test_batches_are_of_one_count_and_size(monkeypatch):
    """Species stay with their images: each is its own estimate at the last level."""
    monkeypatch.setattr("utils.diffusion.sampling.BATCH", 4)
    species = torch.arange(10) % 3
    how = Sampling("dpm++2m", 1, guidance=1.0)
    batches = sampled_batches(stand_in(), how, species, 10, 2)
    torch.manual_seed(0)
    batches = list(batches)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    torch.manual_seed(0)
    noise = torch.cat([torch.randn(size, 3, 2, 2) for size in (4, 4, 2)])
    expected = (
        1 + by_species(HIGHEST * noise, torch.full((10,), HIGHEST), species)
    ) / 2
    torch.testing.assert_close(torch.cat(batches), expected.clamp(0, 1))


# The command line's part -------------------------------------------------------


@pytest.mark.parametrize("name", DIFFUSIONS)
@pytest.mark.parametrize("named", [True, False])
def test_the_usual_way_evaluates_at_most_forty_times(name, named):
    """Guidance counted, and none where no species is known."""
    how = usual_sampling({"settings": asdict(PRESETS[name][0])})
    species = torch.tensor([1, 2]) if named else None
    _, evaluations = sampled(stand_in(), torch.randn(2, 1, 1, 1), how, species)
    assert how.guidance > 1 and evaluations <= (40 if named else 20)


def test_what_is_not_said_is_as_the_weights_say():
    """Without a description there is no guidance."""
    assert sampling_of(told(), small(), {}) == Sampling()
    about = {"settings": {"guidance": 3.5}}
    assert sampling_of(told(), small(), about) == Sampling(guidance=3.5)
    asked = told(sampler="heun", steps=9, guidance=2.0, guidance_interval=[0.2, 5.0])
    assert sampling_of(asked, small(), about) == Sampling("heun", 9, 2.0, 0.2, 5.0)
    assert sampling_of(told(sampler="ddim", eta=0.5), small(), {}).eta == 0.5


def test_the_ancestral_chain_takes_all_steps_unless_told():
    assert sampling_of(told(sampler="ddpm"), small(70), {}).steps == 70
    assert sampling_of(told(sampler="ddpm", steps=5), small(70), {}).steps == 5


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"eta": 0.5}, "--eta: dpm.* has none; use --sampler ddim"),
        ({"eta": 1.0, "sampler": "ddpm"}, "--eta: ddpm has none"),
        ({"sampler": "ddpm", "steps": 301}, "--steps: ddpm takes 1 to 300, got 301"),
        ({"guidance_interval": [5.0, 0.2]}, "--guidance-interval: .* got 5 0.2"),
    ],
)
def test_parts_that_do_not_fit_are_refused(flags, words):
    with pytest.raises(UsageError, match=words):
        sampling_of(told(**flags), small(), {})
