"""Straighten a diffusion model's ways, so that 1 to 4 evaluations make an image.

python -m tools.reflow
python random_generation.py --model diffusion --weights models/Best_diffusion_reflow.pkl
    --sampler flow --steps 2 --guidance 1

One round of reflow: the model draws images from noise, as well as it can, and a copy of
it is trained on the straight lines between the two. Guidance is then part of its images
and needs no second evaluation. The last tenth of the pairs validates. Also written are
log/diffusion_reflow.csv and vis/reflow_diffusion.png, images of few evaluations before
and after; with --frechet, log/reflow_diffusion.json, how near the photos --count of
them are.
"""

import json
import shlex
import sys
import time

from utils.cli import PROJECT, run
from utils.cli.arguments import command_line, refuse_given, whole_number

FLAGS = "--weights --budget --epochs --batch-size --lr --guidance --seed --device --out"
MEASURING = "--count --extractor --data --strict-data"
DEFAULTS = {"epochs": 8, "batch_size": 128, "lr": 5e-4, "count": 2000}
FEW = (1, 2, 4)  # evaluations
SHOWN, COLUMNS = 18, 6  # images of one kind on the picture, and those in a row
GAP = 12  # pixels after a block of images


def parse(argv):
    """Return the checked command line."""
    parser = command_line(__doc__, *FLAGS.split(), *MEASURING.split(), **DEFAULTS)
    parser.add_argument(
        "--pairs",
        dest="drawn",
        metavar="N",
        type=whole_number(2, 10**6),
        default=20_000,
        help="of noise and image, to learn from (default: %(default)s)",
    )
    parser.add_argument(
        "--frechet", action="store_true", help="measure few evaluations, as well"
    )
    args = parser.parse_args(argv)
    if not args.frechet:
        refuse_given(args, ["--data"], "photos are for --frechet alone")
    return args


def settings_from(args, about):
    """Return the settings of the weights' own training, with those of this command."""
    from dataclasses import fields, replace

    from utils.config import PRESETS

    row, own = PRESETS["diffusion"][0], about["settings"]
    known = {f.name: own[f.name] for f in fields(row) if f.name in own}
    known |= {"epochs": args.epochs, "batch_size": args.batch_size, "lr": args.lr}
    known["guidance"] = 1.0  # its images are guided already
    return replace(row, **known)


def as_well_as_can_be(args, about):
    """Return the Sampling that draws the pairs; about: of the weights that do."""
    from utils.diffusion.sampling import usual_sampling

    how = usual_sampling(about)
    return how if args.guidance is None else how._replace(guidance=args.guidance)


def loaders_of(args, model, about):
    """Draw the pairs -> (training, validation) loaders of them and their species."""
    from utils.diffusion.rectified_flow import (
        drawn_pairs,
        pair_loaders,
        species_to_learn,
    )

    shares, unnamed = about.get("species_shares"), model.network.unnamed
    species = species_to_learn(shares, unnamed, args.drawn)
    size = about["settings"]["image_size"]
    pairs = drawn_pairs(model, as_well_as_can_be(args, about), species, size)
    return pair_loaders(pairs, species, args.batch_size, args.seed)


def within(budget, settings, model, loader):
    """Return the settings with as many epochs as fit into so many seconds."""
    from copy import deepcopy
    from dataclasses import replace

    from utils.diffusion.rectified_flow import straight_loss
    from utils.experiment import epochs_within, seconds_per_step
    from utils.optim.factory import prepare_training

    batch, twin = loader.dataset[: settings.batch_size], deepcopy(model).train()
    _, optimizer, _ = prepare_training(settings, twin, len(loader))
    seconds = seconds_per_step(twin, optimizer, straight_loss, *batch)
    return replace(settings, epochs=epochs_within(budget, len(loader) * seconds))


def straighten(args, settings, model, loaders, about):
    """Train the model on pairs, a line of text per epoch; the best weights are saved.

    about: their description.
    """
    from utils.diffusion.rectified_flow import straight_loss
    from utils.experiment import Pace
    from utils.optim.factory import prepare_training
    from utils.train import training_epochs

    steps = settings.epochs * len(loaders[0])
    averaged, *way = prepare_training(settings, model, steps)
    epochs = training_epochs(
        *way,
        model,
        loaders,
        straight_loss,
        num_epochs=settings.epochs,
        patience=settings.epochs,
        device=next(model.parameters()).device,
        model_save_root=args.out / "models",
        log_path=args.out / "log" / f"{model.name}.csv",
        about=about,
        averaged=averaged,
        check_every=1,
    )
    pace = Pace(len(loaders[0].dataset), settings)
    for number, train_loss, valid_loss, _ in epochs:
        losses = f"Train Loss: {train_loss:.4f}, Valid Loss: {valid_loss:.4f}"
        print(f"Epoch: {number + 1}/{settings.epochs}, {losses}", flush=True)
        pace.after(number + 1)


# What few evaluations make, before and after --------------------------------------


def compared(models, start, judge):
    """Draw from one start, in FEW evaluations and as well as can be.

    models: name -> (model, a Sampling that does it well) -> name -> [(Drawn, its
    distances by name), ...].
    """
    from utils.diffusion.sampling import Sampling
    from utils.evaluation.evaluate import draw

    few, found = [Sampling("flow", steps, guidance=1.0) for steps in FEW], {}
    for name, (model, well) in models.items():
        drawn = [draw(model, how, start) for how in (*few, well)]
        found[name] = [(d, judge.distances(d.images) if judge else {}) for d in drawn]
    return found


def save_picture(found, path, title):
    """Save what was drawn: a row for each model, a block for each number of steps."""
    import numpy as np

    from utils.figures import factor_for, grid, save_stack

    parts = [title]
    for name, row in found.items():
        words, blocks = [], []
        for drawn, distances in row:
            images = drawn.images[:SHOWN]
            block = grid(images, COLUMNS, max(1, factor_for(images) // 2))
            blocks.append(np.pad(block, ((0, 0), (0, GAP), (0, 0)), constant_values=1))
            words.append(f"{name}, evaluations: {drawn.evaluations}")
            if distances:
                words[-1] += f", Frechet {distances['frechet'][0]:.4g}"
        parts += [words, np.concatenate(blocks, axis=1)]
    save_stack(parts, path)


def record(found, facts, path):
    """Write the distances with their facts as JSON, and print them."""
    from utils.checkpoint import replace_file

    rows = {}
    for name, row in found.items():
        rows[name] = [
            {"evaluations": d.evaluations, "seconds_per_image": d.seconds} | distances
            for d, distances in row
        ]
        cells = (f"{p['evaluations']}: {p['frechet'][0]:.4g}" for p in rows[name])
        print(f"{name:<8}" + "".join(f"{cell:>14}" for cell in cells))
    replace_file(path, [(json.dumps(facts | rows, indent=1) + "\n").encode()])


def reflowed(args, started, model, about, of):
    """Do the one round -> (model, description) of its best weights, on the CPU.

    model: on its device; about: the description of its weights; of: what the new one
    will say of where it comes from.
    """
    from copy import deepcopy
    from dataclasses import asdict

    from utils.checkpoint import weights_name
    from utils.registry import load_diffusion

    loaders, settings = loaders_of(args, model, about), settings_from(args, about)
    if args.budget:
        left = args.budget - (time.monotonic() - started)
        settings = within(left, settings, model, loaders[0])
    twin = deepcopy(model)
    twin.name = f"{model.name}_reflow"  # of its files; the weights are such a model's
    twin.details = None  # which are of photos
    kept = {key: about[key] for key in ("data", "species_shares") if key in about}
    new = {"model": model.name, "seed": args.seed, "settings": asdict(settings)}
    straighten(args, settings, twin, loaders, {**kept, **new, "reflow": of})
    return load_diffusion(args.out / "models" / weights_name(twin.name))


def main(argv=None):
    started, args = time.monotonic(), parse(argv)
    words = sys.argv[1:] if argv is None else argv

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)
    import torch

    from utils.checkpoint import find_weights, prepare_folder
    from utils.device import prepare_device, set_seeds
    from utils.evaluation.evaluate import judge_for, start_of
    from utils.experiment import machine_facts, weights_facts
    from utils.figures import caption
    from utils.registry import load_diffusion

    device = prepare_device(args.device)
    set_seeds(args.seed)
    weights = args.weights or find_weights(PROJECT, "diffusion")
    model, about = load_diffusion(weights)
    judge = judge_for(args, about) if args.frechet else None
    for folder in ("models", "log", "vis"):
        prepare_folder(args.out / folder)
    well = as_well_as_can_be(args, about)
    of = {"weights": weights_facts(weights, about), "pairs": args.drawn}
    of |= {"sampler": well.sampler, "steps": well.steps, "guidance": well.guidance}
    model.to(device, memory_format=torch.channels_last)
    after, about = reflowed(args, started, model, about, of)
    start = start_of(about, args.count if judge else SHOWN, args.seed + 1)
    models = {
        "before": (model.cpu(), well),
        "after": (after, well._replace(guidance=1.0)),
    }
    found = compared(models, start, judge)
    title = caption(f"{model.name}, reflow", f"{args.drawn} pairs", about)
    save_picture(found, args.out / "vis" / f"reflow_{model.name}.png", title)
    if judge:
        facts = {key: about[key] for key in ("reflow", "epoch", "valid_loss", "seed")}
        facts |= {"count": args.count, "data": judge.data, "machine": machine_facts()}
        facts["command"] = shlex.join(["python", "-m", "tools.reflow", *words])
        record(found, facts, args.out / "log" / f"reflow_{model.name}.json")


if __name__ == "__main__":
    run(main)
