"""Tensors and records -> PNG files, without a display."""

# Pixels are enlarged by whole numbers and never smoothed, stretched or rescaled: value
# 0 is black and 1 is white in every picture.

import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    LogFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)

from utils.checkpoint import result_words
from utils.files import read_csv, write_file

DPI = 100
STRIP_FRAMES = 10  # of a denoising strip, noise and finished image included
GAP = 1  # pixels between images, before enlargement
TITLE = 30  # pixels of height for a line of text
MARGIN = 12  # pixels around everything
TILE = 96  # pixels that an image is enlarged to, about
LETTER = 8  # pixels of width of a letter, about
SMALL = 8  # points of a letter's height where there is little space
LOG_TICKS = (1, 1.5, 2, 3, 4, 5, 6, 8)  # in each decade of a loss
BOUND_COLOURS = [(), ("black",), ("C0", "C1")]  # by the number of bounds


def enlarge(picture, factor):
    """(H, W, 3) -> (factor * H, factor * W, 3), each pixel a square."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def grid(images, columns, factor=1):
    """Images (B, 3, H, W), clipped to [0, 1] -> one enlarged picture (H', W', 3)."""
    tiles = images.detach().cpu().float().clamp(0, 1).permute(0, 2, 3, 1).numpy()
    count, height, width, channels = tiles.shape
    columns = min(columns, count)
    # White between the images and around them.
    rows, tall, wide = -(-count // columns), height + GAP, width + GAP
    shape = rows * tall + GAP, columns * wide + GAP, channels
    picture = np.ones(shape, np.float32)
    for i, tile in enumerate(tiles):
        top, left = i // columns * tall + GAP, i % columns * wide + GAP
        picture[top : top + height, left : left + width] = tile
    return enlarge(picture, factor)


def labelled(images, columns, words):
    """Images (B, 3, H, W), enlarged -> picture (H', W', 3), a word left of each row."""
    # The words are as wide as an image, so that headings align with the columns.
    factor = scale_for(images)
    picture = grid(images, columns, factor)
    size = factor * (images.shape[-1] + GAP), len(picture)
    inches = [(pixels + 0.5) / DPI for pixels in size]  # which are cut to whole pixels
    figure = Figure(figsize=inches, dpi=DPI)
    for row, word in enumerate(words):
        middle = 1 - (row + 0.5) / len(words)
        figure.text(0, middle, word, va="center", fontsize=SMALL)
    return np.concatenate([render(figure), picture], axis=1)


def text_line(text, width):
    """Return a line of black text on white, (TITLE, width, 3), without shades of grey.

    Shades would take colours from the palette of a GIF.
    """
    inches = [(pixels + 0.5) / DPI for pixels in (width, TITLE)]
    figure = Figure(figsize=inches, dpi=DPI)
    figure.text(LETTER / width, 0.5, text, va="center")
    return (render(figure) > 0.5).astype(float)


def scale_for(images):
    """Return the whole number by which these images become about TILE pixels wide."""
    return max(1, round(TILE / images.shape[-1]))


def save_stack(parts, path):
    """Save titles, rows of headings and pictures, one under the other, as one PNG."""
    # A title is a str, a row of headings a list of str, a picture an array (H, W, 3).
    heights = [len(p) if isinstance(p, np.ndarray) else TITLE for p in parts]
    inner = max(p.shape[1] for p in parts if isinstance(p, np.ndarray))
    width, height = inner + 2 * MARGIN, sum(heights) + 2 * MARGIN
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    top = height - MARGIN  # pixels above the lower edge, where the next part starts
    for part, tall in zip(parts, heights, strict=True):
        if isinstance(part, np.ndarray):
            figure.figimage(part, MARGIN, top - tall, origin="upper")
        else:
            words = [part] if isinstance(part, str) else part
            narrow = len(words) * LETTER * max(map(len, words)) > inner
            style = {"va": "center", "fontsize": SMALL if narrow else None}
            for i, word in enumerate(words):
                left = MARGIN + i * inner / len(words)
                figure.text(left / width, (top - tall / 2) / height, word, **style)
        top -= tall
    save(figure, path)


def save(figure, path):
    """Write the figure; a name without an extension gets `.png`."""
    path = Path(path)
    path = path if path.suffix == ".png" else path.with_name(path.name + ".png")
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI, format="png", metadata={"Software": None})
    write_file(path, content.getbuffer())


def render(figure):
    """Return the rendered figure, (H, W, 3) in [0, 1]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3] / 255


def caption(name, what, metadata):
    """Return a title: model, what is shown, and what the weights were trained on."""
    words = [f"{name}: {what}"]
    if "data" in metadata:
        data = metadata["data"]
        words.append(f"data: {data['count']} {data['source']}")
    return ", ".join(words + result_words(metadata))


def save_grid(images, path, columns, title=""):
    """Save all images (B, 3, H, W) in [0, 1], `columns` a row."""
    picture = grid(images, columns, scale_for(images))
    save_stack([title, picture] if title else [picture], path)


def spaced_sigmas(sigmas, count=STRIP_FRAMES):
    """Return at most `count` rising indices of falling sigmas, the last of which is 0.

    The first and the last are among them; the others are about evenly spaced in the
    logarithm of sigma.
    """
    # The finished image has no logarithm, and is the last.
    count = min(count, len(sigmas))
    logs = torch.tensor(sigmas[:-1]).log()  # (T,)
    wanted = torch.linspace(logs[0], logs[-1], count - 1)
    nearest = (logs - wanted[:, None]).abs().argmin(dim=1).tolist()
    # No state twice: each index is above the one before it, and leaves room for more.
    indices, after = [], -1
    for i, index in enumerate([*nearest, len(sigmas) - 1]):
        after = min(max(index, after + 1), len(sigmas) - count + i)
        indices.append(after)
    return indices


def strip_frames(states, n_steps, sigmas=None):
    """Return (frames in [0, 1], their headings) of some of n_steps + 1 states.

    states: (B, 3, H, W) in [-1, 1], one at a time. STRIP_FRAMES are kept, the first and
    the last included: evenly spaced steps, or with the sigmas of all states evenly
    spaced sigmas, and then no state twice.
    """
    if sigmas:
        headings = {i: f"sigma {sigmas[i]:.2g}" for i in spaced_sigmas(sigmas)}
    else:
        shown = torch.linspace(0, n_steps, STRIP_FRAMES).round().int().tolist()
        headings = {i: f"Step {i}" for i in shown}
    kept = {i: (x + 1) / 2 for i, x in enumerate(states) if i in headings}
    return list(kept.values()), list(headings.values())


def save_strip(frames, headings, path, title, rows=4):
    """Save a denoising strip, one column per frame, above all finished images."""
    # frames: list of images (B, 3, H, W) in [0, 1], from noise to the finished images.
    # The strip shows the first `rows` of each.
    first = torch.stack([frame[:rows].cpu() for frame in frames], dim=1)
    strip = grid(first.flatten(0, 1), len(frames), scale_for(first))
    columns = max(len(frames), min(len(frames[-1]), STRIP_FRAMES))
    finished = grid(frames[-1], columns, scale_for(first))
    # A strip may be narrower than the images below it.
    headings = headings + [""] * (columns - len(headings))
    save_stack([title, headings, strip, "Finished images", finished], path)


def read_curves(path):
    """Read a CSV file of losses -> {column: array of one float per epoch}."""
    rows = read_csv(path)
    return {
        name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]
    }


def save_curves(csv_path, path, title, unit, asked=None):
    """Draw the training and validation loss per photo against the epoch, from 1.

    unit: what the loss is, in words; asked: words -> a bound of it, a dashed line.
    """
    curves = read_curves(csv_path)
    figure = Figure(figsize=(6.4, 4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot(xlabel="epoch")
    axes.set_title(title, fontsize=8, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(curves["epoch"][0] - 0.5, curves["epoch"][-1] + 0.5)
    # Epochs without a check have no validation loss.
    for column, label in (
        ("train_per_photo", "training"),
        ("valid_per_photo", "validation"),
    ):
        checked = np.isfinite(curves[column])
        axes.plot(curves["epoch"][checked], curves[column][checked], label=label)
    # The bounds: one of both losses, or in the colours of the curves.
    asked = (asked or {}).items()
    for colour, (label, bound) in zip(BOUND_COLOURS[len(asked)], asked, strict=True):
        axes.axhline(bound, color=colour, linestyle="--", linewidth=1, label=label)
    # The calibrated loss of a VAE can be negative.
    positive = all((np.array(line.get_ydata()) > 0).all() for line in axes.lines)
    if positive:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        few = MaxNLocator(5) if high < 2 * low else LogLocator(subs=LOG_TICKS)
        axes.yaxis.set_major_locator(few)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel(f"loss per photo: {unit}" + (", log scale" if positive else ""))
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def plot_nfe_curves(curves, reference, path, title):
    """Plot Frechet distance and seconds per image against network evaluations."""
    # curves: name -> [(evaluations, distance, seconds), ...]; reference: (name,
    # distance, seconds), a line across both. All axes are logarithmic.
    figure = Figure(figsize=(11, 4.6), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=SMALL, x=0.01, ha="left")
    ticks = sorted({number for number, *_ in next(iter(curves.values()))})
    sides = figure.subplots(1, 2)
    for i, what in ((1, "Frechet distance to all photos"), (2, "seconds per image")):
        axes = sides[i - 1]
        for name, points in curves.items():
            numbers, values = zip(*((p[0], p[i]) for p in sorted(points)), strict=True)
            axes.plot(numbers, values, marker="o", markersize=3, label=name)
        axes.axhline(reference[i], color="black", linestyle="--", label=reference[0])
        axes.set(xscale="log", yscale="log", ylabel=what)
        axes.set_xlabel("evaluations of the network per image")
        axes.set_xticks(ticks, map(str, ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.3, which="both")
    distance = sides[0].yaxis
    distance.set_major_formatter(LogFormatter())  # 20, not 2 x 10^1
    distance.set_minor_formatter(LogFormatter())
    figure.legend(*sides[0].get_legend_handles_labels(), loc="outside right center")
    save(figure, path)


def plot_ladder(models, photos, path):
    """Plot distance, recall and precision against minutes of training."""
    # models: name -> {"minutes": float, metric: [value, low, high]}; photos: metrics of
    # the validation photos, a line across.
    figure = Figure(figsize=(11, 4.6), dpi=DPI, layout="constrained")
    metrics = {
        "kernel distance to validation photos": ("kernel distance", "log"),
        "recall at equal number": ("recall", "linear"),
        "precision at equal number": ("precision", "linear"),
    }
    for axes, (metric, (label, scale)) in zip(
        figure.subplots(1, 3), metrics.items(), strict=True
    ):
        for name, found in models.items():
            value, low, high = found[metric]
            bars = [[max(0, value - low)], [max(0, high - value)]]
            axes.errorbar(found["minutes"], value, bars, fmt="o", label=name)
        level = photos[metric if metric in photos else "kernel distance"][0]
        axes.axhline(level, color="black", linestyle="--", label="validation photos")
        axes.set(xscale="log", yscale=scale, xlabel="minutes of training", ylabel=label)
        axes.grid(alpha=0.3, which="both")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    save(figure, path)


def plot_scaling(panels, path):
    """Plot seconds per epoch against photos, pixels and processes."""
    # panels: name -> {number: seconds}; of photos and pixels also `lines`, (slope,
    # start, ...). The line of processes is the time of one, divided by their number.
    figure = Figure(figsize=(11, 3.8), dpi=DPI, layout="constrained")
    names = {"photos": "photos", "pixels": "pixels per image", "processes": "processes"}
    for axes, (name, label) in zip(figure.subplots(1, 3), names.items(), strict=True):
        seconds = list(panels[name].values())
        numbers = np.array([*map(int, panels[name])])
        if name in panels["lines"]:
            ideal, word = np.polyval(panels["lines"][name][:2], numbers), "line"
        else:
            ideal, word = seconds[0] * numbers[0] / numbers, "in proportion"
        axes.plot(numbers, ideal, color="black", linestyle="--", label=word)
        axes.plot(numbers, seconds, "o", label="measured")
        axes.set(xlabel=label, ylim=0, xticks=numbers)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[0].set_ylabel("seconds per epoch")
    save(figure, path)
