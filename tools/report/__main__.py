"""Write diffusion_report.md and diffusion_report_zh.md: every number from a file.

python -m tools.report
python -m tools.report --html

The prose is that of docs/diffusion_report.template.md and its Chinese translation; the
numbers come from log/ and from the metadata of weights in models/. Files are read, and
the reports are written, below --out. log/diffusion.csv and models/Best_diffusion.pkl
are needed; a section whose other files are missing is left out, and named. --html also
writes each report as one HTML file that contains its pictures.
"""

import re
from string import Template

from utils.cli import PROJECT, guard, run
from utils.cli.arguments import command_line

TEMPLATES = {  # language -> template
    "en": PROJECT / "docs" / "diffusion_report.template.md",
    "zh": PROJECT / "docs" / "diffusion_report_zh.template.md",
}
SECTION = re.compile(r"^(?=##)", re.MULTILINE)
NEEDS = re.compile(r"^<!-- needs: (.+) -->\n", re.MULTILINE)  # below a heading
LINK = re.compile(r"(!?)\[([^\]]+)\]\((?!https?:)([^)#]+)\)")  # to a file of ours


def parse(argv=None):
    """Return the checked command line."""
    parser = command_line(__doc__, "--out")
    parser.add_argument(
        "--html", action="store_true", help="also write the reports as HTML"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    guard(parse)

import logging

from tools.report.figures import figures
from tools.report.page import html_page
from tools.report.words import translator
from utils import files

log = logging.getLogger(__name__)


def report_name(language):
    """Return the file name of the report in a language."""
    return TEMPLATES[language].name.replace(".template", "")


def needed(section):
    """Return the files of ours that a section is about: those named, and its links."""
    named = " ".join(NEEDS.findall(section)).split()
    links = [name for _, _, name in LINK.findall(section)]
    return [*named, *(name for name in links if not name.startswith("docs/"))]


def choose_sections(template, root):
    """Return (the sections that can be written, {heading of another: missing files}).

    Sections are split at `##` and `###`; those of `###` belong to the one before.
    """
    kept, missing, dropped = [], {}, False
    for section in SECTION.split(template):
        # What belongs to a section that is left out is left out too.
        inner = section.startswith("###")
        if inner and dropped:
            continue
        absent = [n for n in needed(section) if not (root / n).is_file()]
        dropped = bool(absent) and not inner
        if absent:
            heading = section.splitlines()[0].strip("# ")
            missing[heading] = list(dict.fromkeys(absent))
        else:
            kept.append(NEEDS.sub("", section))
    return kept, missing


def in_words(missing, say):
    """Return the sentence on what was left out; empty where nothing was."""
    if not missing:
        return ""
    start = 'Left out, since files are missing ("Commands" says how to make them): '
    parts = (
        say("{} (needs {})").format(heading, say(", ").join(f"`{n}`" for n in names))
        for heading, names in missing.items()
    )
    return say(start) + say("; ").join(parts) + say(".")


def report(root, language="en"):
    """Return (the text of the report, {heading that was left out: missing files}).

    Raises:
        UserError: if a file of the default model's training is missing, or a value in
            a file.
    """
    say = translator(language)
    values = figures(root, say)
    template = TEMPLATES[language].read_text("utf-8")
    kept, missing = choose_sections(template, root)
    values["left_out"] = in_words(missing, say)
    text = Template("".join(kept)).substitute(values)

    # A document that is not below --out is named, without a link.
    def existing(link):
        return link[0] if (root / link[3]).is_file() else link[2]

    return re.sub(r"\n{3,}", "\n\n", LINK.sub(existing, text)), missing


def main(argv=None):
    args = parse(argv)
    for language in TEMPLATES:
        text, missing = report(args.out, language)
        path = args.out / report_name(language)
        files.write_file(path, text.encode())
        if args.html:
            page = html_page(text, args.out, language)
            files.write_file(path.with_suffix(".html"), page.encode())
    # The same sections are missing in both languages.
    for names in missing.values():
        log.warning("a section is left out, which needs %s", ", ".join(names))


if __name__ == "__main__":
    run(main)
