"""Trained models -> the bytes and the manifest from which kernel.js makes them again.

Matrices have 8 bits per weight, symmetric about 0, and a float32 scale per output
channel; biases, norms and the embedding of labels stay float32.
"""

import logging
from typing import NamedTuple

import torch
from torch import nn

from utils.checkpoint import find_weights
from utils.cli import UserError
from utils.config import FAST
from utils.diffusion.denoiser import SIGMA_DATA
from utils.diffusion.sampling import default_sampler_config
from utils.diffusion.unet import FREQUENCIES, GROUP
from utils.experiment import image_size
from utils.registry import load_model

MODELS = {  # name in the page -> model
    "vae": "VAE",
    "ae": "AE",
    "diffusion": FAST,
    "denoiser": "diffusion",
}
LARGEST = 127  # of the 8-bit integers; -128 is not used
ALIGNMENT = 4  # bytes; a float32 array starts at a multiple
MATRICES = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

log = logging.getLogger(__name__)

# Quantisation ------------------------------------------------------------------------


def output_axis(module):
    """Return the axis of a layer's weight that counts its output channels."""
    return 1 if isinstance(module, nn.ConvTranspose2d) else 0


class Quantised(NamedTuple):
    """A matrix in 8 bits."""

    integers: torch.Tensor  # int8, the shape of the weight
    scale: torch.Tensor  # float32 (out,), of an output channel
    axis: int  # of the output channels

    def dequantised(self):
        """Return the weight that the integers stand for, in float32."""
        shape = [1] * self.integers.ndim
        shape[self.axis] = -1
        return self.integers.float() * self.scale.view(shape)


def quantise(weight, axis):
    """Return the Quantised of a weight; `axis` counts its output channels."""
    others = [i for i in range(weight.ndim) if i != axis]
    scale = weight.abs().amax(dim=others, keepdim=True) / LARGEST
    # A channel of zeros has scale 0.
    integers = (weight / scale.clamp(min=1e-30)).round().to(torch.int8)
    return Quantised(integers, scale.flatten(), axis)


def dequantised(module):
    """Return the state_dict of a module with the weights that the page has."""
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    for name, layer in module.named_modules():
        if isinstance(layer, MATRICES):
            quantised = quantise(layer.weight.detach(), output_axis(layer))
            weights[f"{name}.weight"] = quantised.dequantised()
    return weights


# Packing -----------------------------------------------------------------------------


def as_convolution(layer, weight):
    """Return the weight (out * stride^2, in, 3, 3) of a convolution and pixel shuffle.

    They equal the transposed convolution of `layer` with a weight (in, out, k, k), if
    no pixel of its input reaches farther than the neighbours' (Shi et al. 2016,
    arXiv:1609.07009).

    Raises:
        ValueError: if one does.
    """
    size, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    # Pixel stride * i + a of the output takes entry k of pixel i + d of the input.
    a, d, k = torch.meshgrid(
        torch.arange(stride), torch.arange(-1, 2), torch.arange(size), indexing="ij"
    )
    taken = (k == a + padding - stride * d).to(weight.dtype)
    if taken.sum() != size:
        raise ValueError(f"kernel {size} reaches too far at stride {stride}")
    return torch.einsum("ioyx,ady,bex->oabide", weight, taken, taken).flatten(0, 2)


class Packer:
    """Collects arrays as bytes, each aligned, and tells where they are."""

    def __init__(self):
        self.content = bytearray()

    def add(self, values):
        """Append a tensor; return the offset of its first byte."""
        self.content += bytes(-len(self.content) % ALIGNMENT)
        offset = len(self.content)
        array = values.detach().contiguous().numpy()
        self.content += array.astype(array.dtype.newbyteorder("<")).tobytes()
        return offset

    def floats(self, values):
        """Append numbers as float32; return [offset, count]."""
        return [self.add(values.float()), values.numel()]

    def matrix(self, layer):
        """Append a layer's matrix; return its entry in the manifest."""
        quantised, entry = quantise(layer.weight, output_axis(layer)), {}
        integers, per_channel = quantised.integers, 1
        if isinstance(layer, nn.ConvTranspose2d):
            entry["stride"], per_channel = layer.stride[0], layer.stride[0] ** 2
            integers = as_convolution(layer, integers)
        entry["size"] = integers.shape[-1] if integers.ndim == 4 else 1
        entry["rows"], entry["columns"] = integers.flatten(1).shape
        floats = {"scale": quantised.scale, "bias": layer.bias}
        entry["floats"] = {
            key: self.floats(value.repeat_interleave(per_channel))
            for key, value in floats.items()
        }
        return entry | {"integers": self.add(integers)}

    def layers(self, module):
        """Append a module's parameters; return {name of a layer: entry}."""
        entries = {}
        for name, layer in module.named_modules():
            if isinstance(layer, MATRICES):
                entries[name] = self.matrix(layer)
            elif parameters := dict(layer.named_parameters(recurse=False)):
                floats = {key: self.floats(p) for key, p in parameters.items()}
                entries[name] = {"floats": floats}
        return entries


def decoder_settings(model, metadata):
    """Return what kernel.js must know of an autoencoder's decoder."""
    return {
        "encoding_dim": model.args["encoding_dim"],
        "image_size": image_size(metadata),
        "activation": type(model.decoder.features[1]).__name__,
    }


def denoiser_settings(model, metadata):
    """Return what kernel.js must know of a diffusion model."""
    config, network = default_sampler_config(metadata), model.network
    low, high = config.guidance_interval
    return {
        "image_size": image_size(metadata),
        "img_channels": model.args["img_channels"],
        "channels": list(model.args["channels"]),
        "num_blocks": len(network.down[0]),
        "patch": network.patch,
        "group": GROUP,
        "frequencies": FREQUENCIES,
        "objective": model.objective,
        "sigma_data": SIGMA_DATA,
        "classes": list(metadata["data"]["classes"]),
        "steps": config.steps,
        "sigma_max": config.sigma_max,
        # JSON has no infinity, and no noise level is above the first.
        "guidance_interval": [low, min(high, config.sigma_max)],
    }


def pack(models):
    """Return (bytes, manifest of plain types) of models.

    models: name in the page -> (model, metadata). The manifest has for each name its
    kind, "decoder" or "denoiser", its settings, and where its layers are in the bytes.
    """
    packer, manifest = Packer(), {}
    for name, (model, metadata) in models.items():
        if hasattr(model, "decoder"):
            part, kind, settings = model.decoder, "decoder", decoder_settings
        else:
            part, kind, settings = model.network, "denoiser", denoiser_settings
        manifest[name] = {
            "kind": kind,
            "settings": settings(model, metadata),
            "layers": packer.layers(part),
        }
    return bytes(packer.content), manifest


def load_models(root):
    """Return {name in the page: (model, metadata)} of the weights below a folder.

    A model without a file of weights is left out, with a warning.

    Raises:
        UserError: if a file is damaged.
    """
    models = {}
    for name, model in MODELS.items():
        try:
            path = find_weights(model, root)
        except UserError as missing:
            log.warning("the page goes without %s: %s", model, missing)
        else:
            models[name] = load_model(model, path)
    return models
