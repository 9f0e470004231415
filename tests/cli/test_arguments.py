"""Values of flags, and the table of settings that they replace."""

import importlib
import io
import pkgutil
from argparse import ArgumentTypeError
from contextlib import redirect_stderr
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffusion
import random_generation
import tools
import train_script
import visualization
from utils import config
from utils.cli import UsageError, arguments
from utils.cli.arguments import duration, flag_of
from utils.config import PRESETS
from utils.data_processor import create_flower_dataloaders
from utils.diffusion import denoiser, samplers
from utils.diffusion.sampling import labels_for
from utils.evaluation import evaluate, features
from utils.optim import factory

ROWS = [(name, row) for name, rows in PRESETS.items() for row in rows]


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
    with pytest.raises(ArgumentTypeError, match=f"90s, 10m or 1h, got '{text}'"):
        duration(text)


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
    given = (
        "--channels 16,32 --objective x0 --density lognormal --p-mean -0.5 "
        "--dropout 0.1 --num-blocks 2 --precision fp32 --sampler heun --steps 7"
    )
    _, found = diffusion.parse([*given.split(), "--no-hflip"])
    preset = PRESETS["diffusion"][0]
    changed = {
        flag_of(f.name)
        for f in fields(preset)
        if getattr(preset, f.name) != getattr(found, f.name)
    }
    assert changed == {*given.split()[::2], "--hflip"}
    assert (found.channels, found.p_mean, found.hflip) == ((16, 32), -0.5, False)


def test_a_preset_is_the_model_of_its_training_time():
    """Of the same name, and each takes longer than the one before it."""
    found = [diffusion.parse(["--preset", name]) for name in arguments.LADDER]
    names = ["diffusion_quick", "diffusion_short", "diffusion", "diffusion_long"]
    assert [args.model for args, _ in found] == names
    pixels = [rows.epochs * sum(rows.channels) for _, rows in found]
    assert pixels == sorted(set(pixels))
    assert found[2][1] == diffusion.parse([])[1]
    for line in ("--preset fast", "--preset quick --model diffusion_64"):
        with pytest.raises(SystemExit) as end, redirect_stderr(io.StringIO()):
            diffusion.parse(line.split())
        assert end.value.code == 2


def parsers():
    """Yield the modules of all commands."""
    yield from COMMANDS
    for found in pkgutil.iter_modules(tools.__path__, "tools."):
        name = f"{found.name}.__main__" if found.ispkg else found.name
        if hasattr(module := importlib.import_module(name), "parse"):
            yield module


def test_every_command_prints_its_help(capsys):
    """X21, also of tools."""
    modules = list(parsers())
    assert len(modules) > 12
    for module in modules:
        with pytest.raises(SystemExit) as end:
            module.parse(["--help"])
        out, err = capsys.readouterr()
        assert (end.value.code, err) == (0, "") and "--debug" in out


@pytest.mark.parametrize(
    "command, line, hint",
    [
        (train_script, "--model mlpae", "; did you mean MLPAE?"),
        (train_script, "--model diffusion", "; train it with python diffusion.py"),
        (train_script, "--model diffusion_fast", " with python -m tools.reflow"),
        (diffusion, "--model VAE", " with python train_script.py --model VAE"),
        (diffusion, "--model diffusion_fast", " with python -m tools.reflow"),
        (diffusion, "--model Diffusion_Quick", "; did you mean diffusion_quick?"),
        (diffusion, "--optimizer Muon", "; did you mean muon?"),
        (diffusion, "--preset quik", "; did you mean quick?"),
        (random_generation, "--sampler dpm++3", "; did you mean dpm++3m?"),
        # No choice is like it.
        (train_script, "--model RNN", "'MLPAE', 'AE', 'VAE')"),
    ],
)
def test_a_refused_choice_comes_with_a_hint(capsys, command, line, hint):
    """At the end of the one line, which exits with 2."""
    with pytest.raises(SystemExit) as end:
        command.parse(line.split())
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and len(err.splitlines()) == 1
    assert f"invalid choice: {line.split()[1]!r} (choose from " in err
    assert err.endswith(f"{hint}\n")


def test_a_refused_species_comes_with_a_hint(photo_folder):
    """In a training, and where images are generated."""
    hint = r"; did you mean calendula\?$"
    with pytest.raises(UsageError, match=hint):
        create_flower_dataloaders(4, photo_folder, 8, 8, species=["Calendula"])
    metadata = {"data": {"classes": list(config.SPECIES)}}
    with pytest.raises(UsageError, match=hint):
        labels_for(["callendula"], metadata, 4)
    with pytest.raises(UsageError, match="bellflower, calendula$"):
        labels_for(["rose"], metadata, 4)


COMMANDS = (train_script, visualization, random_generation, diffusion)
WORDS = st.one_of(
    st.sampled_from([*arguments.FLAGS, "--lr", "--epochs", "--steps", "--guidance"]),
    st.sampled_from(["AE", "VAE", "diffusion", "3", "0", "-1", "1e999", "nan", "10m"]),
    st.text(max_size=8),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(COMMANDS), st.lists(WORDS, max_size=6))
def test_any_command_line_is_parsed_or_refused(command, words):
    """P25: exit 2 with one line, or a UsageError; nothing else, whatever is typed."""
    err = io.StringIO()
    try:
        with redirect_stderr(err):
            command.parse([word for word in words if word not in ("-h", "--help")])
    except UsageError as error:
        assert str(error)
    except SystemExit as end:
        assert end.code == 2
        (line,) = err.getvalue().splitlines()
        assert ": error: " in line and line.isprintable()


@pytest.mark.parametrize(
    "vocabulary, table",
    [
        (config.SAMPLERS, samplers.SAMPLERS),
        (config.OBJECTIVES, denoiser.OBJECTIVES),
        (config.DENSITIES, denoiser.DENSITIES),
        (config.OPTIMIZERS, factory.OPTIMIZERS),
        (config.SCHEDULERS, factory.SCHEDULERS),
        (config.METRICS, evaluate.METRICS),
        (config.EXTRACTORS, features.TRUNKS),
    ],
)
def test_vocabularies_name_the_rows_of_their_tables(vocabulary, table):
    assert sorted(vocabulary) == sorted(table)
