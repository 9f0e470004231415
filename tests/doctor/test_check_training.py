"""Checks of the training loop: faults that were planted in two loops."""

import pytest
import torch

from tests.doctor.variants_models import VARIANTS
from tests.helpers.doctor import imported_from, mutate, run_check, write_files
from tools.doctor import check_training, training_run
from tools.doctor.checks import CHECKS

LOOP, SAVE = "utils/train.py", "torch.save(model.state_dict(), path)"
SAVED = '        torch.save(best, folder / "Best_AE.pkl")\n'
SAVE_COPY = 'torch.save(best, folder / f"Best_{model.name}.pkl")\n'
SAVE_COPY += '            if verbose:\n                print("saved")\n'
# (variant, its text, what a student may have written, check, its findings)
PLANTED = [
    (
        *("functional", "num_epochs, early_stopping_patience, device"),
        *("early_stopping_patience, num_epochs, device, lr", "training_lines"),
        ["train_signature"],
    ),
    (
        *("functional", 'print(f"Epoch: {epoch}, ', 'print(f"Epoch {epoch + 1}: '),
        *("training_lines", ["epoch_line"]),
    ),
    (
        *("functional", "Train Loss: {avg_train_loss}", "Train Loss: {loss:.4f}"),
        *("training_lines", ["epoch_line"]),
    ),
    (
        *("functional", "np.mean(train_losses)", "np.sum(train_losses)"),
        *("training_lines", ["train_loss_mean"]),
    ),
    (
        *("modular", "return total / count", "return total / len(loader)"),
        *("training_lines", ["train_loss_mean", "valid_loss_printed"]),
    ),
    (
        *("functional", "np.mean(valid_losses)\n", "valid_losses[0]\n"),
        *("training_lines", ["valid_loss_printed"]),
    ),
    (
        *("modular", "model.train(optimizer is not None)", "pass"),
        *("training_modes", ["eval_mode_missing"]),
    ),
    (
        *("modular", "model.train(optimizer is not None)", "model.eval()"),
        *("training_modes", ["train_mode_missing"]),
    ),
    (
        *("functional", "with torch.no_grad():", "if True:"),
        *("training_modes", ["validation_gradients"]),
    ),
    (
        "modular",
        "validation_dataloader, loss_fn, device)",
        "validation_dataloader, loss_fn, device, optimizer)",
        *("training_modes", ["eval_mode_missing", "validation_trains"]),
    ),
    (
        *("functional", "            optimizer.zero_grad()\n", ""),
        *("training_steps", ["gradients_not_cleared"]),
    ),
    (
        *("functional", "            loss.backward()\n", ""),
        *("training_steps", ["weights_not_trained"]),
    ),
    (
        *("functional", "train_losses.append(loss.item())"),
        *("train_losses.append(loss.item())\n            break", "training_steps"),
        ["batches_left_out"],
    ),
    (
        *("functional", 'param_group["lr"] = lr', "pass"),
        *("learning_rate", ["scheduler_not_applied"]),
    ),
    (  # as PyTorch's schedulers, at the end of each epoch
        *("functional", "lr = scheduler(epoch)"),
        "lr = scheduler.step() or optimizer.param_groups[0]['lr'] if epoch else 0.5",
        *("learning_rate", []),
    ),
    (
        *("functional", "epoch % 3 == 0", "epoch % 4 == 0"),
        *("validation_checks", ["validation_missing"]),
    ),
    (
        *("functional", "images = images.to(device)\n                    outputs"),
        *("if valid_losses: break\n                    outputs",),
        *("validation_checks", ["batches_left_out"]),
    ),
    (*("functional", SAVE, "pass"), *("best_weights", ["not_saved"])),
    (
        *("functional", "Best_{model.name}.pth", "bestmodel.pth"),
        *("best_weights", ["weights_name"]),
    ),
    (
        *("functional", SAVE, "torch.save({'epoch': epoch, 'net': model}, path)"),
        *("best_weights", ["weights_not_bare"]),
    ),
    (
        *("functional", "avg_valid_loss < best_loss", "avg_train_loss < best_loss"),
        *("best_weights", ["best_not_saved"]),
    ),
    (
        *("modular", "        if stopping.done:\n            return\n"),
        "    torch.save(best, folder / 'Best_AE.pkl')\n",
        *("early_stopping", ["early_stop_missing"]),
    ),
    (
        *(
            "modular",
            SAVE_COPY,
            "pass\n        if epoch == num_epochs - 1:\n    " + SAVED,
        ),
        *("best_weights", ["saved_late"]),
    ),
    (  # in place of the best one, the validation before
        *("modular", "        if improved:\n            self.best = value"),
        *("        self.best = value", "early_stopping", ["early_stop_missing"]),
    ),
    (
        *("functional", "patience_counter = 0\n                path", "path"),
        *("early_stopping", ["early_stop_too_early"]),
    ),
    (
        *("functional", "        if stop:\n", "        if False:\n"),
        *("early_stopping", ["early_stop_missing"]),
    ),
    (
        *("functional", "stop = patience_counter >= early_stopping_patience"),
        "if patience_counter >= early_stopping_patience: return",
        *("early_stopping", ["stopping_line_missing"]),
    ),
]


def mine():
    """Return the names of the checks of the training loop."""
    rows = CHECKS.items()
    return [n for n, row in rows if row.run.__module__ == check_training.__name__]


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_loops_are_all_right(tmp_path, variant):
    write_files(tmp_path, VARIANTS[variant])
    outcomes = [run_check(name, tmp_path) for name in mine()]
    assert len(outcomes) == 8
    assert [o for o in outcomes if not o.passed] == []


@pytest.mark.parametrize("row", PLANTED, ids=lambda row: f"{row[3]}-{row[2][:30]}")
def test_planted_faults_are_found(tmp_path, row):
    variant, find, replace, check, expected = row
    write_files(tmp_path, VARIANTS[variant])
    mutate(tmp_path, LOOP, find, replace)
    outcome = run_check(check, tmp_path)
    assert [finding.name for finding in outcome.findings] == expected
    assert not outcome.reason


def test_a_loop_that_raises_gives_one_finding(tmp_path):
    write_files(tmp_path, VARIANTS["functional"])
    mutate(tmp_path, LOOP, "outputs = model(images)\n            loss", "loss")
    outcomes = [run_check(name, tmp_path) for name in mine()]
    found = [finding.name for o in outcomes for finding in o.findings]
    assert found == ["raises"]


def test_the_steps_of_the_learning_rate_are_checked(tmp_path):
    write_files(tmp_path, VARIANTS["functional"])
    assert run_check("decay", tmp_path).passed
    mutate(tmp_path, "utils/scheduler.py", "epoch // ", "(epoch + 1) // ")
    found = run_check("decay", tmp_path).findings
    assert [finding.name for finding in found] == ["decay_formula"]


# What the checks rest on -------------------------------------------------------


def test_a_run_has_the_losses_that_were_planned(tmp_path):
    """The mean of a validation is that of the plan; each gradient is the same."""
    write_files(tmp_path, VARIANTS["modular"])
    with imported_from(tmp_path) as subject:
        run = training_run.run_training(subject, (5.0, 3.0), 3, 9)
    passes = [[e.loss for e in run.validation if e.check == n] for n in range(3)]
    assert [sum(losses) / len(losses) for losses in passes] == [5.0, 3.0, 3.0]
    assert all(len(set(losses)) == training_run.VALID_BATCHES for losses in passes)
    assert run.epochs == 3 and [line[0] for line in run.lines] == ["0", "1", "2"]
    weights = torch.tensor([event.weight for event in run.training])
    moved = (weights[:-1] - weights[1:]).tolist()
    rates = [run.schedule(epoch) for epoch in (0, 0, 0, 1, 1, 1, 2, 2)]
    wanted = [rate * training_run.SLOPE for rate in rates]
    assert moved == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("line", "exact"),
    [
        ("Epoch: 0, Train Loss: 0.28571427, Valid Loss: 8.0", True),
        ("Epoch: 3, Train Loss: 2.857142714e-05, Valid Loss: 8.0", True),
        ("Epoch: 0, Train Loss: 0.285714, Valid Loss: 8.0", False),
        ("Epoch: 0, Train Loss: 2.857e-11, Valid Loss: 8.0", False),
        ("Epoch: 0, Train Loss: tensor(0.28571427), Valid Loss: 8.0", False),
        ("Epoch: 0, Train Loss: 0.28571427, Valid Loss: 8.0 *", False),
        ("Epoch 0, Train Loss: 0.28571427, Valid Loss: 8.0", False),
    ],
)
def test_lines_are_exact_or_not(line, exact):
    assert check_training.exact_line(line) is exact
