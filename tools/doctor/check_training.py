"""Checks of `utils/train.py` and `utils/scheduler.py`, by runs with planned losses."""

import re

import torch

from .checks import Finding, NotExamined, check
from .training_run import LINE, NAMES, TRAIN_BATCHES, VALID_BATCHES, run_training

MODULES = ("utils.train",)
EPOCHS = 8
PLAN = (8.0, 4.0, 7.0, 6.0)  # validation losses of `EPOCHS` epochs: the second is best
# With a patience of 3: no new best at the checks 1, 3, 4 and 5. Whoever does not reset
# the count stops at the check 4, and whoever compares with the check before, never.
STOPPING = (8.0, 9.0, 4.0, 7.0, 6.0, 5.5, 5.25, 5.125, 5.0)
LONGEST = 40  # epochs
PATIENCE, LAST_CHECKS = 3, (5, 6)  # the count may have to reach or to exceed it
DIGITS = 7  # of a number that is not rounded, in single precision


def finished(subject, plan=PLAN, epochs=EPOCHS, patience=100):
    """Return the Run of a training.

    Raises:
        NotExamined: if it raises, or never validates; other checks say so.
    """
    try:
        run = run_training(subject, plan, epochs, patience)
    except NotExamined:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise NotExamined(f"train cannot be called ({reason})") from error
    if not run.training:
        raise NotExamined("train calls the loss function for no training batch")
    return run


def validated(subject):
    """Return the Run of a training, if it validates."""
    run = finished(subject)
    if not run.validation:
        raise NotExamined("train calls the loss function for no validation batch")
    return run


# What it prints ----------------------------------------------------------------


@check(1, modules=MODULES)
def training_lines(subject):
    """Every epoch prints the line of B.4, with the right means (R3)."""
    try:
        run = run_training(subject, PLAN, EPOCHS, 100)
    except NotExamined as refused:
        yield Finding("train_signature", str(refused), "the arguments of the kit")
        return
    # Other lines may stand between them, such as a note on a saved file.
    numbers = [int(number) for number, _, _ in run.lines]
    wanted = list(range(run.epochs))
    if numbers != wanted or not all(map(exact, run.lines)):
        printed = run.output.strip().splitlines() or ["nothing"]
        odd = [line for line in printed if not exact_line(line)]
        line = (odd or printed)[0]
        seen = f"{len(numbers)} such lines for {run.epochs} epochs; printed: {line}"
        form = "Epoch: 0, Train Loss: {avg_train_loss}, Valid Loss: {avg_valid_loss}"
        yield Finding("epoch_line", seen[:200], f"{form}, for every epoch, from 0")
        return
    yield from means(run)


def exact(line):
    """Return whether the numbers of a line are numbers, and the first not rounded."""
    _, train, valid = line
    try:
        float(train), float(valid)
    except ValueError:
        return False
    # Significant ones: without the point, the exponent and zeros at the start.
    digits = re.sub(r"e.*|\D", "", train).lstrip("0")
    return len(digits) >= DIGITS


def exact_line(line):
    """Return whether a printed line is that of an epoch."""
    found = LINE.fullmatch(line)
    return bool(found and exact(found.groups()))


def means(run):
    """Yield findings if printed losses are not the means over batches."""
    wrong = {}
    for number, train, valid in run.lines:
        epoch = int(number)
        losses = [event.loss for event in run.training if event.epoch == epoch]
        wanted = sum(losses) / len(losses)
        if not close(float(train), wanted):
            wrong.setdefault("train_loss_mean", (epoch, train, wanted))
        # The latest check until this line.
        latest = [event.loss for event in run.validation if event.epoch <= epoch]
        latest = latest[-VALID_BATCHES:]
        wanted = sum(latest) / len(latest) if latest else float("nan")
        if not close(float(valid), wanted):
            wrong.setdefault("valid_loss_printed", (epoch, valid, wanted))
    if not run.validation:
        wrong.pop("valid_loss_printed", None)  # `validation_checks` says so
    for name, (epoch, printed, wanted) in wrong.items():
        yield Finding(name, f"{printed} in epoch {epoch}", f"{wanted:.6g}")


def close(value, wanted):
    """Return whether two losses agree in single precision."""
    return abs(value - wanted) <= 1e-5 * max(1.0, abs(wanted))


# What it does ------------------------------------------------------------------


@check(1, modules=MODULES)
def training_modes(subject):
    """Training mode in training (R4); evaluation mode, no gradients in validation."""
    # Mode and gradients are noted where the loss is computed.
    run = finished(subject)
    wrong = [event for event in run.training if not event.training_mode]
    if wrong:
        seen = f"model.training is False in epoch {wrong[0].epoch}"
        yield Finding("train_mode_missing", seen, "True in every training batch")
    if any(event.training_mode for event in run.validation):
        seen = "model.training is True in validation"
        yield Finding("eval_mode_missing", seen, "False")

    # Steps on validation batches need gradients, so that one finding is enough.
    weights = {}
    for event in run.validation:
        weights.setdefault(event.check, set()).add(event.weight)
    if any(len(found) > 1 for found in weights.values()):
        seen = "weights change between validation batches"
        yield Finding("validation_trains", seen, "no step in validation")
    elif any(event.gradients for event in run.validation):
        seen = "gradients are recorded in validation"
        yield Finding("validation_gradients", seen, "torch.no_grad")


@check(1, modules=MODULES)
def training_steps(subject):
    """Every batch moves the weights, by its own gradient alone (R26)."""
    run = finished(subject)
    for epoch in range(run.epochs):
        events = [event for event in run.training if event.epoch == epoch]
        if len(events) != TRAIN_BATCHES:
            seen = f"{len(events)} of {TRAIN_BATCHES} batches in epoch {epoch}"
            yield Finding("batches_left_out", seen, "all of them")
            return
        # Gradients are equal, so that steps are; clipping may shorten both.
        first, second, third = (event.weight for event in events)
        if first == second or second == third:
            seen = "the weights are the same before and after a batch"
            yield Finding("weights_not_trained", seen, "a step of the optimizer")
            return
        growth = abs((third - second) / (second - first))
        if growth > 1.4:
            seen = f"of two equal gradients the second moves {growth:.3g} times as far"
            yield Finding("gradients_not_cleared", seen, "as far as the first")
            return


@check(1, modules=MODULES)
def learning_rate(subject):
    """The learning rate of an epoch is the scheduler's (R12)."""
    run = finished(subject)
    # Set after an epoch in place of before it, a rate comes one epoch late.
    rates = [event.lr for event in run.training if event.batch == 0]
    wanted = [run.schedule(epoch) for epoch in range(len(rates))]
    late = [run.schedule(max(epoch - 1, 0)) for epoch in range(len(rates))]
    if close_all(rates, wanted) or close_all(rates, late):
        return
    if run.schedule.steps:
        raise NotExamined("train calls scheduler.step() and not scheduler(epoch)")
    seen = f"learning rates {', '.join(f'{rate:.4g}' for rate in rates[:4])}"
    right = ", ".join(f"{rate:.4g}" for rate in wanted[:4])
    yield Finding("scheduler_not_applied", seen, right)


def close_all(values, wanted):
    """Return whether all of two lists of numbers agree."""
    return all(map(close, values, wanted))


@check(1, modules=MODULES)
def validation_checks(subject):
    """Validation at the epochs 0, 3 and 6, on every batch."""
    run = finished(subject)
    # More often than the kit is no mistake.
    epochs = sorted({event.epoch for event in run.validation})
    if not {0, 3, 6} <= set(epochs):
        yield Finding("validation_missing", f"in epochs {epochs}", "in 0, 3, 6")
        return
    for number in range(max(event.check for event in run.validation) + 1):
        count = sum(event.check == number for event in run.validation)
        if count != VALID_BATCHES:
            seen = f"{count} of {VALID_BATCHES} validation batches"
            yield Finding("batches_left_out", seen, "all of them")
            return


# What it keeps -----------------------------------------------------------------


@check(1, modules=MODULES)
def best_weights(subject):
    """The weights of the lowest validation loss are saved at once (M10, R13, R28)."""
    run = validated(subject)
    # The folder, the name and the time.
    path = run.best_file()
    if path is None:
        files = sorted(p.name for p in run.folder.rglob("*") if p.is_file())
        seen = f"files below model_save_root: {', '.join(files) or 'none'}"
        yield Finding("not_saved", seen, f"{NAMES[0]} at each new best")
        return
    if path.name not in NAMES:
        yield Finding("weights_name", path.name, " or ".join(NAMES))
    if not any(path.name in event.files for event in run.training):
        yield Finding("saved_late", "saved when the training ends", "at each new best")

    # The weight before a check is the one that it is of.
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        weight = state["weight"].item()
    except Exception as error:
        seen = f"{path.name}: {type(error).__name__}"
        yield Finding("weights_not_bare", seen, "model.state_dict() and nothing else")
        return
    best = run.validation[VALID_BATCHES]  # the first batch of the second check
    if not close(weight, best.weight):
        others = [e for e in run.events if close(weight, e.weight)]
        seen = f"the weights of epoch {others[0].epoch}" if others else "other weights"
        losses = ", ".join(map(str, PLAN[: run.validation[-1].check + 1]))
        wanted = f"those of epoch {best.epoch} for the losses {losses}"
        yield Finding("best_not_saved", seen, wanted)


@check(1, modules=MODULES)
def early_stopping(subject):
    """Stops after `patience` checks without a new best, and prints that epoch (R3)."""
    # The number of checks tells it, whichever epochs they belong to.
    validated(subject)
    run = finished(subject, STOPPING, LONGEST, PATIENCE)
    last, stopped = run.validation[-1].check, run.epochs - 1
    losses = ", ".join(map(str, STOPPING[: LAST_CHECKS[0] + 1]))
    wanted = f"after {PATIENCE} checks without a new best, of the losses {losses}"
    seen = f"stops in epoch {stopped}, after the losses {STOPPING[: last + 1]}"
    if last < LAST_CHECKS[0]:
        yield Finding("early_stop_too_early", seen, wanted)
    elif last > LAST_CHECKS[1]:
        seen = "never stops" if stopped == LONGEST - 1 else seen
        yield Finding("early_stop_missing", seen, wanted)
    elif list(training_lines(subject)):
        raise NotExamined("the last line: follows from the finding about lines")
    elif int(run.lines[-1][0]) != stopped:
        seen = f"the last line is that of epoch {run.lines[-1][0]}"
        yield Finding("stopping_line_missing", seen, f"epoch {stopped}, the last one")


@check(1, modules=("utils.scheduler",))
def decay(subject):
    """`exponential_decay` follows its formula (B.5)."""
    decay_class = getattr(subject.module("utils.scheduler"), "exponential_decay", None)
    if decay_class is None:
        raise NotExamined("utils/scheduler.py has no exponential_decay")
    schedule = decay_class(0.5, 0.9, 10)
    for epoch in (0, 9, 10, 25):
        wanted = 0.5 * 0.9 ** (epoch // 10)
        if not abs(float(schedule(epoch)) - wanted) < 1e-6:
            seen = f"{float(schedule(epoch)):.6g} in epoch {epoch}"
            yield Finding("decay_formula", seen, f"{wanted:.6g}")
            return
