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


def number(words, holds):
    """Return an argparse type: a finite number for which `holds`, told in `words`.

    Plain `float` accepts nan and 1e999.
    """

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and holds(value)):
            raise argparse.ArgumentTypeError(f"must be {words}, got {text!r}")
        return value

    return parse


finite_number = number("a finite number", lambda value: True)
positive_number = number("a finite number > 0", lambda value: value > 0)
share = number("a number from 0 to 1", lambda value: 0 <= value <= 1)


def number_from_zero(below):
    """Return an argparse type: a number from 0 to below a bound."""
    words = f"a number from 0 to below {below:g}"
    return number(words, lambda value: 0 <= value < below)


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


def channel_counts(text):
    """Channels from the finest level down, as 64,128,128 -> tuple of ints."""
    parts = text.split(",")
    if not all(re.fullmatch(r"[1-9]\d{0,3}", part) for part in parts) or len(parts) > 5:
        raise argparse.ArgumentTypeError(
            f"must be one to five channel counts such as 64,128,128, got {text!r}"
        )
    return tuple(map(int, parts))
