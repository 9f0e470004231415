"""Train one of the autoencoders on ./flowers; keep the best weights in models/.

python train_script.py --model AE > log/train_AE.out
"""

import logging

from utils.cli import UsageError, run
from utils.cli.arguments import command_line
from utils.config import settings_for
from utils.registry import build_model, load_model, loss_of, size_args

FLAGS = (
    "--model --epochs --batch-size --lr --optimizer --weight-decay --scheduler "
    "--warm-up --patience --flips --shift --ema --start --beta --pairs --seed "
    "--split-seed --data --strict-data --image-size --encoding-dim --device --out"
)
log = logging.getLogger(__name__)


def start(model, how, channel_means):
    """Set the first weights: the model's own, or each layer's as PyTorch draws them."""
    if how == "own":
        model.start_at(channel_means)
        return
    for layer in model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()


def save_priors(folder, name, training):
    """Fit distributions to the best model's codes, and save them beside its weights."""
    from utils.checkpoint import save_checkpoint, weights_name
    from utils.latents import MOST_NUMBERS, encode, fit_priors, fitted_to

    model, about = load_model(name, folder / weights_name(name))
    path = folder / weights_name(f"prior_{name}")
    if model.args["encoding_dim"] > MOST_NUMBERS:
        log.warning("no priors for codes of more than %d numbers", MOST_NUMBERS)
        path.unlink(missing_ok=True)  # it belongs to other weights
        return
    priors = fit_priors(name, encode(model, training.all_images()))
    save_checkpoint(path, priors, {"fitted_to": fitted_to(about)})


def main(argv=None):
    parser = command_line(__doc__, *FLAGS.split(), model="AE")
    args = parser.parse_args(argv)
    settings = settings_for(args, args.model)
    for flag, value, part in (
        ("--beta", args.beta, "no KL"),
        ("--pairs", args.pairs, "no latent vectors to draw"),
    ):
        if value is not None and args.model != "VAE":
            raise UsageError(
                f"argument {flag}: {args.model} has {part}; use --model VAE"
            )

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.checkpoint import prepare_target, weights_name
    from utils.device import set_seeds
    from utils.experiment import start_training
    from utils.figures import caption, save_curves
    from utils.optim.factory import make_optimizer, make_scheduler, running_average
    from utils.train import train

    name, csv_path = args.model, args.out / "log" / f"{args.model}.csv"
    set_seeds(args.seed)
    model = build_model(name, **size_args(settings))
    if name == "VAE":
        model.pairs = settings.pairs
    device, (training, validation), about = start_training(args, settings, name)
    prepare_target(args.out / "models" / weights_name(f"prior_{name}"))
    start(model, settings.start, training.dataset.channel_means())
    model.to(device)
    optimizer = make_optimizer(settings, model.parameters())
    train(
        optimizer=optimizer,
        scheduler=make_scheduler(settings, optimizer, settings.epochs * len(training)),
        model=model,
        training_dataloader=training,
        validation_dataloader=validation,
        num_epochs=settings.epochs,
        early_stopping_patience=settings.patience,
        device=device,
        model_save_root=args.out / "models",
        loss_fn=loss_of(name, settings.beta),
        log_path=csv_path,
        about=about,
        averaged=running_average(model, settings.ema),
    )
    title = caption(name, settings.optimizer, about)
    save_curves(csv_path, args.out / "vis" / f"loss_{name}.png", title)
    save_priors(args.out / "models", name, training.dataset)


if __name__ == "__main__":
    run(main)
