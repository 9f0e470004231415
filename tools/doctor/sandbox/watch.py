"""Refuses and notes what Python code does outside its folder, by an audit hook.

Works on every system, and says what was tried even where the code hides the error. Code
that does not go through Python's functions is held by limits.py alone.
"""

# Standard library only.

import os
import socket
import sys

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event -> positions of the paths that it changes. https://docs.python.org/3/library/
# audit_events.html lists the events.
CHANGES = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.truncate"), (0,)),
    **dict.fromkeys(("os.chmod", "os.chown", "os.utime", "os.chflags"), (0,)),
    **dict.fromkeys(("os.setxattr", "os.removexattr", "sqlite3.connect"), (0,)),
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
}
PROCESSES = {
    *("os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.spawn", "os.system"),
    *("os.startfile", "os.kill", "os.killpg", "pty.spawn", "subprocess.Popen"),
}
CONNECTIONS = {
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"),
    *("socket.sendto", "socket.sendmsg", "urllib.Request"),
}


def watch(root, place):
    """Install the hook and return the list of what it refused: (finding, text).

    root: folder below which all is allowed; place(frame): where in the completion that
    frame or one of its callers is, or "".
    """
    root, refused = os.path.realpath(root), []

    def hook(event, args):
        found = violation(root, event, args)
        if found:
            name, text = found
            where = place(sys._getframe(1))
            refused.append((name, f"{text} at {where}" if where else text))
            raise PermissionError(f"the examination refuses {text}")

    sys.addaudithook(hook)
    return refused


def violation(root, event, args):
    """Return (name of the finding, what was tried) of a refused event, or None."""
    if event in PROCESSES:
        return "starts_process", event
    if event in CONNECTIONS:
        return "opens_network", event
    if event == "socket.__new__" and args[1] != getattr(socket, "AF_UNIX", None):
        return "opens_network", "socket.socket"
    for path in changed_paths(event, args):
        if not is_below(path, root):
            name = "open" if event == "open" else event
            return "writes_outside", f"{name}({os.fsdecode(path)!r})"
    return None


def changed_paths(event, args):
    """Return the paths that an event would change; numbers of open files are none."""
    if event == "open":
        path, mode, flags = args
        # Python's open() tells a mode, os.open() its flags.
        writes = set(mode) & set("wax+") if mode else (flags or 0) & WRITING
        paths = [path] if writes else []
    else:
        paths = [args[position] for position in CHANGES.get(event, ())]
    return [p for p in paths if isinstance(p, str | bytes | os.PathLike)]


def is_below(path, root):
    """Return whether writing to a path stays below a folder, or goes nowhere."""
    path = os.path.realpath(os.fsdecode(path))
    return path in (root, os.devnull) or path.startswith(root + os.sep)
