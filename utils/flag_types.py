"""Values of flags: each function turns text into a value, or says what is wanted.

Standard library only, as `flags`.
"""

import argparse
import math
import re

SECONDS = {"s": 1, "m": 60, "h": 3600}


def whole_number(low, high):
    """Return an argparse type: an integer from low to high."""

    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {low} to {high}, got {text!r}"
            )
        return value

    return parse


def positive_number(text):
    """A finite number above 0 (plain `float` accepts nan, -1 and 1e999)."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a finite number > 0, got {text!r}")
    return value


def number_from_zero(below):
    """Return an argparse type: a finite number from 0 to below a bound."""

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < below:
            raise argparse.ArgumentTypeError(
                f"must be a number from 0 to below {below:g}, got {text!r}"
            )
        return value

    return parse


def share(text):
    """A number from 0 to 1, both included."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return value


def positive_or_optimal(text):
    """A finite number above 0, or the word `optimal`."""
    return text if text == "optimal" else positive_number(text)


def duration(text):
    """A time such as 90s, 10m or 1h -> seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    seconds = float(found[1]) * SECONDS[found[2]] if found else 0.0
    if not 0 < seconds <= 10**6:
        raise argparse.ArgumentTypeError(
            f"must be a time such as 90s, 10m or 1h, got {text!r}"
        )
    return seconds


def finite_number(text):
    """Any finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return value


def channel_counts(text):
    """Channels from the finest level down, as 64,128,128 -> tuple of ints."""
    parts = text.split(",")
    if not all(re.fullmatch(r"[1-9]\d{0,3}", part) for part in parts) or len(parts) > 5:
        raise argparse.ArgumentTypeError(
            f"must be one to five channel counts such as 64,128,128, got {text!r}"
        )
    return tuple(map(int, parts))
