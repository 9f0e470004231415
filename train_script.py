"""Train one of the autoencoders on ./flowers; keep the best weights in models/.

python train_script.py --model AE > log/train_AE.out
"""

import logging
from dataclasses import fields
from functools import partial

from utils.cli import UsageError, guard, run
from utils.cli.arguments import command_line, refuse_given
from utils.config import AUTOENCODERS, ELSEWHERE, AutoencoderSettings, settings_for

FLAGS = "--model --resume --seed --split-seed --data --strict-data --device --out"
FLAGS += " --cache --tensorboard"
SHOWN = 8  # validation photos that TensorBoard shows with their reconstructions
log = logging.getLogger(__name__)


def parse(argv=None):
    """Return (checked command line, settings of the training)."""
    parser = command_line(
        __doc__,
        *FLAGS.split(),
        settings=fields(AutoencoderSettings),
        choices={"--model": AUTOENCODERS},
        elsewhere=ELSEWHERE,
        model="AE",
        seed=None,
        split_seed=None,
    )
    args = parser.parse_args(argv)
    if args.model != "VAE":
        reason = f"{args.model} has no KL and draws no latent vectors; use --model VAE"
        refuse_given(args, ["--beta", "--antithetic-pairs"], reason)
    settings = settings_for(args, args.model)
    if args.model != "MLPAE" and settings.image_size % 4:
        reason = f"must be a multiple of 4 for {args.model}"
        raise UsageError(f"argument --image-size: {reason}, got {settings.image_size}")
    return args, settings


if __name__ == "__main__":
    guard(parse)

import torch

from utils.checkpoint import weights_name
from utils.checkpoint.resume import training_session
from utils.device import fork_rng, set_seeds
from utils.distributed import lead, make_trainer, process_group, start_together
from utils.experiment import start_training
from utils.figures import caption, save_curves
from utils.files import prepare_target
from utils.latents import MAX_CODES, MAX_DIM, encode, reconstruct, save_priors
from utils.optim.factory import prepare_training
from utils.registry import autoencoders, build_model, load_model, model_args
from utils.tensorboard import open_board
from utils.train import train


def init_model(model, scheme, channel_means):
    """Set the initial weights: by the model's own scheme, or by PyTorch's."""
    if scheme == "own":
        model.init_output_bias(channel_means)
        return
    # Layers without parameters have no reset_parameters.
    for layer in model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()


def fit_best(folder, name, training):
    """Fit priors to the codes of the best weights, and save them beside those."""
    model, metadata = load_model(name, folder / weights_name(name))
    path = folder / weights_name(f"prior_{name}")
    if model.args["encoding_dim"] > MAX_DIM:
        log.warning("no priors are fitted to codes of more than %d numbers", MAX_DIM)
        path.unlink(missing_ok=True)  # it belongs to other weights
        return
    codes = encode(model, training.at_most(MAX_CODES))
    save_priors(path, model, metadata, codes)


@torch.no_grad()
def show_epoch(board, photos, epoch, model):
    """Write an epoch's losses, and after a check photos above reconstructions."""
    board.scalars(epoch)
    if board.writer and epoch.checked:
        with fork_rng(0):  # a VAE draws random numbers
            both = torch.cat([photos, reconstruct(model, photos)])
        board.images("reconstructions", both, len(photos), epoch.number + 1)


@process_group()
def main(argv=None):
    args, settings = parse(argv)
    with training_session(args, settings) as run, open_board(args) as board:
        run_training(args, *run, board)


def run_training(args, settings, state, board):
    """Train, and save what belongs to the best weights; state: of a resumed run."""
    name, csv_path = args.model, args.out / "log" / f"{args.model}.csv"

    # The model and the data.
    set_seeds(args.seed)
    model = build_model(name, **model_args(name, settings))
    device, loaders, metadata = start_together(start_training, args, settings, state)
    training, validation = loaders
    prepare_target(args.out / "models" / weights_name(f"prior_{name}"))
    init_model(model, settings.init_weights, training.dataset.channel_means())
    model.to(device)

    # The optimizer and the loop.
    steps = settings.epochs * len(training)
    optimizer, scheduler, ema = prepare_training(settings, model, steps)
    objective, photos = autoencoders()[name], validation.dataset[:SHOWN][0]
    train(
        optimizer=optimizer,
        scheduler=scheduler,
        model=model,
        training_dataloader=training,
        validation_dataloader=validation,
        num_epochs=settings.epochs,
        early_stopping_patience=settings.patience,
        device=device,
        model_save_root=args.out / "models",
        loss_fn=objective.loss_for(settings.beta),
        reduction=objective.reduction,
        log_path=csv_path,
        metadata=metadata,
        ema=ema,
        resumed=state,
        on_epoch=partial(show_epoch, board, photos.to(device)),
        make_trainer=make_trainer,
    )
    lead(save_results, args, settings, metadata, training.dataset)


def save_results(args, settings, metadata, training):
    """Save the curves, and what belongs to the best weights; training: its photos."""
    name, csv_path = args.model, args.out / "log" / f"{args.model}.csv"
    objective = autoencoders()[name]
    title = caption(name, settings.optimizer, metadata)
    path = args.out / "vis" / f"loss_{name}.png"
    unit, asked = objective.unit, objective.asked
    if settings.beta != 1:  # the loss is another one
        unit, asked = f"squared error and KL by beta {settings.beta}", None
    save_curves(csv_path, path, title, unit, asked)
    fit_best(args.out / "models", name, training)


if __name__ == "__main__":
    run(main)
