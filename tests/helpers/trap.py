"""A process that signals itself as it imports a module."""

import signal

TRAP = """
import os, sys

class Trap:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["TRAP_MODULE"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), int(os.environ["TRAP_SIGNAL"]))

sys.meta_path.insert(0, Trap())
"""


def trap_in(folder):
    """Write a trap into a folder -> environment(module, signal) of such a process."""
    (folder / "sitecustomize.py").write_text(TRAP)

    def environment(module="torch", signum=signal.SIGKILL):
        return {
            "PYTHONPATH": str(folder),
            "TRAP_MODULE": module,
            "TRAP_SIGNAL": str(int(signum)),
        }

    return environment
