"""Limits that the operating system sets to a process which runs foreign code."""

# Standard library only. Each function returns whether the system has the limit, so that
# the report can name the protection that is missing.

import ctypes
import math
import os
import sys
import time

try:
    import resource
except ImportError:  # Windows
    resource = None

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # flags of unshare(2)
# Numbers of Landlock's system calls, the same on every processor.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
NO_NEW_PRIVILEGES = 38  # of prctl(2)
WRITE_FILE, REFER, TRUNCATE = 1 << 1, 1 << 13, 1 << 14
SPARE_TASKS = 256  # processes and threads, beyond those that the machine runs now


def libc():
    """Return the C library, or None where it has not Linux's calls."""
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


# Network and files -------------------------------------------------------------


def leave_network():
    """Move the process into a network of its own, without any device.

    Works before the process has threads. Needs the right to make user namespaces.
    """
    call = libc()
    if not call:
        return False
    user = os.getuid()
    if call.unshare(NEW_NETWORK) == 0:
        return True
    if call.unshare(NEW_USER | NEW_NETWORK):
        return False
    # In the new user namespace the process keeps its number.
    with open("/proc/self/uid_map", "w") as file:
        file.write(f"{user} {user} 1")
    return True


class Ruleset(ctypes.Structure):
    """Landlock's landlock_ruleset_attr: the rights that need a rule."""

    _fields_ = [(name, ctypes.c_uint64) for name in ("files", "network", "scoped")]


class PathRule(ctypes.Structure):
    """Landlock's landlock_path_beneath_attr: rights below a folder."""

    _pack_ = 1
    _fields_ = [("rights", ctypes.c_uint64), ("folder", ctypes.c_int32)]


def write_only_below(folder):
    """Refuse writes elsewhere than in a folder and /dev/null, by Landlock.

    Also TCP connections and signals to processes outside, where the kernel knows them.
    Counts for this thread and those that it starts.
    """
    call = libc()
    version = call.syscall(CREATE_RULESET, None, 0, 1) if call else 0
    if version < 1:
        return False
    # All rights that change something: write, remove, make, move, truncate.
    rights = WRITE_FILE | sum(1 << bit for bit in range(4, 13))
    rights |= (REFER if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    rules = Ruleset(rights, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    handle = call.syscall(CREATE_RULESET, ctypes.byref(rules), size, 0)
    if handle < 0:
        return False

    # What is allowed nevertheless.
    of_files = rights & (WRITE_FILE | TRUNCATE)
    for path, allowed in ((folder, rights), (os.devnull, of_files)):
        place = os.open(path, os.O_PATH)
        rule = PathRule(allowed, place)
        failed = call.syscall(ADD_RULE, handle, 1, ctypes.byref(rule), 0)
        os.close(place)
        if failed:
            return False
    call.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    done = call.syscall(RESTRICT_SELF, handle, 0) == 0
    os.close(handle)
    return done


# Memory, processes, time -------------------------------------------------------


def lower(name, value):
    """Lower a limit of `resource` by name, where there is one."""
    kind = getattr(resource, name, None)
    if kind is None:
        return False
    soft, hard = resource.getrlimit(kind)
    known = [n for n in (soft, hard) if n != resource.RLIM_INFINITY]
    value = min([value, *known])
    resource.setrlimit(kind, (value, value))
    return True


def limit_memory(spare):
    """Let the process take `spare` bytes of address space more than it has now."""
    try:
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
    except OSError:  # not Linux
        return False
    return lower("RLIMIT_AS", pages * resource.getpagesize() + spare)


def limit_files(largest):
    """Let no file grow beyond a size in bytes, and let a crash write no core file."""
    return lower("RLIMIT_CORE", 0) and lower("RLIMIT_FSIZE", largest)


def limit_processes():
    """Let the user's processes become few more than they are; root has no limit."""
    try:
        with open("/proc/loadavg") as file:
            tasks = int(file.read().split()[3].split("/")[1])
    except OSError:  # not Linux
        return False
    return lower("RLIMIT_NPROC", tasks + SPARE_TASKS)


def limit_seconds(seconds):
    """End the process by SIGXCPU after so many seconds of computing from now."""
    if resource is None:
        return False
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    return True
