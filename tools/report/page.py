"""The Markdown of the reports -> one HTML file that contains its pictures.

It knows headings, paragraphs, lists, tables, comments and pictures that stand alone,
and within a line **bold**, `code` and [links](to.md). Anything else is an error.
"""

import base64
import re
from html import escape

from utils import files
from utils.cli import UserError

STYLE = """
body { max-width: 60rem; margin: auto; padding: 1rem; line-height: 1.6;
  font-family: system-ui, "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid #bbb; padding: 0.2rem 0.6rem; text-align: left; }
td.number { text-align: right; white-space: nowrap; }
code { background: #eee; } img { max-width: 100%; }
"""
KINDS = {".png": "image/png", ".gif": "image/gif"}
INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[([^\]]+)\]\(([^)\s]+)\)")
HEADING = re.compile(r"(#{1,3}) (\S.*)")
COMMENT = re.compile(r"<!--(?:(?!-->).)*-->", re.DOTALL)
# What Markdown gives a meaning, and this converter does not.
UNKNOWN_START = re.compile(r"[>#|+~=-]|\*(?!\*)|\d+[.)] | {4}|\t|!\[")
UNKNOWN_INLINE = re.compile(
    r"[`*\\]|\]\(|~~|https?:|<[\w/!?]|&#?\w+;|(?<!\w)_|_(?!\w)| {2}\n"
)


def refuse(text):
    """Raise a UserError that shows the start of what is not known."""
    raise UserError(
        f"this Markdown cannot be written as HTML: {text[:60]!r}; use what the "
        "docstring of tools/report/page.py lists"
    )


def plain(text):
    """Return text without markup as HTML."""
    if UNKNOWN_INLINE.search(text):
        refuse(text)
    return escape(text)


def inline(text):
    """Return a paragraph's text, with bold, code and links, as HTML."""
    parts, end = [], 0
    for found in INLINE.finditer(text):
        code, bold, words, target = found.groups()
        parts.append(plain(text[end : found.start()]))
        if code:
            parts.append(f"<code>{escape(code)}</code>")
        elif bold:
            parts.append(f"<strong>{inline(bold)}</strong>")
        else:
            # Other schemes, such as javascript:, have no place in a report.
            if ":" in target.removeprefix("https:"):
                refuse(target)
            parts.append(f'<a href="{escape(target)}">{inline(words)}</a>')
        end = found.end()
    return "".join(parts) + plain(text[end:])


def picture(alt, name, root):
    """Return a picture below a folder as HTML that contains it."""
    path = root / name
    if path.suffix not in KINDS:
        refuse(name)
    try:
        content = base64.b64encode(files.read_regular(path)).decode()
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; make the report again"
        ) from None
    words = escape(alt)
    return (
        f'<figure><img alt="{words}" src="data:{KINDS[path.suffix]};base64,{content}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def table(lines):
    """Return the lines of a table as HTML; the second line aligns its columns."""
    rows = [[cell.strip() for cell in ln.strip("|").split("|")] for ln in lines]
    if len(rows) < 2 or {*rows[1]} - {"---", "--:"} or len({*map(len, rows)}) > 1:
        refuse(lines[0])
    head, alignments, *body = rows
    kinds = [' class="number"' if a == "--:" else "" for a in alignments]
    parts = ["<tr>", *(f"<th>{inline(cell)}</th>" for cell in head), "</tr>"]
    for row in body:
        cells = zip(kinds, row, strict=True)
        parts += ["<tr>", *(f"<td{k}>{inline(c)}</td>" for k, c in cells), "</tr>"]
    return f"<table>{''.join(parts)}</table>"


def bullets(lines):
    """Return the lines of a list as HTML; two spaces continue an item."""
    items = []
    for line in lines:
        if line.startswith("- "):
            items.append(line[2:])
        elif items and re.match(r"  \S", line) and not UNKNOWN_START.match(line[2:]):
            items[-1] += "\n" + line[2:]
        else:
            refuse(line)
    return "<ul>" + "".join(f"<li>{inline(item)}</li>" for item in items) + "</ul>"


def block(text, root):
    """Return what stands between empty lines as HTML."""
    lines = text.split("\n")
    if COMMENT.fullmatch(text):
        return ""
    if found := HEADING.fullmatch(text):
        level = len(found[1])
        return f"<h{level}>{inline(found[2])}</h{level}>"
    if found := PICTURE.fullmatch(text):
        return picture(found[1], found[2], root)
    if all(line.startswith("|") for line in lines):
        return table(lines)
    if text.startswith("- "):
        return bullets(lines)
    for line in lines:
        if UNKNOWN_START.match(line):
            refuse(line)
    return f"<p>{inline(text)}</p>"


def html_page(text, root, language):
    """Return an HTML page of a report, whose first heading is its title.

    text: Markdown; root: the folder that its pictures are relative to; language: of
    the text, such as `zh`.

    Raises:
        UserError: for Markdown that this module does not know, or a missing picture.
    """
    body = "\n".join(block(part, root) for part in re.split(r"\n{2,}", text.strip()))
    title = re.search(r"<h1>(.*?)</h1>", body)
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title[1] if title else ''}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
