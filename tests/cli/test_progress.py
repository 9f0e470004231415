"""The expected end of long work, by a clock of one's own."""

import logging
from datetime import datetime
from types import SimpleNamespace

import pytest

from utils.cli import progress
from utils.cli.progress import TimeEstimate


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is set."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    monkeypatch.setattr(progress.time, "time", lambda: 1.7e9 + now.seconds)
    return now


def lines_of(clock, caplog, seconds, total):
    """Let each of the units take its seconds -> {seconds since the start: line}."""
    estimate, lines = TimeEstimate("training", total), {}
    with caplog.at_level(logging.INFO):
        for _ in range(total):
            caplog.clear()
            clock.seconds += seconds
            estimate.add()
            if caplog.records:
                (lines[clock.seconds - 1000],) = caplog.messages
    return lines


def test_the_expected_end_is_logged_early_and_then_every_minute(clock, caplog):
    """400 units of half a second: the first line after 10 s, all with one end."""
    lines = lines_of(clock, caplog, 0.5, 400)
    assert list(lines) == [10, 70, 130, 190]
    end = datetime.fromtimestamp(1.7e9 + 1000 + 200).strftime("%H:%M:%S")
    assert lines[10] == f"training: 5 % done, expected end {end}"
    assert all(line.endswith(f"expected end {end}") for line in lines.values())


@pytest.mark.parametrize("seconds, total", [(0.5, 60), (2.9, 10), (29.0, 1)])
def test_short_work_is_silent(clock, caplog, seconds, total):
    assert lines_of(clock, caplog, seconds, total) == {}


def test_an_iterable_is_passed_on_and_counted(clock, caplog):
    with caplog.at_level(logging.INFO):
        for item in progress.progress(range(40), "rows"):
            clock.seconds += 1 + item
    assert caplog.messages[0].startswith("rows: 10 % done")
