"""Trainings and samples on a GPU agree with those on the CPU.

On the GPUs of this machine, and on a simulated one, which shows that the tests run.
"""

from copy import deepcopy

import pytest
import torch

from tests.helpers.commands import train
from tests.helpers.devices import on_device, real
from tests.helpers.diffusion import SPECIES, randomize_zeros, save_small, small
from tests.helpers.training import descend, rows_of
from utils.checkpoint import load_checkpoint, save_checkpoint, weights_name
from utils.checkpoint.resume import read_state
from utils.config import SamplerConfig
from utils.device import (
    device_of,
    fork_rng,
    has_bfloat16_units,
    machine_facts,
    random_state,
    set_random_state,
)
from utils.diffusion.sampling import sample
from utils.evaluation.features import FlowerFeatures
from utils.evaluation.metrics import extract
from utils.experiment import PROBE_STEPS, generate, seconds_per_step
from utils.optim.muon import Muon
from utils.registry import build_model, load_model

# Relative error of an output: of float32, in which convolutions of a GPU may round
# products to 10 bits, and of bfloat16, which has 8.
FLOAT32, BFLOAT16 = 0.01, 0.05
# A GPU has operations without a deterministic kernel, of which torch warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*deterministic.*")


@pytest.fixture(params=[real("cuda"), real("mps"), "simulated"])
def kind(request):
    """Return the type of a device that commands can use."""
    simulated = request.param == "simulated"
    name = "mps" if simulated else request.param
    with on_device(name, simulated):
        yield name


def relative_error(found, expected):
    """Return the error of a tensor relative to the norm of the expected one."""
    return ((found - expected).norm() / expected.norm()).item()


def model_of(name):
    """Return an untrained model of 8 x 8 images, in evaluation mode."""
    torch.manual_seed(0)
    if name == "diffusion":
        return randomize_zeros(small(bfloat16=False, channels=(16, 32)))
    if name == "features":
        return FlowerFeatures(SPECIES).eval()
    args = {"encoding_dim": 4, "img_width": 8, "img_height": 8}
    return build_model(name, **args).eval()


def output(model, images):
    """Return the output of a model, without a draw of random numbers, on the CPU."""
    images = images.to(device_of(model))
    with torch.no_grad():
        if model.name == "diffusion":
            sigma = torch.full((len(images),), 0.7, device=images.device)
            return model.denoise(images, sigma).cpu()
        if model.name == "features":
            return model(images).cpu()
        code = model.encoder(images)
        return model.decoder(code[0] if isinstance(code, tuple) else code).cpu()


# The same weights ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MLPAE", "AE", "VAE", "diffusion", "features"])
def test_a_model_computes_the_same(kind, name):
    model, images = model_of(name), torch.rand(5, 3, 8, 8)
    expected = output(model, images)
    found = output(deepcopy(model).to(kind), images)
    assert relative_error(found, expected) < FLOAT32


def test_a_seed_samples_nearly_the_same_images(kind, tmp_path):
    """Noise, labels and codes are drawn on the CPU; the sampler adds no noise."""
    save_checkpoint(tmp_path / "vae.pth", model_of("VAE"))
    save_small(tmp_path / "d.pkl")
    for name, path in (("VAE", "vae.pth"), ("diffusion", "d.pkl")):
        images = []
        for device in ("cpu", kind):
            torch.manual_seed(3)
            model, metadata = load_model(name, tmp_path / path, device)
            assert device_of(model).type == device
            images.append(generate(model, metadata, 5))
        assert images[1].device.type == "cpu"
        assert relative_error(images[1], images[0]) < 2 * FLOAT32


def test_features_are_nearly_the_same(kind):
    model, images = model_of("features"), torch.rand(9, 3, 24, 24)
    expected = extract(model, images)
    assert relative_error(extract(model.to(kind), images), expected) < FLOAT32


def test_bfloat16_is_used_where_the_gpu_has_it(kind):
    """By autocast; nothing is said where it has none."""
    if not has_bfloat16_units(torch.device(kind)):
        pytest.skip(f"needs bfloat16 units, which the {kind} device has not")
    model, noise = model_of("diffusion"), torch.randn(4, 3, 8, 8)
    expected, _ = sample(model, noise, SamplerConfig(steps=3))
    model.network.bfloat16 = None
    found, _ = sample(model.to(kind), noise, SamplerConfig(steps=3))
    assert not torch.equal(found, expected)
    assert relative_error(found, expected) < BFLOAT16


# Training -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MLPAE", "AE", "VAE"])
def test_a_few_steps_decrease_the_loss(kind, name):
    """Of every autoencoder, on one batch."""
    model, images = model_of(name).to(kind), torch.rand(8, 3, 8, 8).to(kind)

    def loss():
        outputs = model(images)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        return (outputs - images).square().mean()

    losses = descend(model, loss, 1e-3, 10)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["AE", "VAE", "diffusion"])
def test_a_training_is_resumed_and_its_weights_load_on_the_cpu(
    kind, name, photo_folder, tmp_path
):
    """Two epochs, then two more: the loss goes on falling."""
    flags = ["--device", kind, "--scheduler", "constant", "--lr", "1e-3"]
    flags += ["--channels", "16", "--steps", "2"] if name == "diffusion" else []
    assert train(name, tmp_path, photo_folder, *flags, "--epochs", 2).code == 0
    again = train(name, tmp_path, photo_folder, *flags, "--epochs", 4, "--resume")
    assert again.code == 0, again.err
    losses = [float(row["train_loss"]) for row in rows_of(tmp_path / f"log/{name}.csv")]
    assert len(losses) == 4 and losses[-1] < losses[0]
    # The files.
    path = tmp_path / "models" / weights_name(name)
    weights, _ = load_checkpoint(path)
    assert {weight.device.type for weight in weights.values()} == {"cpu"}
    state = read_state(path.with_name(f"Last_{name}.pth")).content
    assert {weight.device.type for weight in state["model"].values()} == {"cpu"}
    # On both devices they are one model.
    images = torch.rand(5, 3, 8, 8)
    there, here = (output(load_model(name, path, d)[0], images) for d in (kind, "cpu"))
    assert relative_error(there, here) < BFLOAT16


@pytest.mark.parametrize("batched", [False, True])
def test_muon_takes_the_same_step(kind, batched):
    """Without float64 too."""
    grads, found = torch.randn(2, 6, 4), []
    for device in ("cpu", kind):
        weights = [torch.ones(6, 4, device=device, requires_grad=True) for _ in "12"]
        for weight, grad in zip(weights, grads, strict=True):
            weight.grad = grad.to(device)
        Muon(weights, 0.1, inner=weights, batched=batched).step()
        found.append(torch.stack([weight.detach().cpu() for weight in weights]))
    assert relative_error(found[1] - 1, found[0] - 1) < FLOAT32


# Random numbers and times -------------------------------------------------------------


def test_random_numbers_of_the_device_are_forked_and_restored(kind):
    def draw():
        return torch.randn(4, device=kind).cpu()

    torch.manual_seed(1)
    expected = [draw(), draw()]
    torch.manual_seed(1)
    first = draw()
    with fork_rng(5):
        inside = draw()
    assert torch.equal(first, expected[0]) and torch.equal(draw(), expected[1])
    torch.manual_seed(5)
    assert torch.equal(draw(), inside)
    # The state of a training that is interrupted.
    state, after = random_state([]), draw()
    draw()
    set_random_state(state, [])
    assert torch.equal(draw(), after)


def test_a_state_of_a_machine_without_a_gpu_is_restored(kind):
    """The random numbers of the GPU then go on from the seed."""
    state = random_state([]) | {"accelerators": []}
    set_random_state(state, [])
    assert torch.equal(torch.get_rng_state(), state["torch"])


def test_the_time_of_a_step_includes_the_work_of_the_device(monkeypatch):
    """Of a device that works only while it is waited for."""
    waits = []
    with on_device("mps", simulated=True):
        monkeypatch.setattr("torch.accelerator.synchronize", waits.append)
        monkeypatch.setattr("time.perf_counter", lambda: float(len(waits)))
        model = model_of("AE").to("mps")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batch = torch.rand(2, 3, 8, 8), None
        seconds = seconds_per_step(
            model, optimizer, lambda model, x, _: model(x).mean(), *batch
        )
    assert seconds == 1 and len(waits) == 2 * PROBE_STEPS
    assert {device.type for device in waits} == {"mps"}


def test_facts_of_the_machine_name_the_gpu(kind):
    assert "accelerator" not in machine_facts(torch.device("cpu"))
    assert machine_facts(torch.device(kind))["accelerator"]
