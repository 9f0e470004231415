"""This process among those that torchrun started: its rank, and what it may do."""

# Standard library only. torchrun gives each process RANK, from 0 to WORLD_SIZE - 1, and
# LOCAL_RANK, which counts the processes of its host. Alone, a process has none of them.

import os

NAMES = ("RANK", "WORLD_SIZE")


def number(name, default):
    """Return a number of the environment, or the default where it is none."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default


def world_size():
    """Return how many processes the training has: 1 without torchrun."""
    return number("WORLD_SIZE", 1) if "RANK" in os.environ else 1


def rank():
    """Return the number of this process among all: 0 without torchrun."""
    return number("RANK", 0) if world_size() > 1 else 0


def local_rank():
    """Return the number of this process among those of its host."""
    return number("LOCAL_RANK", 0) if world_size() > 1 else 0


def leads():
    """Return whether this process prints and writes: rank 0 alone does."""
    return rank() == 0


def first_on_host():
    """Return whether this process is the first one of its host."""
    return local_rank() == 0


def complaint():
    """Return what is wrong with the variables of torchrun, or None."""
    if not any(name in os.environ for name in NAMES):
        return None
    remedy = f"start with torchrun, or unset {' and '.join(NAMES)}"
    for name in NAMES:
        value = os.environ.get(name)
        if value is None or not value.isdecimal():
            what = "not set" if value is None else repr(value)
            return f"the environment's {name} is {what}; {remedy}"
    if number("RANK", 0) >= number("WORLD_SIZE", 1):
        return f"the environment's RANK is not below WORLD_SIZE; {remedy}"
    return None


def launcher():
    """Return the words that start this training before the name of its script."""
    if world_size() == 1:
        return ["python"]
    if (here := number("LOCAL_WORLD_SIZE", world_size())) == world_size():
        return ["torchrun", "--nproc_per_node", str(here)]
    return ["torchrun", "OPTIONS"]  # those from before
