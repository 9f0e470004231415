"""The pages for learners: their commands, numbers, formulas and links."""

import re
import shlex
from collections import Counter

from tests.helpers.project import PROJECT

NAMES = (
    *("README.md", "part1.md", "part2.md", "part3.md", "part4.md"),
    "from_noise_to_flower.md",
)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FORMULA = re.compile(r"\$([^$\n]+)\$")
PARTS = "一二三四"
NUMBER = re.compile(r"\d+(?:\.\d+)?")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)\)")


def page(language, name):
    """Return the text of a page; language: "learn" (English) or "zh"."""
    return (PROJECT / "docs" / language / name).read_text("utf-8")


def blocks(text):
    """Return [(language, content)] of the fenced blocks."""
    return FENCE.findall(text)


def prose(text):
    """Return the text without fenced blocks."""
    return FENCE.sub("", text)


def commands(text):
    """Return the command lines of blocks and of inline code, in order of each kind."""
    lines = [
        line
        for kind, block in blocks(text)
        if kind == "sh"
        for line in block.splitlines()
    ]
    inline = re.findall(r"`(python [^`]+)`", prose(text))
    return lines + [" ".join(words.split()) for words in inline]


def command_words(line):
    """Return (words after `python`, file of `>` or None) of a command line."""
    program, *words = shlex.split(line)
    assert program == "python", line
    target = None
    if ">" in words:
        *words, arrow, target = words
        assert arrow == ">", line
    return words, target


def expected_outputs(text):
    """Return [(command line, output)] where a block of text follows one of commands."""
    # The block has the output of the last command before it.
    found, last = [], None
    for kind, block in blocks(text):
        if kind == "sh":
            last = block.splitlines()[-1]
        elif kind == "text":
            found.append((last, block))
    return found


def exercises(text):
    """Return the exercises of a page, each from its title to its answer."""
    _, found = re.split(r"^## (?:Exercises|练习)$", text, flags=re.MULTILINE)
    return re.split(r"^### ", found, flags=re.MULTILINE)[1:]


def sections(text):
    """Return the parts of a page between its headings."""
    return re.split(r"^#+ .*$", text, flags=re.MULTILINE)


def numbers(text):
    """Count the numbers of a text, code and formulas included."""
    # The assignment's parts are counted by digits in English: Part 4.
    text = re.sub("第([一二三四])部分", lambda m: str(PARTS.index(m[1]) + 1), text)
    return Counter(NUMBER.findall(text))


def formulas(text):
    """Count the inline formulas of a text."""
    return Counter(FORMULA.findall(prose(text)))


def settings_table(text):
    """Return [(flag, [cell of each column of values])] of the table of settings."""
    (table,) = re.findall(
        r"^\| (?:setting|设置) \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE
    )
    rows = re.findall(r"^\| `(--[\w-]+)` \| (.*) \|$", table, re.MULTILINE)
    return [(flag, cells.split(" | ")[:-1]) for flag, cells in rows]
