"""The models in JavaScript beside PyTorch with the same weights of 8 bits."""

import math

import pytest
import torch

from tests.helpers.diffusion import randomize_zeros, small
from tests.helpers.playground import in_node, references
from tools.playground.weights import pack
from utils.config import SamplerConfig
from utils.diffusion.editing import sdedit
from utils.diffusion.sampling import sample_states, sigmas_for

LEVEL = 1 / 255  # of images in [0, 1]; those in [-1, 1] have levels of twice that
SIZE = 24
DENOISE = (
    "return data.map(([x, sigma, label]) => models.{}.denoise(f32(x), sigma, label));"
)
SAMPLE = """
const states = [];
const onState = (step, x, estimate) => states.push([step, x, estimate]);
const options = { ...data, noise: f32(data.noise), onState };
if (data.start) options.start = f32(data.start);
const image = Lab.sample(models.diffusion, options);
return [image, states];
"""


def images(rows):
    """Return lists of numbers as images (B, 3, SIZE, SIZE)."""
    return torch.tensor(rows).view(-1, 3, SIZE, SIZE)


def noised(count, size=SIZE, seed=0):
    """Return noised images (count, 3, size, size), their sigmas and labels."""
    torch.manual_seed(seed)
    sigma = torch.logspace(-2, math.log10(80), count)
    x_0 = 2 * torch.rand(count, 3, size, size) - 1
    x = x_0 + sigma.view(-1, 1, 1, 1) * torch.randn_like(x_0)
    return x, sigma, torch.arange(count) % 4  # 3 is the null label


def inputs(x, sigma, labels):
    """Return the arguments of `denoise` as plain types."""
    rows = x.flatten(1).tolist(), sigma.tolist(), labels.tolist()
    return list(zip(*rows, strict=True))


def run_sampler(lab, **options):
    """Sample in JavaScript -> (image, states, estimates), each (B, 3, SIZE, SIZE)."""
    options = {name: value for name, value in options.items() if value is not None}
    flat = {k: v.flatten().tolist() for k, v in options.items() if torch.is_tensor(v)}
    image, states = lab(SAMPLE, options | flat)
    steps, shown, estimates = zip(*states, strict=True)
    assert list(steps) == list(range(len(states))) and estimates[-1] is None
    return images(image), images(shown), images(estimates[:-1])


def expected_states(model, noise, label=None, **config):
    """Return the states (B, 3, SIZE, SIZE) of the sampler in PyTorch."""
    labels = None if label is None else torch.tensor([label])
    config = SamplerConfig("flow", **config)
    return torch.cat(list(sample_states(model, noise, config, labels)))


# Networks ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vae", "ae"])
def test_a_decoder_agrees_with_pytorch(lab, trained, name):
    torch.manual_seed(0)
    z = 1.5 * torch.randn(20, 64)
    body = f"return data.map((z) => models.{name}.decode(f32(z)));"
    with torch.no_grad():
        expected = trained[name].decoder(z)
    found = images(lab(body, z.tolist()))
    assert expected.std() > 0.1  # images, not one colour
    assert (found - expected).abs().max() < LEVEL / 10


@pytest.mark.parametrize("name, count", [("diffusion", 10), ("denoiser", 4)])
def test_a_denoiser_agrees_with_pytorch_at_all_noise_levels(lab, trained, name, count):
    x, sigma, labels = noised(count)
    with torch.no_grad():
        expected = trained[name].denoise(x, sigma, labels)
    found = images(lab(DENOISE.format(name), inputs(x, sigma, labels)))
    assert (found - expected).abs().max() < 2 * LEVEL / 10


@pytest.mark.parametrize(
    "size, network",
    [
        (10, {"channels": (16, 32), "patch": 2}),  # padded to 12
        (9, {"channels": (8, 24, 16), "num_blocks": 2}),  # groups of all channels
        (8, {"channels": (16,), "objective": "v", "num_classes": 5}),
        (8, {"channels": (16,), "objective": "eps"}),
        (8, {"channels": (16,), "objective": "x0"}),
    ],
)
def test_other_networks_agree_with_pytorch(size, network):
    """Patches, padding, blocks, groups and objectives of untrained networks."""
    model = randomize_zeros(small(**network))
    classes = [f"species {i}" for i in range(network.get("num_classes", 3))]
    metadata = {"settings": {"image_size": size}, "data": {"classes": classes}}
    models = {"one": (model, metadata)}
    x, sigma, labels = noised(5, size)
    found = in_node(DENOISE.format("one"), inputs(x, sigma, labels), pack(models))
    with torch.no_grad():
        expected = references(models)["one"].denoise(x, sigma, labels)
    assert expected.std() > 0.1
    assert torch.allclose(torch.tensor(found).view_as(x), expected, 1e-4, 1e-4)


# Sampling ----------------------------------------------------------------------------


@pytest.mark.parametrize("steps, label", [(1, 0), (8, 2), (2, None)])
def test_samples_agree_with_pytorch_at_every_state(lab, trained, steps, label):
    noise = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    expected = expected_states(trained["diffusion"], noise, label, steps=steps)
    image, states, estimates = run_sampler(lab, noise=noise, steps=steps, label=label)
    assert len(states) == steps + 1 and len(estimates) == steps
    assert (states - expected).abs().max() < 2 * LEVEL
    assert torch.equal(image[0], states[-1]) and torch.equal(image[0], estimates[-1])


def test_guidance_acts_within_its_interval(lab, trained):
    noise = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    options = {"steps": 4, "label": 1, "guidance": 3.0}
    interval = {"guidance_interval": (0.3, 5.0)}
    expected = expected_states(trained["diffusion"], noise, **options, **interval)
    image, states, _ = run_sampler(lab, noise=noise, **options)
    assert (states - expected).abs().max() < 2 * LEVEL
    plain, *_ = run_sampler(lab, noise=noise, **options | {"guidance": 1})
    assert (image - plain).abs().max() > 20 * LEVEL
    # One step starts above the interval.
    once = options | {"steps": 1}
    guided, *_ = run_sampler(lab, noise=noise, **once)
    assert torch.equal(
        guided, run_sampler(lab, noise=noise, **once | {"guidance": 1})[0]
    )


@pytest.mark.parametrize("strength", [0.0, 0.4, 0.7, 1.0])
def test_a_drawing_is_edited_as_in_pytorch(lab, trained, strength):
    torch.manual_seed(3)
    noise, drawing = torch.randn(1, 3, SIZE, SIZE), torch.zeros(1, 3, SIZE, SIZE)
    drawing[:, 0, 8:16, 8:16] = 0.9
    config = SamplerConfig("flow", steps=4)
    label = torch.tensor([2])
    expected = sdedit(trained["diffusion"], drawing, strength, noise, config, label)
    options = {"start": 2 * drawing - 1, "strength": strength, "steps": 4, "label": 2}
    if strength:
        image, states, _ = run_sampler(lab, noise=noise, **options)
        sigmas = sigmas_for(trained["diffusion"], config)
        start = min(strength / (1 - strength), 80) if strength < 1 else 80
        assert len(states) == 1 + sum(sigma < start for sigma in sigmas)
    else:  # nothing to do
        flat = {"noise": noise.flatten().tolist()}
        flat["start"] = options["start"].flatten().tolist()
        image = images(lab(SAMPLE, options | flat)[0])
    assert (((image + 1) / 2).clamp(0, 1) - expected).abs().max() < LEVEL


def test_defaults_are_the_models_own(lab):
    found = lab(
        """
const own = models.diffusion.settings.steps;
const noise = Lab.normal(0, models.diffusion.length);
const label = models.diffusion.any;
return [Lab.sample(models.diffusion, {}),
  Lab.sample(models.diffusion, { noise, label, steps: own, guidance: 1 })];
"""
    )
    assert found[0] == found[1]


def test_noise_levels_are_those_of_the_sampler():
    found = in_node("return data.map((steps) => Lab.flowSigmas(steps, 80));", [1, 2, 8])
    for steps, sigmas in zip([1, 2, 8], found, strict=True):
        expected = sigmas_for(None, SamplerConfig("flow", steps))
        assert sigmas == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "call, words",
    [
        ("models.vae.decode(f32([1, 2]))", "length of z is wrong: 2"),
        ("models.diffusion.denoise(f32([1]), 1, 0)", "length of x is wrong: 1"),
        ("models.diffusion.denoise(new Float32Array(1728), 0, 0)", "sigma is wrong: 0"),
        ("models.diffusion.denoise(new Float32Array(1728), 1, 4)", "label is wrong: 4"),
        ("Lab.sample(models.diffusion, { steps: 0 })", "steps is wrong: 0"),
    ],
)
def test_a_wrong_argument_is_refused(lab, call, words):
    body = f"try {{ {call}; return 'accepted'; }} catch (e) {{ return e.message; }}"
    assert words in lab(body)


# Random numbers ----------------------------------------------------------------------


def python_normal(seed, count):
    """Return the numbers of Lab.normal, computed with Python's own logarithm."""

    def mix(bits):
        bits = (bits ^ bits >> 16) * 0x85EBCA6B % 2**32
        bits = (bits ^ bits >> 13) * 0xC2B2AE35 % 2**32
        return bits ^ bits >> 16

    state, numbers = mix((seed + 1) % 2**32), []
    while len(numbers) < count:
        pair = []
        for _ in range(2):
            state = (state + 0x9E3779B9) % 2**32
            bits = mix(state)
            pair.append((bits - 2**32 * (bits >= 2**31) + 0.5) / 2**31)
        square = pair[0] ** 2 + pair[1] ** 2
        if square < 1:
            scale = math.sqrt(-2 * math.log(square) / square)
            numbers += [scale * value for value in pair]
    return numbers[:count]


def test_numbers_are_standard_normal_and_independent(lab):
    x, y = torch.tensor(lab("return [7, 8].map((seed) => Lab.normal(seed, 5e4));"))
    error = len(x) ** -0.5
    for moment, expected, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        found = x.double().pow(moment).mean().item()
        assert abs(found - expected) < 4 * spread**0.5 * error, moment
    # The empirical distribution, by Kolmogorov's distance.
    ranks = torch.arange(1, len(x) + 1) / len(x)
    distance = (torch.special.ndtr(x.sort().values) - ranks).abs().max()
    assert distance < 1.95 * error  # exceeded once in a thousand
    # Neighbours in one sequence, and sequences of neighbouring seeds.
    for a, b in ((x[:-1], x[1:]), (x[:-2], x[2:]), (x, y)):
        assert abs((a * b).mean()) < 4 * error


def test_numbers_depend_on_the_seed_alone(lab):
    found = lab(
        "return [Lab.normal(5, 9), Lab.normal(5, 100), Lab.normal(5, 100), "
        "Lab.normal(4294967295, 9)];"
    )
    assert found[1] == found[2] and found[0] == found[1][:9] != found[3]
    assert found[1] == pytest.approx(python_normal(5, 100), abs=1e-6)
    assert found[3] == pytest.approx(python_normal(2**32 - 1, 9), abs=1e-6)
