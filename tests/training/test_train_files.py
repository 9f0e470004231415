"""Truths about what training leaves on disk: the CSV file and the best weights."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tests.helpers.training import CPU, LINE, Scale, batches, rows_of, run, scripted
from utils.checkpoint import load_checkpoint
from utils.cli import UserError
from utils.scheduler import exponential_decay
from utils.train import Trainer

BEST = "Best_AE.pth"


def squared_error_sum(outputs, images):
    return F.mse_loss(outputs, images, reduction="sum")


def trainer_of(model, loaders, batch_loss, **options):
    """A Trainer at the rate 0.1, by plain SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rate = exponential_decay(0.1, 1.0)
    return Trainer(optimizer, rate, model, loaders, batch_loss, CPU, **options)


# The CSV file ------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss_fn, values", [(F.mse_loss, 3 * 4 * 4), (squared_error_sum, 1)]
)
def test_loss_per_photo_does_not_depend_on_the_batch_size(
    tmp_path, capsys, loss_fn, values
):
    """R8, T23: the printed mean of batch means does, with a short last batch."""
    (photos, _), *_ = batches(1, size=7)
    exact = (photos / 2).square().sum().item() / 7 / values
    options = {"loss_fn": loss_fn, "reduction": "sum" if values == 1 else "mean"}
    log_path, printed = tmp_path / "log" / "AE.csv", set()
    for size in (1, 3, 4, 7):
        loader = [(part, None) for part in photos.split(size)]
        options |= dict(training_dataloader=loader, validation_dataloader=loader)
        run(tmp_path, Scale(), lr=0.0, log_path=log_path, **options)
        (row,) = rows_of(log_path)
        ours = float(row["train_per_photo"]), float(row["valid_per_photo"])
        assert ours == pytest.approx((exact, exact), rel=1e-6)
        lines = LINE.fullmatch(capsys.readouterr().out.strip()).groups()[1:]
        assert (row["train_loss"], row["valid_loss"]) == lines
        printed.add(round(float(lines[0]), 6))
    assert len(printed) > 2


class Detailed(Scale):
    """Has details, the brightness of each photo, and tells their mean."""

    def validation_details(self, images, labels):
        return {"brightness": images.mean(dim=(1, 2, 3))}

    def summarize_details(self, details):
        return {"brightness": details["brightness"].mean().item()}


def test_columns_and_rows_of_the_csv_file(tmp_path, capsys):
    """A row per epoch; cells of a check are empty where there was none."""
    validation = batches(1, size=3) + batches(1, size=1, seed=1)
    run(
        tmp_path,
        Detailed(),
        num_epochs=5,
        log_path=tmp_path / "AE.csv",
        validation_dataloader=validation,
    )
    rows = rows_of(tmp_path / "AE.csv")
    checked = "valid_per_photo", "valid_brightness"
    assert list(rows[0]) == [
        *("epoch", "lr", "train_per_photo", *checked),
        *("train_loss", "valid_loss", "seconds"),
    ]
    assert [row["epoch"] for row in rows] == list("12345")
    assert [bool(row[name]) for name in checked for row in rows] == 2 * [1, 0, 0, 1, 1]
    photos = torch.cat([images for images, _ in validation])
    brightness = float(rows[0]["valid_brightness"])
    assert brightness == pytest.approx(photos.mean().item(), rel=1e-6)
    assert all(0 <= float(row["seconds"]) < 60 for row in rows)
    # The starter kit's lines count from 0.
    losses = [(row["train_loss"], row["valid_loss"]) for row in rows]
    printed = capsys.readouterr().out.splitlines()
    found = [LINE.fullmatch(line).groups() for line in printed]
    assert losses == [line[1:] for line in found]
    assert [line[0] for line in found] == list("01234")


def test_labels_reach_the_loss_and_checks_come_when_asked(tmp_path):
    """Those of the batch, in training, validation and details; checks at 0, 2, 4, 5."""
    model, seen = Detailed(), []
    labelled = [(images, torch.full((2,), 7.0)) for images, _ in batches(2)]

    def batch_loss(model, images, labels):
        seen.append((torch.is_grad_enabled(), labels.tolist()))
        return F.mse_loss(model(images), images)

    model.validation_details = lambda images, labels: {"label": labels}
    model.summarize_details = lambda details: {"label": details["label"].mean().item()}
    trainer = trainer_of(model, (labelled, labelled[:1]), batch_loss)
    for _ in trainer.fit(tmp_path, 6, 9, check_every=2, log_path=tmp_path / "AE.csv"):
        pass
    assert seen.count((True, [7.0, 7.0])) == 12
    assert seen.count((False, [7.0, 7.0])) == 4 == len(seen) - 12
    told = [row["valid_label"] for row in rows_of(tmp_path / "AE.csv")]
    assert told == ["7.0", "", "7.0", "", "7.0", "7.0"]


# The best weights --------------------------------------------------------------


def test_the_file_changes_only_on_a_new_best_and_holds_its_weights(tmp_path):
    """P19, M10, R13: checks 5 4 4 6 3 at epochs 0 3 6 9 10; the row is there too."""
    model, w, old = Scale(), {}, None
    log_path, loss_fn = tmp_path / "AE.csv", scripted(model, [5, 4, 4, 6, 3])
    trainer = trainer_of(
        model,
        (batches(2), batches(1, seed=1)),
        lambda model, images, _: loss_fn(model(images), images),
    )
    for epoch in trainer.fit(tmp_path, 11, patience=9, log_path=log_path):
        w[epoch.number] = model.w.item()
        content = (tmp_path / BEST).read_bytes()
        assert (content != old) == (epoch.number in (0, 3, 10)) == epoch.is_best
        old = content
        weights, metadata = load_checkpoint(tmp_path / BEST)
        assert weights["w"].item() == w[metadata["epoch"]]
        assert metadata["epoch"] == max(n for n in (0, 3, 10) if n <= epoch.number)
        assert len(rows_of(log_path)) == epoch.number + 1
    assert len(set(w.values())) == 11 and metadata["valid_loss"] == 3.0
    found = sorted(p.name for p in tmp_path.iterdir())
    assert found == ["AE.csv", BEST, "Last_AE.pth"]


def test_averaged_weights_are_the_ones_validated_and_saved(tmp_path):
    """STYLE rule 16; the oracle is the plain mean of w after each of four steps."""
    model, after, judged = Scale(), [], []
    averaged = AveragedModel(model)  # equal weights
    model.register_forward_pre_hook(lambda *_: after.append(model.w.item()))

    def batch_loss(model, images, _labels):
        if not torch.is_grad_enabled():
            judged.append(model.w.item())
        return F.mse_loss(model(images), images)

    trainer = trainer_of(model, (batches(4), batches(1)), batch_loss, ema=averaged)
    for _ in trainer.fit(tmp_path, num_epochs=1, patience=9):
        after.append(model.w.item())
    mean = sum(after[1:5]) / 4
    assert len(after) == 5 and mean != pytest.approx(after[-1], rel=1e-3)
    assert judged == pytest.approx([mean])
    weights, metadata = load_checkpoint(tmp_path / BEST)
    assert list(weights) == ["w"] and metadata["model"] == "AE"
    assert weights["w"].item() == judged[0]


# Losses that are not finite ----------------------------------------------------

BATCHES = 3  # in an epoch


def poisoned(model, batch, value):
    """A loss that is `value` at this batch of the run, counted over training alone.

    Batch "check" means every validation batch instead.
    """
    trained = []

    def loss_fn(outputs, images):
        trained.extend([1] if model.training else [])
        here = len(trained) - 1 if model.training else "check"
        loss = F.mse_loss(outputs, images)
        return loss * value if here == batch else loss

    return loss_fn


def stopped(folder, model, words, epoch, **options):
    """Train at rate 0.125; an error must stop it, which names the epoch and the rate.

    Returns {file in the folder, but for the state: its bytes}.
    """
    options |= dict(lr=0.125, training_dataloader=batches(BATCHES), num_epochs=9)
    with pytest.raises(UserError, match=words) as caught:
        run(folder, model, **options)
    assert re.search(rf"epoch {epoch}\b", str(caught.value))
    assert re.search(r"lr 0\.125\b", str(caught.value))
    paths = [path for path in folder.iterdir() if path.name != "Last_AE.pth"]
    return {path.name: path.read_bytes() for path in paths}


@pytest.mark.parametrize("old", [None, b"the best of an earlier run"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("batch", [0, BATCHES - 1, "check"])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, batch, value, old):
    """P18, T05-T07: names epoch and lr; the old best is untouched, no new one made."""
    if old:
        (tmp_path / BEST).write_bytes(old)
    model = Scale()
    loss_fn = poisoned(model, batch, value)
    files = stopped(tmp_path, model, "(?i)non-finite", 0, loss_fn=loss_fn)
    assert files == ({BEST: old} if old else {})


def test_a_later_nan_leaves_the_best_of_this_run(tmp_path, capsys):
    """P18: epoch 0 was saved; the last step of epoch 2 is nan, its line not printed."""
    model = Scale()
    loss_fn = poisoned(model, 3 * BATCHES - 1, math.nan)
    stopped(tmp_path, model, "(?i)non-finite", 2, loss_fn=loss_fn)
    weights, metadata = load_checkpoint(tmp_path / BEST)
    assert metadata["epoch"] == 0 and torch.isfinite(weights["w"])
    assert capsys.readouterr().out.count("Epoch: ") == 2


def test_weights_that_are_not_finite_are_never_the_best(tmp_path):
    """P18: the loss is finite, a weight beside it is not."""
    model = Scale()
    model.unused = nn.Parameter(torch.tensor([1.0, math.nan]))
    (tmp_path / BEST).write_bytes(b"old")
    assert stopped(tmp_path, model, "unused", 0) == {BEST: b"old"}


def test_a_loop_without_the_check_would_be_noticed(tmp_path, monkeypatch, capsys):
    """The mutant lets every loss pass: no error, and nan on the line."""
    monkeypatch.setattr("utils.train.finite", lambda loss, name: loss.item())
    model = Scale()
    run(tmp_path, model, loss_fn=poisoned(model, "check", math.nan))
    assert capsys.readouterr().out.endswith("Valid Loss: nan\n")
