"""Forked processes that are connected as those of torchrun are."""

import os
import traceback
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
import torch.distributed as dist

from tests.helpers import forks
from utils.distributed import process_group

HERE = "127.0.0.1"


class Ended(NamedTuple):
    """How a process ended, and what it said."""

    code: int
    out: str
    err: str


@contextmanager
def environments(count, hosts=1):
    """Yield what torchrun sets for each of `count` processes: a list of dictionaries.

    hosts: on how many hosts they believe to be.
    """
    # torchrun serves the store, so that it outlives the processes.
    store = dist.TCPStore(HERE, 0, is_master=True, wait_for_workers=False)
    common = {
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count // hosts,
        "MASTER_ADDR": HERE,
        "MASTER_PORT": store.port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "GLOO_SOCKET_IFNAME": "lo",
    }
    yield [
        {name: str(value) for name, value in {**common, **own}.items()}
        for own in (
            {"RANK": rank, "LOCAL_RANK": rank % (count // hosts)}
            for rank in range(count)
        )
    ]


def results_of(count, function, folder, joined=True, hosts=1):
    """Call function() in `count` processes -> what it returned, by rank.

    joined: in a process group; otherwise the function makes its own.
    """
    paths = [folder / f"result_{rank}" for rank in range(count)]
    with environments(count, hosts) as found:
        pairs = zip(found, paths, strict=True)
        pids = [call_in_child(function, *pair, joined) for pair in pairs]
        codes = [forks.wait(pid) for pid in pids]
    assert codes == [0] * count, [path.read_text() for path in paths]
    return [torch.load(path, weights_only=True) for path in paths]


def call_in_child(function, environment, path, joined):
    """Fork a child that saves what function() returns -> its process number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ.update(environment)
        torch.set_num_threads(1)
        with process_group() if joined else nullcontext():
            torch.save(function(), path)
        code = 0
    except BaseException:
        path.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def run_all(count, script, *args, folder, before=None, hosts=1):
    """Run a command in `count` children -> how each one Ended, by rank."""
    with environments(count, hosts) as found:
        pids = [
            start_as(environment, script, *args, folder=folder, before=before)
            for environment in found
        ]
        codes = [forks.wait(pid) for pid in pids]
    said = [
        [(folder / str(rank) / name).read_text() for name in ("out.txt", "err.txt")]
        for rank in range(count)
    ]
    return [Ended(code, *texts) for code, texts in zip(codes, said, strict=True)]


def start_as(environment, script, *args, folder, before):
    """Start a command in a child with these variables -> its process number."""

    def prepare():
        os.environ.update(environment)
        if before:
            before()

    own = folder / environment["RANK"]
    own.mkdir(parents=True, exist_ok=True)
    return forks.start(script, *args, folder=own, before=prepare)
