"""What a process may do by its rank: D08, and which files it opens."""

import os

import pytest

from tests.helpers.commands import error_line
from tests.helpers.project import run_command
from utils import files
from utils.cli import ranks

SCRIPT = "train_script.py"


@pytest.fixture
def process(monkeypatch):
    """Return a function that sets torchrun's variables; without one they are unset."""

    def become(**values):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
            if name in values:
                monkeypatch.setenv(name, str(values[name]))

    become()
    return become


def test_alone_a_process_leads(process):
    assert (ranks.world_size(), ranks.rank(), ranks.local_rank()) == (1, 0, 0)
    assert ranks.leads() and ranks.first_on_host() and ranks.complaint() is None
    assert ranks.launcher() == ["python"]
    process(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0)
    assert ranks.leads() and ranks.world_size() == 1 and ranks.complaint() is None


def test_the_first_process_of_another_host_does_not_lead(process):
    process(RANK=2, WORLD_SIZE=4, LOCAL_RANK=0, LOCAL_WORLD_SIZE=2)
    assert ranks.first_on_host() and not ranks.leads()
    assert ranks.launcher() == ["torchrun", "OPTIONS"]
    process(RANK=1, WORLD_SIZE=2, LOCAL_RANK=1, LOCAL_WORLD_SIZE=2)
    assert not ranks.first_on_host()
    assert ranks.launcher() == ["torchrun", "--nproc_per_node", "2"]


@pytest.mark.parametrize(
    "values, name",
    [
        ({"RANK": 1}, "WORLD_SIZE"),
        ({"WORLD_SIZE": 2}, "RANK"),
        ({"RANK": "x", "WORLD_SIZE": 2}, "'x'"),
        ({"RANK": 0, "WORLD_SIZE": "-1"}, "'-1'"),
        ({"RANK": 2, "WORLD_SIZE": 2}, "RANK is not below"),
    ],
)
def test_variables_that_torchrun_never_sets(process, values, name):
    """D08."""
    process(**values)
    assert name in ranks.complaint() and "torchrun" in ranks.complaint()


def test_only_rank_0_touches_files(process, tmp_path):
    """P26: nothing is made, replaced or removed by another rank."""
    old, rest = tmp_path / "old", tmp_path / "old.tmp"
    old.write_bytes(b"old")
    rest.write_bytes(b"of a killed run")
    process(RANK=1, WORLD_SIZE=2)
    files.prepare_target(old)
    files.prepare_folder(tmp_path / "folder")
    files.write_file(old, b"new")
    files.csv_log(tmp_path / "log.csv")({"epoch": 0})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old", "old.tmp"]
    assert old.read_bytes() == b"old"
    # The same by rank 0.
    process(RANK=0, WORLD_SIZE=2)
    files.write_file(old, b"new")
    assert old.read_bytes() == b"new" and not rest.exists()


def environment(**values):
    return {**os.environ, **{name: str(value) for name, value in values.items()}}


def test_a_rank_without_a_world():
    """D08: exit 2 in one line, before torch is loaded."""
    result = run_command(SCRIPT, env=environment(RANK=1))
    assert result.returncode == 2 and result.stdout == ""
    assert "WORLD_SIZE is not set" in error_line(result.stderr, SCRIPT)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_wrong_command_is_reported_once(rank):
    """P25, P26: the exit code is that of a wrong command in every process."""
    env = environment(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2)
    result = run_command(SCRIPT, "--lr", "nan", env=env)
    assert result.returncode == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 - rank
