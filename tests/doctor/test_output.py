"""What is printed of a known examination, and its points."""

import json

import pytest

from tools.doctor import output
from tools.doctor.checks import Check, Finding
from tools.doctor.examination import Examination, Part
from tools.doctor.sandbox.parent import Outcome
from tools.doctor.static import Seen

GOOD = ("a", "b", "c")


def rows(part, names, module="m"):
    return [Check(name, part, 1.0, None, (module,)) for name in names]


def part(number, outcomes=(), seen=(), left_out=(), module="m"):
    names = [outcome.check for outcome in outcomes]
    left_out = rows(number, left_out, module)
    checks = rows(number, names, module)
    return Part(number, checks, list(outcomes), list(seen), left_out)


def finding(name="wrong_name", seen="name is None", expected="'MLPAE'"):
    return Finding(name, seen, expected)


@pytest.fixture
def examination():
    """One mistake in part 1, one check open in 2, 3 unfinished, 4 all right."""
    passed = [Outcome(name) for name in GOOD]
    one = part(1, [*passed, Outcome("outputs", (finding(),))])
    two = part(2, [*passed, Outcome("claimed_loss", reason="no photos were given")])
    blank = finding("not_implemented", "forward: no code at VarAutoencoder.py:3", "its")
    seen = [Seen(blank, 3, "VarAutoencoder.py", range(3, 5))]
    three = part(3, seen=seen, left_out=("d", "e"))
    symbol = finding("print_symbol", "print of U+2705 at x.py:1", "characters")
    zero = part(0, seen=[Seen(symbol, 0, "x.py", range(1, 2))])
    parts = {p.number: p for p in (zero, one, two, three, part(4, passed))}
    held = {"network": True, "writes": False}
    return Examination("amy", parts, held, {"labels": "labels"})


# Points ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "wrong", "points"),
    [(4, 0, 10.0), (3, 1, 7.5), (2, 1, 6.5), (0, 3, 0.0), (19, 1, 9.5), (0, 0, None)],
)
def test_points_are_the_proportion_in_halves(right, wrong, points):
    """Of part 4, ten points: 2 of 3 are 6.67, so 6.5."""
    outcomes = [Outcome(f"r{n}") for n in range(right)]
    outcomes += [Outcome(f"w{n}", (finding(),)) for n in range(wrong)]
    outcomes += [Outcome("open", reason="no labels")]
    assert part(4, outcomes).points() == points


def test_checks_that_a_broken_module_prevents_are_no_success():
    raised = Outcome("import_m", (finding("raises", "ValueError at m.py:1"),))
    others = [Outcome(name, reason="see import_m") for name in GOOD]
    assert part(2, [raised, *others]).counts() == (0, 4, 0)
    assert part(2, [Outcome("x"), *others]).counts() == (1, 0, 3)


def test_a_finding_of_the_text_counts_as_one_check():
    slip = Seen(finding("cuda_only"), 2, "m.py", range(1, 2))
    passed = [Outcome(name) for name in GOOD]
    assert part(2, passed, [slip]).counts() == (3, 1, 0)
    found = [*passed, Outcome("d", (finding("cuda_only", "other"),))]
    assert part(2, found, [slip]).counts() == (3, 1, 0)


def test_an_exception_at_a_line_that_the_text_shows_is_not_told_twice():
    slip = Seen(finding("number_unpacked", "W, H = 24"), 2, "m.py", range(7, 8))
    raised = [
        Outcome("a", (finding("raises", "TypeError: cannot unpack at m.py:7"),)),
        Outcome("b", (finding("raises", "TypeError: cannot unpack at m.py:9"),)),
    ]
    found = part(2, raised, [slip]).findings()
    assert [f.seen for f in found] == ["W, H = 24", raised[1].findings[0].seen]


def test_the_same_finding_of_several_checks_is_one():
    outcomes = [Outcome(name, (finding(),)) for name in GOOD]
    assert part(1, outcomes).findings() == {finding(): list(GOOD)}


# Text --------------------------------------------------------------------------


def test_english_text(examination):
    assert output.as_text(examination).splitlines() == [
        "Examination of amy",
        "",
        "Part 1, MLP autoencoder: 4 of 5 points",
        "  3 checks found nothing, 1 found a mistake",
        *explained_lines("wrong_name", "name is None", "'MLPAE'", " (as R2)"),
        "",
        "Part 2, convolutional autoencoder: 5 of 5 points",
        "  all right: 3 checks",
        "  Not examined, look at it by hand:",
        "    claimed_loss: no photos were given",
        "",
        "Part 3, variational autoencoder: 0 of 10 points",
        "  0 checks found nothing, 2 found a mistake",
        *explained_lines(
            "not_implemented", "forward: no code at VarAutoencoder.py:3", "its"
        ),
        "  checks left out, as a file is unfinished: 2",
        "",
        "Part 4, diffusion: 10 of 10 points",
        "  all right: 3 checks",
        "",
        "Other files",
        "  0 checks found nothing, 1 found a mistake",
        *explained_lines(
            "print_symbol", "print of U+2705 at x.py:1", "characters", " (as R17)"
        ),
        "",
        "Sum: 19 of 30 points, a proposal to the teacher",
        "Bonus: 0 to 10 points, by hand",
        "  names of labels in diffusion.py: labels",
        "Protections of this computer: missing on this computer: writes refused by "
        "the system",
    ]


def explained_lines(name, seen, expected, rules=""):
    row = output.explanations()[name]["en"]
    return [
        f"  [{name}] {row['title']}{rules}",
        f"    seen: {seen}",
        f"    expected: {expected}",
        f"    likely cause: {row['cause']}",
        f"    read: {row['read']}",
    ]


def test_english_text_is_ascii(examination):
    examination.path = "\u674e\u96f7"
    examination.parts[1].outcomes[3] = Outcome(
        "outputs", (finding(seen="name is '\u82b1'"),)
    )
    text = output.as_text(examination)
    assert text.isascii() and "\\u674e\\u96f7" in text and "\\u82b1" in text


def test_chinese_text_has_the_same_lines(examination):
    english = output.as_text(examination).splitlines()
    chinese = output.as_text(examination, "zh").splitlines()
    assert len(english) == len(chinese)
    assert chinese[:5] == [
        "检查 amy",
        "",
        "第一部分：MLP 自编码器：4 / 5 分",
        "  3 项检查没有发现问题，1 项发现问题",
        f"  [wrong_name] {output.explanations()['wrong_name']['zh']['title']}"
        " (对应 R2)",
    ]
    assert chinese[5:7] == ["    观察到：name is None", "    应为：'MLPAE'"]
    assert "合计：19 / 30 分，供老师参考" in chinese
    assert "附加分：0 到 10 分，由老师评定" in chinese
    # Nothing is left in English but what was seen.
    assert not any("point" in line or "check" in line for line in chinese)


def test_markdown_has_a_heading_per_part_and_no_stray_markup(examination):
    examination.parts[1].outcomes[3] = Outcome(
        "outputs", (finding(seen="*name* <b> `x`"),)
    )
    lines = output.as_markdown(examination).splitlines()
    assert lines[0] == "# Examination of amy"
    assert [line for line in lines if line.startswith("## ")] == [
        "## Part 1, MLP autoencoder: 4 of 5 points",
        "## Part 2, convolutional autoencoder: 5 of 5 points",
        "## Part 3, variational autoencoder: 0 of 10 points",
        "## Part 4, diffusion: 10 of 10 points",
        "## Other files",
    ]
    assert "  - seen: \\*name\\* \\<b\\> \\`x\\`" in lines
    assert any(line.startswith("- \\[wrong\\_name\\] ") for line in lines)


# Data --------------------------------------------------------------------------


def test_json_has_every_fact(examination):
    found = json.loads(json.dumps(output.as_json(examination)))
    assert (found["score"], found["max_score"]) == (19.0, 30)
    assert found["bonus"] == {"max_points": 10, "points": None, "labels": "labels"}
    assert found["protections"] == {"network": True, "writes": False}
    by_number = {p["part"]: p for p in found["parts"]}
    assert [by_number[n]["points"] for n in range(5)] == [None, 4.0, 5.0, 0.0, 10.0]
    (mistake,) = by_number[1]["findings"]
    assert mistake["checks"] == ["outputs"] and mistake["rules"] == ["R2"]
    assert mistake["seen"] == "name is None" and mistake["cause"]
    assert by_number[2]["not_examined"] == [
        {"reason": "no photos were given", "checks": ["claimed_loss"]}
    ]
    assert by_number[3]["left_out"] == ["d", "e"]
    assert by_number[1]["checks"] == {"right": 3, "wrong": 1, "not_examined": 0}


def test_gradescope_reads_the_results(examination):
    found = json.loads(json.dumps(output.as_gradescope(examination)))
    assert found["score"] == 19.0 and "0 to 10 points, by hand" in found["output"]
    graded = [t for t in found["tests"] if t["max_score"]]
    assert [(t["score"], t["max_score"]) for t in graded] == [
        *((4.0, 5.0), (5.0, 5.0), (0.0, 10.0), (10.0, 10.0)),
    ]
    assert sum(t["score"] for t in graded) == found["score"]
    for row in found["tests"]:
        assert set(row) == {"name", "score", "max_score", "output", "visibility"}
        assert row["visibility"] == "visible" and row["output"]
    assert found["tests"][0]["name"] == "Part 1, MLP autoencoder"
    assert "[wrong_name]" in found["tests"][0]["output"]


def test_gradescope_in_chinese(examination):
    found = output.as_gradescope(examination, "zh")
    assert found["tests"][3]["name"] == "第四部分：扩散模型"
    assert "由老师评定" in found["output"]


def test_a_part_without_any_result_is_for_the_teacher(examination):
    examination.parts[4] = part(4, [Outcome("a", reason="no Diffuser")])
    assert "Part 4, diffusion: points by hand" in output.as_text(examination)
    assert output.as_json(examination)["parts"][4]["points"] is None
