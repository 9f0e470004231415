"""A small U-Net, conditioned on a noise level and a class label.

image -> channels[0] at H x W -> channels[1] at H/2 x W/2 -> ... -> self-attention
      -> ... -> channels[0] at H x W -> image; skip connections are added

The U-Net of Ronneberger et al. 2015 (arXiv:1505.04597), with the residual blocks and
the attention of Ho et al. 2020 (arXiv:2006.11239), appendix B. A training step on a CPU
is limited by memory traffic as much as by arithmetic. So skip connections are added,
not concatenated, and a group of a group norm has GROUP channels, for which PyTorch has
fast kernels.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from utils.device import bfloat16_products_are_right, has_bfloat16_units

GROUP = 16  # channels per group, a whole number of vector registers
FREQUENCIES = 32  # of the noise level's embedding


def sigma_embedding(sigma):
    """Return cosines and sines of ln(sigma): (B,), above 0 -> (B, 2 * FREQUENCIES)."""
    # Frequencies rise geometrically, from a wave longer than the range of levels to one
    # that distinguishes levels by a few percent (Vaswani et al. 2017, section 3.5).
    powers = torch.linspace(-1, 4, FREQUENCIES, device=sigma.device)
    angles = sigma.log()[:, None] * 2**powers  # (B, FREQUENCIES)
    return torch.cat([angles.cos(), angles.sin()], dim=1)  # (B, 2 * FREQUENCIES)


def group_norm(channels):
    """Return the group norm (Wu & He 2018); one group if GROUP does not divide."""
    return nn.GroupNorm(channels // GROUP if channels % GROUP == 0 else 1, channels)


def zero_init(layer):
    """Zero a residual branch's last layer, so that the block starts as its shortcut."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut; the condition is a bias between them."""

    def __init__(self, channels_in, channels_out, condition, dropout=0.0):
        super().__init__()
        self.first = nn.Sequential(
            group_norm(channels_in),
            nn.SiLU(),
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
        )
        self.condition = nn.Linear(condition, channels_out)
        self.second = nn.Sequential(
            group_norm(channels_out),
            nn.SiLU(),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            zero_init(nn.Conv2d(channels_out, channels_out, 3, padding=1)),
        )
        same = channels_in == channels_out
        self.shortcut = (
            nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)
        )

    def forward(self, x, condition):
        """(B, channels_in, H, W), (B, condition) -> (B, channels_out, H, W)."""
        hidden = self.first(x) + self.condition(condition)[:, :, None, None]
        return self.shortcut(x) + self.second(hidden)


class SelfAttention(nn.Module):
    """Self-attention between the positions of an image, one head, with a shortcut."""

    # Plain matrix products: at 36 tokens the backward pass of the fused kernel is
    # slower.

    def __init__(self, channels):
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero_init(nn.Linear(channels, channels))

    def forward(self, x):
        """(B, C, H, W) -> (B, C, H, W)."""
        tokens = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, C)
        query, key, value = self.qkv(tokens).chunk(3, dim=2)
        scores = query @ key.transpose(1, 2) / math.sqrt(x.shape[1])  # (B, HW, HW)
        attended = self.out(scores.softmax(dim=2) @ value)  # (B, H * W, C)
        return x + attended.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """Image, noise level and label -> an output of the image's shape, in float32.

    Any image size: the input is padded to a multiple of the coarsest resolution's
    pixel, and the output cropped. Labels are 0 to num_classes - 1, and `null_label`,
    which is num_classes, for any class.

    patch: the network sees squares of patch x patch pixels as one, whose values are its
    channels; channels: at each resolution, the finest first; num_blocks: residual
    blocks per resolution, in the encoder and in the decoder; condition: dimension of
    the embedding of noise level and label; bfloat16: compute products in bfloat16 with
    float32 sums, by default (None) on a device with units for it.
    """

    def __init__(
        self,
        img_channels=3,
        channels=(96, 160, 160),
        num_blocks=1,
        num_classes=3,
        condition=128,
        dropout=0.0,
        patch=1,
        bfloat16=None,
    ):
        super().__init__()
        self.patch = patch
        # Pixels per side that are one position of the bottleneck.
        self.coarsest = patch * 2 ** (len(channels) - 1)
        values = img_channels * patch**2  # per position of the input
        self.null_label = num_classes
        self.bfloat16 = bfloat16

        # The condition: embeddings of noise level and label, added.
        self.sigma_mlp = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, condition),
            nn.SiLU(),
            nn.Linear(condition, condition),
        )
        self.label_embedding = nn.Embedding(num_classes + 1, condition)

        def block(channels_in, channels_out):
            return ResidualBlock(channels_in, channels_out, condition, dropout)

        # The encoder, from the finest resolution to the coarsest.
        self.conv_in = nn.Conv2d(values, channels[0], 3, padding=1)
        finer = (channels[0], *channels[:-1])  # channels one resolution up
        self.down = nn.ModuleList(
            nn.ModuleList(block(c if i else before, c) for i in range(num_blocks))
            for before, c in zip(finer, channels, strict=True)
        )
        self.middle = nn.ModuleList(
            [block(channels[-1], channels[-1]), SelfAttention(channels[-1])]
        )

        # The decoder, in the opposite order.
        self.up = nn.ModuleList(
            nn.ModuleList(
                block(c, c if i < num_blocks - 1 else before) for i in range(num_blocks)
            )
            for before, c in reversed(list(zip(finer, channels, strict=True)))
        )
        self.conv_out = nn.Sequential(
            group_norm(channels[0]),
            nn.SiLU(),
            zero_init(nn.Conv2d(channels[0], values, 3, padding=1)),
        )

    def inner_weights(self):
        """Yield the weights between features: all but embeddings, input and output."""
        for part in (self.down, self.middle, self.up):
            yield from (p for p in part.parameters() if p.ndim >= 2)

    def forward(self, x, sigma, labels):
        """Images (B, C, H, W), sigma (B,) and labels (B,) -> (B, C, H, W)."""
        bfloat16 = self.bfloat16
        if bfloat16 is None:
            units = has_bfloat16_units(x.device)
            bfloat16 = units and bfloat16_products_are_right(x.device)
        # Pad so that every resolution is a whole number of pixels.
        height, width = x.shape[-2:]
        padding = (0, -width % self.coarsest, 0, -height % self.coarsest)
        x = F.pixel_unshuffle(F.pad(x, padding, mode="replicate"), self.patch)
        x = x.to(memory_format=torch.channels_last)
        # Products in bfloat16, sums and parameters in float32.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            output = self.forward_padded(x, sigma, labels)
        output = F.pixel_shuffle(output, self.patch)
        return output[..., :height, :width].float()

    def forward_padded(self, x, sigma, labels):
        """`forward` for sides that are multiples of `coarsest`, and for patches."""
        condition = self.sigma_mlp(sigma_embedding(sigma))
        condition = F.silu(condition + self.label_embedding(labels))  # (B, condition)

        # Encoder: remember the features of each resolution.
        x, skips = self.conv_in(x), []
        for depth, blocks in enumerate(self.down):
            x = F.avg_pool2d(x, 2) if depth else x
            for block in blocks:
                x = block(x, condition)  # (B, channels, H / 2^depth, W / 2^depth)
            skips.append(x)

        block, attention = self.middle
        x = attention(block(x, condition))

        # Decoder: add the features of the same resolution.
        for depth, blocks in enumerate(self.up):
            x = F.interpolate(x, scale_factor=2.0) if depth else x  # nearest
            x = x + skips.pop()
            for block in blocks:
                x = block(x, condition)
        return self.conv_out(x)
