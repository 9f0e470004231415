"""Truths about `fit`: when it checks, what it calls best, and when it stops."""

import pytest
from hypothesis import find, given, settings

from tests.helpers.early_stop import (
    SEQUENCES,
    TABLES,
    agrees,
    one_check_late,
    outcome,
    ties_are_new_bests,
)
from utils.train import fit


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("losses, patience, stop, best", TABLES)
def test_hand_made_tables(losses, patience, stop, best, every):
    """T08, T09, T10, P19: patience counts checks; equal is not better."""
    num_epochs = (len(losses) - 1) * every + 1
    last, bests = outcome(fit, losses, patience, num_epochs, every)
    assert (last, bests[-1]) == (stop * every, best * every)


@settings(max_examples=400, deadline=None)
@given(SEQUENCES)
def test_stop_and_best_agree_with_the_oracle(sequence):
    assert agrees(fit, *sequence)  # P19


@pytest.mark.parametrize(
    "mutant",
    [ties_are_new_bests, one_check_late],
    ids=["<= for <", "> for >= patience"],
)
def test_oracle_and_tables_notice_a_wrong_stopper(mutant):
    """P19."""
    find(SEQUENCES, lambda sequence: not agrees(mutant, *sequence))  # raises if none
    wrong = 0
    for losses, patience, stop, best in TABLES:
        last, bests = outcome(mutant, losses, patience, len(losses), 1)
        wrong += (last, bests[-1]) != (stop, best)
    assert wrong >= 1
