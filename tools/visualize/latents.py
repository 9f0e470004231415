"""Pictures of an autoencoder's latent space."""

from utils.cli import UserError

STEPS = 10  # images of a walk, ends included


def plot(codes, labels, classes, bars):
    """Draw the map of codes (N, D) beside bars -> picture (H, W, 3) in [0, 1].

    bars: (values (D,), what they are, title).
    """
    import torch.nn.functional as F
    from matplotlib.figure import Figure

    from utils.evaluation.linear_baselines import fit_pca
    from utils.figures import DPI, rendered

    figure = Figure(figsize=(9.7, 4.4), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    axes = fit_pca(codes, min(2, *codes.shape))
    points = F.pad(axes.codes(codes), (0, 2 - len(axes.axes)))  # (N, 2)
    for label, name in enumerate(classes):
        left.scatter(*points[labels == label].T, s=6, alpha=0.5, label=name)
    left.set(xlabel="first principal axis", ylabel="second principal axis")
    left.set_title("codes of the training photos", fontsize=10)
    if len(classes) <= 20:
        left.legend(fontsize=8)
    values, what, title = bars
    right.bar(range(len(values)), sorted(values, reverse=True))
    right.set(xlabel="dimension, the largest first", ylabel=what)
    right.set_title(title, fontsize=10)
    return rendered(figure)


def dimensions(model, images, codes):
    """Return what each dimension holds, as `plot` wants its bars.

    KL of a VAE's, else the variance on each principal axis.
    """
    import torch

    from utils.evaluation.metrics import covariance
    from utils.train import validation_details

    if hasattr(model, "details"):
        batches = [(batch, None) for batch in images.split(256)]
        found = validation_details(model, batches, images.device)
        kl = [value for name, value in found.items() if name.startswith("valid_kl_")]
        active = found["valid_active_units"]
        return kl, "KL (nats)", f"{active} of {len(kl)} dimensions are in use"
    variances = torch.linalg.eigvalsh(covariance(codes))
    return variances.tolist(), "variance", "variance on each principal axis"


def walks(model, images):
    """Images (2 N, 3, H, W) -> walks between neighbours, (2 N STEPS, 3, H, W).

    Two rows for a pair: by a line, then by an arc.
    """
    import torch

    from utils.latents import encode, linear, spherical

    codes = encode(model, images, draw=False)
    ways = [
        way(start, end, STEPS)
        for start, end in zip(codes[::2], codes[1::2], strict=True)
        for way in (linear, spherical)
    ]
    with torch.no_grad():
        return model.decoder(torch.cat(ways))


def explore_codes(args, model, about):
    """Save the picture of an autoencoder's latent space."""
    import torch

    from utils.data_processor import open_flowers
    from utils.experiment import warn_of_other_data
    from utils.figures import caption, factor_for, grid, save_stack
    from utils.latents import encode

    size = model.args["img_width"], model.args["img_height"]
    split_seed = about.get("data", {}).get("split_seed", 0)
    training, validation = (
        loader.dataset
        for loader in open_flowers(args.data, 1, size, split_seed=split_seed)
    )
    warn_of_other_data(about, training.about)
    if min(len(training), len(validation)) < 2:
        raise UserError(
            "a walk needs two photos of training and two of validation, got "
            f"{len(training)} and {len(validation)}; add photos"
        )
    photos = training.all_images()
    codes = encode(model, photos, draw=False)
    bars = dimensions(model, photos, codes)
    ends = torch.randperm(len(validation))[: 2 * (args.count or 3)]
    ends = ends[: len(ends) // 2 * 2]
    steps = walks(model, validation.all_images()[ends])
    save_stack(
        [
            caption(args.model, "latent space", about),
            plot(codes, training.labels, training.classes, bars),
            "Walks between validation photos: by a line, below it by an arc",
            grid(steps, STEPS, factor_for(steps)),
        ],
        args.out / "vis" / f"latent_{args.model}.png",
    )
