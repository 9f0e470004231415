"""Small projects whose steps are tiny commands, for tools.reproduce."""

import json
import os
import sys
from pathlib import Path

from tools.reproduce import __main__ as reproduce
from utils.cli import process

# A command that writes the words of its files, and its own, into another file.
WORK = '''"""Join files."""
import sys
from pathlib import Path

from lib.words import joined

name, *sources = sys.argv[1:]
with open("runs.txt", "a") as file:
    file.write(Path(name).stem + " ")
Path(name).parent.mkdir(exist_ok=True)
Path(name).write_text(joined(map(Path, sources)))
print("made", name)
'''
WORDS = '''"""Words of files."""


def joined(paths):
    """Return them in one line."""
    # Here is a comment.
    return " ".join([path.read_text() for path in paths] + ["end"])
'''
# A training of three epochs, which waits before the last one for the file `go`.
TRAIN = '''"""Train."""
import os
import signal
import sys
import time
from pathlib import Path

def leave(number, _):
    Path("signal.txt").write_text(str(number))
    sys.exit(128 + number)

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, leave)
last, best = Path("models/Last_x.pth"), Path("models/Best_x.pkl")
last.parent.mkdir(exist_ok=True)
resumed = "--resume" in sys.argv
epochs = last.read_text().split() if resumed else []
for epoch in epochs:
    print(epoch, flush=True)
with open("runs.txt", "a") as file:
    file.write("resumed " if resumed else "train ")
last.write_text(" ".join(epochs))
for epoch in range(len(epochs), 3):
    if epoch == 2 and not Path("go").exists():
        Path("waiting.tmp").write_text(str(os.getpid()))
        os.replace("waiting.tmp", "waiting")
        while not Path("go").exists():
            time.sleep(0.01)
    epochs.append(f"epoch{epoch}")
    last.write_text(" ".join(epochs))
    print(epochs[-1], flush=True)
best.write_text("-".join(epochs))
'''
TABLE = """
[[steps]]
name = "a"
parts = [1]
argv = ["work.py", "a.txt"]
stdout = "log/a.out"
makes = ["a.txt"]
photos = "flowers"
cost = 10

[[steps]]
name = "b"
parts = [2]
argv = ["work.py", "b.txt", "a.txt"]
needs = ["a.txt"]
makes = ["b.txt"]
cost = 30

[[steps]]
name = "extra"
argv = ["work.py", "extra.txt"]
makes = ["extra.txt"]
cost = 5

[[steps]]
name = "end"
parts = [1, 2, 3, 4]
argv = ["-m", "lib.end", "end.txt", "a.txt", "b.txt"]
needs = ["a.txt", "b.txt"]
makes = ["end.txt"]
cost = 20
"""
TRAINING = """
[[steps]]
name = "train"
parts = [1]
argv = ["train.py"]
stdout = "log/train.out"
makes = ["models/Best_x.pkl"]
trains = "models/Best_x.pkl"

[[steps]]
name = "after"
parts = [1]
argv = ["work.py", "after.txt", "models/Best_x.pkl"]
needs = ["models/Best_x.pkl"]
makes = ["after.txt"]
"""


def write_project(root, table=TABLE):
    """Write a project with a table of steps, and a photo; return its folder."""
    (root / "lib").mkdir(parents=True)
    (root / "flowers" / "astilbe").mkdir(parents=True)
    (root / "flowers" / "astilbe" / "1.jpg").write_bytes(b"photo")
    (root / "lib" / "__init__.py").touch()
    (root / "lib" / "words.py").write_text(WORDS)
    (root / "lib" / "end.py").write_text(WORK.replace("lib.words", ".words", 1))
    (root / "work.py").write_text(WORK)
    (root / "train.py").write_text(TRAIN)
    (root / "steps.toml").write_text(table)
    return root


def make(root, *args):
    """Run tools.reproduce in this process -> the names of the steps that ran."""
    runs = root / "runs.txt"
    runs.unlink(missing_ok=True)
    words = [*map(str, args), "--out", str(root)]
    reproduce.main(words, project=root, table=root / "steps.toml")
    return runs.read_text().split() if runs.exists() else []


def start(root):
    """Fork a child that makes part 1 of a small project -> its process number."""
    words = ["--parts", "1", "--out", str(root)]
    return fork(root, words, project=root, table=root / "steps.toml")


def fork(root, words, **options):
    """Fork a child that runs tools.reproduce as a command -> its process number."""
    # Its streams are the files out.txt and err.txt; options: of `reproduce.main`.
    if pid := os.fork():
        return pid
    code = 99
    try:
        for number, name in ((1, "out.txt"), (2, "err.txt")):
            flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC
            os.dup2(os.open(root / name, flags), number)
        sys.stdout, sys.stderr = (os.fdopen(n, "w") for n in (1, 2))
        process.run(lambda: reproduce.main(words, **options))
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def manifest_of(root):
    """Return the content of the manifest."""
    return json.loads((root / "log" / "manifest.json").read_text("utf-8"))


def edit(path, old, new):
    """Replace a text that occurs in a file."""
    text = Path(path).read_text("utf-8")
    assert old in text
    Path(path).write_text(text.replace(old, new), "utf-8")
