"""The denoiser: a small U-Net that knows noise level and species.

image -> widths[0] at H x W -> widths[1] at H/2 x W/2 -> ... -> self-attention
      -> the same way up, each level's features added to its twin's -> image

The U of Ronneberger et al. 2015, with the residual blocks and the attention of Ho et
al. 2020, appendix B. On a CPU a step is memory traffic as much as arithmetic: twins are
added, not joined, and group norms take GROUP channels, which have fast kernels.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from utils.device import has_bfloat16_units

GROUP = 16  # channels that share a mean and variance, a whole number of vectors
FREQUENCIES = 32  # of the noise level's features


def level_features(level):
    """Noise levels (B,), above 0 -> cosines and sines of their logarithm (B, F).

    Frequencies rise evenly in the logarithm, from a wave longer than all levels to one
    that tells levels apart by a few percent (Vaswani et al. 2017, section 3.5).
    """
    powers = torch.linspace(-1, 4, FREQUENCIES, device=level.device)
    angles = level.log()[:, None] * 2**powers  # (B, FREQUENCIES)
    return torch.cat([angles.cos(), angles.sin()], dim=1)  # (B, 2 * FREQUENCIES)


def norm(channels):
    """Group normalisation (Wu & He 2018); an odd number of channels is one group."""
    return nn.GroupNorm(channels // GROUP if channels % GROUP == 0 else 1, channels)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; the condition enters between, as a bias."""

    def __init__(self, channels_in, channels_out, condition, dropout=0.0):
        super().__init__()
        self.first = nn.Sequential(
            norm(channels_in),
            nn.SiLU(),
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
        )
        self.condition = nn.Linear(condition, channels_out)
        self.second = nn.Sequential(
            norm(channels_out),
            nn.SiLU(),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            zero(nn.Conv2d(channels_out, channels_out, 3, padding=1)),
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
    """Every place looks at every other, one head, beside a shortcut.

    Plain matrix products: at 36 places the fused kernel's backward pass is slower.
    """

    def __init__(self, channels):
        super().__init__()
        self.norm = norm(channels)
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x):
        """(B, C, H, W) -> (B, C, H, W)."""
        places = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, C)
        query, key, value = self.query_key_value(places).chunk(3, dim=2)
        match = query @ key.transpose(1, 2) / math.sqrt(x.shape[1])  # (B, H * W, H * W)
        seen = self.out(match.softmax(dim=2) @ value)  # (B, H * W, C)
        return x + seen.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def zero(layer):
    """Start a residual branch at nothing, so that the block begins as its shortcut."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class UNet(nn.Module):
    """Image, noise level and species -> something of the image's shape, in float32.

    Any size: the image is padded to a multiple of the deepest level's pixel, and the
    answer cropped. Species are 0 to `species` - 1; `species` itself is none named.

    Products are in bfloat16 with float32 sums where `bfloat16` says so; by default
    (None) where the processor has units for it.
    """

    def __init__(
        self,
        img_channels=3,
        widths=(96, 160, 160),
        blocks=1,
        species=3,
        condition=128,
        dropout=0.0,
    ):
        super().__init__()
        self.deepest = 2 ** (len(widths) - 1)  # pixels of the image per bottom pixel
        self.unnamed = species
        self.bfloat16 = None
        self.level = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, condition),
            nn.SiLU(),
            nn.Linear(condition, condition),
        )
        self.species = nn.Embedding(species + 1, condition)
        self.enter = nn.Conv2d(img_channels, widths[0], 3, padding=1)
        befores = (widths[0], *widths[:-1])

        def block(channels_in, channels_out):
            return ResidualBlock(channels_in, channels_out, condition, dropout)

        self.down = nn.ModuleList(
            nn.ModuleList(block(w if i else before, w) for i in range(blocks))
            for before, w in zip(befores, widths, strict=True)
        )
        self.middle = nn.ModuleList(
            [block(widths[-1], widths[-1]), SelfAttention(widths[-1])]
        )
        self.up = nn.ModuleList(
            nn.ModuleList(
                block(w, w if i < blocks - 1 else before) for i in range(blocks)
            )
            for before, w in reversed(list(zip(befores, widths, strict=True)))
        )
        self.leave = nn.Sequential(
            norm(widths[0]),
            nn.SiLU(),
            zero(nn.Conv2d(widths[0], img_channels, 3, padding=1)),
        )

    def inner_weights(self):
        """Yield the weights from features to features."""
        for part in (self.down, self.middle, self.up):
            yield from (p for p in part.parameters() if p.ndim >= 2)

    def forward(self, x, level, species):
        """Images (B, C, H, W), levels (B,) and species (B,) -> (B, C, H, W)."""
        fast = self.bfloat16
        if fast is None:
            fast = has_bfloat16_units(x.device)
        height, width = x.shape[-2:]
        missing = (-width % self.deepest, -height % self.deepest)
        x = F.pad(x, (0, missing[0], 0, missing[1]), mode="replicate")
        x = x.to(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=fast):
            answer = self.through_the_u(x, level, species)
        return answer[..., :height, :width].float()

    def through_the_u(self, x, level, species):
        """The network itself, for images whose sides are multiples of `deepest`."""
        condition = self.level(level_features(level)) + self.species(species)
        condition = F.silu(condition)  # (B, condition)
        x, twins = self.enter(x), []
        for depth, blocks in enumerate(self.down):
            x = F.avg_pool2d(x, 2) if depth else x
            for block in blocks:
                x = block(x, condition)  # (B, width, H / 2^depth, W / 2^depth)
            twins.append(x)
        block, attention = self.middle
        x = attention(block(x, condition))
        for depth, blocks in enumerate(self.up):
            x = F.interpolate(x, scale_factor=2.0) if depth else x  # nearest
            x = x + twins.pop()
            for block in blocks:
                x = block(x, condition)
        return self.leave(x)
