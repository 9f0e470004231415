"""Small models and batches for the training loop."""

import csv
import re

import torch
import torch.nn.functional as F
from torch import nn

from utils.train import train

LINE = re.compile(r"Epoch: (\d+), Train Loss: (\S+), Valid Loss: (\S+)")
CPU = torch.device("cpu")
DATA = {"source": "photos", "classes": ["astilbe", "bellflower"], "count": 2321}
DATA |= {"split_seed": 0, "split": "0123456789abcdef"}


class Scale(nn.Module):
    """One number times the image: small enough to foresee every loss and gradient."""

    name = "AE"

    def __init__(self, w=0.5):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, images):
        return self.w * images


def batches(count, size=2, seed=0):
    """`count` batches of `size` small photos, as a loader would give them."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, size, 3, 4, 4, generator=generator)
    return [(batch, torch.zeros(size)) for batch in images]


def run(folder, model, *, lr=0.1, **changes):
    """Train with the kit's keywords, but for `changes`; return what train returns."""
    options = dict(
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        scheduler=lambda epoch: lr,
        model=model,
        training_dataloader=batches(2),
        validation_dataloader=batches(1, seed=1),
        num_epochs=1,
        early_stopping_patience=5,
        device=CPU,
        model_save_root=folder,
    )
    return train(**{**options, **changes})


def descend(model, loss, lr, steps):
    """Take steps of AdamW down the loss() -> its values, one per step."""
    optimizer, values = torch.optim.AdamW(model.parameters(), lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        values.append(value.item())
    return values


def scripted(model, checks):
    """A loss whose validation values are given, one per check (of one batch)."""
    checks = iter(checks)

    def loss_fn(outputs, images):
        loss = F.mse_loss(outputs, images)
        return loss if model.training else torch.tensor(float(next(checks)))

    return loss_fn


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
