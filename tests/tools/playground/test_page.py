"""The page without a browser: its texts, colours, numbers and what it must not load."""

import json
import re
import tomllib
from html.parser import HTMLParser
from itertools import product

import pytest

from tests.helpers.project import PROJECT
from tools.playground import page, records

FOLDER = PROJECT / "tools" / "playground"
LOG = PROJECT / "log"
SCRIPTS = ("page.js", "plots.js")
FACTS = {  # of a page from which every section is left out
    "size": 24,
    "sigmas": [0.02, 80.0],
    "classes": ["astilbe", "bellflower", "calendula"],
    "reference": {"count": 12, "source": "drawn"},
    "examples": {"kinds": ["drawn"], "labels": [0], "images": ["AAAA"]},
}
SENTENCE = re.compile(r"[.。](?:\s|$|(?=[^\s\d]))")
ALLOWED = {"0", "1", "2", "95"}  # ranges of values and the level of intervals


@pytest.fixture(scope="module")
def texts():
    return page.read_texts()


@pytest.fixture
def sources(monkeypatch, tmp_path):
    """The folder of the page's sources, with stand-ins for the models' scripts."""
    for path in FOLDER.iterdir():
        if path.suffix in (".html", ".toml", ".js"):
            (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    for name in ("kernel.js", "worker.js"):
        (tmp_path / name).write_text(f"// {name} $100 \\1\n", "utf-8")
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    return tmp_path


def all_scripts():
    return "".join((FOLDER / name).read_text("utf-8") for name in SCRIPTS)


# Texts -------------------------------------------------------------------------------


def test_every_text_has_both_languages_and_the_same_fields(texts):
    for key, found in texts.items():
        fields = [set(re.findall(r"\{(\w+)\}", found[name])) for name in page.LANGUAGES]
        assert all(found[name].strip() for name in page.LANGUAGES), key
        assert fields[0] == fields[1], key
        assert re.search(r"[\u4e00-\u9fff]", found["zh"]) or found["zh"] in (
            *("AE", "VAE", "DDPM", found["en"]),
        ), key


def test_the_page_uses_every_text_and_has_every_text_that_it_uses(texts):
    script, html = all_scripts(), (FOLDER / "page.html").read_text("utf-8")
    used = set(re.findall(r'data-(?:text|label)="([^"]+)"', html))
    used |= set(re.findall(r'say\(\s*"([^"]+)"', script))
    assert used <= set(texts)
    # Keys that are put together: `species.${...}`, or one of two in quotes.
    starts = tuple(re.findall(r"`([\w.]+\.)\$\{", script))
    quoted = set(re.findall(r'"([a-z_]+(?:\.\w+)?)"', script))
    titles = {f"{name}.title" for name in re.findall(r'<section id="(\w+)"', html)}
    rest = set(texts) - used - quoted - titles
    assert not [key for key in rest if not key.startswith(starts)]


def test_sections_have_two_sentences_and_one_thing_to_do(texts):
    for section, language in product(sections(), page.LANGUAGES):
        assert len(SENTENCE.findall(texts[f"{section}.text"][language])) == 2, section
        assert texts[f"{section}.try"][language].startswith(("Try: ", "试一试："))


def sections():
    html = (FOLDER / "page.html").read_text("utf-8")
    return re.findall(r'<section id="(\w+)"', html)


def test_no_measured_number_is_typed_into_a_text(texts):
    for key, found in texts.items():
        if key.endswith(".title"):  # numbers of sections
            continue
        for language in page.LANGUAGES:
            assert set(re.findall(r"\d[\d.,]*\d|\d", found[language])) <= ALLOWED, key


def test_every_field_is_a_number_of_the_page_or_given_by_its_script(texts):
    """Fields of texts that stand in the template have a value in `numbers`."""
    html = (FOLDER / "page.html").read_text("utf-8")
    names = set(page.numbers(complete_facts())) | {"source"}
    for key in re.findall(r'data-(?:text|label)="([^"]+)"', html):
        assert set(re.findall(r"\{(\w+)\}", texts[key]["en"])) <= names, key


def complete_facts():
    """Return facts of a page with all numbers, from the records in log/."""
    measured = {name: read() for name, read in records.sections(LOG).items()}
    interval = {"settings": {"guidance_interval": [0.3, 5.0]}}
    return (
        FACTS
        | measured
        | {
            "reference": {"count": 1024, "source": "generated", "couplings": 5000},
            "reconstruction": {"length": 64},
            "latent": {"axes": [[0.0]] * 12, "map": [[0, 0, 0]], "explained": [0.5]},
            "history": {"epochs": 95},
            "manifest": {"diffusion": interval},
        }
    )


# Numbers -----------------------------------------------------------------------------


def test_numbers_of_models_are_those_of_other_records():
    """The ladder's metrics are what tools.evaluate wrote into its own files."""
    found = records.quality(LOG)
    for name in ("diffusion", "diffusion_ddpm"):
        record = json.loads((LOG / f"evaluate_{name}.json").read_text())
        own = record[f"models/Best_{name}.pkl"]
        row = found["models"][name]
        assert row["kernel"] == own["kernel distance to validation photos"]
        assert row["recall"] == own["recall at equal number"]
    assert found["models"]["VAE"]["nfe"] == 1


def test_errors_are_those_of_the_last_epochs():
    """Of the VAE: below the error with drawn codes, above that of the AE."""
    found = records.errors(LOG)
    lines = (LOG / "AE.csv").read_text().splitlines()
    column = lines[0].split(",").index("valid_per_photo")
    assert found["AE"] == float(lines[-1].split(",")[column])
    lines = (LOG / "VAE.csv").read_text().splitlines()
    column = lines[0].split(",").index("valid_squared_error")
    drawn = float(lines[-1].split(",")[column]) / (3 * 24 * 24)
    assert found["AE"] < found["VAE"] < drawn


def test_a_missing_record_is_named_and_a_damaged_one_is_refused(tmp_path):
    read = records.sections(tmp_path)["evaluations"]
    with pytest.raises(records.Missing, match="log/reflow_diffusion.json"):
        read()
    (tmp_path / "reflow_diffusion.json").write_text('{"count": 3}')
    with pytest.raises(records.UserError, match="incomplete"):
        read()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00196, "0.00196"), (1728, "1,730"), (24, "24"), (0, "0"), (1e-5, "0.00001")],
)
def test_numbers_have_no_exponent(value, text):
    assert page.plain(value) == text


# The file ----------------------------------------------------------------------------


class Elements(HTMLParser):
    """Collects (tag, attributes) and the content of script elements."""

    def __init__(self, text):
        super().__init__()
        self.found, self.scripts, self.open = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.open = dict(attrs).get("id", len(self.scripts))

    def handle_data(self, data):
        if self.open is not None:
            self.scripts[self.open] = self.scripts.get(self.open, "") + data

    def handle_endtag(self, tag):
        self.open = None if tag == "script" else self.open


def test_the_file_loads_nothing_and_holds_everything(sources):
    facts = FACTS | {"examples": FACTS["examples"] | {"kinds": ["</script><b>"]}}
    text = page.page(facts, b"weights", {})
    assert text == page.page(facts, b"weights", {})
    elements = Elements(text)
    for tag, attributes in elements.found:
        assert tag not in ("img", "iframe", "object", "embed", "audio", "video"), tag
        assert attributes.get("href", "#")[0] == "#" or attributes["href"] == "data:,"
        assert "src" not in attributes and "srcset" not in attributes
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|importScripts", text)
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)", text)
    # What was put in is found again.
    assert json.loads(elements.scripts["facts"])["examples"] == facts["examples"]
    assert elements.scripts["weights"] == "d2VpZ2h0cw=="
    assert elements.scripts["kernel"] == "// kernel.js $100 \\1\n"


def test_the_policy_forbids_every_request(sources):
    elements = Elements(page.page(FACTS, b"", {}))
    (policy,) = (
        attributes["content"]
        for tag, attributes in elements.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
    assert rules.pop("default-src") == "'none'" and "connect-src" not in rules
    assert not [
        rule
        for rule in rules.values()
        if ":" in rule.replace("blob:", "").replace("data:", "")
    ]


def test_controls_are_labelled(sources):
    """Every field has a label, and every picture that is read aloud a role."""
    found = Elements(page.page(FACTS, b"", {})).found
    labels = {attributes.get("for") for tag, attributes in found if tag == "label"}
    for tag, attributes in found:
        if tag == "input" and attributes["type"] != "file":  # it stands in its label
            assert attributes["id"] in labels, attributes
        if tag == "canvas":
            assert attributes.get("role") and attributes.get("tabindex") == "0"


# Colours -----------------------------------------------------------------------------


def luminance(colour):
    """Return the relative luminance of #rrggbb, as WCAG 2.2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_knows_black_and_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [":root", '[data-theme="dark"]'])
def test_texts_have_enough_contrast(theme):
    html = (FOLDER / "page.html").read_text("utf-8")
    block = re.search(re.escape(theme) + r" \{(.*?)\}", html, re.DOTALL)[1]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    for text, ground in product(("ink", "soft", "accent"), ("ground", "card")):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["ink"], colours["mark"]) >= 4.5
    assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
    for mark in ("astilbe", "bellflower", "calendula", "photos"):
        assert contrast(colours[mark], colours["ground"]) >= 3, mark


def test_texts_are_a_table_of_tables():
    """A text that lacks a language would be read as a group of texts."""
    found = tomllib.loads((FOLDER / "texts.toml").read_text("utf-8"))
    with pytest.raises(AttributeError):
        dict(page.flatten(found | {"broken": {"en": "only English"}}))


def test_the_committed_page_has_the_scripts_and_texts_of_today():
    """It was written after their last change."""
    committed = (PROJECT / "docs" / "playground.html").read_text("utf-8")
    for name in page.SOURCES:
        assert (page.FOLDER / name).read_text("utf-8") in committed, name
    assert page.embedded({"texts": page.read_texts()})[1:-1] in committed
