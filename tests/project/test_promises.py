"""docs/promises.md names every promise, and the counts of the last full run."""

import re

from tests.helpers.project import PROJECT

PROMISES = (PROJECT / "docs" / "promises.md").read_text("utf-8")
REPORT = PROJECT / "tests" / "faults" / "REPORT.md"
# Cases: letter -> how many.
CASES = {"C": 15, "L": 20, "I": 29, "T": 14, "X": 21, "D": 8, "N": 6}


def rows(text):
    """Return the cells of the table rows that begin with a promise."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| P\d+ \|", line)
    ]


def named_cases():
    """Return the IDs of cases and promises that the tests name, ranges included."""
    text = "\n".join(
        path.read_text("utf-8") for path in (PROJECT / "tests").rglob("test_*.py")
    )
    found = set(re.findall(r"\b[CLITXDNP]\d{1,2}(?=[a-c]?\b)", text))
    ranges = r"\b([CLITXD])(\d\d)(?: to |-)[CLITXD](\d\d)\b"
    for letter, first, last in re.findall(ranges, text):
        found |= {f"{letter}{n:02}" for n in range(int(first), int(last) + 1)}
    return found


def test_every_promise_has_the_count_of_the_report():
    trials = {}
    for promise, _, count, violations, _ in rows(REPORT.read_text("utf-8")):
        assert violations == "0"
        trials[promise] = trials.get(promise, 0) + int(count)
    stated = {row[0]: row[3] for row in rows(PROMISES)}
    assert list(stated) == [f"P{n}" for n in range(1, 27)]
    assert {p: int(n) for p, n in stated.items() if n != "-"} == trials


def test_every_case_is_named_by_a_test():
    found = named_cases()
    wanted = [
        f"{letter}{n:02}" if letter != "N" else f"N{n}"
        for letter, count in CASES.items()
        for n in range(1, count + 1)
    ]
    wanted += [f"P{n}" for n in range(1, 27)]
    assert [case for case in wanted if case not in found] == []


def test_every_test_file_that_is_named_exists():
    names = re.findall(r"`(\w+/test_\w+\.py)`", PROMISES)
    assert len(names) > 20
    assert [n for n in names if not (PROJECT / "tests" / n).is_file()] == []
