"""Straighten a diffusion model's trajectories, for samples in 1 to 4 evaluations.

python -m tools.reflow --student models/Best_diffusion_short.pkl
python random_generation.py --model diffusion_fast

One round of rectified flow: the model generates images from noise, and a copy of it, or
the smaller model of --student, is trained on the straight lines between the two.
Guidance is then part of the images and needs no second evaluation. The last tenth of
the couplings is the validation set. Saves models/Best_diffusion_fast.pkl, and also
writes log/diffusion_fast.csv and vis/reflow_diffusion.png, images of few evaluations
before and after; with --frechet, log/reflow_diffusion.json, the Frechet distances of
--count of them.
"""

import shlex
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

from utils.cli import UserError, guard, run
from utils.cli.arguments import command_line, refuse_given, whole_number
from utils.config import (
    FAST,
    FEW_STEPS,
    PRESETS,
    DiffusionSettings,
    SamplerConfig,
    fields_named,
)

FLAGS = "--weights --seed --device --out"
MEASURING = "--count --extractor --data --strict-data"
SETTINGS = fields_named(DiffusionSettings, "epochs", "batch_size", "lr", "guidance")
DEFAULTS = {"epochs": 16, "batch_size": 32, "lr": 2e-3, "count": 2000}
# Euler steps at evenly spaced times: one such step follows a straight trajectory.
COMPARED = [SamplerConfig("flow", steps) for steps in (1, 2, 4)]
SHOWN, COLUMNS = 18, 6  # images per block of the picture, and per row
GAP = 12  # pixels after a block of images


def parse(argv=None):
    """Return the checked command line."""
    flags = [*FLAGS.split(), *MEASURING.split()]
    parser = command_line(__doc__, *flags, settings=SETTINGS, **DEFAULTS)
    # The couplings are the training set.
    parser.add_argument(
        "--couplings",
        metavar="N",
        type=whole_number(2, 10**6),
        default=20_000,
        help="pairs of noise and image to train on (default: %(default)s)",
    )
    parser.add_argument(
        "--student",
        type=Path,
        metavar="WEIGHTS",
        help="of the model to train, which knows the same species (default: a copy)",
    )
    parser.add_argument(
        "--frechet", action="store_true", help="measure Frechet distances"
    )
    args = parser.parse_args(argv)
    if not args.frechet:
        refuse_given(args, ["--data"], "photos are for --frechet only")
    return args


if __name__ == "__main__":
    guard(parse)

from copy import deepcopy

import numpy as np
import torch

from utils.checkpoint import weights_name
from utils.checkpoint.resume import keep_previous, locked
from utils.device import device_of, machine_facts, prepare_device, set_seeds
from utils.diffusion.rectified_flow import (
    coupling_loaders,
    draw_coupling_labels,
    draw_couplings,
    rectified_flow_loss,
)
from utils.diffusion.sampling import SIGMA_MAX, default_sampler_config
from utils.evaluation.evaluate import draw_start, generate_from, reference_stats
from utils.experiment import chosen_weights, image_size, weights_facts
from utils.figures import caption, grid, save_stack, scale_for
from utils.files import prepare_folder, write_json
from utils.optim.factory import prepare_training
from utils.registry import load_diffusion
from utils.train import Trainer


def settings_for(args, metadata):
    """Return the settings of a student's own training, with those of this command."""
    preset, own = PRESETS[FAST][0], metadata["settings"]
    known = {f.name: own[f.name] for f in fields(preset) if f.name in own} | FEW_STEPS
    known |= {"epochs": args.epochs, "batch_size": args.batch_size, "lr": args.lr}
    return replace(preset, **known)


def find_student(args, model, metadata):
    """Return (the model to train, its metadata): --student's, or a copy of a model."""
    # Raises UserError if it knows other species than the model, or another size.
    if args.student:
        student, own = load_diffusion(args.student)
        known, needed = (m.get("data", {}).get("classes") for m in (own, metadata))
        if known != needed:
            raise UserError(f"{args.student} knows other species; name other weights")
        sizes = image_size(own), image_size(metadata)
        if sizes[0] != sizes[1]:
            raise UserError(
                "{} is of images of {} pixels, the model of {}; name other "
                "weights".format(args.student, *sizes)
            )
    else:
        student, own = deepcopy(model), metadata
    student.set_guide(None)
    student.name = student.args["name"] = FAST
    return student.to(device_of(model), memory_format=torch.channels_last), own


def make_loaders(args, config, model, metadata):
    """Draw the couplings -> (training, validation) loaders of them and their labels."""
    # Labels in the proportions of the photos' species, then noise and images.
    proportions, null_label = (
        metadata.get("class_proportions"),
        model.network.null_label,
    )
    labels = draw_coupling_labels(proportions, null_label, args.couplings)
    couplings = draw_couplings(model, config, labels, image_size(metadata))
    hflip = metadata.get("settings", {}).get("hflip", False)
    return coupling_loaders(couplings, labels, args.batch_size, args.seed, hflip)


def straighten(args, settings, model, loaders, metadata):
    """Train the model on couplings -> path of its best weights, with the metadata."""
    total = settings.epochs
    steps = total * len(loaders[0])
    optimizer, scheduler, ema = prepare_training(settings, model, steps)
    trainer = Trainer(
        optimizer,
        scheduler,
        model,
        loaders,
        rectified_flow_loss,
        device_of(model),
        ema=ema,
        report_metrics=False,  # they need photos, and batches are couplings
    )
    epochs = trainer.fit(
        args.out / "models",
        num_epochs=total,
        patience=total,  # no early stop
        check_every=1,
        log_path=args.out / "log" / f"{FAST}.csv",
        metadata=metadata,
    )
    # A line per epoch.
    for epoch in epochs:
        done = epoch.number + 1
        print(
            f"Epoch: {done}/{total}, Train Loss: {epoch.train_loss:.4f}, "
            f"Valid Loss: {epoch.valid_loss:.4f}",
            flush=True,
        )
    return args.out / "models" / weights_name(FAST)


def reflow(args, config, model, metadata, origin):
    """Do one round -> (model, metadata) of its best weights, on the model's device."""
    # config: of the couplings' images; model: on its device; metadata: of its weights;
    # origin: facts about all of them, for the metadata of the new weights.
    loaders = make_loaders(args, config, model, metadata)
    student, own = find_student(args, model, metadata)
    settings = settings_for(args, own)
    # The species and their proportions stay.
    kept = ("data", "class_proportions")
    new = {key: metadata[key] for key in kept if key in metadata}
    new |= {"seed": args.seed, "settings": asdict(settings), "reflow": origin}
    path = straighten(args, settings, student, loaders, new)
    return load_diffusion(path, device_of(model))


# Few evaluations, before and after ----------------------------------------------------


def compare(models, start, reference):
    """Generate from one start by COMPARED and by the model's own config."""
    # models: name -> (model, its config) -> name -> [(Generated, Frechet distances by
    # name), ...].
    found = {}
    for name, (model, config) in models.items():
        row = [generate_from(model, c, start) for c in (*COMPARED, config)]
        found[name] = [
            (g, reference.distances(g.images) if reference else {}) for g in row
        ]
    return found


def save_picture(found, path, title):
    """Save a row for each model, and in it a block for each number of evaluations."""
    # found: of `compare`.
    parts = [title]
    for name, row in found.items():
        words, blocks = [], []
        for generated, distances in row:
            # Half as large as in other pictures, since blocks stand side by side.
            images = generated.images[:SHOWN]
            block = grid(images, COLUMNS, max(1, scale_for(images) // 2))
            blocks.append(np.pad(block, ((0, 0), (0, GAP), (0, 0)), constant_values=1))
            words.append(f"{name}, NFE: {generated.nfe}")
            if distances:
                words[-1] += f", Frechet {distances['frechet'][0]:.4g}"
        parts += [words, np.concatenate(blocks, axis=1)]
    save_stack(parts, path)


def save_record(found, facts, path):
    """Write the distances and facts as JSON, and print the distances."""
    # found: of `compare`, with distances; the last column is the model's own config.
    rows = {}
    for name, row in found.items():
        rows[name] = [
            {"nfe": g.nfe, "seconds_per_image": g.seconds} | distances
            for g, distances in row
        ]
        cells = (f"{p['nfe']}: {p['frechet'][0]:.4g}" for p in rows[name])
        print(f"{name:<8}" + "".join(f"{cell:>14}" for cell in cells))
    write_json(path, facts | rows)


def main(argv=None):
    args = parse(argv)
    words = sys.argv[1:] if argv is None else argv

    # The model, and the photos that its images are compared to.
    device = prepare_device(args.device)
    set_seeds(args.seed)
    weights = chosen_weights(args, "diffusion")
    model, metadata = load_diffusion(weights, device)
    reference = reference_stats(args, metadata) if args.frechet else None
    for folder in ("models", "log", "vis"):
        prepare_folder(args.out / folder)

    # What the new weights will say about their origin, and the training.
    config = default_sampler_config(metadata)
    if args.guidance is not None:
        config = replace(config, guidance=args.guidance)
    if config.sigma_max != SIGMA_MAX:
        raise UserError(
            f"{weights} sample from noise level {config.sigma_max:g}, couplings need "
            f"{SIGMA_MAX:g}; train with --sigma-max {SIGMA_MAX:g}"
        )
    origin = {
        "weights": weights_facts(weights, metadata),
        "couplings": args.couplings,
        "sampler": config.sampler,
        "steps": config.steps,
        "guidance": config.guidance,
        "autoguidance": config.autoguidance,
    }
    model.to(memory_format=torch.channels_last)
    target = args.out / "models" / weights_name(FAST)
    with locked(target):
        keep_previous(target, metadata.get("data", {"source": "photos"}))
        after, metadata = reflow(args, config, model, metadata, origin)

    # The comparison, on noise of another seed than the couplings.
    start = draw_start(metadata, args.count if reference else SHOWN, args.seed + 1)
    models = {
        "before": (model, config),
        "after": (after, replace(config, guidance=1.0, autoguidance=1.0)),
    }
    found = compare(models, start, reference)
    title = caption(f"{model.name}, reflow", f"{args.couplings} couplings", metadata)
    save_picture(found, args.out / "vis" / f"reflow_{model.name}.png", title)
    if reference:
        keys = ("reflow", "epoch", "valid_loss", "seed")
        facts = {key: metadata[key] for key in keys}
        facts |= {"count": args.count, "data": reference.data}
        facts["machine"] = machine_facts(device)
        facts["command"] = shlex.join(["python", "-m", "tools.reflow", *words])
        save_record(found, facts, args.out / "log" / f"reflow_{model.name}.json")


if __name__ == "__main__":
    run(main)
