"""The rule of early stopping, stated a second time."""

import itertools
import math

from hypothesis import strategies as st

from utils.train import fit


def outcome(loop, losses, patience, num_epochs, every):
    """Run the loop on given check losses -> (last epoch, its epochs of a new best)."""
    values = iter(losses)
    epochs = loop(
        float,
        lambda: next(values),
        num_epochs=num_epochs,
        patience=patience,
        check_every=every,
    )
    seen = list(epochs)
    assert [epoch.number for epoch in seen] == list(range(len(seen)))
    assert [epoch.train_loss for epoch in seen] == list(range(len(seen)))
    return seen[-1].number, [epoch.number for epoch in seen if epoch.is_best]


def oracle(losses, patience):
    """(checks made, number of the best), by looking back at all checks so far."""
    for made in range(1, len(losses) + 1):
        best = losses.index(min(losses[:made]))  # the first of equals
        if made - 1 - best >= patience:
            break
    return made, best


TABLES = [  # check losses, patience, stopping check, best check
    ([6, 5, 5, 5, 5, 5], 3, 4, 1),  # T08
    ([5, 5, 5], 1, 1, 0),  # T09
    ([6, 5, 4, 3, 2, 1], 1, 5, 5),  # T10
    ([6, 5, 4, 4, 3, 3], 1, 3, 2),
    ([6, 5, 6, 5, 5, 5], 3, 4, 1),
    ([6, 5, 6, 4, 6, 3], 2, 5, 5),
    ([1, 2], 1, 1, 0),
    ([1, 2, 0], 2, 2, 2),
    ([1, 2, 2, 0], 2, 2, 0),
    ([3], 1, 0, 0),
    ([1, 9, 9, 9, 9, 9, 0], 5, 5, 0),
    ([1, 9, 9, 9, 9, 0, 9], 5, 6, 5),
    ([-1, -2, -2, -3], 2, 3, 3),
    ([1e-9, 2e-9, 1e-10], 2, 2, 2),
]


SEQUENCES = st.tuples(
    st.lists(st.integers(0, 6), min_size=25, max_size=25),  # check losses
    st.integers(1, 5),  # patience
    st.integers(1, 25),  # epochs
    st.sampled_from([1, 2, 3]),  # epochs between checks
)


def agrees(loop, losses, patience, num_epochs, every):
    """Tell whether the loop stops where the oracle does, with all its new bests."""
    # Every so many epochs from 0 there is a check, and one after the last.
    epochs = [n for n in range(num_epochs) if n % every == 0 or n == num_epochs - 1]
    losses = losses[: len(epochs)]
    made, best = oracle(losses, patience)
    minima = [n for n in range(made) if losses[n] < min(losses[:n], default=math.inf)]
    assert minima[-1] == best
    expected = epochs[made - 1], [epochs[n] for n in minima]
    return outcome(loop, losses, patience, num_epochs, every) == expected


def ties_are_new_bests(step, check, *args, **options):
    checks = itertools.count()
    return fit(step, lambda: check() - 1e-9 * next(checks), *args, **options)


def one_check_late(*args, patience, **options):
    return fit(*args, patience=patience + 1, **options)
