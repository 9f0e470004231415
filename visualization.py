"""Show originals above their reconstructions, of training and of validation photos.

python visualization.py --model VAE
"""

from utils.cli import guard, run
from utils.cli.arguments import command_line
from utils.config import AUTOENCODERS

FLAGS = "--model --data --cache --weights --seed --device --out"
SHOWN = 16  # photos on a picture


def parse(argv=None):
    """Return the checked command line."""
    choices = {"--model": AUTOENCODERS}
    line = command_line(__doc__, *FLAGS.split(), choices=choices, model="MLPAE")
    return line.parse_args(argv)


if __name__ == "__main__":
    guard(parse)

from utils.data_processor import open_flowers, show_recover_results
from utils.device import choose_device, set_seeds
from utils.experiment import chosen_weights, warn_of_other_data
from utils.figures import caption
from utils.files import prepare_folder
from utils.latents import reconstruct
from utils.registry import load_model


def main(argv=None):
    args = parse(argv)
    device = choose_device(args.device)
    print(f"using device {device}", flush=True)

    # The model, and the photos as its training split them.
    set_seeds(args.seed)
    model, metadata = load_model(args.model, chosen_weights(args), device)
    # Refuse a folder that cannot be written before any work.
    prepare_folder(args.out / "vis")
    loaders = open_flowers(
        args.data,
        SHOWN,
        (model.args["img_width"], model.args["img_height"]),
        seed=args.seed,
        split_seed=metadata.get("data", {}).get("split_seed", 0),
        cache=args.cache,
    )
    warn_of_other_data(metadata, loaders[0].dataset.metadata)

    # One picture for each side of the split.
    sides = (("train", "training"), ("valid", "validation"))
    for (side, words), loader in zip(sides, loaders, strict=True):
        images = next(iter(loader))[0].to(device)
        source = loader.dataset.metadata["source"]
        show_recover_results(
            images,
            reconstruct(model, images),
            args.out / "vis" / f"{side}_{args.model}.png",
            title=caption(args.model, f"{words} {source}", metadata),
        )


if __name__ == "__main__":
    run(main)
