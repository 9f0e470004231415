"""The diffusion model against closed forms (INTERFACE.md B.7 and part D)."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import diffusion
from diffusion import (
    Diffuser,
    diffusion_loss_fn,
    noise_tables,
    training_loss,
    velocity_loss_fn,
    visualize_sampling,
)
from utils import runtime
from utils.drawn_flowers import draw_flowers
from utils.ema import warmed_up_average
from utils.unet import UNet, time_features

MOST_MFLOP = 300  # of one 24 x 24 image forward (R5: 4,019 was seen elsewhere)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Diffuser(n_steps=300)


class Oracle(Diffuser):
    """Knows the photo: predicts exactly the noise that is in x."""

    def __init__(self, x_0):
        super().__init__(300)
        self.x_0 = x_0

    def forward(self, x, t):
        signal = self.alphas_bar_sqrt[t].view(-1, 1, 1, 1) * self.x_0
        return (x - signal) / self.one_minus_alphas_bar_sqrt[t].view(-1, 1, 1, 1)


def test_tables_of_the_starter_kit():
    """M38, B.7: sigmoid schedule; first beta 2.23e-4, last alpha-bar 4.64e-4."""
    assert diffusion.betas[0].item() == pytest.approx(2.23e-4, rel=2e-3)
    assert diffusion.alphas_bar[-1].item() == pytest.approx(4.64e-4, rel=2e-3)
    u = -6 + 12 * torch.arange(300, dtype=torch.float64) / 299
    expected = 1e-4 + (5e-2 - 1e-4) / (1 + (-u).exp())
    torch.testing.assert_close(diffusion.betas, expected.float())


def test_tables_agree_with_each_other():
    """STYLE 17: signal^2 + noise^2 = 1; alpha-bar falls; all float32 (T18)."""
    tables = noise_tables(300)
    signal, noise = tables["alphas_bar_sqrt"], tables["one_minus_alphas_bar_sqrt"]
    torch.testing.assert_close(signal**2 + noise**2, torch.ones(300))
    assert (tables["alphas_bar"].diff() < 0).all()
    product = 1.0
    for beta, alpha_bar in zip(tables["betas"], tables["alphas_bar"], strict=True):
        product *= 1 - beta.item()
        assert alpha_bar.item() == pytest.approx(product, rel=1e-4)
    for name, table in tables.items():
        assert table.dtype == torch.float32 and table.shape == (300,)
        torch.testing.assert_close(getattr(diffusion, name), table)


@pytest.mark.parametrize("t", [0, 150, 299])
def test_forward_noising_has_its_moments(model, t):
    """R27: mean and variance of x_t given x_0, over 60,000 draws."""
    torch.manual_seed(1)
    x_0 = torch.full((60_000, 1, 1, 1), 0.6)
    x_t = model.noised(x_0, torch.full((60_000,), t), torch.randn_like(x_0))
    alpha_bar = diffusion.alphas_bar[t].item()
    assert x_t.mean().item() == pytest.approx(0.6 * alpha_bar**0.5, abs=0.015)
    assert x_t.var().item() == pytest.approx(1 - alpha_bar, rel=0.03)


def test_one_step_after_another_is_the_closed_form():
    """Equations 2 and 4 of Ho et al.: adding noise step by step, or in one go."""
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(noise_tables(300)["betas"].double()):
        mean, variance = mean * (1 - beta).sqrt(), variance * (1 - beta) + beta
        assert mean.item() == pytest.approx(
            diffusion.alphas_bar_sqrt[t].item(), rel=1e-4
        )
        one_minus = diffusion.one_minus_alphas_bar_sqrt[t].item() ** 2
        assert variance.item() == pytest.approx(one_minus, rel=1e-3)


@pytest.mark.parametrize("t", [1, 40, 150, 299])
def test_reverse_step_is_the_posterior(t):
    """R14: Bayes' rule on two Gaussians gives the step back for the true photo."""
    torch.manual_seed(2)
    x_0 = torch.rand(1, 3, 4, 4) * 2 - 1
    oracle, x_t = Oracle(x_0), torch.randn(1, 3, 4, 4)
    tables = {name: table.double() for name, table in noise_tables(300).items()}
    beta, before = tables["betas"][t], tables["alphas_bar"][t - 1]
    # The product of N(x_t; sqrt(1 - beta) x_{t-1}, beta) and q(x_{t-1} | x_0).
    precision = (1 - beta) / beta + 1 / (1 - before)
    weighted = (1 - beta).sqrt() / beta * x_t + before.sqrt() / (1 - before) * x_0
    steps = torch.cat([oracle.p_theta_sampling(x_t, t) for _ in range(4000)])
    error = (steps.mean(0) - (weighted / precision)[0]).abs().max()
    assert error < 5 * (precision**-0.5) / 4000**0.5
    assert steps.std(0).mean().item() == pytest.approx(
        precision.item() ** -0.5, rel=0.02
    )


def test_last_step_adds_no_noise():
    """B.7: at t = 0 the step is the photo itself, and twice the same."""
    x_0 = torch.rand(2, 3, 4, 4) * 2 - 1
    oracle = Oracle(x_0)
    x_t = oracle.noised(x_0, torch.zeros(2, dtype=int), torch.randn(2, 3, 4, 4))
    torch.testing.assert_close(oracle.p_theta_sampling(x_t, 0), x_0, atol=1e-4, rtol=0)
    assert torch.equal(oracle.p_theta_sampling(x_t, 0), oracle.p_theta_sampling(x_t, 0))


def test_a_perfect_model_samples_the_photo():
    """M38: 300 steps back from pure noise end at the only photo that it knows."""
    x_0 = torch.rand(1, 3, 6, 6) * 2 - 1
    states = Oracle(x_0).sample((1, 3, 6, 6), 300)
    assert len(states) == 301
    torch.testing.assert_close(states[-1], x_0, atol=1e-3, rtol=0)


def test_loss_of_a_perfect_and_of_a_blind_model():
    """M39: 0 for the true noise; for the answer zero, the noise's variance, 1."""
    torch.manual_seed(3)
    x_0 = torch.rand(64, 3, 8, 8) * 2 - 1
    oracle = Oracle(x_0)
    assert diffusion_loss_fn(oracle, x_0).item() == pytest.approx(0, abs=1e-6)
    blind = Diffuser(300)
    blind.forward = lambda x, t: torch.zeros_like(x)
    loss = diffusion_loss_fn(blind, x_0)
    assert loss.shape == () and loss.item() == pytest.approx(1, rel=0.03)


def test_velocity_loss_is_the_noises_weighted(model):
    """Salimans & Ho 2022: the same errors, divided by alpha-bar of the step."""
    x_0, noise = torch.rand(8, 3, 8, 8) * 2 - 1, torch.randn(8, 3, 8, 8)
    torch.nn.init.normal_(model.network.leave[-1].weight, std=0.05)
    for t in (0, 150, 299):
        steps = torch.full((8,), t)
        x_t = model.noised(x_0, steps, noise)
        error = torch.nn.functional.mse_loss(model(x_t, steps), noise)
        signal_rate, noise_rate = model.rates(steps)
        velocity = signal_rate * noise - noise_rate * x_0
        other = torch.nn.functional.mse_loss(model.network(x_t, steps), velocity)
        weight = diffusion.alphas_bar[t]
        torch.testing.assert_close(error, weight * other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss_fn", [diffusion_loss_fn, velocity_loss_fn])
def test_every_step_is_trained(model, loss_fn):
    """STYLE 17: training draws t from the same range, 0 to 299, as sampling takes."""
    seen = set()
    model.network.forward = lambda x, t: seen.update(t.tolist()) or torch.zeros_like(x)
    for _ in range(40):  # the rarest step is 1 of 6,000
        loss_fn(model, torch.zeros(5000, 3, 1, 1))
    assert seen == set(range(300))


def test_training_prefers_middling_noise(model):
    """A standard normal in log(noise rate / signal rate), and a share of all."""
    tables = {name: table.double() for name, table in noise_tables(300).items()}
    signal, noise = tables["alphas_bar_sqrt"], tables["one_minus_alphas_bar_sqrt"]
    shares = torch.distributions.Normal(0.0, 1.0).cdf((noise / signal).log()).diff()
    expected = 0.95 * shares / shares.sum() + 0.05 / 300
    density = model.step_density.double()
    assert density.sum().item() == pytest.approx(1)
    torch.testing.assert_close(density[:-1], expected, rtol=0, atol=1e-4)
    assert density[-1].item() == pytest.approx(0.05 / 300, rel=1e-3)


@pytest.mark.parametrize("n_steps", [2, 300, 2000])
def test_every_schedule_has_shares(n_steps):
    """Also a long one, at whose end float32 knows nothing of the photo."""
    shares = Diffuser(n_steps).step_density
    assert shares.sum().item() == pytest.approx(1, abs=1e-5) and shares.min() > 0


def test_one_step_is_a_schedule():
    """n_steps=1 is allowed, and then the only step is drawn."""
    assert Diffuser(1).step_density.tolist() == [1.0]


def test_training_without_bfloat16_units(model, monkeypatch):
    """The same loss, but for rounding, on a CPU that has no units for bfloat16."""
    images = draw_flowers(20, 8, 8)[0].float() / 255
    torch.nn.init.normal_(model.network.leave[-1].weight, std=0.05)
    losses = []
    for units in (True, False):
        monkeypatch.setattr(runtime, "has_bfloat16_units", lambda _, it=units: it)
        torch.manual_seed(0)
        losses.append(training_loss(model, images).item())
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.01)


def test_sampling_walks_every_step(model):
    """STYLE 17: 299 down to 0."""
    walked = []
    model.forward = lambda x, t: walked.append(t[0].item()) or torch.zeros_like(x)
    model.sample((1, 3, 4, 4), 300)
    assert walked == list(range(299, -1, -1))


def test_one_batch_can_be_overfitted(model):
    """The network really learns to see noise: the loss falls below 0.15."""
    images = 2 * (draw_flowers(2, 8, 8)[0].float() / 255) - 1
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(150):
        optimizer.zero_grad()
        diffusion_loss_fn(model, images.repeat(4, 1, 1, 1)).backward()
        optimizer.step()
    losses = [diffusion_loss_fn(model, images).item() for _ in range(20)]
    assert sum(losses) / len(losses) < 0.15


def test_sampling_keeps_no_graph_and_one_state_at_a_time(model):
    """T16, R11."""
    states = model.states(torch.randn(1, 3, 8, 8), 2)
    assert iter(states) is states
    assert not any(state.requires_grad for state in states)
    model.train()
    assert len(model.sample((1, 3, 8, 8), 2)) == 3 and not model.training


@pytest.mark.parametrize("height, width", [(20, 28), (33, 33), (24, 24), (8, 8)])
def test_any_size(model, height, width):
    """M37, R20: padded and cropped inside; T19: (B, C, H, W) throughout."""
    x = torch.randn(2, 3, height, width)
    assert model(x, torch.tensor([0, 299])).shape == x.shape
    assert diffusion_loss_fn(model, x.clamp(-1, 1)).isfinite()


def test_network_really_down_samples():
    """R5: few operations at full size, and the bottom is at a quarter of it."""
    network, seen = UNet(), []
    network.middle[1].register_forward_hook(lambda _m, _i, y: seen.append(y.shape[-2:]))
    with FlopCounterMode(display=False) as counter:
        network(torch.randn(1, 3, 24, 24), torch.tensor([5]))
    assert seen == [(6, 6)]
    assert counter.get_total_flops() / 1e6 < MOST_MFLOP


def test_network_knows_the_time(model):
    """The same image at two steps gives two answers once the last layer is alive."""
    torch.nn.init.normal_(model.network.leave[-1].weight)
    for block in [*model.network.down, *model.network.up]:
        torch.nn.init.normal_(block.second[-1].weight)
    x = torch.randn(1, 3, 8, 8)
    early, late = model(x, torch.tensor([3])), model(x, torch.tensor([250]))
    assert (early - late).abs().max() > 1e-3
    features = time_features(torch.arange(300), 192)
    assert torch.cdist(features, features).fill_diagonal_(9).min() > 0.1


def test_tables_are_not_in_the_file(model):
    """T18, C1: a bare state_dict of the network; the tables follow the device."""
    assert all(key.startswith("network.") for key in model.state_dict())
    assert "betas" in dict(model.named_buffers())
    Diffuser(300).load_state_dict(model.state_dict(), strict=True)


def test_save_makes_the_folder(model, tmp_path):
    """B.7: `save` writes a bare state_dict, bit by bit."""
    path = tmp_path / "new" / "weights.pkl"
    model.save(path)
    loaded = torch.load(path, weights_only=True)
    assert all(torch.equal(loaded[k], v) for k, v in model.state_dict().items())


def test_steps_below_one_are_refused():
    with pytest.raises(ValueError, match="n_steps must be at least 1, got 0"):
        Diffuser(0)


@pytest.mark.parametrize("count", [1, 5, 23])
def test_strip_ends_in_the_finished_image(monkeypatch, tmp_path, count):
    """T1, R9: ten frames, the last is the result; all images; one map to [0, 1]."""
    saved = []
    monkeypatch.setattr("utils.figures.save_strip", lambda *call: saved.append(call))
    states = [torch.full((count, 3, 8, 8), -1 + step / 6) for step in range(13)]
    model = Diffuser(12)
    model.states = lambda x, n_steps: iter(states)
    visualize_sampling(model, (count, 3, 8, 8), 12, tmp_path / "x")
    frames, steps, *_ = saved[0]
    assert len(frames) == 10 and steps[0] == 0 and steps[-1] == 12
    for frame, step in zip(frames, steps, strict=True):
        torch.testing.assert_close(frame, (states[step] + 1) / 2)


def test_average_starts_short_and_stays_an_average():
    """T6: keeps min(decay, (1 + n) / (10 + n)) of the old; buffers are copied."""
    average = warmed_up_average(0.9)
    for count, keep in ((0, 0.1), (1, 2 / 11), (10, 0.55), (1000, 0.9)):
        old = [torch.tensor([1.0])]
        average(old, [torch.tensor([0.0])], torch.tensor(count))
        assert old[0].item() == pytest.approx(keep)
