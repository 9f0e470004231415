"""Draw random vectors, or noise, and let a trained model make images of them.

python random_generation.py --model VAE
python random_generation.py --model diffusion --species calendula --guidance 2

An autoencoder's vectors are drawn from N(0, 1); with --prior gaussian or gmm from what
was fitted, at the end of the training, to the codes of the training photos. The
diffusion model starts at noise, and draws species as often as its photos show them.
"""

from math import isqrt

from utils.cli import PROJECT, UsageError, run
from utils.cli.arguments import DIFFUSIONS, MODELS, SAMPLING, command_line, refuse_given
from utils.config import Settings
from utils.registry import load_model

FLAGS = "--model --prior --count --seed --weights --save --out"
COLUMNS = 10  # images per row, at least
MOST_SHOWN = 1000  # images on a picture
BATCH = 256  # images painted at once
DRAWN_FROM = {
    "normal": "z ~ N(0, 1)",
    "gaussian": "z from a Gaussian fitted to the codes",
    "gmm": "z from a mixture fitted to the codes",
}


def parse(argv):
    """Return the checked command line."""
    flags, models = [*FLAGS.split(), *SAMPLING], (*MODELS, *DIFFUSIONS)
    line = command_line(__doc__, *flags, choices={"--model": models}, model="VAE")
    args = line.parse_args(argv)
    if args.model in DIFFUSIONS:
        refuse_given(args, ["--prior"], "a diffusion model has no codes")
    else:
        refuse_given(args, SAMPLING, f"{args.model} is no diffusion model")
    if args.count > MOST_SHOWN and not args.save:
        raise UsageError(
            f"argument --count: a picture shows at most {MOST_SHOWN} images, got "
            f"{args.count}; save more with --save FILE.npy"
        )
    return args


def paint(model, draw_codes, count):
    """Yield `count` images of `draw_codes(B)` in batches (B, 3, H, W) in [0, 1]."""
    import torch

    from utils.cli.progress import progress

    for start in progress(range(0, count, BATCH), "batches"):
        size = min(BATCH, count - start)
        with torch.no_grad():
            images = model.decoder(draw_codes(size))
        yield images


def decode(args, model, about, weights):
    """Draw codes, and save what an autoencoder decodes them to."""
    import torch

    from utils.checkpoint import prepare_folder, save_images
    from utils.figures import caption, save_grid
    from utils.latents import load_prior

    prior = args.prior or "normal"
    batches = paint(model, load_prior(prior, model, about, weights), args.count)
    if args.save:
        size = model.args["img_height"], model.args["img_width"]
        save_images(args.save, batches, (args.count, *size, 3))
        return
    prepare_folder(args.out / "vis")
    save_grid(
        torch.cat(list(batches)),
        args.out / "vis" / f"random_images_{args.model}.png",
        columns=max(COLUMNS, isqrt(args.count)),
        title=caption(args.model, f"{args.count} samples, {DRAWN_FROM[prior]}", about),
    )


def denoise(args, model, about, _weights):
    """Draw noise, and save what the diffusion model makes of it."""
    from diffusion import visualize_sampling
    from utils.checkpoint import prepare_folder, save_images
    from utils.diffusion.sampling import chosen_species, sampled_batches, sampling_of
    from utils.figures import caption

    how = sampling_of(args, model, about)
    size = about.get("settings", {}).get("image_size", Settings.image_size)
    species = chosen_species(args.species, about, args.count)
    if args.save:
        batches = sampled_batches(model, how, species, args.count, size)
        save_images(args.save, batches, (args.count, size, size, 3))
        return
    words = [*(args.species or []), how.sampler, f"{how.steps} steps"]
    if how.guidance != 1:
        words.append(f"guidance {how.guidance:g}")
    name = "_".join(["random_images", args.model, *(args.species or [])])
    title = caption(args.model, ", ".join(words), about)
    shape = (args.count, 3, size, size)
    path = args.out / "vis" / name
    prepare_folder(path.parent)
    visualize_sampling(model, shape, how.steps, path, title, how, species)


def main(argv=None):
    args = parse(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.checkpoint import find_weights
    from utils.device import set_seeds

    set_seeds(args.seed)
    weights = args.weights or find_weights(PROJECT, args.model)
    model, about = load_model(args.model, weights)
    way = denoise if args.model in DIFFUSIONS else decode
    way(args, model, about, weights)


if __name__ == "__main__":
    run(main)
