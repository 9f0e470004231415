"""The command: what it refuses, what it prints and writes, and how it ends."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.doctor import write_files
from tests.helpers.project import PROJECT, run_command
from tools.doctor import __main__ as command
from tools.doctor.checks import Finding
from tools.doctor.examination import Examination, Part, checked, examine
from tools.doctor.sandbox.parent import Outcome
from utils.cli import UserError

NAME = "tools.doctor.__main__."


@pytest.fixture
def result(monkeypatch):
    """The examination that the command gets; a test may add findings to it."""
    found = Examination("amy", {n: Part(n) for n in range(5)}, {"network": True}, {})
    monkeypatch.setattr(f"{NAME}examine", lambda path, photos: found)
    return found


def test_it_ends_with_0_where_nothing_is_found(result, capsys):
    command.main(["amy"])
    assert capsys.readouterr().out.startswith("Examination of amy\n")


def test_it_ends_with_1_where_something_is_found(result, tmp_path, capsys):
    outcome = Outcome("outputs", (Finding("wrong_name", "None", "'AE'"),))
    result.parts[2].outcomes.append(outcome)
    target = tmp_path / "results" / "results.json"
    with pytest.raises(SystemExit) as end:
        command.main(["amy", "--json", "--gradescope", str(target)])
    assert end.value.code == 1
    printed, written = (
        json.loads(capsys.readouterr().out),
        json.loads(target.read_text()),
    )
    assert printed["parts"][2]["findings"][0]["name"] == "wrong_name"
    assert "[wrong_name]" in written["tests"][1]["output"]


@pytest.mark.parametrize(
    ("flags", "first"),
    [(["--markdown"], "# Examination of amy"), (["--lang", "zh"], "检查 amy")],
)
def test_forms_and_languages(flags, first, result, capsys):
    command.main(["amy", *flags])
    assert capsys.readouterr().out.splitlines()[0] == first


@pytest.mark.parametrize(
    "line", ["", "a b", "a --lang fr", "a --json --markdown", "a --gradescope"]
)
def test_wrong_command_lines_are_refused(line, capsys):
    with pytest.raises(SystemExit) as end:
        command.parse(line.split())
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_what_is_no_completion_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder; name the folder of a comp"):
        checked(tmp_path / "nowhere")
    with pytest.raises(UserError, match="none of the starter kit's files, such as A"):
        checked(tmp_path)
    write_files(tmp_path, {"utils/train.py": ""})
    assert checked(tmp_path) == tmp_path


def test_an_unfinished_completion_is_examined_without_a_process(tmp_path):
    """Each blank is one finding; no check of those modules is run."""
    blank = "raise NotImplementedError\n"
    forward = f":\n def forward(self, x):\n  {blank}"
    files = {
        "MLPAutoencoder.py": f"class MLPAutoencoder{forward}",
        "Autoencoder.py": f"class Autoencoder{forward}",
        "VarAutoencoder.py": "",
        "utils/train.py": f"def train(optimizer):\n  {blank}",
    }
    folder = write_files(tmp_path, files)
    names = ["import_MLPAutoencoder", "import_Autoencoder", "import_VarAutoencoder"]
    found = examine(folder, names=[*names, "import_utils.train", "import_diffusion"])
    names = {n: [f.name for f in p.findings()] for n, p in found.parts.items() if n}
    assert names == {
        1: ["not_implemented"] * 2,
        2: ["not_implemented"],
        3: ["name_missing"],
        4: ["file_missing"],
    }
    assert found.score() == 0 and found.held == {}


# As a process ------------------------------------------------------------------


def fingerprint(folder):
    """Return the names and contents of all files below a folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.slow
def test_the_command_leaves_the_completion_as_it_was(tmp_path):
    """Run as a user does, on code that asks to be stopped; no scratch folder stays."""
    files = {
        "MLPAutoencoder.py": "class MLPAutoencoder: pass\nimport os\nos._exit(0)\n"
    }
    folder = write_files(tmp_path / "of amy 花", files)
    (tmp_path / "scratch").mkdir()
    before = fingerprint(folder)
    env = {"TMPDIR": str(tmp_path / "scratch"), "PYTHONIOENCODING": "gbk"}
    end = run_command("tools.doctor", folder, env=env, timeout=3600)
    assert end.returncode == 1, end.stderr
    assert "[process_ended]" in end.stdout and "[file_missing]" in end.stdout
    assert end.stdout.isascii()
    assert "Traceback" not in end.stderr
    assert fingerprint(folder) == before
    assert list((tmp_path / "scratch").glob("doctor-*")) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes in /proc")
def test_ctrl_c_ends_it_with_all_its_processes(tmp_path):
    """While a completion waits for ever."""
    ready = tmp_path / "scratch"
    ready.mkdir()
    text = "class MLPAutoencoder: pass\nimport time\nopen('begun', 'w').close()\n"
    files = {"MLPAutoencoder.py": text + "time.sleep(10**6)\n"}
    folder = write_files(tmp_path / "completion", files)
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.doctor", str(folder)],
        cwd=PROJECT,
        env={"TMPDIR": str(ready)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(ready.glob("doctor-*/completion/begun")):
        time.sleep(0.05)
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "") and "Traceback" not in err
    assert list(ready.glob("doctor-*")) == []
    assert not [p for p in Path("/proc").glob("[0-9]*") if mentions(p, str(ready))]


def mentions(process, text):
    """Return whether a process has a text in its environment."""
    try:
        return text.encode() in (process / "environ").read_bytes()
    except OSError:
        return False
