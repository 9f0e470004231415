"""The process between the parent and the code that is examined.

It adopts all that the code starts, and ends it. Standard library only.
"""

import os
import signal
from pathlib import Path

from .limits import libc

END_WITH_PARENT, ADOPT = 1, 36  # PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER of prctl


def supervise(send):
    """Return in a new process; this one waits for it and then exits.

    send: writes an event for the parent; here it sends how the new process ended, and
    how many others it left. Where there is no adoption the call does nothing.
    """
    call = libc()
    if not call or call.prctl(ADOPT, 1, 0, 0, 0):
        return False
    # The parent asks for the end by SIGTERM; so does the system if the parent dies.
    call.prctl(END_WITH_PARENT, signal.SIGTERM, 0, 0, 0)
    worker = os.fork()
    if worker == 0:
        call.prctl(END_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        return True
    signal.signal(signal.SIGTERM, lambda *_: os.kill(worker, signal.SIGKILL))
    _, status = os.waitpid(worker, 0)
    send("ended", code=os.waitstatus_to_exitcode(status), left=end_children())
    os._exit(0)


def end_children():
    """Kill all that this process adopted, and what those leave; return how many."""
    killed = set()
    while True:
        for pid in children():
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return len(killed)


def children():
    """Return the numbers of the running processes whose parent is this one."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name before the last ")" may hold anything.
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        state, parent = fields[:2]
        if int(parent) == os.getpid() and state != "Z":  # Z: it has ended
            found.add(int(path.parent.name))
    return found
