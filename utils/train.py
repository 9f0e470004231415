"""The training loop: train, validate, save the best weights, stop early."""

# It knows no model: it is given one, its loss, and batches of images.

import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.optim.lr_scheduler import LRScheduler

from utils.checkpoint import last_name, save_checkpoint, weights_name, when
from utils.checkpoint.resume import restore, write_state
from utils.cli import UserError
from utils.cli.progress import TimeEstimate, bar
from utils.device import fork_rng
from utils.files import csv_log, prepare_target

CHECK_EVERY = 3  # epochs between validations, as in the starter kit
SAVE_EVERY = 5.0  # seconds between states that --resume restores, at least

log = logging.getLogger(__name__)


class Epoch(NamedTuple):
    """What is known after an epoch."""

    number: int  # from 0, as an autoencoder's training prints it
    train_loss: float  # mean over batches, collected while the weights changed
    valid_loss: float  # of the latest check
    checked: bool  # this epoch ended with a check
    is_best: bool  # that check was better than all before it
    restored: bool = False  # of the run that is resumed: printed before
    row: dict | None = None  # of the CSV file, where it is not restored


@dataclass
class FitState:
    """What `fit` knows between epochs."""

    number: int = 0  # of the next epoch
    valid_loss: float = math.inf  # of the latest check
    best: float = math.inf
    best_number: int = -1  # the epoch of the best check
    checks_without_best: int = 0

    def ended(self, num_epochs, patience):
        """Return whether no epoch is left."""
        return self.number >= num_epochs or self.checks_without_best >= patience


def fit(step, check, num_epochs, patience, check_every=CHECK_EVERY, state=None):
    """Yield an Epoch after each epoch; stop after `patience` checks without a new best.

    step(number) trains one epoch and returns its loss; check() returns the validation
    loss, or raises if it is not finite. state: a FitState, of a run that is resumed.
    """
    if patience < 1:
        raise ValueError(f"patience must be at least 1, got {patience}")
    state = state or FitState()
    while not state.ended(num_epochs, patience):
        number, is_best = state.number, False
        train_loss = step(number)
        checked = number % check_every == 0 or number == num_epochs - 1
        if checked:
            state.valid_loss = check()
            is_best = state.valid_loss < state.best
            state.checks_without_best += 1
        if is_best:
            state.best, state.best_number = state.valid_loss, number
            state.checks_without_best = 0
        state.number += 1
        yield Epoch(number, train_loss, state.valid_loss, checked, is_best)


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
    reduction="mean",
    log_path=None,
    metadata=None,
    ema=None,
    resumed=None,
    on_epoch=None,
    make_trainer=None,
):
    """Train, print a line per epoch, save the best weights and optionally a CSV log.

    Batches are (images, _) with images (B, C, H, W); the loss is
    `loss_fn(model(images), images)`, a mean or a sum over the batch as `reduction`
    says. `scheduler` is a function of the epoch, or an LRScheduler, which is stepped
    after every batch. `metadata` join those of the checkpoint. `ema`: an AveragedModel,
    which is validated and saved in the model's place. `resumed`: the State of an
    interrupted run (utils.checkpoint.resume), whose epochs are printed again.
    `on_epoch(Epoch, model)`: called after each line. `make_trainer`: utils.distributed.

    Raises:
        UserError: on a loss or weight that is not finite, or a save that fails.
    """
    # The labels are not used: the images are the targets.
    trainer = (make_trainer or Trainer)(
        optimizer,
        scheduler,
        model,
        (training_dataloader, validation_dataloader),
        lambda model, images, _: loss_fn(model(images), images),
        device,
        reduction=reduction,
        ema=ema,
    )
    stopping = num_epochs, early_stopping_patience, CHECK_EVERY
    # The line of the starter kit, floats not rounded.
    for epoch in trainer.fit(model_save_root, *stopping, log_path, metadata, resumed):
        print(
            f"Epoch: {epoch.number}, Train Loss: {epoch.train_loss}, "
            f"Valid Loss: {epoch.valid_loss}",
            flush=True,
        )
        if on_epoch:
            on_epoch(epoch, trainer.eval_model)


class Trainer:
    """A model, its loss and optimizer, and the batches that they are trained on.

    loaders: (training, validation), of (images, labels); batch_loss(model, images,
    labels) -> scalar, a mean or a sum over the batch as `reduction` says; ema: an
    AveragedModel; report_metrics: log what the model reports beside its loss, see
    `validation_metrics`.
    """

    def __init__(
        self,
        optimizer,
        scheduler,
        model,
        loaders,
        batch_loss,
        device,
        *,
        reduction="mean",
        ema=None,
        report_metrics=True,
    ):
        self.optimizer, self.scheduler = optimizer, scheduler
        self.model, self.loaders = model.to(device), loaders
        self.batch_loss, self.device, self.reduction = batch_loss, device, reduction
        self.eval_model = ema.module if ema else model
        self.report_metrics, self.ema = report_metrics, ema
        self.passes = every_batch, every_batch  # for losses, for metrics
        if ema:
            optimizer.register_step_post_hook(lambda *_: ema.update_parameters(model))

    def fit(
        self,
        model_save_root,
        num_epochs,
        patience,
        check_every=CHECK_EVERY,
        log_path=None,
        metadata=None,
        resumed=None,
    ):
        """Yield an Epoch after each epoch; its best weights are saved, its row logged.

        resumed: the State of an interrupted run, whose epochs come first. Without one
        the state after an epoch, and after what the caller does with it, replaces that
        of an earlier run.
        """
        name = self.model.name
        path = prepare_target(Path(model_save_root, weights_name(name)))
        last = prepare_target(path.with_name(last_name(name)))
        state, rows = FitState(), []
        if resumed:
            fitted, rows = restore(self, resumed)
            state = FitState(**fitted)
            what = "nothing to do" if state.ended(num_epochs, patience) else "resumed"
            facts = what, state.number, state.best, resumed.path
            log.info("%s after %d epochs, best loss %.4g, from %s", *facts)
        # The epochs of the interrupted run.
        write_row = csv_log(log_path, rows)
        for row in rows:
            facts = row["epoch"], row["train_loss"], row["valid_loss"]
            yield Epoch(*facts, "valid_per_photo" in row, False, restored=True)

        # The others, of which an estimate counts the batches.
        left = (num_epochs - state.number) * len(self.loaders[0])
        self.estimate, saved = TimeEstimate("training", left), time.monotonic()
        if not resumed:  # before its first weights replace those of another run
            write_state(last, self, asdict(state), rows, metadata, False)
        stopping = num_epochs, patience, check_every
        for epoch in fit(self.train_epoch, self.check, *stopping, state):
            rows.append(self.row(epoch))
            if epoch.is_best:
                save_checkpoint(path, self.eval_model, metadata, **rows[-1])
            write_row(rows[-1])
            yield epoch._replace(row=rows[-1])
            ended = state.ended(num_epochs, patience)
            if ended or time.monotonic() - saved >= SAVE_EVERY:
                write_state(last, self, asdict(state), rows, metadata, ended)
                saved = time.monotonic()

    def train_epoch(self, number):
        """Train on every batch once -> mean of the batch losses."""
        self.number = number
        if not isinstance(self.scheduler, LRScheduler):  # a function of the epoch
            for group in self.optimizer.param_groups:
                group["lr"] = self.scheduler(number)
        self.lr = float(self.optimizer.param_groups[0]["lr"])
        self.model.train()
        self.train_results = []  # [(loss, number of photos), ...]
        batches = bar(self.batches(), f"epoch {number}")
        for step, (images, labels) in enumerate(batches):
            images = images.to(self.device)
            # Gradients would add up over steps.
            self.optimizer.zero_grad()
            loss, count = self.loss(images, labels)
            lr = float(self.optimizer.param_groups[0]["lr"])
            where = f"in epoch {number}, step {step}, lr {lr:g}"
            value = finite(loss, f"training loss {where}")
            loss.backward()
            self.optimizer.step()
            if isinstance(self.scheduler, LRScheduler):
                self.scheduler.step()
            self.train_results.append((value, count))
            batches.set_postfix_str(f"loss {value:.4g}", refresh=False)
            self.estimate.add()
        return per_batch(self.train_results)

    def batches(self):
        """Return the batches of an epoch, or this process's part of each."""
        return self.loaders[0]

    def loss(self, images, labels):
        """Return the loss of a batch, and its number of photos."""
        return self.batch_loss(self.model, images, labels), len(images)

    def check(self):
        """Validate -> mean of the batch losses, of the same noise at every call."""
        model, loader, device = self.eval_model, self.loaders[1], self.device
        where, passes = when({"epoch": self.number, "lr": self.lr}), self.passes
        losses = validate(model, loader, self.batch_loss, device, where, passes[0])
        self.valid_results, self.metrics = losses, {}
        if self.report_metrics:
            self.metrics = validation_metrics(model, loader, device, passes[1])
        return per_batch(losses)

    def row(self, epoch):
        """Return the epoch's row of the CSV log; a row without a check is shorter."""
        row = {
            "epoch": epoch.number,
            "lr": self.lr,
            "train_per_photo": per_photo(self.train_results, self.reduction),
        }
        if epoch.checked:
            row["valid_per_photo"] = per_photo(self.valid_results, self.reduction)
            row |= self.metrics
        return row | {"train_loss": epoch.train_loss, "valid_loss": epoch.valid_loss}


# Passes over the photos --------------------------------------------------------


@torch.no_grad()
def every_batch(function, model, loader, device, seed):
    """Return function(images, labels) of every batch, in evaluation mode."""
    # Random numbers are the same at every call, and those of training continue after
    # it as if it had not been made.
    model.eval()
    with fork_rng(seed):
        return [function(images.to(device), labels) for images, labels in loader]


def validate(model, loader, batch_loss, device, where="", over=every_batch, seed=0):
    """Evaluate every batch -> [(loss, number of photos), ...]."""

    def result(images, labels):  # `where` is part of a message
        loss = batch_loss(model, images, labels)
        return finite(loss, f"validation loss{where}"), len(images)

    return over(result, model, loader, device, seed)


def validation_metrics(model, loader, device, over=every_batch, seed=0):
    """Return what the model reports of all photos: `valid_` + name -> number."""
    # `model.validation_details(images, labels)` returns names -> (B, ...), of which
    # `model.summarize_details` makes names -> numbers. Empty for a model without them.
    if not hasattr(model, "validation_details"):
        return {}
    batches = over(model.validation_details, model, loader, device, seed)
    details = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
    return {f"valid_{k}": v for k, v in model.summarize_details(details).items()}


# Losses ------------------------------------------------------------------------


def finite(loss, name):
    """Return the loss as a float, or raise a UserError if it is not finite."""
    value = loss.item()
    if not math.isfinite(value):
        raise UserError(
            f"non-finite {name}: {value}; the best weights so far are unharmed, "
            "try a smaller --lr"
        )
    return value


def per_batch(results):
    """Return the plain mean of the batch losses, as the starter kit prints it."""
    return sum(loss for loss, _ in results) / len(results)


def per_photo(results, reduction):
    """Return the mean loss per photo, independent of the batch size."""
    # reduction: "mean" or "sum", what the batch losses are over their photos.
    total = sum(loss if reduction == "sum" else loss * n for loss, n in results)
    return total / sum(n for _, n in results)
