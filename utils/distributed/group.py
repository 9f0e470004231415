"""The processes of a training: how they meet, take turns, agree, and end."""

# Without torchrun every function here does what its arguments do, and nothing else. The
# default process group is one of CPUs with a long timeout, in which a process may wait
# for another that works alone; `utils.distributed.trainer` has one of its own.

import os
import sys
import time
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

from utils.cli import UsageError, UserError, first_on_host, leads
from utils.cli.process import describe
from utils.cli.ranks import local_rank, rank, world_size

START = timedelta(seconds=120)  # until all processes are there
ALONE = timedelta(hours=1)  # of one process's work, for which the others wait
GRACE = 5.0  # seconds in which another process says why it ended
POLL = 0.005  # seconds between looks at what is waited for; signals act in between
LOST = ("gloo", "connection", "nccl", "socket", "timed out")  # of torch's messages


@contextmanager
def process_group():
    """Join the processes that torchrun started, inside; alone, do nothing.

    An error that several processes have is reported by the first of them, and the end
    of another process by none that it has stopped: see `one_report`.
    """
    if world_size() == 1:
        yield
        return
    choose_gpu()
    store, *_ = next(dist.rendezvous("env://", timeout=START))
    try:
        with one_report(store):
            meet(store)
            options = {"rank": rank(), "world_size": world_size(), "timeout": ALONE}
            dist.init_process_group("gloo", store=store, **options)
            yield
            wait_for_all()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def choose_gpu():
    """Let this process see one GPU only, that of its number on the host."""
    # Random states, seeds and devices are then as in one process. A scheduler such as
    # SLURM may have done it already. No GPU is used before this.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = visible.split(",") if visible else []
    if visible is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(local_rank())
    elif len(numbers) > 1:
        chosen = numbers[local_rank() :][:1]
        os.environ["CUDA_VISIBLE_DEVICES"] = "".join(chosen)


def meet(store):
    """Wait until all processes are there."""
    end = time.monotonic() + START.total_seconds()
    store.add("present", 1)
    while (present := store.add("present", 0)) < world_size():
        if time.monotonic() > end:
            raise UserError(
                f"{present} of {world_size()} processes came within "
                f"{START.total_seconds():.0f} s; start torchrun on every host"
            )
        time.sleep(POLL)


# Errors ------------------------------------------------------------------------


@contextmanager
def one_report(store):
    """Let one process report an error that several have, and none a lost connection.

    The process whose error it is tells the others by the store. Where it could not,
    since it was killed, rank 0 says that another process has ended.
    """
    try:
        yield
    except Exception as error:
        if is_lost(error):
            if not leads() or has_failed(store, range(world_size())):
                sys.exit(1)
            raise UserError(
                "another process of this training ended, or cannot be reached; "
                "continue from the last saved epoch with --resume"
            ) from None
        with suppress(RuntimeError):  # the store is gone with its process
            store.set(f"error {rank()}", describe(error))
        if has_failed(store, range(rank()), describe(error)):
            sys.exit(2 if isinstance(error, UsageError) else 1)
        raise


def is_lost(error):
    """Return whether a collective failed since another process is not there."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return type(error) is RuntimeError and any(word in text for word in LOST)


def has_failed(store, ranks, message=None):
    """Return whether one of these processes says that it failed, within GRACE.

    message: its error; by default any. A process that torchrun ends in the meantime
    leaves with the code of the signal.
    """
    end = time.monotonic() + GRACE
    keys = [f"error {number}" for number in ranks]
    while keys and time.monotonic() < end:
        try:
            found = [store.get(key).decode() for key in keys if store.check([key])]
        except RuntimeError:  # the store has ended with the process that served it
            return True
        if found and message in (None, *found):
            return True
        time.sleep(POLL)
    return False


# Turns and agreement -----------------------------------------------------------


def wait_for_all():
    """Wait for the other processes, each of which may work alone for long."""
    work = dist.barrier(async_op=True)
    while not work.is_completed():
        time.sleep(POLL)
    work.wait()  # raises the error, if it failed


def lead(function, *args):
    """Return what function(*args) returns in rank 0, which alone calls it."""
    if world_size() == 1:
        return function(*args)
    result = [function(*args) if leads() else None]
    wait_for_all()
    dist.broadcast_object_list(result)
    return result[0]


def start_together(start_training, args, settings, state):
    """Return what start_training returns, and be sure that all processes agree.

    The first process of a host opens the photos before the others of that host.

    Raises:
        UserError: if the photos, the settings or the state differ.
    """
    if world_size() == 1:
        return start_training(args, settings, state)
    if not first_on_host():
        wait_for_all()
    device, loaders, metadata = start_training(args, settings, state)
    if first_on_host():
        wait_for_all()
    # What the training depends on.
    data = metadata["data"]
    photos = f"{data['count']} {data['source']} (split {data['split']})"
    epochs = len(state.content["rows"]) if state else 0
    facts = {"photos": photos, "seed": metadata["seed"], "device": device.type}
    facts |= {"number of epochs done": epochs} | metadata["settings"] | data
    refuse_differences(gather(facts))
    return device, loaders, metadata


def gather(value):
    """Return the values of all processes, by rank."""
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def refuse_differences(facts):
    """Raise a UserError for the first fact in which processes differ.

    facts: of each process, by rank: name -> value.
    """
    for other, found in enumerate(facts):
        for name, value in facts[0].items():
            if found.get(name) != value:
                raise UserError(
                    f"the hosts do not agree: {name} is {value!s:.80} in rank 0, and "
                    f"{found.get(name)!s:.80} in rank {other}; give every host the "
                    "same photos, command and files in models/"
                )
