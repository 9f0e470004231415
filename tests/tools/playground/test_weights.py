"""Weights of 8 bits: their error, their place in the bytes, and what is missing."""

import json
import logging
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.helpers.diffusion import SPECIES, small
from tests.helpers.project import PROJECT
from tools.playground.weights import (
    LARGEST,
    MODELS,
    as_convolution,
    dequantised,
    load_models,
    pack,
    quantise,
)
from utils.checkpoint import weights_name
from utils.cli import UserError

MAX_BYTES = 6.5e6  # of the weights in base64; the page has 8 MB in all


@pytest.mark.parametrize("axis", [0, 1])
def test_a_weight_is_off_by_half_a_step_of_its_channel_at_most(axis):
    torch.manual_seed(0)
    weight = torch.randn(6, 6, 3, 3)
    weight.select(axis, 2).mul_(1000)  # one large channel does not coarsen the others
    weight.select(axis, 4).zero_()
    found = quantise(weight, axis)
    error = (found.dequantised() - weight).abs().movedim(axis, 0).flatten(1).amax(1)
    largest = weight.abs().movedim(axis, 0).flatten(1).amax(1)
    assert (error <= 0.501 * largest / LARGEST).all()
    assert found.integers.dtype == torch.int8
    assert found.integers.abs().movedim(axis, 0).flatten(1).amax(1).tolist() == [
        *(127, 127, 127, 127, 0, 127)
    ]
    # Symmetric: the opposite weight has the opposite integers.
    assert torch.equal(quantise(-weight, axis).integers, -found.integers)


@pytest.mark.parametrize("size, stride, padding", [(3, 1, 1), (4, 2, 1), (2, 2, 0)])
def test_a_transposed_convolution_is_a_convolution_and_a_shuffle(size, stride, padding):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(5, 2, size, stride, padding)
    x = torch.randn(1, 5, 6, 7)
    weight = as_convolution(layer, layer.weight.detach())
    bias = layer.bias.repeat_interleave(stride**2)
    found = F.pixel_shuffle(F.conv2d(x, weight, bias, padding=1), stride)
    assert torch.allclose(found, layer(x), atol=1e-5)


def test_a_kernel_that_reaches_too_far_is_refused():
    layer = nn.ConvTranspose2d(5, 2, 5, 1, 2)
    with pytest.raises(ValueError, match="kernel 5 reaches too far"):
        as_convolution(layer, layer.weight.detach())


def test_the_bytes_hold_the_dequantised_weights():
    """Read from the manifest alone; places do not overlap, and leave no gap but 3."""
    torch.manual_seed(0)
    models = load_models(PROJECT)
    content, manifest = pack(models)
    assert json.loads(json.dumps(manifest)) == manifest
    assert 4 * len(content) / 3 < MAX_BYTES
    end = 0
    for name, (model, _) in models.items():
        part = model.decoder if hasattr(model, "decoder") else model.network
        weights = dequantised(part)
        for layer, entry in manifest[name]["layers"].items():
            floats = {}
            for key, (offset, count) in entry["floats"].items():
                assert offset % 4 == 0 and end <= offset < end + 4
                end = offset + 4 * count
                floats[key] = torch.frombuffer(
                    bytearray(content[offset:end]), dtype=torch.float32
                )
            if "integers" in entry:
                start, end = entry["integers"], entry["integers"]
                end += entry["rows"] * entry["columns"]
                integers = torch.frombuffer(
                    bytearray(content[start:end]), dtype=torch.int8
                ).view(entry["rows"], entry["columns"])
                matrix = integers.float() * floats.pop("scale")[:, None]
                weight = weights[f"{layer}.weight"]
                if "stride" in entry:
                    weight = as_convolution(part.get_submodule(layer), weight)
                    step = entry["stride"] ** 2
                    floats["bias"] = floats["bias"][::step]
                assert torch.equal(matrix, weight.flatten(1))
            for key, value in floats.items():
                assert torch.equal(value, weights[f"{layer}.{key}"].flatten())
    assert end == len(content)


@pytest.mark.parametrize("name", MODELS)
def test_eight_bits_change_images_by_few_levels(name):
    """Beside the model's own weights, at the noise levels of sampling and display."""
    torch.manual_seed(0)
    model, _ = load_models(PROJECT)[name]
    if hasattr(model, "decoder"):
        images, args, levels = model.decoder, [torch.randn(20, 64)], 255
    else:
        sigma = torch.logspace(-1.5, 1.9, 6)
        x = torch.rand(6, 3, 24, 24) * 2 - 1
        x = x + sigma.view(-1, 1, 1, 1) * torch.randn_like(x)
        images, args, levels = model.denoise, [x, sigma, torch.arange(6) % 4], 127.5
    with torch.no_grad():
        own = images(*args)
        model.load_state_dict(dequantised(model))
        error = levels * (images(*args) - own).abs()
    assert 0 < error.mean() < 0.5 and error.max() < 3


def test_settings_are_plain_json():
    """An interval of guidance without an end is one that ends at the first level."""
    model = small()
    data = {"classes": SPECIES}
    settings = {"guidance_interval": (0.2, math.inf), "sigma_max": 80.0}
    _, manifest = pack({"one": (model, {"settings": settings, "data": data})})
    json.dumps(manifest, allow_nan=False)
    assert manifest["one"]["settings"]["guidance_interval"] == [0.2, 80.0]


def test_the_same_files_make_the_same_bytes():
    first, second = (pack(load_models(PROJECT)) for _ in range(2))
    assert first == second
    assert json.dumps(first[1]) == json.dumps(second[1])


def test_a_missing_model_is_left_out_and_named(tmp_path, caplog):
    (tmp_path / "models").mkdir()
    kept = weights_name("AE")
    (tmp_path / "models" / kept).symlink_to(PROJECT / "models" / kept)
    with caplog.at_level(logging.WARNING):
        found = load_models(tmp_path)
    assert list(found) == ["ae"] and list(pack(found)[1]) == ["ae"]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(MODELS) - 1
    assert all("\n" not in line and "is not there" in line for line in lines)
    assert pack({}) == (b"", {})


def test_a_damaged_model_is_refused(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / weights_name("VAE")).write_bytes(b"no weights")
    with pytest.raises(UserError, match="Best_VAE"):
        load_models(tmp_path)
