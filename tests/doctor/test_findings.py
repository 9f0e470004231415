"""The table of findings: a row per name, in both languages, and every mistake R."""

import ast
import re
import tomllib

import pytest

from tests.helpers.project import PROJECT
from tools.doctor.output import LANGUAGES, PROTECTIONS, WORDS, explanations

DOCTOR = PROJECT / "tools" / "doctor"
RULES = {f"R{number}" for number in range(1, 29)}
TEXTS = {"title", "cause", "read"}
NAME = re.compile(r"[a-z]+(_[a-z]+)+|raises")
# Their functions yield or return tuples that begin with a name.
WITH_TUPLES = ("static.py", "watch.py")


def trees():
    paths = sorted(DOCTOR.rglob("*.py"))
    return {path: ast.parse(path.read_text("utf-8")) for path in paths}


def rows():
    return {n: row for n, row in explanations().items() if n != "not_examined"}


def constants(node):
    """Return the texts below a node, in the form of a name."""
    texts = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
    return {t for t in texts if isinstance(t, str) and NAME.fullmatch(t)}


def names_of(function):
    """Return the names of the findings that a function makes."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
            # With a variable name, it is one of the function's own texts.
            known = node.args and isinstance(node.args[0], ast.Constant)
            found |= {node.args[0].value} if known else constants(function)
    return found


def names_in_tuples(tree):
    """Return the first texts of all tuples that are yielded or returned."""
    values = [n.value for n in ast.walk(tree) if isinstance(n, ast.Yield | ast.Return)]
    tuples = [v for v in values if isinstance(v, ast.Tuple)]
    return {name for value in tuples for name in constants(value.elts[0])}


def made():
    """Return the names of all findings that the doctor can report."""
    found = set()
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                found |= names_of(node)
        if path.name in WITH_TUPLES:
            found |= names_in_tuples(tree)
    return found


def test_every_name_has_a_row_and_every_row_is_used():
    names = made()
    assert len(names) > 60
    assert names == set(rows())


def test_the_search_finds_each_way_to_make_a_name():
    text = """
def a():
    yield Finding("one_name", "", "")

def b():
    for name in ("other_name", "third_name"):
        yield Finding(name, "", "")
"""
    first, second = ast.parse(text).body
    assert names_of(first) == {"one_name"}
    assert names_of(second) == {"other_name", "third_name"}
    tree = ast.parse("def c():\n    yield 'fourth_name', 1\n    return x, 'no_name'")
    assert names_in_tuples(tree) == {"fourth_name"}


def test_the_names_that_mutants_expect_have_a_row():
    for path in (PROJECT / "tests" / "doctor").glob("mutants_*.toml"):
        for mutant in tomllib.loads(path.read_text("utf-8"))["mutant"]:
            assert set(mutant["expect"]) <= set(rows()), mutant["name"]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_rows_are_complete_in_both_languages(lang):
    for name, row in rows().items():
        assert set(row) == {"part", "rules", *LANGUAGES}, name
        assert row["part"] in range(5) and set(row["rules"]) <= RULES, name
        assert set(row[lang]) == TEXTS and all(row[lang].values()), name
        written = row[lang]["title"] + row[lang]["cause"]
        assert bool(re.search(r"[\u4e00-\u9fff]", written)) == (lang == "zh"), name
    # English is printed on every console.
    english = [text for row in rows().values() for text in row["en"].values()]
    assert all(text.isascii() for text in english)


def test_no_row_holds_code():
    """The cause is told, not the solution: no assignment, and no call of torch."""
    for name, row in rows().items():
        for lang in LANGUAGES:
            written = row[lang]["title"] + row[lang]["cause"]
            assert not re.search(r"\w \+?= \w+[.(\[]|torch\.\w+\(", written), name


def test_every_mistake_of_public_completions_is_examined_or_named():
    caught = {rule for row in rows().values() for rule in row["rules"]}
    left = explanations()["not_examined"]
    assert caught | set(left) == RULES and not caught & set(left)
    assert all(len(reason) > 20 for reason in left.values())


def test_the_words_of_the_output_are_complete_in_both_languages():
    for table in (WORDS, PROTECTIONS):
        assert set(table) == set(LANGUAGES)
        assert set(table["en"]) == set(table["zh"])
    assert all(text.isascii() for text in WORDS["en"].values())
