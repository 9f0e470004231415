"""Truths about the training loop: what it does, prints, logs and keeps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from Autoencoder import Autoencoder
from MLPAutoencoder import MLPAutoencoder
from tests.helpers.training import CPU, LINE, Scale, batches, rows_of, run, scripted
from utils.checkpoint import load_checkpoint
from utils.scheduler import exponential_decay
from utils.train import train, validate
from VarAutoencoder import VAE_loss_function, VarAutoencoder

# What it prints ----------------------------------------------------------------


def test_lines_are_the_kits_and_nothing_else(tmp_path, capsys):
    """B.4, R3, M8: unrounded, checks at 0, 3, 6 and last, carried over between."""
    model, losses = Scale(), {True: [], False: []}

    def loss_fn(outputs, images):
        loss = F.mse_loss(outputs, images)
        losses[model.training].append(loss.item())
        return loss

    assert run(tmp_path, model, num_epochs=8, loss_fn=loss_fn) is None
    out, err = capsys.readouterr()
    lines = [LINE.fullmatch(line).groups() for line in out.splitlines()]
    assert (len(lines), err, out[-1]) == (8, "", "\n")
    assert len(losses[False]) == 4  # epochs 0, 3, 6 and 7
    for epoch, (number, train_loss, valid_loss) in enumerate(lines):
        mean = sum(losses[True][2 * epoch : 2 * epoch + 2]) / 2
        assert number == str(epoch)
        assert float(train_loss) == pytest.approx(mean, rel=1e-15)
        assert valid_loss == repr(losses[False][epoch // 3 if epoch < 7 else 3])


def test_the_stopping_epoch_is_printed(tmp_path, capsys):
    """R3, T15: patience 1, second check no better, so epoch 3 is the last line."""
    model = Scale()
    loss_fn = scripted(model, [2, 2])
    run(tmp_path, model, num_epochs=9, loss_fn=loss_fn, early_stopping_patience=1)
    lines = map(LINE.fullmatch, capsys.readouterr().out.splitlines())
    assert [line.group(1, 3) for line in lines] == [(f"{n}", "2.0") for n in range(4)]


# What it does with the model ---------------------------------------------------


def test_trains_in_training_mode_and_validates_in_evaluation_mode(tmp_path):
    """R4: also after the first check; validation keeps no graph."""
    model, modes = Scale(), []

    def loss_fn(outputs, images):
        modes.append((model.training, outputs.requires_grad))
        return F.mse_loss(outputs, images)

    run(tmp_path, model, num_epochs=5, loss_fn=loss_fn)
    epoch, check = [(True, True)] * 2, [(False, False)]
    assert modes == (epoch + check) + 2 * epoch + (epoch + check) + (epoch + check)


@pytest.mark.parametrize("clears, times", [(True, 1), (False, 2)])
def test_gradients_are_cleared(tmp_path, monkeypatch, clears, times):
    """R26, T14: two equal batches give the gradient of one; a mutant gives twice it."""
    if not clears:
        monkeypatch.setattr(torch.optim.SGD, "zero_grad", lambda self: None)
    model, (images, labels) = Scale(), batches(1)[0]
    run(tmp_path, model, lr=0.0, training_dataloader=[(images, labels)] * 2)
    alone = Scale()
    F.mse_loss(alone(images), images).backward()
    assert model.w.grad.item() == pytest.approx(times * alone.w.grad.item())


def rates_in(optimizer):
    """Return a list that gets the rates of all groups at every step."""
    rates, groups = [], optimizer.param_groups
    optimizer.register_step_pre_hook(lambda *_: rates.append([g["lr"] for g in groups]))
    return rates


def test_a_function_of_the_epoch_sets_the_rate_of_every_group(tmp_path):
    """R12, B.4: written at the start of each epoch."""
    model = Scale()
    model.v = nn.Parameter(torch.tensor(1.0))
    groups = [{"params": [model.w]}, {"params": [model.v], "lr": 7.0}]
    options = {"optimizer": torch.optim.SGD(groups, lr=9.0)}
    options["scheduler"] = exponential_decay(0.1, 0.5, 2)
    seen = rates_in(options["optimizer"])
    run(tmp_path, model, num_epochs=5, **options)
    rates = [0.1, 0.1, 0.05, 0.05, 0.025]
    assert seen == [[rate, rate] for rate in rates for _ in range(2)]


def test_an_lr_scheduler_is_stepped_once_per_batch(tmp_path):
    model, log_path = Scale(), tmp_path / "x.csv"
    options = {"optimizer": torch.optim.SGD(model.parameters(), lr=0.01)}
    options["scheduler"] = LambdaLR(options["optimizer"], lambda step: step + 1)
    seen = rates_in(options["optimizer"])
    run(tmp_path, model, num_epochs=3, log_path=log_path, **options)
    assert sum(seen, []) == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    rates = [float(row["lr"]) for row in rows_of(log_path)]
    assert rates == pytest.approx([0.01, 0.03, 0.05])  # at the start of an epoch


# Its random state --------------------------------------------------------------


class Noisy(Scale):
    """Adds noise, and notes what it drew, apart for training and validation."""

    def __init__(self):
        super().__init__()
        self.drawn = {True: [], False: []}

    def forward(self, images):
        noise = torch.randn(())
        self.drawn[self.training].append(noise.item())
        return self.w * images + noise


def test_validation_repeats_its_noise_and_leaves_that_of_training_alone(tmp_path):
    """T13 of INTERFACE.md, STYLE rule 5."""
    model = Noisy()
    torch.manual_seed(5)
    run(tmp_path, model, num_epochs=7, validation_dataloader=batches(2, seed=1))
    torch.manual_seed(5)
    assert model.drawn[True] == [torch.randn(()).item() for _ in range(14)]
    first, second, *others = model.drawn[False]
    assert first != second and others == [first, second] * 2


def test_validate_gives_the_loss_and_number_of_photos_of_each_batch():
    loader = batches(1, size=3) + batches(1, size=2, seed=1)
    state = torch.get_rng_state()
    results = validate(
        Noisy(), loader, lambda model, x, _: model(x).std() + x.mean(), CPU
    )
    means = [0.5 * images.std() + images.mean() for images, _ in loader]
    assert [count for _, count in results] == [3, 2]
    assert [loss for loss, _ in results] == pytest.approx([m.item() for m in means])
    assert torch.equal(torch.get_rng_state(), state)  # T13


# The kit's own call ------------------------------------------------------------


@pytest.mark.parametrize(
    "build, file, loss",
    [
        (MLPAutoencoder, "Best_MLPAE.pkl", {}),
        (Autoencoder, "Best_AE.pth", {}),
        (VarAutoencoder, "Best_VAE.pth", {"loss_fn": VAE_loss_function}),
    ],
)
def test_the_kits_call_saves_each_model_under_its_name(tmp_path, build, file, loss):
    """M10, M25, M31, C1, B.4: a plain DataLoader, keywords only, new folders."""
    photos = [(image, 1) for image in torch.rand(6, 3, 8, 8)]
    model = build(4, 8, 8)
    result = train(
        optimizer=torch.optim.SGD(model.parameters(), 0.0),
        scheduler=exponential_decay(0.0),
        model=model,
        training_dataloader=DataLoader(photos, batch_size=4, shuffle=True),
        validation_dataloader=DataLoader(photos, batch_size=4),
        num_epochs=1,
        early_stopping_patience=1,
        device=CPU,
        model_save_root=tmp_path / "new" / "models",
        **loss,
    )
    assert result is None
    found = {path.name for path in tmp_path.rglob("*.*")}
    assert found == {file, f"Last_{model.name}.pth"}
    weights, metadata = load_checkpoint(tmp_path / "new" / "models" / file)
    assert metadata["model"] == model.name
    fresh = build(4, 8, 8)
    fresh.load_state_dict(weights)
    pairs = zip(fresh.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(saved, trained) for saved, trained in pairs)
