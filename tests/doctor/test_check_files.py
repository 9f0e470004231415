"""Checks of saved weights and of logs: files that were damaged on purpose."""

import pytest
import torch

from tests.doctor.variants_models import VARIANTS
from tests.helpers.doctor import imported_from, run_check, write_files
from tools.doctor import autoencoders, check_files
from tools.doctor.checks import PHOTOS

GOOD = {"MLPAE": (0.02, 0.025), "AE_SGD": (0.014, 0.016), "AE": (0.009, 0.011)}
GOOD["VAE"] = (700.0, 750.0)


@pytest.fixture
def folder(tmp_path):
    """A completion with weights, as they were drawn, and photos."""
    write_files(tmp_path, VARIANTS["functional"])
    (tmp_path / "model").mkdir()
    with imported_from(tmp_path) as subject:
        for name in autoencoders.KINDS:
            model = autoencoders.build(subject, name)
            torch.save(model.state_dict(), tmp_path / "model" / f"Best_{name}.pkl")
    torch.save(autoencoders.photos_like(20), tmp_path / PHOTOS)
    for name, losses in GOOD.items():
        write_log(tmp_path, name, [losses] * 12)
    return tmp_path


def write_log(folder, name, losses, encoding="utf-8"):
    """Write a log of (train loss, validation loss) by epoch."""
    lines = [
        f"Epoch: {number}, Train Loss: {train}, Valid Loss: {valid}\n"
        for number, (train, valid) in enumerate(losses)
    ]
    path = folder / "log" / f"train_{name}.out"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes("".join(lines).encode(encoding))


def found(check, folder):
    """Return the names of what a check finds."""
    return [finding.name for finding in run_check(check, folder).findings]


# Weights -----------------------------------------------------------------------


def test_weights_of_either_name_fit(folder):
    (folder / "models").mkdir()
    (folder / "model" / "Best_AE.pkl").rename(folder / "models" / "Best_AE.pth")
    assert all(run_check(f"weights_{n}", folder).passed for n in autoencoders.KINDS)


def damage_nan(state):
    next(iter(state.values())).fill_(torch.nan)
    return state


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (damage_nan, "weights_not_finite"),
        (lambda state: {"model": state, "epoch": 3}, "weights_not_bare"),
        (lambda state: list(state.values()), "weights_not_bare"),
        (lambda _: torch.nn.Linear(2, 2), "weights_not_safe"),
        (lambda state: {**state, "more": torch.zeros(1)}, "weights_do_not_fit"),
        (lambda state: dict(list(state.items())[1:]), "weights_do_not_fit"),
    ],
)
def test_damaged_weights_are_named(folder, damage, expected):
    path = folder / "model" / "Best_AE.pkl"
    torch.save(damage(torch.load(path, weights_only=True)), path)
    assert found("weights_AE", folder) == [expected]
    assert "follows" in run_check("claimed_loss_AE", folder).reason


def test_a_torn_file_is_named(folder):
    path = folder / "model" / "Best_MLPAE.pkl"
    path.write_bytes(path.read_bytes()[:1000])
    assert found("weights_MLPAE", folder) == ["weights_not_safe"]


def test_weights_of_another_image_size_fit_the_first_part(folder):
    with imported_from(folder) as subject:
        model = autoencoders.build(subject, "MLPAE", width=32, height=32)
    torch.save(model.state_dict(), folder / "model" / "Best_MLPAE.pkl")
    assert run_check("weights_MLPAE", folder).passed
    assert "32" in run_check("claimed_loss_MLPAE", folder).reason


# Logs --------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_logs_of_any_shell_are_read(folder, encoding):
    for name, losses in GOOD.items():
        write_log(folder, name, [(9000.0, 9000.0), losses], encoding)
        assert run_check(f"log_{name}", folder).passed
        write_log(folder, name, [(9000.0, 9000.0)], encoding)
        assert found(f"log_{name}", folder) == ["threshold_missed"]


@pytest.mark.parametrize(("name", "epochs"), [("AE", 15), ("VAE", 20)])
def test_a_threshold_counts_within_its_epochs(folder, name, epochs):
    """M22, M33: the lines 0 to N - 1, of which one is low enough."""
    high = (9000.0, 9000.0)
    write_log(folder, name, [*[high] * (epochs - 1), GOOD[name], high])
    assert run_check(f"log_{name}", folder).passed
    write_log(folder, name, [*[high] * epochs, GOOD[name]])
    assert found(f"log_{name}", folder) == ["threshold_missed"]


def test_convolutions_are_compared_with_the_first_part(folder):
    write_log(folder, "MLPAE", [(0.012, 0.013)])
    assert found("log_AE_SGD", folder) == ["convolutions_not_better"]
    (folder / "log" / "train_MLPAE.out").unlink()
    assert run_check("log_AE_SGD", folder).passed


def test_a_log_of_another_command_is_named(folder):
    (folder / "log" / "train_AE.out").write_text("using device cpu\n", "utf-8")
    assert found("log_AE", folder) == ["log_without_losses"]


def test_files_that_are_not_there_are_no_findings(tmp_path):
    write_files(tmp_path, VARIANTS["functional"])
    for check in ("weights_AE", "log_AE", "log_AE_SGD", "claimed_loss_AE"):
        outcome = run_check(check, tmp_path)
        assert outcome.reason and not outcome.findings


# Both --------------------------------------------------------------------------


@pytest.mark.parametrize("name", autoencoders.KINDS)
def test_weights_reach_what_the_log_says_or_not(folder, name):
    """By an independent sum: of squares for the VAE, the KL is small beside it."""
    with imported_from(folder) as subject, torch.no_grad():
        model, images = autoencoders.build(subject, name), autoencoders.photos_like(20)
        torch.manual_seed(0)
        outputs = autoencoders.reconstruct(model.eval(), images)
        squares = (outputs - images).square()
    loss = squares.sum().item() / 2 if name == "VAE" else squares.mean().item()
    for claim, expected in ((loss, []), (loss / 2, ["weights_miss_log"])):
        write_log(folder, name, [(claim, claim)])
        (folder / "log" / "train_AE_SGD.out").unlink(missing_ok=True)
        assert found(f"claimed_loss_{name}", folder) == expected


def test_a_log_is_decoded_without_a_mark_of_its_order():
    assert check_files.decode("Epoch".encode("utf-16-be")) == "Epoch"
    assert check_files.decode(b"\xff\xfeE\0") == "E"
    assert check_files.decode(b"\xff") == "\ufffd"
