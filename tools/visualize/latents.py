"""The figure of an autoencoder's latent space."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from utils.cli import UserError
from utils.device import device_of
from utils.evaluation.linear_baselines import fit_pca
from utils.evaluation.metrics import covariance
from utils.experiment import open_datasets
from utils.figures import DPI, caption, grid, render, save_stack, scale_for
from utils.latents import decode, encode, lerp, slerp
from utils.train import validation_metrics

STEPS = 10  # images of an interpolation, ends included
MAX_LEGEND = 20  # classes


def plot_codes(codes, labels, classes, bars):
    """Plot codes (N, D) on two principal axes, beside bars -> picture (H, W, 3)."""
    # bars: (values (D,), label of their axis, title).
    figure = Figure(figsize=(9.7, 4.4), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)

    # The codes; one dimension or one code has a single axis.
    axes = fit_pca(codes, min(2, *codes.shape))
    points = F.pad(axes.codes(codes), (0, 2 - len(axes.axes)))  # (N, 2)
    for label, name in enumerate(classes):
        left.scatter(*points[labels == label].T, s=6, alpha=0.5, label=name)
    left.set(xlabel="first principal axis", ylabel="second principal axis")
    left.set_title("codes of the training photos", fontsize=10)
    if len(classes) <= MAX_LEGEND:
        left.legend(fontsize=8)

    values, label, title = bars
    right.bar(range(len(values)), sorted(values, reverse=True))
    right.set(xlabel="dimension, the largest first", ylabel=label)
    right.set_title(title, fontsize=10)
    return render(figure)


def dimension_bars(model, images, codes):
    """Return the bars of `plot_codes`: what each dimension encodes."""
    # KL of a VAE's dimensions, else the variance on each principal axis.
    if hasattr(model, "validation_details"):
        batches = [(batch, None) for batch in images.split(256)]
        found = validation_metrics(model, batches, device_of(model))
        kl = [value for name, value in found.items() if name.startswith("valid_kl_")]
        active = found["valid_active_units"]
        return kl, "KL (nats)", f"{active} of {len(kl)} dimensions are active"
    # Eigenvalues of the covariance of the codes.
    variances = torch.linalg.eigvalsh(covariance(codes))
    return variances.tolist(), "variance", "variance on each principal axis"


def interpolate(model, images):
    """Decode interpolations between images (2 N, 3, H, W) -> (2 N STEPS, 3, H, W)."""
    # Two rows for each pair of neighbours: linear, then spherical.
    codes = encode(model, images, draw=False)
    paths = [
        interpolation(start, end, STEPS)
        for start, end in zip(codes[::2], codes[1::2], strict=True)
        for interpolation in (lerp, slerp)
    ]
    return decode(model, torch.cat(paths))


def visualize(args, model, metadata):
    """Save the figure of an autoencoder's latent space."""
    size = model.args["img_width"], model.args["img_height"]
    training, validation = open_datasets(metadata, args.data, size)
    if min(len(training), len(validation)) < 2:
        raise UserError(
            "an interpolation needs two training and two validation photos, got "
            f"{len(training)} and {len(validation)}; add photos"
        )
    photos = training.all_images()
    codes = encode(model, photos, draw=False)
    bars = dimension_bars(model, photos, codes)
    ends = torch.randperm(len(validation))[: 2 * (args.count or 3)]
    ends = ends[: len(ends) // 2 * 2]  # pairs
    steps = interpolate(model, validation[ends][0])
    save_stack(
        [
            caption(args.model, "latent space", metadata),
            plot_codes(codes, training.labels, training.classes, bars),
            "Interpolations between validation photos: linear, below it spherical",
            grid(steps, STEPS, scale_for(steps)),
        ],
        args.out / "vis" / f"latent_{args.model}.png",
    )
