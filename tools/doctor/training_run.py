"""Runs a completion's `train` on a model of one weight whose losses are given.

The batches carry their number as the value of their pixels, so that the loss function
knows which batch it is called for, returns the loss that is planned for it, and notes
the circumstances.
"""

import inspect
import io
import re
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from .checks import NotExamined

LINE = re.compile(r"^Epoch: (\d+), Train Loss: (\S+), Valid Loss: (\S+)$", re.M)
TRAIN_BATCHES, VALID_BATCHES, BATCH = 3, 2, 4
FIRST_VALID = 8  # number of the first validation batch
SLOPE = 0.25  # gradient of every training loss by the weight
NAMES = ("Best_AE.pth", "Best_AE.pkl")  # of the kit, and of its assignment (C1)


class Event(NamedTuple):
    """A call of the loss function."""

    epoch: int  # counted by passes over the training batches, from 0
    batch: int  # of its pass
    check: int  # number of the validation pass, or -1 in training
    loss: float
    training_mode: bool
    gradients: bool  # are recorded
    weight: float
    lr: float
    files: tuple[str, ...]  # below the folder of weights


class Scale(nn.Module):
    """Multiplies images by its one weight."""

    def __init__(self, record):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.record = record

    @property
    def name(self):
        return "AE"

    def forward(self, x):
        self.record.mode, self.record.weight = self.training, self.weight.item()
        return x * self.weight


class Record:
    """The events of a run; copies of the model write to the same one."""

    def __init__(self, plan):
        self.plan, self.events = plan, []
        self.mode, self.weight = True, 1.0  # of the latest forward pass
        self.epoch = self.check = -1  # before the first

    def __deepcopy__(self, _):  # a loop may copy the model, to keep the best one
        return self


class Schedule:
    """A learning rate that falls in every epoch, in the form of the kit's class."""

    initial_learning_rate, decay_rate, decay_epochs = 0.5, 0.75, 1

    def __init__(self):
        self.optimizer, self.steps = None, 0

    def __call__(self, epoch):
        return self.initial_learning_rate * self.decay_rate**epoch

    def step(self, *_):
        """Set the next rate, for loops that treat it as PyTorch's schedulers."""
        self.steps += 1
        self.optimizer.param_groups[0]["lr"] = self(self.steps)


class Run(NamedTuple):
    """A finished training."""

    events: list[Event]
    output: str  # on stdout
    folder: Path  # of weights
    schedule: Schedule

    @property
    def lines(self):
        """The lines of epochs, as (epoch, train loss, validation loss) in text."""
        return LINE.findall(self.output.replace("\r", "\n"))

    @property
    def training(self):
        """The events of training batches."""
        return [event for event in self.events if event.check < 0]

    @property
    def validation(self):
        """The events of validation batches."""
        return [event for event in self.events if event.check >= 0]

    @property
    def epochs(self):
        """The number of epochs that were begun."""
        return max((event.epoch for event in self.training), default=-1) + 1

    def best_file(self):
        """Return the file of the best weights, or None."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        named = [path for path in files if path.name in NAMES]
        others = [path for path in files if "best" in path.name.lower()]
        return next(iter(named or others), None)


def loader(first, count):
    """Return batches of images whose pixels all are the number of the batch / 16."""
    numbers = torch.arange(first + 1, first + count + 1).repeat_interleave(BATCH)
    images = (numbers / 16).reshape(-1, 1, 1, 1).repeat(1, 3, 24, 24)
    dataset = TensorDataset(images, torch.zeros(len(images), dtype=torch.int64))
    return DataLoader(dataset, batch_size=BATCH, shuffle=False)


def train_loss(epoch, batch):
    """Return the planned loss, which has no short decimal form, nor has the mean."""
    return (batch + 1) / 7 / (epoch + 1)


def run_training(subject, plan, epochs, patience):
    """Return the Run of `utils.train.train`, called as by the kit.

    plan: the losses of the validation passes; the last one is that of all further ones.

    Raises:
        NotExamined: if it does not take the kit's arguments.
        Whatever it raises.
    """
    train = getattr(subject.module("utils.train"), "train", None)
    if not callable(train):
        raise NotExamined("utils/train.py has no function train")
    # A model, an optimizer and a schedule that note what is done with them.
    record, schedule = Record(plan), Schedule()
    model = Scale(record)
    optimizer = torch.optim.SGD(model.parameters(), lr=schedule(0))
    schedule.optimizer = optimizer
    folder = Path(tempfile.mkdtemp(dir=subject.folder)) / "models"
    # By keywords, as the kit's script does.
    arguments = {
        "optimizer": optimizer,
        "scheduler": schedule,
        "model": model,
        "training_dataloader": loader(0, TRAIN_BATCHES),
        "validation_dataloader": loader(FIRST_VALID, VALID_BATCHES),
        "num_epochs": epochs,
        "early_stopping_patience": patience,
        "device": torch.device("cpu"),
        "model_save_root": str(folder),
        "loss_fn": loss_function(record, optimizer, folder),
    }
    # Refused before it begins, so that a TypeError inside it is not mistaken for this.
    try:
        inspect.signature(train).bind(**arguments)
    except TypeError as error:
        raise NotExamined(f"train refuses the kit's arguments: {error}") from error
    with redirect_stdout(io.StringIO()) as output:
        train(**arguments)
    return Run(record.events, output.getvalue(), folder, schedule)


def loss_function(record, optimizer, folder):
    """Return the loss function that notes an Event at every call."""

    def loss_fn(outputs, images):
        number = round(images.flatten()[0].item() * 16) - 1
        valid = number >= FIRST_VALID
        batch = number - FIRST_VALID if valid else number
        record.epoch += batch == 0 and not valid
        record.check += batch == 0 and valid

        # A loss of the planned value, and of the same slope in every batch.
        if valid:
            value = record.plan[min(record.check, len(record.plan) - 1)]
            # Batches differ, and their mean is the plan's.
            value += batch - (VALID_BATCHES - 1) / 2
        else:
            value = train_loss(record.epoch, batch)
        weight = outputs.mean() / images.mean()
        loss = value + SLOPE * (weight - weight.detach())
        record.events.append(
            Event(
                record.epoch,
                batch,
                record.check if valid else -1,
                loss.item(),
                record.mode,
                torch.is_grad_enabled(),
                record.weight,
                optimizer.param_groups[0]["lr"],
                tuple(path.name for path in folder.rglob("*")),
            )
        )
        return loss

    return loss_fn
