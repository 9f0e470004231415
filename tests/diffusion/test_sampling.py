"""Sampling from a denoiser: any sampler, any objective, guided, counted."""

from dataclasses import asdict, fields
from itertools import pairwise
from math import inf
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.diffusion import ideal_for, randomize_zeros, small
from utils.cli import UsageError
from utils.config import DIFFUSION_MODELS, PRESETS
from utils.diffusion.denoiser import OBJECTIVES
from utils.diffusion.samplers import SAMPLERS, flow_sigmas, karras_sigmas
from utils.diffusion.sampling import (
    SIGMA_MAX,
    SIGMA_MIN,
    CFGDenoiser,
    SamplerConfig,
    default_sampler_config,
    draw_labels,
    sample,
    sample_batches,
    sample_states,
    sampler_config,
    sigmas_for,
)

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)
PHOTOS = torch.tensor(  # four of two pixels, in [-1, 1]
    [[-0.8, 0.3], [0.9, 0.6], [0.1, -0.7], [-0.5, -0.6]]
).view(4, 1, 1, 2)


def by_species(x, sigma, labels):
    """Stand in for a model: estimates with species (c) and without (u)."""
    own = -0.6 if labels is None else 0.3 * labels.view(-1, 1, 1, 1) - 0.3
    return own + 0.1 * x / sigma.view(-1, 1, 1, 1)


def stand_in(n_steps=300):
    sigmas = torch.logspace(-2, 1.7, n_steps)
    return SimpleNamespace(
        denoise=by_species, n_steps=n_steps, sigmas=sigmas, guide=None
    )


def told(**flags):
    """A command line's part on sampling."""
    names = (f.name for f in fields(SamplerConfig))
    return SimpleNamespace(**{**dict.fromkeys(names), **flags})


# Any sampler on any objective --------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
@every_sampler
def test_the_ideal_denoiser_of_a_few_photos_samples_them(sampler, objective):
    """Each sample is near one of them, and each of them is found, as often."""
    model = ideal_for(small(objective=objective, img_channels=1), PHOTOS)
    torch.manual_seed(0)
    images, _ = sample(model, torch.randn(400, 1, 1, 2), SamplerConfig(sampler, 160))
    far = torch.cdist(images.flatten(1), (PHOTOS.flatten(1) + 1) / 2)
    nearest = far.min(dim=1)
    # A start between two of them may end between them.
    assert nearest.values.quantile(0.99) < 0.02
    counts = nearest.indices.bincount(minlength=4)
    assert counts.min() > 65 and counts.max() < 135  # 100 +- 4 s


# Guidance ----------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guidance_is_a_line_through_both_estimates(scale):
    """R15: u + s (c - u); 1 is plain conditional, and evaluated once."""
    x, sigma, labels = torch.randn(3, 1, 2, 2), 0.7, torch.tensor([0, 1, 2])
    guided = CFGDenoiser(
        stand_in(), SamplerConfig(guidance=scale, guidance_interval=(0.0, inf)), labels
    )
    sigmas = torch.full((3,), sigma)
    c, u = by_species(x, sigmas, labels), by_species(x, sigmas, None)
    torch.testing.assert_close(guided(x, sigma), u + scale * (c - u))
    assert guided.nfe == (1 if scale == 1 else 2)


@pytest.mark.parametrize(
    "sigma, inside", [(0.1, False), (0.5, True), (1.0, True), (2.0, True), (3, False)]
)
def test_guidance_acts_within_its_interval(sigma, inside):
    """Kynkaanniemi et al. 2024: plain conditional and one evaluation outside."""
    x, labels = torch.ones(1, 1, 1, 1), torch.tensor([2])
    config = SamplerConfig(guidance=2.0, guidance_interval=(0.5, 2.0))
    guided = CFGDenoiser(stand_in(), config, labels)
    plain = by_species(x, torch.tensor([float(sigma)]), labels)
    assert torch.equal(guided(x, sigma), plain) != inside
    assert guided.nfe == 1 + inside


@pytest.mark.parametrize("labels", [None, torch.tensor([2])])
def test_autoguidance_moves_away_from_the_guide(labels):
    """Karras et al. 2024: g is the guide's estimate, with the same labels or none.

    At every noise level; to classifier-free guidance it is added.
    """
    model, x = stand_in(), torch.ones(1, 1, 1, 1)
    model.guide = SimpleNamespace(denoise=lambda *args: 0.5 * by_species(*args))
    c, u = (by_species(x, torch.ones(1), label) for label in (labels, None))
    auto, interval = {"autoguidance": 1.5}, {"guidance_interval": (0.5, 2.0)}
    found = CFGDenoiser(model, SamplerConfig(**auto), labels)
    torch.testing.assert_close(found(x, 1.0), 0.5 * c + 1.5 * (c - 0.5 * c))
    assert found.nfe == 2
    both = CFGDenoiser(model, SamplerConfig(guidance=3.0, **auto, **interval), labels)
    expected = c + 0.5 * (c - 0.5 * c) + (2 * (c - u) if labels is not None else 0)
    torch.testing.assert_close(both(x, 1.0), expected)
    assert both.nfe == (2 if labels is None else 3)
    # Without the guide's weights there is no guidance.
    model.guide = None
    plain = CFGDenoiser(model, SamplerConfig(**auto), labels)
    torch.testing.assert_close(plain(x, 1.0), c)
    assert plain.nfe == 1


def test_without_species_there_is_no_guidance():
    x, sigmas = torch.randn(2, 1, 2, 2), torch.full((2,), 0.7)
    guided = CFGDenoiser(stand_in(), SamplerConfig(guidance=5.0))
    assert torch.equal(guided(x, 0.7), by_species(x, sigmas, None))
    assert guided.nfe == 1


@every_sampler
def test_the_ancestral_chain_alone_is_clipped(sampler):
    """After guidance, as in the authors' code."""
    config = SamplerConfig(sampler, guidance=3.0, guidance_interval=(0.0, inf))
    image = CFGDenoiser(stand_in(), config, torch.tensor([2]))(
        torch.zeros(1, 1, 1, 1), 1.0
    )
    assert image.item() == pytest.approx(1 if sampler == "ddpm" else -0.6 + 3 * 0.9)


@every_sampler
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_evaluations_are_counted(sampler, guidance):
    """Heun's two a step, but for the last; twice as many where guidance acts."""
    config = SamplerConfig(sampler, 6, guidance, guidance_interval=(1.0, 30.0))
    labels = torch.zeros(2, dtype=int)
    _, nfe = sample(stand_in(), torch.randn(2, 1, 1, 1), config, labels)
    sigmas = sigmas_for(stand_in(), config)[:-1]
    asked = sigmas + sigmas[1:] if sampler == "heun" else sigmas
    acting = [sigma for sigma in asked if 1 <= sigma <= 30]
    assert 0 < len(acting) < len(asked)
    assert nfe == len(asked) + (len(acting) if guidance != 1 else 0)


# Labels -------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 20, 1000])
def test_labels_are_stratified(count):
    """Each species has its share, up to one, in another order for every seed."""
    proportions, draws = [0.5, 0.2, 0.0, 0.3], []
    for seed in range(5):
        torch.manual_seed(seed)
        draws.append(draw_labels(proportions, count))
        shares = draws[-1].bincount(minlength=4) - count * torch.tensor(proportions)
        assert shares.abs().max() < 1 and shares[2] == 0
    assert count < 7 or not all(draw.equal(draws[0]) for draw in draws)


def test_labels_are_drawn_with_their_probabilities():
    """Also where there are fewer labels than species."""
    torch.manual_seed(0)
    drawn = torch.cat([draw_labels([0.6, 0.1, 0.3], 1) for _ in range(3000)])
    found = drawn.bincount() / 3000
    assert found.tolist() == pytest.approx([0.6, 0.1, 0.3], abs=0.04)


# States ------------------------------------------------------------------------


@every_sampler
@pytest.mark.parametrize("steps", [1, 5])
def test_states_go_from_noise_to_the_image(sampler, steps):
    """steps + 1 of them, scaled like the kit's x_t; the last is what is sampled."""
    model, config = randomize_zeros(small()), SamplerConfig(sampler, steps)
    torch.manual_seed(0)
    noise = torch.randn(2, 3, 4, 4)
    states = list(sample_states(model, noise, config))
    assert len(states) == steps + 1
    sigma = sigmas_for(model, config)[0]
    torch.testing.assert_close(states[0], noise * sigma / (1 + sigma**2) ** 0.5)
    torch.manual_seed(0)
    images, _ = sample(model, torch.randn(2, 3, 4, 4), config)
    assert torch.equal(images, ((states[-1] + 1) / 2).clamp(0, 1))
    assert not images.requires_grad and 0 <= images.min() < images.max() <= 1


def test_the_ancestral_chain_visits_the_models_own_levels():
    """All of them with all steps; fewer are spread evenly, from the highest down."""
    model = small()
    whole = sigmas_for(model, SamplerConfig("ddpm", 300))
    assert whole == [*model.sigmas.flip(0).tolist(), 0.0]
    for steps in (1, 2, 7, 150, 298, 299):
        some = sigmas_for(model, SamplerConfig("ddpm", steps))
        assert len(some) == steps + 1 and some[0] == whole[0] and some[-1] == 0
        places = [whole.index(sigma) for sigma in some]
        gaps = {after - now for now, after in pairwise(places[:-1])}
        assert not gaps or min(gaps) >= 1 and max(gaps) - min(gaps) <= 1


def test_the_ancestral_chain_is_the_models_own():
    """Algorithm 2, step for step: the same noise in, nearly the same states.

    Those of the sampler are scaled from x to the kit's x / sqrt(1 + level^2).
    """
    model, config = randomize_zeros(small()), SamplerConfig("ddpm", 300)
    model.network.bfloat16 = False
    chains = []
    for states in (
        lambda x: model.states(x, 300),
        lambda x: sample_states(model, x, config),
    ):
        torch.manual_seed(3)
        chains.append(torch.stack(list(states(torch.randn(1, 3, 4, 4)))))
    torch.testing.assert_close(*chains, atol=2e-3, rtol=0)


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"ddpm"}))
def test_levels_of_the_others_do_not_depend_on_the_model(sampler):
    """A flow takes even times on its line, the others the levels of Karras et al."""
    expected = karras_sigmas(9, SIGMA_MAX, SIGMA_MIN)
    expected = flow_sigmas(9, SIGMA_MAX) if sampler == "flow" else expected
    assert sigmas_for(small(), SamplerConfig(sampler, 9)) == expected


@pytest.mark.parametrize("steps", [0, 301])
def test_steps_beyond_the_schedule_are_refused(steps):
    with pytest.raises(ValueError, match=f"must be 1 to 300, got {steps}"):
        sigmas_for(small(), SamplerConfig("ddpm", steps))


def test_eta_is_ddims_alone():
    """0 is no noise at all; 1 is the ancestral chain on the same levels."""
    model, noise = ideal_for(small(img_channels=1), PHOTOS), torch.randn(50, 1, 1, 2)
    spread = []
    for eta in (0.0, 1.0):
        images = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            images.append(sample(model, noise, SamplerConfig("ddim", 20, eta=eta))[0])
        spread.append((images[0] - images[1]).abs().max().item())
    assert spread[0] == 0 < 0.1 < spread[1]


def test_batches_are_of_one_count_and_size(monkeypatch):
    """Species stay with their images: each is its own estimate at the last level."""
    monkeypatch.setattr("utils.diffusion.sampling.BATCH_SIZE", 4)
    labels = torch.arange(10) % 3
    config = SamplerConfig("dpm++2m", 1, guidance=1.0)
    batches = sample_batches(stand_in(), config, labels, 10, 2)
    torch.manual_seed(0)
    batches = list(batches)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    torch.manual_seed(0)
    noise = torch.cat([torch.randn(size, 3, 2, 2) for size in (4, 4, 2)])
    expected = (
        1 + by_species(SIGMA_MAX * noise, torch.full((10,), SIGMA_MAX), labels)
    ) / 2
    torch.testing.assert_close(torch.cat(batches), expected.clamp(0, 1))


# The command line's part -------------------------------------------------------


@pytest.mark.parametrize("name", DIFFUSION_MODELS)
@pytest.mark.parametrize("named", [True, False])
def test_the_usual_way_evaluates_at_most_forty_times(name, named):
    """Guidance counted: by early weights alone where no species is known."""
    config = default_sampler_config({"settings": asdict(PRESETS[name][0])})
    labels, model = torch.tensor([1, 2]) if named else None, stand_in()
    model.guide = stand_in()
    _, nfe = sample(model, torch.randn(2, 1, 1, 1), config, labels)
    if name == "diffusion_ddpm":  # Algorithm 2 takes all steps, without guidance
        assert config.guidance == 1 and nfe == 300
    elif name == "diffusion_fast":
        assert config.guidance == 1 and nfe == 2
    else:
        # An evaluation more per step by the guide, and per step of an interval.
        least = config.steps * (2 if config.autoguidance > 1 else 1)
        assert (config.autoguidance > 1) == (PRESETS[name][0].guide_at > 0)
        assert config.guidance > 1
        assert least < nfe <= 40 if named else nfe == least


def test_what_is_not_said_is_as_the_weights_say():
    """No guidance without a description; all steps of the model's own schedule."""
    assert sampler_config(told(), small(), {}) == SamplerConfig()
    metadata = {"settings": {"guidance": 3.5}}
    assert sampler_config(told(), small(), metadata) == SamplerConfig(guidance=3.5)
    asked = told(sampler="heun", steps=9, guidance=2.0, guidance_interval=[0.2, 5.0])
    assert sampler_config(asked, small(), metadata) == SamplerConfig(
        "heun", 9, 2.0, [0.2, 5.0]
    )
    assert sampler_config(told(sampler="ddim", eta=0.5), small(), {}).eta == 0.5
    assert sampler_config(told(sampler="ddpm"), small(70), {}).steps == 70
    assert sampler_config(told(sampler="ddpm", steps=5), small(70), {}).steps == 5


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"autoguidance": 2.0}, "--autoguidance: these weights have no guide; omit it"),
        ({"eta": 0.5}, "--eta: dpm.* has none; use --sampler ddim"),
        ({"eta": 1.0, "sampler": "ddpm"}, "--eta: ddpm has none"),
        ({"sampler": "ddpm", "steps": 301}, "--steps: ddpm takes 1 to 300, got 301"),
        ({"guidance_interval": [5.0, 0.2]}, "--guidance-interval: .* got 5 0.2"),
    ],
)
def test_parts_that_do_not_fit_are_refused(flags, words):
    with pytest.raises(UsageError, match=words):
        sampler_config(told(**flags), small(), {})
