"""Show quality against training time, for models of different training times.

MODELS="models/Best_diffusion_quick.pkl models/Best_diffusion.pkl models/Best_VAE.pth"
python -m tools.evaluate $MODELS --json > log/evaluate_ladder.json
python -m tools.ladder $MODELS

The metrics are those that tools.evaluate measured, in log/evaluate_*.json. The minutes
are those of all training steps, by the median time of a step, which this command
measures for one model after the other; nothing else should run at the same time. Writes
log/ladder.json and vis/ladder.png.
"""

from pathlib import Path

from utils.cli import UserError, guard, run
from utils.cli.arguments import command_line


def parse(argv=None):
    """Return the checked command line."""
    parser = command_line(__doc__, "--device", "--out")
    parser.add_argument("weights", type=Path, nargs="+", metavar="WEIGHTS")
    return parser.parse_args(argv)


if __name__ == "__main__":
    guard(parse)

from tools.benchmark import prepare_step
from utils.checkpoint import load_checkpoint
from utils.config import AUTOENCODERS, FAST, PRESETS
from utils.data.dataset import split_indices
from utils.data.synthetic import draw_flowers
from utils.device import machine_facts, prepare_device, set_seeds
from utils.experiment import seconds_per_step
from utils.figures import plot_ladder
from utils.files import prepare_target, read_json, write_json
from utils.optim.factory import prepare_training
from utils.registry import autoencoders, build_model, load_model


def autoencoder_step(settings, name, args, device):
    """Return (model, optimizer, loss, photos (B, 3, S, S), labels (B,)) of a step."""
    model = build_model(name, **args).to(device).train()
    optimizer, *_ = prepare_training(settings, model, 1000)
    loss_fn = autoencoders()[name].loss_for(settings.beta)
    images, labels = draw_flowers(settings.batch_size, *[settings.image_size] * 2)
    photos = images[: settings.batch_size].float().to(device) / 255
    return (
        *(model, optimizer, lambda model, images, _: loss_fn(model(images), images)),
        *(photos, labels[: settings.batch_size]),
    )


def training_minutes(name, metadata, device):
    """Return the minutes of all training steps of weights with this metadata."""
    settings = type(PRESETS[name][0])(**metadata["settings"])
    if name in AUTOENCODERS:
        step = autoencoder_step(settings, name, metadata["args"], device)
    else:
        step = prepare_step(settings, name, device)
    photos = len(split_indices(metadata["data"]["count"])[0])
    steps = settings.epochs * -(-photos // settings.batch_size)
    return steps * seconds_per_step(*step) / 60


def measured(folder, path):
    """Return what tools.evaluate measured: a file's samples, and all sets."""
    # Each set is {metric: estimate}. Of several measurements the one of most images.
    # Raises UserError if nothing was measured.
    records = map(read_json, sorted(folder.glob("evaluate_*.json")))
    if found := [sets for sets in records if str(path) in sets]:
        most = max(found, key=lambda sets: sets[str(path)]["images"])
        return most[str(path)], most
    raise UserError(
        f"no log/evaluate_*.json has {path}; make one: python -m tools.evaluate "
        f"{path} --json > log/evaluate_{path.stem.removeprefix('Best_')}.json"
    )


def main(argv=None):
    args = parse(argv)
    device = prepare_device(args.device)
    rows, photos = {}, None
    for path in args.weights:
        metrics, sets = measured(args.out / "log", path)
        photos = photos or sets["validation photos"]
        name = load_checkpoint(path)[1]["model"]
        if name == FAST:
            raise UserError(f"{path} was trained on images, not photos; omit it")
        set_seeds(0)
        minutes = training_minutes(name, load_model(name, path)[1], device)
        rows[name] = {"minutes": minutes, **metrics}
        print(f"{name}: {minutes:.1f} min", flush=True)
    target = prepare_target(args.out / "log" / "ladder.json")
    write_json(target, {"machine": machine_facts(device), "models": rows})
    plot_ladder(rows, photos, args.out / "vis" / "ladder.png")


if __name__ == "__main__":
    run(main)
