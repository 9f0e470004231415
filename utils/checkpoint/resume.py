"""Interrupted trainings: their lock, their state, and what a new one replaces."""

# `models/Last_*` holds the state after an epoch. It is written by `Trainer.fit`, and
# removed by nothing but the user.

import logging
import os
import shlex
import sys
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock, Timeout
from torch.optim.lr_scheduler import LRScheduler

from utils.checkpoint.guide import guide_path
from utils.checkpoint.loading import (
    checked_metadata,
    invalid_settings,
    load_checkpoint,
    read,
)
from utils.checkpoint.names import last_name, weights_name
from utils.checkpoint.saving import result_words, write
from utils.cli import UserError, leads, memory_for
from utils.cli.arguments import flag_of
from utils.cli.ranks import launcher
from utils.device import random_state, set_random_state
from utils.files import (
    prepare_folder,
    prepare_target,
    read_regular,
    replace_file,
    writing,
)

MAX_STATE = 2**22  # bytes of everything in a state but the numbers of its tensors
ENTRIES = {"metadata", "fit", "rows"}
ENTRIES |= {"model", "ema", "optimizer", "scheduler", "random"}

log = logging.getLogger(__name__)


class State(NamedTuple):
    """The state of an interrupted training, and the file that it was read from."""

    path: Path
    content: dict  # of `write_state`

    @property
    def metadata(self):
        return self.content["metadata"]


@contextmanager
def locked(path):
    """Hold the lock of a file of weights inside; a kill frees it.

    Raises:
        UserError: if another process holds the lock.
    """
    if not leads():  # rank 0 of this training holds it
        yield
        return
    prepare_folder(path.parent)
    lock = FileLock(f"{os.path.realpath(path)}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another training is writing {path}; wait for its end, or name another "
            "folder with --out"
        ) from None
    try:
        prepare_target(path)  # the rest of a killed run, not of one that is running
        yield
    finally:
        lock.release()


@contextmanager
def training_session(args, settings):
    """Yield (settings, State or None) of a training, and hold the lock of its weights.

    An interruption names the command that resumes it.

    Raises:
        UserError: if another process holds the lock, or as `restore_run` does.
    """
    path = args.out / "models" / weights_name(args.model)
    with locked(path):
        settings, state = restore_run(args, settings)
        last = path.with_name(last_name(args.model))
        before = modified(last)
        try:
            with memory_for(f"--batch-size {settings.batch_size}"):
                yield settings, state
        except SystemExit:  # a signal
            # Without a state of its own there is nothing to resume.
            if leads() and (state or modified(last) != before):
                words = [word for word in sys.argv if word != "--resume"]
                command = shlex.join([*launcher(), *words, "--resume"])
                print(f"resume with: {command}", file=sys.stderr, flush=True)
            raise


def modified(path):
    """Return when a file was written, in nanoseconds; None if there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


# Resuming ---------------------------------------------------------------------


def read_state(path):
    """Return the State in a file, or raise a UserError."""
    content = read(path, MAX_STATE)
    if type(content) is not dict or not content.keys() >= ENTRIES:
        raise UserError(f"{path} holds no state of a training; train anew")
    metadata = checked_metadata(path, content["metadata"])
    known = {"settings", "data", "seed"} <= metadata.keys()
    if not known or type(content["rows"]) is not list:
        raise UserError(f"{path} is damaged: its settings are missing; train anew")
    return State(path, content)


def write_state(path, trainer, fitted, rows, metadata, ended):
    """Save everything that the next epoch of a Trainer depends on, as plain types."""
    # fitted: fields of its FitState; rows: of the log; ended: no epoch is left.
    scheduler, ema = trainer.scheduler, trainer.ema
    steps = isinstance(scheduler, LRScheduler)  # or a function of the epoch
    content = {
        "metadata": metadata or {},
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "fit": fitted,
        "rows": rows,
        "ended": ended,
        "model": dict(trainer.model.state_dict()),
        "ema": dict(ema.state_dict()) if ema else None,
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": scheduler.state_dict() if steps else None,
        "random": random_state(generators_of(trainer)),
    }
    write(path, content)


def restore(trainer, state):
    """Load a State into a Trainer -> (fields of its FitState, rows of the log)."""
    # Raises UserError if anything of it does not fit.
    content = state.content
    try:
        trainer.model.load_state_dict(content["model"])
        if trainer.ema:
            trainer.ema.load_state_dict(content["ema"])
        trainer.optimizer.load_state_dict(content["optimizer"])
        if isinstance(trainer.scheduler, LRScheduler):
            trainer.scheduler.load_state_dict(content["scheduler"])
        set_random_state(content["random"], generators_of(trainer))
        return dict(content["fit"]), list(content["rows"])
    except Exception as error:  # the file's content decides its type
        raise UserError(
            f"{state.path} does not fit this training ({error!s:.120}); train anew "
            "without --resume"
        ) from None


def generators_of(trainer):
    """Return the loaders' own generators of random numbers."""
    found = (getattr(loader, "generator", None) for loader in trainer.loaders)
    return [generator for generator in found if generator is not None]


def restore_run(args, settings):
    """Return (settings, State or None): with --resume those of the interrupted run.

    args: seed, split_seed and species are None where the command line does not give
    them, and are set to those of the run.

    Raises:
        UserError: if there is nothing to resume, or a given flag differs from the run.
    """
    if not args.resume:
        args.seed, args.split_seed = args.seed or 0, args.split_seed or 0
        return settings, None
    path = args.out / "models" / last_name(args.model)
    if not path.is_file():
        raise UserError(
            f"{path} is not there, so nothing can be resumed; omit --resume"
        )
    state = read_state(path)
    metadata, data = state.metadata, state.metadata["data"]

    # The file could hold settings that no flag could have given.
    names = {f.name for f in fields(settings)}
    wrong = invalid_settings(type(settings), metadata["settings"])
    wrong += sorted(metadata["settings"].keys() - names)
    if wrong:
        raise UserError(f"{path} is damaged: its {wrong[0]} is unknown; train anew")
    # A flag that is given must have the run's value; others take it.
    run = {"seed": metadata["seed"], "split_seed": data["split_seed"]}
    run |= {"species": data["classes"]} if hasattr(args, "species") else {}
    stored = replace(settings, **metadata["settings"])
    for name in (*run, *metadata["settings"]):
        value = run.get(name, getattr(stored, name, None))
        given = getattr(args, name, None)
        if given is not None and name != "epochs" and not same(given, value):
            raise UserError(
                f"argument {flag_of(name)}: the run of {path} has {words(value)}, got "
                f"{words(given)}; omit the flag, or train anew without --resume"
            )
    for name, value in run.items():
        setattr(args, name, value)
    warn_of_other_bits(state)
    return with_epochs(stored, args.epochs, state), state


def same(given, value):
    """Return whether a given value is that of the run; lists in any order."""
    if isinstance(given, list):
        return sorted(given) == sorted(value)
    return given == value


def words(value):
    """Return a setting's value in words."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def with_epochs(settings, epochs, state):
    """Return the run's settings with another number of epochs, where one is given."""
    done = len(state.content["rows"])
    if epochs in (None, settings.epochs):
        return settings
    if settings.scheduler == "onecycle":
        raise UserError(
            f"argument --epochs: the onecycle schedule of this run ends after "
            f"{settings.epochs} epochs, got {epochs}; omit the flag, or train anew"
        )
    if epochs < done:
        raise UserError(
            f"argument --epochs: {done} epochs are done, got {epochs}; give more"
        )
    return replace(settings, epochs=epochs)


def warn_of_other_bits(state):
    """Warn where threads or torch differ, so that results are not bit-equal."""
    now = {"threads": torch.get_num_threads(), "torch": str(torch.__version__)}
    for name, value in now.items():
        if (then := state.content.get(name)) != value:
            text = "the run had %s %s, and goes on with %s: its bits may differ"
            log.warning(text, name, then, value)


def refuse_other_photos(state, data):
    """Refuse to resume with other photos than the run's; data: their metadata."""
    then = state.metadata["data"]
    if then != data:
        raise UserError(
            f"argument --data: {state.path} was trained on {then['count']} "
            f"{then['source']} (split {then['split']}), got {data['count']} "
            f"{data['source']} (split {data['split']}); name the photos of that run"
        )


# Replacing --------------------------------------------------------------------


def keep_previous(path, data):
    """Say which weights a new training will replace, and keep a copy of them.

    Weights of an interrupted run are not copied: an older copy is worth more. data:
    metadata of the photos of the new training.
    """
    if not path.is_file():
        return
    try:
        _, metadata = load_checkpoint(path)
    except UserError as error:
        log.warning("%s; it will be replaced", error)
        return
    if metadata.get("data", data)["source"] == "photos" != data["source"]:
        log.warning("%s was trained on photos; drawn flowers will replace it", path)
    facts = ", ".join(result_words(metadata)) or "without a description"
    if not ended_normally(path):
        text = "%s (%s) is of an interrupted run, and will be replaced"
        log.info(text, path, facts)
        return
    copy = path.with_name(f"Previous_{path.name.removeprefix('Best_')}")
    copied = {path: copy}
    if name := metadata.get("model"):
        copied[guide_path(path, name)] = guide_path(copy, name)
    for source, target in copied.items():
        if source.is_file():
            with writing(prepare_target(target)):
                replace_file(target, [read_regular(source)])
    log.info("%s (%s) will be replaced; a copy is kept as %s", path, facts, copy)


def ended_normally(path):
    """Return whether the training that wrote these weights ended."""
    # Its state is written before its weights. Without a state they are from elsewhere,
    # such as the committed ones.
    last = path.with_name(f"Last_{path.stem.removeprefix('Best_')}.pth")
    try:
        return read_state(last).content.get("ended") is True
    except UserError:
        return True
