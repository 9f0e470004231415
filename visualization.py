"""Show originals above their reconstructions, of training and of validation photos.

python visualization.py --model VAE
"""

from utils.cli import PROJECT, run
from utils.cli.arguments import command_line
from utils.registry import load_model

FLAGS = "--model --data --weights --seed --device --out"
SHOWN = 16  # photos on a picture


def main(argv=None):
    args = command_line(__doc__, *FLAGS.split(), model="MLPAE").parse_args(argv)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.checkpoint import find_weights, prepare_folder
    from utils.data_processor import open_flowers, show_recover_results
    from utils.device import choose_device, set_seeds
    from utils.experiment import warn_of_other_data
    from utils.figures import caption

    device = choose_device(args.device)
    print(f"using device {device}", flush=True)
    set_seeds(args.seed)
    model, about = load_model(
        args.model, args.weights or find_weights(PROJECT, args.model)
    )
    prepare_folder(args.out / "vis")
    model.to(device)
    size = model.args["img_width"], model.args["img_height"]
    split_seed = about.get("data", {}).get("split_seed", 0)
    loaders = open_flowers(
        args.data, SHOWN, size, seed=args.seed, split_seed=split_seed
    )
    warn_of_other_data(about, loaders[0].dataset.about)
    sides = (("train", "training"), ("valid", "validation"))
    for (side, name), loader in zip(sides, loaders, strict=True):
        images = next(iter(loader))[0].to(device)
        show_recover_results(
            images,
            reconstruct(model, images),
            args.out / "vis" / f"{side}_{args.model}.png",
            title=caption(
                args.model, f"{name} {loader.dataset.about['source']}", about
            ),
        )


def reconstruct(model, images):
    """Images (B, 3, H, W) in [0, 1] -> what the model makes of them, of that shape."""
    import torch

    with torch.no_grad():
        outputs = model(images)
    return outputs[0] if isinstance(outputs, tuple) else outputs


if __name__ == "__main__":
    run(main)
