"""Values of flags, and the table of settings that they replace."""

from argparse import ArgumentTypeError
from dataclasses import fields

import pytest

from utils.cli.arguments import (
    FLAGS,
    SAMPLERS,
    channel_counts,
    diffusion_line,
    duration,
    finite_number,
)
from utils.config import PRESETS, DiffusionSettings, settings_for
from utils.diffusion.samplers import SAMPLERS as GENERATORS

AUTOENCODERS_ALONE = {"encoding_dim", "beta", "pairs", "start"}
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
        flag, value = FLAGS[flag_of(field)], getattr(row, field.name)
        if "choices" in flag:
            assert value in flag["choices"], field.name
        elif isinstance(value, tuple):
            assert flag["type"](",".join(map(str, value))) == value
        elif not isinstance(value, bool):
            assert flag["type"](str(value)) == value, field.name


def test_every_field_of_a_diffusion_row_is_a_flag_of_its_command():
    """But for what only autoencoders have; each flag replaces its field alone."""
    row, line = PRESETS["diffusion"][0], diffusion_line()
    for field in fields(DiffusionSettings):
        known = flag_of(field) in line.format_help()
        assert known == (field.name not in AUTOENCODERS_ALONE), field.name
    said = "--widths 16,32 --objective x0 --level-mean -0.5 --dropout 0.1 --blocks 2"
    args = line.parse_args([*said.split(), "--precision", "fp32", "--no-flips"])
    found = settings_for(args, "diffusion")
    changed = {
        f.name for f in fields(row) if getattr(row, f.name) != getattr(found, f.name)
    }
    assert {"widths", "level_mean", "precision"} <= changed
    assert changed <= {
        *("widths", "objective", "level_mean", "dropout", "blocks", "precision"),
        "flips",
    }
    assert (found.widths, found.level_mean, found.flips) == ((16, 32), -0.5, False)


def test_samplers_on_the_command_line_are_those_there_are():
    assert sorted(SAMPLERS) == sorted(GENERATORS)
