"""Generate images: decode random vectors, or denoise random noise.

python random_generation.py --model VAE
python random_generation.py --model diffusion --species calendula --guidance 2

The vectors of an autoencoder are drawn from N(0, I), or with --prior gaussian or gmm
from a distribution fitted to the codes of the training photos. A diffusion model starts
at noise, and by default generates each species as often as the photos show it.
"""

from dataclasses import fields
from math import isqrt

from utils.cli import UsageError, guard, memory_for, run
from utils.cli.arguments import command_line, refuse_given
from utils.config import (
    AUTOENCODERS,
    DIFFUSION_MODELS,
    PRIORS,
    SAMPLER_FLAGS,
    SamplerConfig,
)

FLAGS = "--model --prior --species --count --seed --weights --save --device --out"
COLUMNS = 10  # images per row, at least
MAX_SHOWN = 1000  # images on a picture
LATENT_DISTRIBUTIONS = {
    "normal": "z ~ N(0, 1)",
    "gaussian": "z from a Gaussian fitted to the codes",
    "gmm": "z from a mixture fitted to the codes",
}


def parse(argv=None):
    """Return the checked command line."""
    models = (*AUTOENCODERS, *DIFFUSION_MODELS)
    line = command_line(
        __doc__,
        *FLAGS.split(),
        settings=fields(SamplerConfig),
        choices={"--model": models, "--prior": PRIORS},
        model="VAE",
    )
    args = line.parse_args(argv)
    # A flag that has no effect is refused.
    if args.model in DIFFUSION_MODELS:
        refuse_given(args, ["--prior"], "a diffusion model has no codes")
    else:
        reason = f"{args.model} is no diffusion model"
        refuse_given(args, ["--species", *SAMPLER_FLAGS], reason)
    if args.count > MAX_SHOWN and not args.save:
        raise UsageError(
            f"argument --count: a picture shows at most {MAX_SHOWN} images, got "
            f"{args.count}; save more with --save FILE.npy"
        )
    return args


if __name__ == "__main__":
    guard(parse)

import torch

from diffusion import visualize_sampling
from utils.device import choose_device, set_seeds
from utils.diffusion.sampling import labels_for, sampler_config
from utils.experiment import chosen_weights, generate_batches, image_size
from utils.figures import caption, save_grid
from utils.files import prepare_folder, save_images
from utils.registry import load_model


def save_decoded(args, metadata, batches, prior):
    """Save a picture of an autoencoder's samples."""
    prepare_folder(args.out / "vis")
    words = f"{args.count} samples, {LATENT_DISTRIBUTIONS[prior]}"
    save_grid(
        torch.cat(list(batches)),
        args.out / "vis" / f"random_images_{args.model}.png",
        columns=max(COLUMNS, isqrt(args.count)),
        title=caption(args.model, words, metadata),
    )


def save_denoised(args, model, metadata, config):
    """Save a picture of a diffusion model's samples and of states on the way."""
    labels = labels_for(args.species, metadata, args.count)
    words = [*(args.species or []), config.sampler, f"{config.steps} steps"]
    if config.guidance != 1:
        words.append(f"guidance {config.guidance:g}")
    name = "_".join(["random_images", args.model, *(args.species or [])])
    title = caption(args.model, ", ".join(words), metadata)
    size = image_size(metadata)
    shape = (args.count, 3, size, size)
    path = args.out / "vis" / name
    prepare_folder(path.parent)
    visualize_sampling(model, shape, config.steps, path, title, config, labels)


def main(argv=None):
    args = parse(argv)
    device = choose_device(args.device)
    # The seed comes first: building a model draws its initial weights.
    set_seeds(args.seed)
    weights = chosen_weights(args)
    model, metadata = load_model(args.model, weights, device)
    if args.model in DIFFUSION_MODELS:
        config = sampler_config(args, model, metadata)
        options = {"species": args.species, "config": config}
    else:
        options = {"prior": args.prior or "normal", "weights": weights}
    with memory_for(f"--count {args.count}"):
        # The figure of a diffusion model also shows states of the sampler.
        if args.model in DIFFUSION_MODELS and not args.save:
            save_denoised(args, model, metadata, config)
            return
        # Any number of images is generated in batches.
        batches = generate_batches(model, metadata, args.count, **options)
        if args.save:
            save_images(args.save, batches, args.count)
        else:
            save_decoded(args, metadata, batches, options["prior"])


if __name__ == "__main__":
    run(main)
