"""Train one of the autoencoders on ./flowers; keep the best weights in models/.

python train_script.py --model AE > log/train_AE.out
"""

from utils.cli import command_line, run
from utils.registry import build_model, loss_of, settings_for, size_args

FLAGS = (
    "--model --epochs --batch-size --lr --optimizer --scheduler --patience --seed "
    "--data --strict-data --image-size --encoding-dim --device --out"
)


def make_optimizer(name, parameters, lr):
    """Return a torch optimizer by its name on the command line."""
    import torch

    if name == "sgd":
        return torch.optim.SGD(parameters, lr)
    if name == "momentum":
        return torch.optim.SGD(parameters, lr, momentum=0.9)
    if name == "adam":
        return torch.optim.Adam(parameters, lr, fused=True)
    if name == "muon":
        from utils.muon import Muon

        return Muon(parameters, lr)
    return torch.optim.AdamW(parameters, lr, betas=(0.9, 0.99), fused=True)


def make_scheduler(name, optimizer, lr, steps):
    """Return the learning rate over `steps` batches, or over epochs, by its name."""
    from torch.optim.lr_scheduler import OneCycleLR

    from utils.scheduler import exponential_decay

    if name == "exponential":
        return exponential_decay(lr, 0.9, 10)
    if name == "constant":
        return exponential_decay(lr, 1.0)
    return OneCycleLR(optimizer, lr, steps, pct_start=0.25, cycle_momentum=False)


def main(argv=None):
    parser = command_line(__doc__, *FLAGS.split(), model="AE")
    args = parser.parse_args(argv)
    settings = settings_for(args, args.model)

    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

    from utils.figures import caption, save_curves
    from utils.runtime import set_seeds, start_training
    from utils.train import train

    name, csv_path = args.model, args.out / "log" / f"{args.model}.csv"
    set_seeds(args.seed)
    model = build_model(name, **size_args(settings))
    device, (training, validation), about = start_training(args, settings, name)
    if hasattr(model, "start_at"):
        model.start_at(training.dataset.channel_means())
    model.to(device)
    steps = settings.epochs * len(training)
    optimizer = make_optimizer(settings.optimizer, model.parameters(), settings.lr)
    train(
        optimizer=optimizer,
        scheduler=make_scheduler(settings.scheduler, optimizer, settings.lr, steps),
        model=model,
        training_dataloader=training,
        validation_dataloader=validation,
        num_epochs=settings.epochs,
        early_stopping_patience=settings.patience,
        device=device,
        model_save_root=args.out / "models",
        loss_fn=loss_of(name),
        log_path=csv_path,
        about=about,
    )
    title = caption(name, settings.optimizer, about)
    save_curves(csv_path, args.out / "vis" / f"loss_{name}.png", title)


if __name__ == "__main__":
    run(main)
