"""Forked processes that train together: gradients, losses, agreement, errors."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from MLPAutoencoder import MLPAutoencoder
from tests.helpers.loaders import loader
from tests.helpers.together import results_of
from tests.helpers.training import CPU
from utils.cli import UsageError, UserError
from utils.cli.process import describe
from utils.cli.ranks import rank
from utils.distributed import group, lead, make_trainer
from VarAutoencoder import VAE_loss_function, VarAutoencoder


def fit(folder, model, loss_fn, loaders, *, epochs=2, patience=9, reduction="mean"):
    """Train for some epochs -> (weights, rows of the log); no process has another."""
    lr = 0.5 if reduction == "mean" else 1e-3
    trainer = make_trainer(
        torch.optim.SGD(model.parameters(), lr=lr),
        lambda epoch: lr,
        model,
        loaders,
        lambda model, images, _: loss_fn(model(images), images),
        CPU,
        reduction=reduction,
    )
    rows = [epoch.row for epoch in trainer.fit(folder, epochs, patience, 1)]
    return {"weights": list(model.state_dict().values()), "rows": rows}


def trained(folder, reduction, photos, size):
    """Train a model that draws no random numbers."""
    torch.manual_seed(0)
    loss_fn = partial(F.mse_loss, reduction=reduction)
    loaders = loader(photos, size), loader(7, 3, shuffle=False)
    return fit(folder, MLPAutoencoder(4, 8, 8), loss_fn, loaders, reduction=reduction)


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_step_is_that_of_one_process(tmp_path, processes, reduction):
    """P26: unequal and empty shares; losses and weights agree to rounding."""
    # Batches of 5, 5 and 1 photos, shared by 2 and 3 processes.
    function = partial(trained, tmp_path, reduction, 11, 5)
    alone, together = function(), results_of(processes, function, tmp_path)
    for found in together:
        # All processes see the same bits.
        assert found["rows"] == together[0]["rows"]
        for one, first, other in zip(
            found["weights"], together[0]["weights"], alone["weights"], strict=True
        ):
            assert torch.equal(one, first)
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        # One process and several agree.
        for row, wanted in zip(found["rows"], alone["rows"], strict=True):
            assert row == pytest.approx(wanted, rel=1e-6)


def fit_vae(folder, epochs):
    """Train a model that draws random numbers, in training and in validation."""
    torch.manual_seed(0)
    loaders = loader(11, 5), loader(9, 2, shuffle=False)
    options = {"epochs": epochs, "reduction": "sum"}
    return fit(folder, VarAutoencoder(4, 8, 8), VAE_loss_function, loaders, **options)


def test_validation_of_equal_weights_is_that_of_one_process(tmp_path, monkeypatch):
    """P20: equal bits for 1, 2 and 3 processes, losses and metrics."""
    # Nothing is learned, so that the weights stay equal; three checks.
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: None)
    function = partial(fit_vae, tmp_path, 3)
    alone = function()
    kept = [key for key in alone["rows"][0] if key.startswith("valid")]
    assert len(kept) > 5
    for processes in (2, 3):
        for found in results_of(processes, function, tmp_path):
            for row, wanted in zip(found["rows"], alone["rows"], strict=True):
                assert {key: row[key] for key in kept} == {k: wanted[k] for k in kept}


def test_processes_draw_different_random_numbers(tmp_path):
    """Rank 0 those of one process; the others others in each epoch."""

    def draw():
        drawn = []

        class Noted(VarAutoencoder):
            def reparameterize(self, mu, log_var):
                if self.training:
                    drawn.append(torch.get_rng_state())
                return super().reparameterize(mu, log_var)

        torch.manual_seed(0)
        loaders = loader(8, 8), loader(4, 2, shuffle=False)
        fit(tmp_path, Noted(4, 8, 8), VAE_loss_function, loaders, reduction="sum")
        return drawn

    alone, (first, second) = draw(), results_of(2, draw, tmp_path)
    assert torch.equal(first[0], alone[0])
    states = [state.numpy().tobytes() for state in first + second]
    assert len(set(states)) == 4  # two epochs of a step, in both processes


# Agreement -----------------------------------------------------------------------


def test_early_stop_is_agreed(tmp_path):
    """D04, P26: each process has other losses; all stop at the same check, 5 of 5."""

    def stop(seed):
        torch.manual_seed(seed)
        values = torch.Generator().manual_seed(100 * seed + rank())
        loaders = loader(8, 4), loader(8, 2, shuffle=False)

        def loss_fn(outputs, images):
            noise = torch.rand((), generator=values)
            return F.mse_loss(outputs, images) * 0 + noise

        model = MLPAutoencoder(4, 8, 8)
        options = {"epochs": 50, "patience": 2}
        rows = fit(tmp_path, model, loss_fn, loaders, **options)["rows"]
        return [row["valid_loss"] for row in rows]

    def five_times():
        return [stop(seed) for seed in range(5)]

    first, second = results_of(2, five_times, tmp_path)
    assert first == second
    for losses in first:  # the rule, stated a second time
        best = losses.index(min(losses))
        assert len(losses) == best + 3 < 50


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_in_one_process(tmp_path, training, value):
    """D03: all processes raise one error at the same step."""

    def fail():
        torch.manual_seed(0)
        model = MLPAutoencoder(4, 8, 8)

        def loss_fn(outputs, images):
            bad = rank() == 1 and model.training == training
            return F.mse_loss(outputs, images) * (value if bad else 1)

        with pytest.raises(UserError) as error:
            loaders = loader(8, 4), loader(8, 2, shuffle=False)
            fit(tmp_path, model, loss_fn, loaders)
        return str(error.value)

    first, second = results_of(2, fail, tmp_path)
    assert first == second
    what = "training loss in epoch 0, step 0" if training else "validation loss"
    assert f"non-finite {what}" in first


def test_other_photos_or_settings_are_refused():
    """P26: on which all must agree, one sentence names the first difference."""
    facts = [{"photos": "30 photos", "seed": 0}, {"photos": "30 photos", "seed": 0}]
    group.refuse_differences(facts)
    facts.append({"photos": "29 photos", "seed": 1})
    with pytest.raises(
        UserError, match="photos is 30 photos in rank 0, and 29 .*rank 2"
    ):
        group.refuse_differences(facts)


def test_rank_0_leads(tmp_path):
    """What it returns is returned by all; the others do not call the function."""
    results = results_of(3, lambda: [rank(), *lead(lambda: [rank()])], tmp_path)
    assert results == [[0, 0], [1, 0], [2, 0]]


# Errors --------------------------------------------------------------------------


def end(action):
    """Return how a process ends whose training does this."""
    try:
        with group.process_group():
            action()
    except SystemExit as silent:
        return silent.code
    except Exception as error:  # which the wrapper of a command reports
        return describe(error)
    return 0


def ends(action, folder, processes=3):
    """Return how processes end that do this, by rank."""
    return results_of(processes, partial(end, action), folder, joined=False)


@pytest.mark.parametrize("kind, code", [(UserError, 1), (UsageError, 2)])
def test_a_common_error_is_reported_once(tmp_path, kind, code):
    """P26, D06: by rank 0; the exit code of the others is the same."""

    def fail():
        raise kind("no photos")

    assert ends(fail, tmp_path) == ["no photos", code, code]


def test_an_error_of_one_process_is_reported_by_it(tmp_path, monkeypatch):
    """P26: the others, whose collectives fail, end in silence."""
    monkeypatch.setattr(group, "GRACE", 1.0)  # within which rank 0 could say it too

    def fail():
        if rank() == 1:
            raise MemoryError
        group.wait_for_all()

    text = "not enough memory; close other programs"
    assert ends(fail, tmp_path) == [1, text, 1]


def test_the_first_process_opens_the_photos_first(tmp_path):
    """Two hosts of two processes: the first of each host, then the second."""
    started = tmp_path / "started"
    started.mkdir()

    def start(*_):
        found = len(list(started.iterdir()))
        (started / str(rank())).touch()
        data = {"count": 30, "source": "photos", "split": "0"}
        metadata = {"data": data, "seed": 0, "settings": {}}
        return CPU, found, metadata

    def call():
        return group.start_together(start, None, None, None)[1]

    first, second, third, fourth = results_of(4, call, tmp_path, hosts=2)
    assert {first, third} <= {0, 1} and {second, fourth} <= {2, 3}
