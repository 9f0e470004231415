"""Every number in both committed reports is found in a log, a record or a file."""

import re
from decimal import Decimal

import pytest

from tests.helpers.project import PROJECT
from tests.helpers.report import NUMBER, sections, without_names
from tests.helpers.training import rows_of
from tools.report import __main__ as tool
from utils.checkpoint import load_checkpoint
from utils.files import read_json

REPORTS = {n: (PROJECT / tool.report_name(n)).read_text("utf-8") for n in ("en", "zh")}
N = NUMBER.pattern
ALWAYS_THERE = {  # heading -> files without which there is no report, or one column
    "Settings and hardware": [
        "models/Best_diffusion.pkl",
        "models/Best_diffusion_64.pkl",
    ],
    "Training": ["models/Best_diffusion.pkl", "log/diffusion.csv"],
}
ESTIMATE = re.compile(rf"({N})( %)? \[({N}), ({N})\]", re.ASCII)  # value, low, high


def leaves(content):
    """Return (numbers, estimates [value, low, high]) anywhere in a JSON content."""
    if isinstance(content, dict):
        # Times are shown in milliseconds, operations in millions.
        units = {"seconds": 1000, "operations": 1e-6}
        scales = [units.get(key.split("_")[0]) for key in content]
        content = list(content.values())
        scaled = [
            s * x for s, x in zip(scales, content, strict=True) if s and is_number(x)
        ]
        content += scaled
    if isinstance(content, list | tuple):
        parts = [leaves(part) for part in content]
        numbers = [x for found, _ in parts for x in found]
        estimates = [x for _, found in parts for x in found]
        if len(content) == 3 and len(numbers) == 3 and not estimates:
            estimates = [tuple(numbers)]
        return numbers, estimates
    return ([content], []) if is_number(content) else ([], [])


def is_number(value):
    """Return whether a value of JSON is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def derived(name, content):
    """Return the quotients and totals of a file that a report may show."""
    # Written without the code of tools.report.
    if name.endswith(".csv"):
        seconds = sum(float(row["seconds"]) for row in content)
        photos = load_checkpoint(PROJECT / "models/Best_diffusion.pkl")[1]["data"]
        speed = int(0.8 * photos["count"]) * len(content) / seconds
        return [len(content), seconds / 60, speed]
    if "points" in content:
        first, others = content["points"][0], content["points"]
        distances = [p["frechet"][0] / first["frechet"][0] - 1 for p in others]
        speed = first["seconds_per_image"]
        return distances + [speed / p["seconds_per_image"] for p in others]
    if "steps" in content:
        return [step["seconds"] / 60 for step in content["steps"].values()]
    sets = [s for s in content.values() if isinstance(s, dict)]
    quotients = []
    for metric in ("Frechet distance", "nearest by pixels", "nearest by features"):
        values = [s[metric][0] for s in sets if metric in s]
        quotients += [value / values[0] for value in values]
        quotients += [values[0] / value for value in values]
    return quotients


def numbers_of(name):
    """Return (numbers, estimates) that may be quoted from a file of the project."""
    path = PROJECT / name
    if name.endswith(".pkl"):
        weights, metadata = load_checkpoint(path)
        numbers, estimates = leaves(metadata)
        numbers += [metadata["epoch"] + 1, len(metadata["data"]["classes"])]
        return numbers + [sum(w.numel() for w in weights.values())], estimates
    if name.endswith(".csv"):
        rows = rows_of(path)
        shown = "train_per_photo", "valid_per_photo"
        losses = [float(row[column]) for row in rows for column in shown if row[column]]
        return losses + derived(name, rows), []
    content = read_json(path)
    numbers, estimates = leaves(content)
    return numbers + derived(name, content), estimates


@pytest.fixture(scope="module")
def sources():
    """Return {heading of the English template: (numbers, estimates) of its files}."""
    found, files = {}, []
    for section in tool.SECTION.split(tool.TEMPLATES["en"].read_text("utf-8")):
        heading = re.search(r"^#+ (.*)", section, re.MULTILINE)[1]
        named = " ".join(tool.NEEDS.findall(section)).split()
        named += ALWAYS_THERE.get(heading, [])
        named = [name for name in named if (PROJECT / name).is_file()]
        # The text below `###` may also quote the files of its `##`.
        files = files if section.startswith("###") else []
        files = [*files, *map(numbers_of, named)]
        found[heading] = tuple([x for part in files for x in part[i]] for i in (0, 1))
    return found


def is_rounding(text, value):
    """Return whether a printed number is this value, rounded to its last digit."""
    printed = Decimal(text.replace(",", ""))
    unit = 10.0 ** printed.as_tuple().exponent
    # Small numbers without decimals are counts, or settings such as 5.0.
    if unit == 1 and abs(printed) < 100:
        return float(printed) == value
    return abs(float(printed) - value) <= 0.5000001 * unit


def unknown_numbers(text, numbers, estimates):
    """Return the printed numbers of a section that are in none of its files."""
    unknown = []
    for value, percent, low, high in ESTIMATE.findall(text):
        scale = 100 if percent else 1
        printed = (value, low, high)
        if not any(
            all(is_rounding(p, scale * x) for p, x in zip(printed, found, strict=True))
            for found in estimates
        ):
            unknown.append(printed)
    # Single ones.
    rest = ESTIMATE.sub("", text)
    for found in NUMBER.finditer(rest):
        scale = 100 if rest[found.end() :].startswith(" %") else 1
        if not any(is_rounding(found[0], scale * x) for x in numbers):
            unknown.append(found[0])
    return unknown


def changed(line):
    """Yield copies of a line, each with the last digit of one number changed."""
    for found in NUMBER.finditer(line):
        end = found.start() + len(found[0].split("e")[0])
        digit = str((int(line[end - 1]) + 5) % 10)
        yield line[: end - 1] + digit + line[end:]


@pytest.mark.parametrize("language", REPORTS)
def test_every_number_is_in_a_file_of_its_section(language, sources):
    titles = {}
    for name, path in tool.TEMPLATES.items():
        titles[name] = [heading for heading, _ in sections(path.read_text("utf-8"))]
    english = dict(zip(titles[language], titles["en"], strict=True))
    count = 0
    for heading, text in sections(REPORTS[language]):
        text = without_names(text)
        assert unknown_numbers(text, *sources[english[heading]]) == [], heading
        count += len(NUMBER.findall(text))
    assert count > 600


def test_a_changed_digit_is_found(sources):
    """In each section, each number in turn; by chance a few are other numbers."""
    missed = planted = 0
    for heading, text in sections(REPORTS["en"]):
        for line in without_names(text).splitlines():
            for copy in changed(line):
                planted += 1
                missed += unknown_numbers(copy, *sources[heading]) == []
    assert planted > 600 and missed < 0.1 * planted


@pytest.mark.parametrize("language", tool.TEMPLATES)
def test_the_prose_holds_no_number(language):
    """Except in names, sizes and references: all others must come from files."""
    template = tool.TEMPLATES[language].read_text("utf-8")
    template = re.sub(r"\$\w+", "", template)
    assert NUMBER.findall(without_names(template)) == []
    planted = f"{template}\nThe distance at 24 x 24 is 2.1, in 2020.\n"
    assert NUMBER.findall(without_names(planted)) == ["2.1", "2020"]


def test_both_languages_have_the_same_numbers():
    """Section by section, however words stand around them."""
    english, chinese = (sections(REPORTS[name]) for name in ("en", "zh"))
    for (heading, one), (_, other) in zip(english, chinese, strict=True):
        numbers = [sorted(NUMBER.findall(without_names(t))) for t in (one, other)]
        assert numbers[0] == numbers[1], heading
    assert len(english) > 30
