"""No tensor of training, sampling or measuring is on a hard-coded device.

Each path runs on a simulated GPU, where a tensor that was made on the CPU meets those
of the model and is refused, and gives the numbers of the CPU.
"""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from diffusion import diffusion_loss_fn, training_loss, visualize_sampling
from tests.helpers.devices import SimulatedDevice
from tests.helpers.diffusion import SPECIES, randomize_zeros, small
from utils.config import AUTOENCODERS, OPTIMIZERS, PRESETS, SamplerConfig
from utils.diffusion import samplers
from utils.diffusion.editing import inpaint, sdedit
from utils.diffusion.rectified_flow import (
    draw_couplings,
    rectified_flow_loss,
    trajectories,
)
from utils.diffusion.sampling import CFGDenoiser, sample, sample_batches
from utils.evaluation.features import TRUNKS, FlowerFeatures, find_extractor
from utils.evaluation.metrics import extract
from utils.experiment import decode_batches
from utils.latents import encode, reconstruct
from utils.optim.factory import prepare_training
from utils.registry import autoencoders, build_model
from utils.train import validate, validation_metrics

MPS = "mps"  # the stricter one: without float64
CPU = torch.device("cpu")
LABELS = torch.tensor([0, 1, 2, 0])
FULL = {"sampler": "dpm++3m", "steps": 4, "guidance": 2.0, "autoguidance": 1.5}


def denoiser():
    """Return a small diffusion model with a guide, in float32."""
    network = {"bfloat16": False, "channels": (16,)}
    model = randomize_zeros(small(**network))
    model.set_guide(randomize_zeros(small(**network)))
    return model


def autoencoder(name):
    """Return an untrained autoencoder of 8 x 8 images."""
    torch.manual_seed(0)
    args = {"encoding_dim": 4, "img_width": 8, "img_height": 8}
    return build_model(name, **args)


def photos(count=4):
    """Return random images (count, 3, 8, 8) in [0, 1]."""
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def here_and_there(model, compute, kind=MPS):
    """Return compute(model, its device) on the CPU, and on a simulated device."""
    results = []
    for device in (CPU, torch.device(kind)):
        torch.manual_seed(2)
        with SimulatedDevice(kind):
            results.append(compute(deepcopy(model).to(device), device))
    return results


# Training ----------------------------------------------------------------------------


def steps_of(settings, batch_loss, count=2):
    """Return a function of (model, device) that trains -> losses and weights."""

    def train(model, device):
        optimizer, scheduler, ema = prepare_training(settings, model.train(), 10)
        losses = []
        for _ in range(count):
            optimizer.zero_grad()
            loss = batch_loss(model, photos().to(device), LABELS)
            assert loss.device == device
            loss.backward()
            assert all(w.grad.device == device for w in model.parameters())
            optimizer.step()
            if ema:
                ema.update_parameters(model)
            losses.append(loss.item())
        # What checks of a training compute.
        model.eval()
        batches = [(photos(), LABELS)]
        losses += [loss for loss, _ in validate(model, batches, batch_loss, device)]
        metrics = validation_metrics(model, batches, device)
        return losses, metrics, [w.detach().cpu() for w in model.parameters()]

    return train


def assert_same(here, there):
    """Assert that losses, metrics and weights of two trainings are equal."""
    assert here[:2] == there[:2]
    assert all(map(torch.equal, here[2], there[2]))


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_a_training_step_of_an_autoencoder(name):
    settings = replace(PRESETS[name][0], ema=0.9)
    loss_fn = autoencoders()[name].loss_for(settings.beta)
    train = steps_of(settings, lambda model, x, _: loss_fn(model(x), x))
    if settings.optimizer == "muon":
        # In float32 there, for want of float64, so that bits differ.
        here, there = here_and_there(autoencoder(name), train)
        assert here[0] == pytest.approx(there[0], rel=1e-3)
        return
    assert_same(*here_and_there(autoencoder(name), train))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_step_by_every_optimizer(optimizer):
    settings = replace(PRESETS["AE"][0], optimizer=optimizer, lr=1e-3)
    train = steps_of(settings, lambda model, x, _: F.mse_loss(model(x), x), count=1)
    here, there = here_and_there(autoencoder("AE"), train)
    assert here[0] == pytest.approx(there[0], rel=1e-3)


@pytest.mark.parametrize(
    "density, kind",
    [("lognormal", "cuda"), ("lognormal", MPS), ("cosine", MPS), ("kit", MPS)],
)
def test_a_training_step_of_a_diffusion_model(density, kind):
    settings = replace(PRESETS["diffusion"][0], density=density, dropout=0.1)
    train = steps_of(settings, training_loss(settings))
    assert_same(*here_and_there(denoiser(), train, kind))


@pytest.mark.parametrize("objective", ["eps", "x0", "v", "flow"])
def test_the_losses_of_other_objectives(objective):
    """By the assignment's DDPM, and by the lines of couplings."""
    model = randomize_zeros(small(bfloat16=False, objective=objective))
    couplings = torch.randn(4, 2, 3, 8, 8)

    def losses(model, device):
        found = diffusion_loss_fn(model, 2 * photos().to(device) - 1)
        more = rectified_flow_loss(model, couplings.to(device), LABELS)
        return found.item(), more.item()

    here, there = here_and_there(model, losses)
    assert here == there


@pytest.mark.parametrize("name", TRUNKS)
def test_a_training_step_of_a_feature_extractor(name):
    model = FlowerFeatures(SPECIES, name)
    settings = replace(PRESETS["AE"][0], optimizer="adamw", lr=1e-3)

    def loss(model, images, labels):
        return F.cross_entropy(model.classify(images), labels.to(images.device))

    assert_same(*here_and_there(model, steps_of(settings, loss)))


# Sampling ----------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", samplers.SAMPLERS)
def test_every_sampler_with_guidance_of_both_kinds(sampler):
    """Noise and labels are on the CPU, and images come back there."""
    eta = 0.5 if "eta" in samplers.SAMPLERS[sampler].options else 0.0
    config = SamplerConfig(**FULL | {"sampler": sampler, "eta": eta})
    noise = torch.randn(4, 3, 8, 8)

    def images(model, device):
        return sample(model, noise, config, LABELS)[0]

    here, there = here_and_there(denoiser(), images)
    assert there.device == CPU and torch.equal(here, there)


def test_batches_start_from_noise_of_the_cpu():
    """Two batches; drawn before any step, whatever the device."""
    config = SamplerConfig(steps=2)

    def images(model, device):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("utils.diffusion.sampling.BATCH_SIZE", 3)
            return torch.cat(list(sample_batches(model, config, LABELS, 4, 8)))

    here, there = here_and_there(denoiser(), images)
    assert there.device == CPU and torch.equal(here, there)


@pytest.mark.parametrize("config", [None, SamplerConfig(**FULL)])
def test_pictures_of_a_training(config, tmp_path):
    """By the assignment's own sampler and by others."""

    def picture(model, device):
        visualize_sampling(model, (4, 3, 8, 8), 4, tmp_path / "x", config=config)
        assert len(model.sample((2, 3, 8, 8), 3)) == 4
        return (tmp_path / "x.png").read_bytes()

    here, there = here_and_there(denoiser(), picture)
    assert here == there


def test_editing_trajectories_and_couplings():
    config, noise = SamplerConfig(**FULL | {"steps": 2}), torch.randn(4, 3, 8, 8)
    known = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    known[..., 4:] = True

    def edited(model, device):
        guided = CFGDenoiser(model, config, LABELS)
        return [
            inpaint(model, photos(), known, config, LABELS, resamplings=2),
            sdedit(model, photos(), 0.5, noise, config, LABELS),
            *trajectories(guided, noise.to(device), steps=3),
            draw_couplings(model, config, LABELS, 8),
        ]

    for here, there in zip(*here_and_there(denoiser(), edited), strict=True):
        assert there.device == CPU and torch.equal(here, there)


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_codes_and_images_of_autoencoders(name):
    """Codes come from the CPU, and images go back there."""

    def images(model, device):
        model.eval()
        draw_codes = lambda count: torch.randn(count, 4)  # noqa: E731
        return [
            encode(model, photos()),
            torch.cat(list(decode_batches(model, draw_codes, 4, 3))),
            reconstruct(model, photos().to(device)).cpu(),
        ]

    for here, there in zip(*here_and_there(autoencoder(name), images), strict=True):
        assert there.device == CPU and torch.equal(here, there)


# Measuring ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRUNKS)
def test_features_for_metrics_are_on_the_cpu_in_float64(name):
    def features(model, device):
        return extract(model.eval(), photos(10), batch_size=4)

    here, there = here_and_there(FlowerFeatures(SPECIES, name), features)
    assert (there.device, there.dtype) == (CPU, torch.float64)
    assert torch.equal(here, there)
    with SimulatedDevice(MPS):
        pixels = extract(find_extractor("pixels", torch.device(MPS)), photos())
    assert torch.equal(pixels, photos().flatten(1).double())


# The test itself ---------------------------------------------------------------------


def faulty_sampler(denoise, x, sigmas):
    """Euler's method, with a sum that starts as zeros on the CPU."""
    yield x
    for sigma, sigma_next in zip(sigmas, sigmas[1:], strict=False):
        slope = torch.zeros(x.shape) + (x - denoise(x, sigma)) / sigma
        x = x + (sigma_next - sigma) * slope
        yield x


def test_zeros_on_the_cpu_in_a_sampler_are_found(monkeypatch):
    """On the CPU itself nobody would notice."""
    row = samplers.Sampler(faulty_sampler)
    monkeypatch.setitem(samplers.SAMPLERS, "euler", row)
    model, noise = denoiser(), torch.randn(4, 3, 8, 8)
    config = SamplerConfig("euler", 2)
    assert sample(model, noise, config)[0].isfinite().all()
    with SimulatedDevice(MPS), pytest.raises(RuntimeError, match="same device"):
        sample(model.to(MPS), noise, config)


@pytest.mark.parametrize(
    "name, fault",
    [
        ("torch.randn_like", lambda x, randn=torch.randn: randn(x.shape)),
        (
            "torch.rand",
            lambda *size, rand=torch.rand, device=None, **more: rand(*size, **more),
        ),
        ("diffusion.draw_sigma", lambda settings, count, _: torch.ones(count)),
    ],
)
def test_random_numbers_on_the_cpu_in_a_loss_are_found(name, fault, monkeypatch):
    monkeypatch.setattr(name, fault)
    model, loss = denoiser().train(), training_loss(PRESETS["diffusion"][0])
    assert loss(model, photos(), LABELS).isfinite()
    with SimulatedDevice(MPS), pytest.raises(RuntimeError, match="same device"):
        loss(model.to(MPS), photos().to(MPS), LABELS)


@pytest.mark.parametrize("kind", ["cuda", MPS])
def test_the_simulated_device_refuses_what_pytorch_refuses(kind):
    with SimulatedDevice(kind):
        x, y = torch.ones(3, device=kind), torch.ones(3)
        assert x.device.type == (x + 1).device.type == x[1:].device.type == kind
        # Copies, single numbers and indices from the CPU are allowed.
        y[:] = x
        assert (x * torch.tensor(2.0)).device.type == kind
        assert x[torch.tensor([0])].device.type == kind
        assert (x.cpu() + y).device == y.to(CPU).device == CPU
        for mixture in (
            lambda: x + y,
            lambda: torch.cat([x, y]),
            lambda: y[torch.tensor([0], device=kind)],
            lambda: F.linear(x, torch.eye(3)),
        ):
            with pytest.raises(RuntimeError, match="same device"):
                mixture()
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
        if kind == MPS:
            with pytest.raises(TypeError, match="float64"):
                x.double()
            with pytest.raises(NotImplementedError, match="ndtri"):
                torch.special.ndtri(x)
