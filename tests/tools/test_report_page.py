"""The HTML of a report: one file, with its pictures, and nothing it does not know."""

import base64
import re
from html.parser import HTMLParser

import pytest

from tools.report import __main__ as tool
from tools.report.page import html_page
from utils.cli import UserError

VOID = {"meta", "img"}  # elements without an end
EXAMPLE = """<!-- a comment
of two lines -->

# Title with `a < b`

A paragraph of **bold `code`** text & numbers [-1, 1],
with a [link](docs/a.md) and snake_case.

**Bold** at the start.

- first item
  goes on
- second: [paper](https://arxiv.org/abs/2006.11239)

| name | value |
| --- | --: |
| `a` | 1.5 [1, 2] |

![A picture](vis/p.png)
"""
UNKNOWN = (  # what Markdown knows and this converter does not
    "> quote",
    "#### deep heading",
    "1. numbered",
    "* star",
    "---",
    "    indented",
    "```\\ncode\\n```",
    "an *emphasis*",
    "an _emphasis_",
    "~~deleted~~",
    "an <b>element</b>",
    "an &amp; entity",
    "a bare https://example.org",
    "an unfinished `code",
    "an unfinished **bold",
    "a [script](javascript:alert(1))",
    "text ![picture](vis/p.png) in a line",
    "![missing kind](vis/p.svg)",
    "a break  \\nof a line",
    "back\\\\slash",
    "- item\\n    - nested",
    "| a | b |\\n| --- | --- |\\n| only one |",
    "| a |\\n| :-: |\\n| centred |",
    "text\\n# heading without an empty line",
)


class Reader(HTMLParser):
    """Collects elements and text; every element must be closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def root(tmp_path):
    """Return a folder with one picture."""
    (tmp_path / "vis").mkdir()
    (tmp_path / "vis" / "p.png").write_bytes(b"\x89PNG picture")
    return tmp_path


def test_everything_that_is_known(root):
    read = Reader(html_page(EXAMPLE, root, "en"))
    names = [tag for tag, _ in read.elements]
    counts = {tag: names.count(tag) for tag in ("h1", "p", "li", "tr", "td", "strong")}
    assert counts == {"h1": 1, "p": 2, "li": 2, "tr": 2, "td": 2, "strong": 2}
    assert "a < b" in read.text and "text & numbers [-1, 1]" in read.text
    assert "comment" not in read.text and "snake_case" in read.text
    targets = [a["href"] for tag, a in read.elements if tag == "a"]
    assert targets == ["docs/a.md", "https://arxiv.org/abs/2006.11239"]
    classes = [a.get("class") for tag, a in read.elements if tag == "td"]
    assert classes == [None, "number"]  # right-aligned
    (image,) = (a for tag, a in read.elements if tag == "img")
    assert image["alt"] == "A picture"
    content = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
    assert content == b"\x89PNG picture"


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_is_not_known_is_refused(text, root):
    """Not shown as something else."""
    text = text.replace("\\n", "\n")
    with pytest.raises(UserError, match="cannot be written as HTML"):
        html_page(f"# Title\n\n{text}\n", root, "en")


def test_a_missing_picture_is_named(root):
    with pytest.raises(UserError, match="cannot read .*vis/q.png: No such file"):
        html_page("![A picture](vis/q.png)", root, "en")


@pytest.mark.parametrize("language", tool.TEMPLATES)
def test_the_committed_report_is_one_file(language):
    """All pictures are inside; nothing is loaded; no figure is lost."""
    root = tool.PROJECT
    text = (root / tool.report_name(language)).read_text("utf-8")
    page = html_page(text, root, language)
    read = Reader(page)
    images = [a["src"] for tag, a in read.elements if tag == "img"]
    assert len(images) == len(re.findall(r"^!\[", text, re.MULTILINE)) > 15
    assert all(source.startswith("data:image/") for source in images)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in read.elements}
    assert "url(" not in page and "@import" not in page
    names = [tag for tag, _ in read.elements]
    tables = len(re.findall(r"^\| --- ", text, re.MULTILINE))
    assert names.count("table") == tables > 12
    assert dict(read.elements[:1]) == {"html": {"lang": language}}
    # Every table row's text, without the marks of code, is in the page.
    for line in text.splitlines():
        if line.startswith("| ") and "`" not in line and "---" not in line:
            assert "".join(line.strip("|").replace("|", "").split()) in "".join(
                read.text.split()
            )
