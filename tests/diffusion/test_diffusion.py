"""The diffusion model against closed forms (INTERFACE.md B.7 and part D)."""

from dataclasses import replace

import pytest
import torch

import diffusion
from diffusion import Diffuser, diffusion_loss_fn, noise_tables, visualize_sampling
from tests.helpers.diffusion import ideal_for, randomize_zeros, small
from tests.helpers.training import descend
from utils.config import PRESETS
from utils.data.synthetic import draw_flowers
from utils.diffusion.denoiser import OBJECTIVES
from utils.diffusion.sampling import SamplerConfig, sample, sigmas_for
from utils.figures import spaced_sigmas

every_objective = pytest.mark.parametrize("objective", OBJECTIVES)


@pytest.fixture
def photo():
    """One small photo in [-1, 1]."""
    return 2 * torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)) - 1


# The schedule ------------------------------------------------------------------


def test_tables_of_the_starter_kit():
    """M38, B.7: sigmoid schedule; first beta 2.23e-4, last alpha-bar 4.64e-4."""
    assert diffusion.betas[0].item() == pytest.approx(2.23e-4, rel=2e-3)
    assert diffusion.alphas_bar[-1].item() == pytest.approx(4.64e-4, rel=2e-3)
    u = -6 + 12 * torch.arange(300, dtype=torch.float64) / 299
    expected = 1e-4 + (5e-2 - 1e-4) / (1 + (-u).exp())
    torch.testing.assert_close(diffusion.betas, expected.float())


def test_tables_agree_with_each_other():
    """STYLE 17, T18: adding noise step by step, or in one go; all are float32.

    Equations 2 and 4 of Ho et al. 2020; signal^2 + noise^2 = 1, and alpha-bar falls.
    """
    tables = noise_tables(300)
    signal, noise = tables["alphas_bar_sqrt"], tables["one_minus_alphas_bar_sqrt"]
    torch.testing.assert_close(signal**2 + noise**2, torch.ones(300))
    assert (tables["alphas_bar"].diff() < 0).all()
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(tables["betas"].double()):
        mean, variance = mean * (1 - beta).sqrt(), variance * (1 - beta) + beta
        assert signal[t].item() == pytest.approx(mean.item(), rel=1e-4)
        assert noise[t].item() ** 2 == pytest.approx(variance.item(), rel=1e-3)
        alpha_bar = tables["alphas_bar"][t].item()
        assert alpha_bar == pytest.approx(mean.item() ** 2, rel=1e-4)
    for name, table in tables.items():
        assert table.dtype == torch.float32 and table.shape == (300,)
        torch.testing.assert_close(getattr(diffusion, name), table)


@pytest.mark.parametrize("n_steps", [1, 2, 300, 2000])
def test_levels_are_noise_over_signal_and_rise(n_steps):
    """Also of a long schedule, at whose end nearly nothing is left of the photo."""
    sigmas = small(n_steps).sigmas
    alphas_bar = noise_tables(n_steps)["alphas_bar"].double()
    expected = ((1 - alphas_bar) / alphas_bar).sqrt()
    torch.testing.assert_close(sigmas.double(), expected, rtol=1e-3, atol=0)
    assert sigmas.isfinite().all() and (sigmas.diff() > 0).all() and sigmas[0] > 0


@pytest.mark.parametrize("t", [0, 150, 299])
def test_forward_noising_has_its_moments(t):
    """R27: mean and variance of x_t given x_0, over 60,000 draws."""
    torch.manual_seed(1)
    x_0 = torch.full((60_000, 1, 1, 1), 0.6)
    x_t = small().noised(x_0, torch.full((60_000,), t), torch.randn_like(x_0))
    alpha_bar = diffusion.alphas_bar[t].item()
    assert x_t.mean().item() == pytest.approx(0.6 * alpha_bar**0.5, abs=0.015)
    assert x_t.var().item() == pytest.approx(1 - alpha_bar, rel=0.03)


# A model that knows the photo --------------------------------------------------


@every_objective
def test_a_perfect_model_has_no_loss_and_samples_the_photo(photo, objective):
    """M38, M39, B.7: its answer is the noise, converted from what the network says.

    300 steps back from pure noise end at the only photo that it knows.
    """
    model = ideal_for(small(objective=objective), photo)
    many = photo.expand(64, -1, -1, -1)
    assert diffusion_loss_fn(model, many).item() == pytest.approx(0, abs=1e-6)
    states = model.sample((2, 3, 4, 4), 300)
    assert len(states) == 301
    torch.testing.assert_close(states[-1], many[:2], atol=1e-4, rtol=0)


@every_objective
@pytest.mark.parametrize("t", [1, 40, 150, 299])
def test_reverse_step_is_the_posterior(photo, objective, t):
    """R14: Bayes' rule on two Gaussians gives the step back for the true photo."""
    model = ideal_for(small(objective=objective), photo)
    torch.manual_seed(2)
    x_t = torch.randn(1, 3, 4, 4)
    tables = {name: table.double() for name, table in noise_tables(300).items()}
    beta, before = tables["betas"][t], tables["alphas_bar"][t - 1]
    # The product of N(x_t; sqrt(1 - beta) x_{t-1}, beta) and q(x_{t-1} | x_0).
    precision = (1 - beta) / beta + 1 / (1 - before)
    weighted = (1 - beta).sqrt() / beta * x_t + before.sqrt() / (1 - before) * photo
    steps = model.p_theta_sampling(x_t.expand(4000, -1, -1, -1), t)
    error = (steps.mean(0) - (weighted / precision)[0]).abs().max()
    assert error < 5 * (precision**-0.5) / 4000**0.5
    assert steps.std(0).mean().item() == pytest.approx(
        precision.item() ** -0.5, rel=0.02
    )


def test_last_step_adds_no_noise(photo):
    """B.7: at t = 0 the step is the photo itself, and twice the same."""
    model = ideal_for(small(), photo)
    x_t = model.noised(photo, torch.zeros(1, dtype=int), torch.randn(1, 3, 4, 4))
    torch.testing.assert_close(model.p_theta_sampling(x_t, 0), photo)
    assert torch.equal(model.p_theta_sampling(x_t, 0), model.p_theta_sampling(x_t, 0))


def test_a_photo_beyond_the_bounds_is_clipped(photo):
    """A step back that believes in values beyond [-1, 1] takes the nearest in it."""
    steps, x = [], torch.randn(1, 3, 4, 4)
    for believed in (3 * photo, (3 * photo).clamp(-1, 1)):
        torch.manual_seed(0)
        steps.append(ideal_for(small(), believed).p_theta_sampling(x, 100))
    torch.testing.assert_close(*steps)


# Loss and sampling -------------------------------------------------------------


def test_training_and_sampling_share_one_range_of_steps():
    """STYLE 17: t is drawn from 0 to 299, each as likely; sampling walks them down.

    M39: the loss is a scalar, and for the answer zero the noise's variance, 1.
    """
    model, drawn, walked = small(), [], []
    model.forward = lambda x, t, _: drawn.extend(t.tolist()) or torch.zeros_like(x)
    torch.manual_seed(0)
    loss = diffusion_loss_fn(model, torch.zeros(60_000, 3, 1, 1))
    assert loss.shape == () and loss.item() == pytest.approx(1, rel=0.03)
    counts = torch.tensor(drawn).bincount()
    assert len(counts) == 300 and counts.min() > 130 and counts.max() < 270  # 200 +- 5s
    model.forward = lambda x, t: walked.append(t[0].item()) or torch.zeros_like(x)
    model.sample((1, 3, 4, 4), 300)
    assert walked == list(range(299, -1, -1))


def test_one_batch_can_be_overfitted():
    """The network really learns to see noise: the kit's own loss falls below 0.15."""
    model = small(channels=(32, 64)).train()
    images = 2 * (draw_flowers(2, 8, 8)[0].float() / 255) - 1
    many = images.repeat(4, 1, 1, 1)
    descend(model, lambda: diffusion_loss_fn(model, many), 3e-3, 150)
    with torch.no_grad():
        losses = [diffusion_loss_fn(model, images).item() for _ in range(20)]
    assert sum(losses) / len(losses) < 0.15


def test_sampling_keeps_no_graph_and_one_state_at_a_time():
    """T16, R11."""
    model = small()
    states = model.states(torch.randn(1, 3, 8, 8), 2)
    assert iter(states) is states
    assert not any(state.requires_grad for state in states)
    model.train()
    assert len(model.sample((1, 3, 8, 8), 2)) == 3 and not model.training


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: small(3).sample((1, 3, 4, 4), 0), "n_steps must be 1 to 3, got 0"),
        (lambda: small(3).sample((1, 3, 4, 4), 4), "n_steps must be 1 to 3, got 4"),
        (lambda: Diffuser(0), "n_steps must be at least 1, got 0"),
        (lambda: small(objective="score"), "must be one of .*'flow'.*, got 'score'"),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("height, width", [(20, 28), (33, 33), (24, 24), (8, 8)])
def test_any_size(height, width):
    """M37, R20: padded and cropped inside; T19: (B, C, H, W) throughout."""
    model, x = small(channels=(16, 16, 16)), torch.randn(2, 3, height, width)
    assert model(x, torch.tensor([0, 299])).shape == x.shape
    assert diffusion_loss_fn(model, x.clamp(-1, 1)).isfinite()


def test_a_call_without_species_asks_for_any():
    """R15, R19: the kit's call, through the same layers; each species answers anew."""
    model, x = randomize_zeros(small()), torch.randn(2, 3, 8, 8)
    t = torch.tensor([30, 200])
    answers = [model(x, t, torch.full((2,), number)) for number in range(4)]
    assert torch.equal(model(x, t), answers[3])
    for number in range(3):
        assert (answers[number] - answers[number + 1]).abs().max() > 1e-3


# What it writes ----------------------------------------------------------------


def test_save_writes_the_weights_alone(tmp_path):
    """B.7, T18, C1: a bare state_dict of the network, bit by bit, in a new folder.

    The tables are not in it, but follow the device.
    """
    model, path = small(), tmp_path / "new" / "weights.pkl"
    model.save(path)
    loaded = torch.load(path, weights_only=True)
    assert all(key.startswith("network.") for key in loaded)
    assert all(torch.equal(loaded[k], v) for k, v in model.state_dict().items())
    assert {"betas", "sigmas"} < dict(model.named_buffers()).keys()
    small(20).load_state_dict(loaded, strict=True)


@pytest.fixture
def saved(monkeypatch):
    """What save_strip is called with: [(frames, headings, path, title), ...]."""
    calls = []
    monkeypatch.setattr("diffusion.save_strip", lambda *call: calls.append(call))
    return calls


@pytest.mark.parametrize("count", [1, 5, 23])
def test_strip_ends_in_the_finished_image(saved, tmp_path, count):
    """T1, R9: ten frames, the last is the result; all images; one map to [0, 1]."""
    states = [torch.full((count, 3, 8, 8), -1 + step / 6) for step in range(13)]
    model = small(12)
    model.states = lambda x, n_steps: iter(states)
    visualize_sampling(model, (count, 3, 8, 8), 12, tmp_path / "x")
    frames, headings, *_ = saved[0]
    steps = [int(words.removeprefix("Step ")) for words in headings]
    assert len(frames) == 10 and steps[0] == 0 and steps[-1] == 12
    for frame, step in zip(frames, steps, strict=True):
        torch.testing.assert_close(frame, (states[step] + 1) / 2)


@pytest.mark.parametrize("sampler, first", [("heun", "sigma 80"), ("ddpm", "Step 0")])
@pytest.mark.parametrize("steps", [1, 16])
def test_strip_of_any_sampler_ends_in_what_it_samples(
    saved, tmp_path, steps, sampler, first
):
    """Also of fewer steps than frames; a sampler of the model's schedule has steps."""
    model, labels = randomize_zeros(small()), torch.tensor([2, 0])
    config = SamplerConfig(sampler, 99, guidance=2.0)
    torch.manual_seed(5)
    noise = torch.randn(2, 3, 8, 8)
    expected, _ = sample(model, noise, replace(config, steps=steps), labels)
    torch.manual_seed(5)
    visualize_sampling(model, noise.shape, steps, tmp_path / "x", "", config, labels)
    frames, headings, *_ = saved[0]
    assert len(frames) == len(headings) == min(10, steps + 1)
    last = "sigma 0" if sampler == "heun" else f"Step {steps}"
    assert (headings[0], headings[-1]) == (first, last)
    torch.testing.assert_close(frames[-1].clamp(0, 1), expected)
    torch.testing.assert_close(2 * frames[0] - 1, noise, atol=2e-3, rtol=0)


@pytest.mark.parametrize("steps", [1, 2, 8, 9, 12, 40, 200])
def test_levels_of_the_strip_are_evenly_spaced_in_the_logarithm(steps):
    """Each state once, from the first noise to the image; few of them pure noise."""
    sigmas = [*torch.logspace(2, -1, steps).tolist(), 0.0]
    shown = spaced_sigmas(sigmas)
    assert shown == sorted(set(shown)) and len(shown) == min(10, steps + 1)
    assert (shown[0], shown[-1]) == (0, steps)
    if steps >= 40:
        logs = torch.tensor([sigmas[i] for i in shown[:-1]]).log()
        assert (logs.diff() / logs.diff().mean() - 1).abs().max() < 0.25


def test_the_strip_of_the_default_sampler_shows_more_than_noise():
    """By index seven of ten columns were above sigma 2, the photos' contrast by far."""
    config = SamplerConfig(steps=12, sigma_min=0.08)
    sigmas = sigmas_for(small(), config)
    shown = [sigmas[i] for i in spaced_sigmas(sigmas)]
    assert len(shown) == 10 and sum(sigma > 2.5 for sigma in shown) <= 4


@pytest.mark.parametrize(
    "precision, bfloat16", [("auto", None), ("bf16", True), ("fp32", False)]
)
def test_settings_become_a_model(precision, bfloat16):
    """Rule 9: every row's field that shapes the network arrives there."""
    fields = dict(channels=(16, 32), num_blocks=2, objective="eps", dropout=0.25)
    row = replace(PRESETS["diffusion"][0], precision=precision, **fields)
    model = diffusion.build(row, 5, "diffusion_64")
    copy = Diffuser(300, num_classes=5, **fields)
    copy.load_state_dict(model.state_dict(), strict=True)
    rates = {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}
    assert (model.objective, model.name, rates) == ("eps", "diffusion_64", {0.25})
    assert model.network.bfloat16 is bfloat16
