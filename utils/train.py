"""The loop: train, validate, keep the best, stop early.

Knows nothing about any model: it is handed one, its loss, and batches of images.
"""

import csv
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LRScheduler

from utils.checkpoint import prepare_target, save_checkpoint, weights_name, when
from utils.cli import UserError
from utils.cli.progress import progress
from utils.device import fixed_noise

CHECK_EVERY = 3  # epochs between validations, as in the starter kit


class Epoch(NamedTuple):
    """What is known after an epoch."""

    number: int  # from 0, as in the log
    train_loss: float  # mean over batches, collected while the weights moved
    valid_loss: float  # of the latest check
    is_best: bool  # a check in this epoch beat all before it


def fit(step, check, *, num_epochs, patience, check_every=CHECK_EVERY, min_delta=0.0):
    """Yield an Epoch after each epoch; stop after `patience` checks without a new best.

    step(number) trains one epoch and returns its loss; check() returns the validation
    loss, or raises if it is not finite. Best means smaller by more than `min_delta`.
    """
    if patience < 1:
        raise ValueError(f"patience must be at least 1, got {patience}")
    best, stale, valid_loss = math.inf, 0, math.inf
    for number in range(num_epochs):
        train_loss, is_best = step(number), False
        if number % check_every == 0 or number == num_epochs - 1:
            valid_loss = check()
            is_best = valid_loss < best - min_delta
            best, stale = (valid_loss, 0) if is_best else (best, stale + 1)
        yield Epoch(number, train_loss, valid_loss, is_best)
        if stale >= patience:
            return


def train(
    optimizer,
    scheduler,
    model,
    training_dataloader,
    validation_dataloader,
    num_epochs,
    early_stopping_patience,
    device,
    model_save_root,
    loss_fn=F.mse_loss,
    log_path=None,
    about=None,
    averaged=None,
):
    """Train, print a line per epoch, save the best weights and, if asked, a CSV file.

    Batches are (images, _) with images (B, C, H, W); the loss is
    `loss_fn(model(images), images)`: a mean over the batch, unless `loss_fn.reduction`
    is "sum". `scheduler` is a function of the epoch, or an LRScheduler, which is
    stepped after every batch. `about` joins the description in the checkpoint. An
    AveragedModel, if given, is validated and saved in the model's place.

    Raises:
        UserError: on a loss or weight that is not finite, or a save that fails.
    """
    epochs = training_epochs(
        optimizer,
        scheduler,
        model,
        (training_dataloader, validation_dataloader),
        lambda model, images, _: loss_fn(model(images), images),
        num_epochs=num_epochs,
        patience=early_stopping_patience,
        device=device,
        model_save_root=model_save_root,
        summed=getattr(loss_fn, "reduction", "mean") == "sum",
        log_path=log_path,
        about=about,
        averaged=averaged,
    )
    for epoch in epochs:
        print(
            f"Epoch: {epoch.number}, Train Loss: {epoch.train_loss}, "
            f"Valid Loss: {epoch.valid_loss}",
            flush=True,
        )


def training_epochs(
    optimizer,
    scheduler,
    model,
    loaders,
    batch_loss,
    *,
    device,
    model_save_root,
    summed=False,
    log_path=None,
    about=None,
    averaged=None,
    **stopping,
):
    """Yield an Epoch after each epoch: its best weights are saved, its row is logged.

    loaders: (training, validation); batch_loss(model, images, labels) -> scalar, a sum
    over the batch if `summed`; `averaged`: an AveragedModel, validated and saved in the
    model's place; stopping: `num_epochs`, `patience` and what else `fit` takes.
    """
    path = prepare_target(Path(model_save_root, weights_name(model.name)))
    judged = averaged.module if averaged else model
    if averaged:
        optimizer.register_step_post_hook(lambda *_: averaged.update_parameters(model))
    row = {}  # of the CSV file; cells of a check stay empty in epochs without one

    def step(number):
        row.clear()
        row.update(epoch=number, lr=start_epoch(optimizer, scheduler, number))
        results = train_epoch(
            model, loaders[0], batch_loss, optimizer, scheduler, device, number
        )
        row["train_per_photo"] = per_photo(results, summed)
        return per_batch(results)

    def check():
        results = validate(judged, loaders[1], batch_loss, device, when(row))
        row["valid_per_photo"] = per_photo(results, summed)
        row.update(validation_details(judged, loaders[1], device))
        return per_batch(results)

    model.to(device)
    write_row = csv_log(log_path)
    for epoch in fit(step, check, **stopping):
        row.update(train_loss=epoch.train_loss, valid_loss=epoch.valid_loss)
        if epoch.is_best:
            save_checkpoint(path, judged, about, **row)
        write_row(row)
        yield epoch


# Passes over the photos --------------------------------------------------------


def start_epoch(optimizer, scheduler, epoch):
    """Apply a scheduler that is a function of the epoch; return the learning rate."""
    if not isinstance(scheduler, LRScheduler):
        for group in optimizer.param_groups:
            group["lr"] = scheduler(epoch)
    return float(optimizer.param_groups[0]["lr"])


def train_epoch(model, loader, batch_loss, optimizer, scheduler, device, epoch):
    """Train on every batch once -> [(loss, number of photos), ...]."""
    model.train()
    results = []
    for step, (images, labels) in enumerate(progress(loader, f"epoch {epoch}")):
        images = images.to(device)
        optimizer.zero_grad()
        loss = batch_loss(model, images, labels)
        lr = float(optimizer.param_groups[0]["lr"])
        value = finite(loss, f"training loss in epoch {epoch}, step {step}, lr {lr:g}")
        loss.backward()
        optimizer.step()
        if isinstance(scheduler, LRScheduler):
            scheduler.step()
        results.append((value, len(images)))
    return results


@torch.no_grad()
def validate(model, loader, batch_loss, device, where="", seed=0):
    """Evaluate every batch under the same noise at every call -> [(loss, photos), ...].

    The noise of training goes on as if this had not been called. `where` tells the
    user, in the message of a loss that is not finite, what had been going on.
    """
    model.eval()
    results = []
    with fixed_noise(seed):
        for images, labels in loader:
            loss = batch_loss(model, images.to(device), labels)
            value = finite(loss, f"validation loss{where}")
            results.append((value, len(images)))
    return results


@torch.no_grad()
def validation_details(model, loader, device, seed=0):
    """Return what the model tells of all photos, if it does; prefixed by `valid_`.

    `model.details(images, labels)` returns names -> (B, ...), and `model.summary` of
    those of all photos names -> numbers.
    """
    if not getattr(model, "details", None):
        return {}
    model.eval()
    with fixed_noise(seed):
        batches = [
            model.details(images.to(device), labels) for images, labels in loader
        ]
    details = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
    return {f"valid_{name}": value for name, value in model.summary(details).items()}


# Losses ------------------------------------------------------------------------


def finite(loss, name):
    """Return the loss as a float, or stop the run.

    Raises:
        UserError: if it is nan or infinite.
    """
    value = loss.item()
    if not math.isfinite(value):
        raise UserError(
            f"non-finite {name}: {value}; the best weights so far are unharmed, "
            "try a smaller --lr"
        )
    return value


def per_batch(results):
    """Plain mean of the batch losses, as the starter kit prints it."""
    return sum(loss for loss, _ in results) / len(results)


def per_photo(results, summed):
    """Exact mean per photo, which neither batch size nor a short last batch changes.

    `summed`: the batch losses are sums over their photos, not means.
    """
    total = sum(loss if summed else loss * count for loss, count in results)
    return total / sum(count for _, count in results)


def csv_log(path):
    """Return a function that writes a row of facts, with the seconds since the last.

    The columns are those of the first row; only then an older file is replaced. Without
    a path nothing is written.
    """
    start, columns = time.perf_counter(), None

    def write_row(row):
        nonlocal start, columns
        now = time.perf_counter()
        row, start = {**row, "seconds": round(now - start, 3)}, now
        with open(path, "a" if columns else "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns or list(row), lineterminator="\n")
            if not columns:
                writer.writeheader()
            writer.writerow(row)
        columns = writer.fieldnames

    if path is None:
        return lambda row: None
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return write_row
