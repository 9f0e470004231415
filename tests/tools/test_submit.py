"""A good tree passes; of each damaged one exactly what is missing is named."""

import codecs
import re
import string

import pytest
import torch

from diffusion import Diffuser
from tests.helpers.project import PROJECT, run_command
from tests.helpers.submission import log_text
from tests.helpers.submission_damage import DAMAGES
from tools.submit import texts
from tools.submit.__main__ import main, parse
from tools.submit.requirements import REQUIREMENTS
from utils.cli import UsageError, UserError


def printed(submission, capsys, *flags):
    """Run the command -> (the lines of stdout, its error or None)."""
    capsys.readouterr()
    error = None
    try:
        main(["--data", str(submission.data), "--out", str(submission.folder), *flags])
    except UserError as found:
        error = str(found)
    return capsys.readouterr().out.splitlines(), error


def check(submission, capsys, *flags):
    """Check only -> ({status: [(ID, words)]}, error)."""
    lines, error = printed(submission, capsys, "--check", *flags)
    found = {"ok": [], "wrong": [], "skipped": []}
    for line in lines:
        if match := re.fullmatch(r"(M\d\d) +(\w+) +(.*)", line):
            found[match[2]].append((match[1], match[3]))
    return found, error


def test_a_good_tree_passes(submission, capsys):
    """M47 to M50: a line per requirement, in their order; nothing is written."""
    before = sorted(submission.folder.rglob("*"))
    found, error = check(submission, capsys)
    assert error is None and found["wrong"] == found["skipped"] == []
    names = [name for name, _ in found["ok"]]
    assert names == sorted(REQUIREMENTS) == list(REQUIREMENTS)
    assert {"M12", "M19", "M22", "M33", "M47", "M48", "M49", "M50"} <= set(names)
    assert sorted(submission.folder.rglob("*")) == before


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_named_exactly(submission, capsys, what):
    """Its line has ID, file, reason and command; nothing else is wrong."""
    damage, name, words, *skipped = DAMAGES[what]
    damage(submission)
    found, error = check(submission, capsys)
    ((wrong, line),) = found["wrong"]
    assert wrong == name and re.search(words, line) and "; run: " in line
    assert [name for name, _ in found["skipped"]] == skipped
    assert error.startswith(f"1 of 14 requirements not met ({name})")


def test_several_faults_have_a_line_each(submission, capsys):
    for name in ("models/Best_AE.pth", "models/Best_VAE.pth", "vis/train_AE.png"):
        submission.remove(name)
    found, error = check(submission, capsys)
    assert [name for name, _ in found["wrong"]] == ["M47", "M47", "M48"]
    assert error.startswith("2 of 14 requirements not met (M47, M48)")


# What passes too ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "mark, encoding",
    [
        (codecs.BOM_UTF16_LE, "utf-16-le"),  # PowerShell 5
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF8, "utf-8"),
        (b"", "utf-8"),
    ],
)
def test_logs_of_windows_are_read(submission, capsys, mark, encoding):
    """T5: with their marks and line ends; the threshold is still told apart."""
    for train, status in ((0.0099, "ok"), (0.0101, "wrong")):
        text = log_text(15, 0.06, train, submission.save("AE")).replace("\n", "\r\n")
        submission.write("log/train_AE.out", mark + text.encode(encoding))
        found, _ = check(submission, capsys)
        assert "M24" in dict(found["ok"]) and "M22" in dict(found[status])


def test_thresholds_hold_within_their_epochs(submission, capsys):
    """C7: lines 0 to 14; what comes later proves nothing."""
    valid = submission.save("AE")
    early, late = (0.0099, valid), (0.0101, valid)
    for rows, status in (([early] * 15 + [late] * 5, "ok"), ([late] * 15, "wrong")):
        lines = [
            f"Epoch: {number}, Train Loss: {train}, Valid Loss: {valid}\n"
            for number, (train, valid) in enumerate([(0.06, 1.0), *rows, early])
        ]
        submission.write("log/train_AE.out", "".join(lines).encode())
        found, _ = check(submission, capsys)
        assert "M22" in dict(found[status])


def test_other_lines_of_a_log_are_no_fault(submission, capsys):
    path = submission.path("log/train_VAE.out")
    path.write_text("using device cpu\n\n" + path.read_text() + "done\n")
    assert check(submission, capsys)[1] is None


def test_weights_of_the_starter_kit_pass(submission, capsys):
    """C1: in model/, by its extension, and a bare state_dict without metadata."""
    submission.path("model").mkdir()
    for name, kit in (("AE.pth", "Best_AE.pth"), ("MLPAE.pkl", "Best_MLPAE.pth")):
        weights = torch.load(submission.path(f"models/Best_{name}"), weights_only=True)
        torch.save(dict(weights), submission.path(f"model/{kit}"))
        submission.remove(f"models/Best_{name}")
    found, error = check(submission, capsys)
    assert error is None and "MLPAE reaches 0.000" in dict(found["ok"])["M47"]


def test_without_photos_losses_are_not_recomputed(submission, capsys, tmp_path):
    """A line says so; weights are still loaded, and the rest is checked."""
    (tmp_path / "empty").mkdir()
    submission.data = tmp_path / "empty"
    found, error = check(submission, capsys)
    ((name, line),) = found["skipped"]
    assert error is None and name == "M47" and "no photos in" in line
    assert line.endswith("run: python -m tools.get_flowers")
    assert "AE loads" in dict(found["ok"])["M47"]
    submission.write("models/Best_AE.pth", b"")
    assert check(submission, capsys)[0]["wrong"][0][0] == "M47"


def test_other_photos_prove_nothing(submission, capsys):
    other = submission.photos.metadata | {"split": "0123456789abcdef"}
    submission.save("AE", data=other)
    found, error = check(submission, capsys)
    ((name, line),) = found["skipped"]
    assert error is None and name == "M47"
    assert line.startswith("four trained models: loss of models/Best_AE.pth not recom")


def test_bare_weights_of_diffusion_have_no_loss_to_reach(submission, capsys):
    """Of what network sizes and noise levels they are, no file tells."""
    weights = dict(Diffuser(300).state_dict())
    torch.save(weights, submission.path("models/Best_diffusion.pkl"))
    found, error = check(submission, capsys)
    ((_, line),) = found["skipped"]
    assert error is None and "Best_diffusion.pkl not recomputed: the file does" in line


def test_a_stopped_diffusion_is_whole_where_it_could_stop(submission, capsys):
    """Its weights say that it had a patience."""
    submission.replace("log/train_diffusion.out", "/3", "/9")
    settings = {"epochs": 9, "patience": 2, "batch_size": 8, "lr": 0.001}
    settings |= {"optimizer": "adam", "scheduler": "constant"}
    submission.save_diffusion(settings=settings)
    assert check(submission, capsys)[1] is None


def test_a_report_of_any_format_passes(submission, capsys):
    """M50: no extension is given."""
    submission.path("diffusion_report.md").rename(
        submission.path("diffusion_report.pdf")
    )
    found, error = check(submission, capsys)
    assert error is None and "were not checked" in dict(found["ok"])["M50"]


# Words -------------------------------------------------------------------------------


def test_both_languages_say_the_same():
    """Every text has the same fields in both; the English ones are ASCII."""
    for key, both in texts.TEXTS.items():
        fields = [
            {(name, form) for _, name, form, _ in string.Formatter().parse(t) if name}
            for t in both
        ]
        english = {name for name, _ in fields[0]} - {"why"}
        assert {name for name, _ in fields[1]} - {"path", "model", "why"} <= english, (
            key
        )
        assert both[0].isascii(), key


@pytest.mark.parametrize("damaged", [False, True])
def test_chinese_has_the_same_lines(submission, capsys, damaged):
    """The same IDs, files, numbers and commands, in other words."""
    if damaged:
        for name in ("models/Best_AE.pth", "log/train_VAE.out", "vis/valid_VAE.png"):
            submission.remove(name)
        submission.log("MLPAE", 100, 0.06, 0.031, 0.03)
    (english, error), (chinese, fehler) = (
        printed(submission, capsys, "--check", "--lang", lang)
        for lang in texts.LANGUAGES
    )
    assert len(chinese) == len(english) and all(
        "，" in t or "：" in t for t in chinese[:-1]
    )
    for ours, theirs in zip(english, chinese, strict=True):
        assert re.findall("^M..|python.*|[0-9.]{5,}", ours) == re.findall(
            "^M..|python.*|[0-9.]{5,}", theirs
        )
    assert damaged == bool(error) == bool(fehler) and "项要求" in (
        fehler or chinese[-1]
    )


# The command -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--check --archive x.zip", "argument --archive: nothing is packed"),
        ("--check --force", "argument --force: nothing is packed"),
        ("--out nowhere", "argument --out: nowhere is not a folder"),
        ("--data nowhere", "argument --data: nowhere is not a folder"),
    ],
)
def test_a_wrong_command_is_refused(flags, words):
    with pytest.raises(UsageError, match=words):
        parse(flags.split())


def test_commands_write_into_the_tree(submission, capsys):
    """With --out and --data as they were given, quoted for the shell."""
    moved = submission.folder.with_name("my tree")
    submission.folder.rename(moved)
    submission.folder = moved
    submission.remove("log/train_AE.out")
    submission.remove("vis/random_images_AE.png")
    found, _ = check(submission, capsys)
    picture, log = (line for _, line in found["wrong"])
    out = f"--out '{moved}'"
    assert picture.endswith(f"run: python random_generation.py --model AE {out}")
    words = f"train_script.py --model AE --data {submission.data} {out}"
    assert log.endswith(f"run: python {words} > '{moved}/log/train_AE.out'")


def test_the_project_passes(tmp_path, capsys):
    """Without photos, whose losses a slow test computes."""
    main(["--check", "--data", str(tmp_path)])
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "all 14 requirements are met" and last.isascii()
    statuses = [line.split()[1] for line in lines]
    assert statuses == ["ok"] * 11 + ["skipped"] + ["ok"] * 3


def test_a_missing_file_is_exit_code_1(tmp_path):
    """One line on stderr; the commands are on stdout."""
    done = run_command("tools.submit", "--out", tmp_path, "--data", tmp_path)
    assert done.returncode == 1 and not list(tmp_path.iterdir())
    assert re.fullmatch("tools.submit: error: .{10,400}\n", done.stderr)
    assert done.stdout.count("is missing; run: ") == 4 + 9 + 5 + 1
    # A shell could not open a log in a folder that is not there.
    assert done.stdout.count(f"; run: mkdir {tmp_path}/log; python ") == 4 + 5


@pytest.mark.slow
def test_the_projects_weights_reach_their_losses(real_photos, capsys):
    """On the real validation photos: 0.0273, 0.00694, 683 and 0.411."""
    main(["--check", "--data", str(real_photos), "--out", str(PROJECT)])
    out = capsys.readouterr().out
    assert out.count(" reaches ") == 4 and " skipped " not in out
