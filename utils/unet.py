"""The denoiser: a small time-conditioned U-Net (Ronneberger et al. 2015).

image -> widths[0] at H x W -> widths[1] at H/2 x W/2 -> ... -> self-attention
      -> the same way up, each level joined with its twin's features -> image

Residual blocks, sinusoidal time and attention as in Ho et al. 2020, appendix B.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

GROUPS = 8  # of channels that share a mean and variance


def time_features(t, size, longest=10_000):
    """Step numbers (B,) -> sines and cosines of them (B, size).

    Vaswani et al. 2017, section 3.5: wavelengths from 2 pi to 2 pi * longest.
    """
    powers = torch.arange(size // 2, device=t.device) / (size // 2)  # (size / 2,)
    angles = t.float()[:, None] * longest**-powers  # (B, size / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)  # (B, size)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut; the time enters between them as a bias."""

    def __init__(self, channels_in, channels_out, time_size):
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(GROUPS, channels_in),
            nn.SiLU(),
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
        )
        self.time = nn.Linear(time_size, channels_out)
        self.second = nn.Sequential(
            nn.GroupNorm(GROUPS, channels_out),
            nn.SiLU(),
            zero(nn.Conv2d(channels_out, channels_out, 3, padding=1)),
        )
        same = channels_in == channels_out
        self.shortcut = (
            nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)
        )

    def forward(self, x, time):
        """(B, channels_in, H, W), (B, time_size) -> (B, channels_out, H, W)."""
        hidden = self.first(x) + self.time(time)[:, :, None, None]
        return self.shortcut(x) + self.second(hidden)


class SelfAttention(nn.Module):
    """Every place looks at every other, one head, beside a shortcut."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.query_key_value = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        """(B, C, H, W) -> (B, C, H, W)."""
        flat = self.query_key_value(self.norm(x)).flatten(2)  # (B, 3C, H * W)
        query, key, value = flat.chunk(3, dim=1)  # 3 x (B, C, H * W)
        match = query.transpose(1, 2) @ key / math.sqrt(x.shape[1])  # (B, H * W, H * W)
        seen = value @ match.softmax(dim=-1).transpose(1, 2)  # (B, C, H * W)
        return x + self.out(seen.view_as(x))


def zero(layer):
    """Start a residual branch at nothing, so that the block begins as its shortcut."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class UNet(nn.Module):
    """Image and step -> something of the image's shape.

    Any size: the image is padded to a multiple of the deepest level's pixel, and the
    answer cropped.
    """

    def __init__(self, img_channels=3, widths=(32, 64, 128), time_size=128):
        super().__init__()
        self.deepest = 2 ** (len(widths) - 1)  # pixels of the image per bottom pixel
        self.time_size = time_size
        self.time = nn.Sequential(
            nn.Linear(time_size, time_size), nn.SiLU(), nn.Linear(time_size, time_size)
        )
        self.enter = nn.Conv2d(img_channels, widths[0], 3, padding=1)
        befores = (widths[0], *widths[:-1])
        self.down = nn.ModuleList(
            ResidualBlock(before, width, time_size)
            for before, width in zip(befores, widths, strict=True)
        )
        self.middle = nn.ModuleList(
            [
                ResidualBlock(widths[-1], widths[-1], time_size),
                SelfAttention(widths[-1]),
                ResidualBlock(widths[-1], widths[-1], time_size),
            ]
        )
        self.up = nn.ModuleList(
            ResidualBlock(2 * width, before, time_size)
            for before, width in reversed(list(zip(befores, widths, strict=True)))
        )
        self.leave = nn.Sequential(
            nn.GroupNorm(GROUPS, widths[0]),
            nn.SiLU(),
            zero(nn.Conv2d(widths[0], img_channels, 3, padding=1)),
        )

    def forward(self, x, t):
        """Images (B, C, H, W) and steps (B,) -> (B, C, H, W)."""
        height, width = x.shape[-2:]
        missing = (-width % self.deepest, -height % self.deepest)
        x = F.pad(x, (0, missing[0], 0, missing[1]), mode="replicate")
        time = F.silu(self.time(time_features(t, self.time_size)))  # (B, time_size)
        x, twins = self.enter(x), []
        for level, block in enumerate(self.down):
            x = F.avg_pool2d(x, 2) if level else x
            x = block(x, time)  # (B, width, H / 2^level, W / 2^level)
            twins.append(x)
        before, attention, after = self.middle
        x = after(attention(before(x, time)), time)
        for level, block in enumerate(self.up):
            x = F.interpolate(x, scale_factor=2.0) if level else x  # nearest
            x = block(torch.cat([x, twins.pop()], dim=1), time)
        return self.leave(x)[..., :height, :width]
