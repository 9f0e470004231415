"""Draw images of three flower species, which are used where there are no photos."""

# Lengths are in units of half the shorter side. A part of a plant is a function of its
# coordinates, u across and v along the stem, to (edge, positive inside; colour).
# `number(low, high)` draws a uniform random number for each image.

import torch

PIXELS = 2**18  # drawn at once, 3 MB per colour map, which bounds the memory
GROUNDS = torch.tensor(  # dark, pale: leaves in the sun, in the shade, soil, sky
    [
        [[20, 41, 15], [13, 26, 18], [41, 31, 23], [102, 133, 184]],
        [[133, 173, 82], [87, 128, 82], [153, 128, 102], [204, 212, 222]],
    ]
).div(255)[..., None, None]
PINK = torch.tensor([[189, 20, 102], [235, 189, 209]]).div(255)[..., None, None]
VIOLET = torch.tensor([[92, 56, 189], [199, 184, 240]]).div(255)[..., None, None]
ORANGE = torch.tensor([[238, 88, 14], [244, 198, 50]]).div(255)[..., None, None]


def tint(tones, proportion):
    """Interpolate a dark and a pale colour by a map, (B, H, W) or (B, 1, 1)."""
    return torch.lerp(*tones, proportion.clamp(0, 1)[:, None])


def stem(u, v, number, tone):
    """Return a bent stem below the bloom, with two leaves."""
    bent = (u - number(-0.15, 0.15) * v**2).abs()
    rib = v + number(0.9, 1.9) - number(0.2, 1) * bent
    blade = number(0.3, 0.7) * bent * (number(1, 1.7) - bent) - rib.abs()
    edge = torch.minimum(torch.maximum(number(0.03, 0.06) - bent, blade), -v)
    shade = 0.9 + 0.2 * torch.tanh(20 * rib) + 0.1 * torch.cos(16 * (bent - rib))
    return edge, tint(GROUNDS[:, 0], number(0.3, 1)) * shade[:, None]


def calendula(u, v, number, tone):
    """Return a bloom of two rings of petals around a disc, seen at any angle."""
    r, turn = torch.hypot(u, v / number(0.55, 1)), torch.atan2(v, u) + number(0, 6.3)
    rays = number(6, 13).floor()  # half of those in a ring
    outer, inner = torch.cos(rays * turn).abs(), torch.sin(rays * turn).abs()
    edge = 0.72 + 0.28 * outer**0.6 + 0.05 * torch.cos(3 * turn) - r
    top = (0.5 + 12 * (number(0.3, 0.65) + 0.18 * inner**0.6 - r)).clamp(0, 1)
    seam = torch.lerp(outer, inner, top).sqrt()  # 0 between two rays
    shade = 0.7 + 0.3 * seam - 0.8 * top * (1 - top) + 0.15 * (number(-1, 1) * u + v)
    eye = (0.5 + 8 * (number(0.1, 0.34) - r)).clamp(0, 1) * number(0.1, 0.8)
    colour = tint(ORANGE, tone + 0.4 * r - 0.3 - eye)
    return edge, colour * (shade * (1 - eye))[:, None]


def bellflower(u, v, number, tone):
    """Return a bloom of five lobes from the front, or a bell from the side."""
    r, turn = torch.hypot(u, v / number(0.65, 1)), torch.atan2(v, u) + number(0, 6.3)
    lobe = torch.acos(torch.cos(5 * turn)) / torch.pi  # 0 on a rib, 1 in a notch
    star = 1 - number(0.35, 0.65) * lobe ** number(0.9, 1.5) - r
    up = ((v + 0.8) / 1.6).clamp(0, 1)  # 0 at the stalk, 1 at the rim
    width = number(0.5, 0.7) * up**0.35 * (0.8 + 0.5 * up**4)
    across = (u / (width + 0.01)).clamp(-1, 1)
    rim = 1 - 0.25 * torch.cos(1.5 * torch.pi * across).abs()
    bell = torch.minimum(width - u.abs(), torch.minimum(rim - v, v + 0.8))
    folds = 0.7 + 0.3 * torch.cos(1.5 * across - 0.6) + 0.08 * torch.cos(9 * across)
    front = number(0, 1) < 0.6
    shade = torch.where(front, 0.75 + 0.3 * r - 0.25 * (1 - lobe) ** 4 * r, folds)
    pale = torch.where(front, 1.1 - number(3, 6) * r, number(0, 0.6) * up - 0.1)
    colour = tint(VIOLET, tone) * shade[:, None] + 0.4 * pale.clamp(0, 1)[:, None]
    return torch.where(front, star, bell), colour


def astilbe(u, v, number, tone):
    """Return a tapering panicle with side branches."""
    swirl = torch.cos(13 * u + number(0, 6.3)) + torch.cos(15 * v + number(0, 6.3))
    florets = torch.cos(27 * u + 1.5 * swirl) * torch.cos(24 * v - 1.5 * swirl)
    origin = (v + 0.9) / 2 - number(0.2, 0.6) * u.abs()  # on the stalk, 0 to 1
    branch = torch.cos(number(12, 25) * origin + 0.8 * torch.tanh(9 * u)).abs()
    taper = number(0.6, 0.9) * (1 - origin) * (5 * origin + 0.4).clamp(max=1)
    edge = taper * (0.35 + 0.65 * branch) * (1 + 0.3 * florets) - u.abs()
    shade = 0.72 + 0.2 * branch + 0.22 * florets + 0.2 * u
    return edge, tint(PINK, tone) * shade[:, None]


def cover(canvas, edge, colour):
    """Draw a part and its shadow over the canvas, with an antialiased outline."""
    slope = torch.hypot(*torch.gradient(edge, dim=(1, 2)))  # per pixel
    alpha = (0.5 + edge / (slope + 1e-6)).clamp(0, 1)[:, None]  # (B, 1, H, W)
    shadow = 0.3 * (1 + 6 * edge).clamp(0, 1)[:, None]
    return torch.lerp(canvas * (1 - shadow), colour, alpha)


def plants(canvas, x, y, number, bloom, lean):
    """Draw one to four blooms on their stems, the last one in front."""
    mood, count = number(-0.1, 1.1), number(1, 5).floor()
    spread = 0.1 + 0.14 * count  # proportion of the distance to the border
    for place in range(4):
        size, turn = number(0.65, 1.05) / count**0.35, number(-lean, lean)
        right, down = (axis - axis.max() * spread * number(-1, 1) for axis in (x, y))
        u = (turn.cos() * right + turn.sin() * down) / size
        v = (turn.sin() * right - turn.cos() * down) / size
        for part in (stem, bloom):
            edge, colour = part(u, v, number, mood + number(-0.2, 0.2))
            canvas = cover(canvas, torch.where(place < count, edge, -1), colour)
    return canvas


def paint(bloom, lean, generator, shape):
    """Return images (B, 3, H, W) of one species: ground, plants, light, noise."""

    def number(low, high):
        return low + (high - low) * torch.rand(shape[0], 1, 1, generator=generator)

    x, y = (2 * torch.arange(n) - n + 1 for n in shape[:1:-1])
    x, y = x / min(shape[2:]), y[:, None] / min(shape[2:])  # (W,), (H, 1)
    waves = (number(-7, 7) * x + number(-7, 7) * y + number(0, 7) for _ in range(5))
    tones = GROUNDS[:, number(0, 4).long().flatten()]  # (2, B, 3, 1, 1)
    ground = tint(tones, 0.45 + 0.2 * sum(map(torch.cos, waves)))  # (B, 3, H, W)
    light = number(0.75, 1.15) + number(-0.3, 0.3) * x.sin() + number(-0.3, 0) * y.sin()
    cast = torch.stack([number(0.93, 1.07) for _ in range(3)], 1)  # (B, 3, 1, 1)
    photo = plants(ground, x, y, number, bloom, lean) * light[:, None] * cast
    noise = torch.randn(shape, generator=generator) * number(0.005, 0.03)[:, None]
    return (255 * (photo + noise).clamp(0, 1)).round().to(torch.uint8)


def draw_flowers(per_species, width, height, seed=0):
    """Draw -> (images uint8 (3 * per_species, 3, height, width), labels int64)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(3, per_species, 3, height, width, dtype=torch.uint8)
    habits = (astilbe, 0.4), (bellflower, 3.1), (calendula, 0.6)  # lean: radians
    for habit, group in zip(habits, images, strict=True):
        for batch in group.split(max(1, PIXELS // (width * height))):
            batch.copy_(paint(*habit, generator, batch.shape))
    return images.flatten(0, 1), torch.arange(3).repeat_interleave(per_species)
