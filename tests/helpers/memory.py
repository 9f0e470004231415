"""Processes with little memory."""

import os
import resource

from tests.helpers.saving import in_child


def memory_limited(work, megabytes):
    """Run work() in a child that may take so many megabytes more -> its exit code."""

    def limited():
        with open("/proc/self/statm", encoding="ascii") as sizes:
            taken = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + megabytes * 2**20,) * 2)
        work()

    return os.waitstatus_to_exitcode(os.waitpid(in_child(limited), 0)[1])
