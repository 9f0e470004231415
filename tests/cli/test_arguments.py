"""Values of flags, and the table of settings that they replace."""

from argparse import ArgumentTypeError
from dataclasses import fields

import pytest

import diffusion
from utils.cli.arguments import (
    channel_counts,
    duration,
    finite_number,
)
from utils.config import (
    DENSITIES,
    METRICS,
    OBJECTIVES,
    OPTIMIZERS,
    PRESETS,
    SAMPLERS,
    SCHEDULERS,
)
from utils.diffusion import denoiser, samplers
from utils.evaluation import evaluate
from utils.optim import factory

ROWS = [(name, row) for name, rows in PRESETS.items() for row in rows]


def flag_of(field):
    return "--" + field.name.replace("_", "-")


@pytest.mark.parametrize(
    "text, seconds",
    [("90s", 90), ("10m", 600), ("1h", 3600), ("0.5m", 30), ("1.25s", 1.25)],
)
def test_times_are_seconds(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["0m", "x", "10", "-1m", "m", "1d", "1 m", "1m ", "1e2s", "inf", "278h"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(
        ArgumentTypeError, match=f"such as 90s, 10m or 1h, got '{text}'"
    ):
        duration(text)


def test_numbers_may_be_negative_but_finite():
    assert finite_number("-1.2") == -1.2 and finite_number("1e-3") == 0.001
    for text in ("nan", "inf", "-1e999", ""):
        with pytest.raises(ArgumentTypeError, match=f"finite number, got '{text}'"):
            finite_number(text)


def test_channels_are_a_tuple():
    assert channel_counts("64,128,128") == (64, 128, 128)
    assert channel_counts("7") == (7,)


@pytest.mark.parametrize("name, row", ROWS, ids=lambda part: str(part)[:9])
def test_every_value_of_every_row_could_be_said(name, row):
    """Rule 9: what a row holds is what its flag would take."""
    for field in fields(row):
        flag, value = field.metadata, getattr(row, field.name)
        if "choices" in flag:
            assert value in flag["choices"], field.name
        elif "nargs" in flag:  # of numbers, the last of which may be infinite
            assert flag["type"](str(value[0])) == value[0]
        elif isinstance(value, tuple):
            assert flag["type"](",".join(map(str, value))) == value
        elif not isinstance(value, bool):
            assert flag["type"](str(value)) == value, field.name


def test_every_field_of_a_diffusion_preset_is_a_flag_of_its_command():
    """Each flag replaces its own field only."""
    given = {
        "--channels": "16,32",
        "--objective": "x0",
        "--p-mean": "-0.5",
        "--dropout": "0.1",
        "--num-blocks": "2",
        "--precision": "fp32",
        "--sampler": "heun",
        "--steps": "7",
    }
    words = [word for pair in given.items() for word in pair]
    _, found = diffusion.parse([*words, "--no-hflip"])
    preset = PRESETS["diffusion"][0]
    changed = {
        flag_of(f)
        for f in fields(preset)
        if getattr(preset, f.name) != getattr(found, f.name)
    }
    assert changed == {*given, "--hflip"}
    assert (found.channels, found.p_mean, found.hflip) == ((16, 32), -0.5, False)


@pytest.mark.parametrize(
    "vocabulary, table",
    [
        (SAMPLERS, samplers.SAMPLERS),
        (OBJECTIVES, denoiser.OBJECTIVES),
        (DENSITIES, denoiser.DENSITIES),
        (OPTIMIZERS, factory.OPTIMIZERS),
        (SCHEDULERS, factory.SCHEDULERS),
        (METRICS, evaluate.METRICS),
    ],
)
def test_vocabularies_name_the_rows_of_their_tables(vocabulary, table):
    assert sorted(vocabulary) == sorted(table)
