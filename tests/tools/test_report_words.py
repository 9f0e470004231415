"""The Chinese report: the same sections and figures, and no English sentence."""

import re

import pytest

from tests.helpers.project import PROJECT
from tests.helpers.report import make_finished, sections
from tools.report import __main__ as tool
from tools.report.words import CHINESE, LANGUAGES, translator

ENGLISH = re.compile(r"[A-Za-z]{3,}(?:[ '-]+[A-Za-z]{3,})+")  # words in a row
TERMS = {  # names, which are the same in both languages
    *("AMD EPYC", "classifier-free guidance", "flow matching", "rectified flow"),
    *("Newton-Schulz",),
}


def text_of(root, language):
    """Return a report without its references, code and targets of links."""
    text = tool.report(root, language)[0].split("## 参考文献")[0]
    return re.sub(r"`[^`]*`|\]\([^)]*\)|<!--.*?-->", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("made_up", [False, True])
def test_no_english_sentence_is_left(made_up, tmp_path):
    root = make_finished(tmp_path) if made_up else PROJECT
    text = text_of(root, "zh")
    assert {*ENGLISH.findall(text)} - TERMS == set()
    assert len(re.findall(r"[\u4e00-\u9fff]", text)) > 3000
    # The same search finds the English of one table.
    planted = "| validation photos | 465 |"
    assert {*ENGLISH.findall(f"{text}\n{planted}")} - TERMS == {"validation photos"}


def test_both_templates_have_the_same_parts():
    """Sections with the same needs, figures, pictures and commands, in order."""
    texts = [path.read_text("utf-8") for path in tool.TEMPLATES.values()]
    english, chinese = (tool.SECTION.split(text) for text in texts)
    for one, other in zip(english, chinese, strict=True):
        heading = one.splitlines()[0]
        assert tool.needed(one) == tool.needed(other), heading
        for pattern in (r"\$\w+", r"\bhttps:[^)]+", r"arXiv:[\d.]+"):
            parts = [sorted(re.findall(pattern, text, re.A)) for text in (one, other)]
            assert parts[0] == parts[1], heading
        # Comments and the name of the other report differ.
        code = [
            {*re.findall(r"`[^`]+`", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))}
            for text in (one.replace("\n", " "), other)
        ]
        assert {c for c in code[0] ^ code[1] if "diffusion_report" not in c} == set()
    names = [[heading for heading, _ in sections(text)] for text in texts]
    assert not set(names[0]) & set(names[1])


def test_a_translation_keeps_the_places_of_its_values():
    """`{}` and `{name}` of a phrase are those of its translation."""
    for english, chinese in CHINESE.items():
        fields = [sorted(re.findall(r"\{[^}]*\}", t)) for t in (english, chinese)]
        assert fields[0] == fields[1], english


def test_a_phrase_without_a_row_stays_as_it_is():
    assert translator("zh")("ipndm") == translator("en")("ipndm") == "ipndm"
    assert translator("en")("seed") == "seed" and translator("zh")("seed") != "seed"
    assert {*LANGUAGES} == {*tool.TEMPLATES}
