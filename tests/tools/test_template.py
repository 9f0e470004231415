"""Placeholders of a template, and what stands in their place."""

import pytest

from utils.cli import UserError
from utils.template import Files, filled


def written(tmp_path, text, content):
    """Fill a template from one file, x.json."""
    (tmp_path / "x.json").write_text(content)
    return filled(text, Files(tmp_path, lambda name: f"mend {name}"), {})


@pytest.mark.parametrize(
    "asked, expected",
    [
        ("a", "1,234,567"),
        ("b > 0.5", "0.333"),
        ("b > 0.5 as percent", "33.3 %"),
        ("c", "2.00 [1.50, 2.50]"),
        ("c as value", "2.00"),
        ("c as percent", "200.0 % [150.0, 250.0]"),
        ("a / x.json > c", "617283.5"),
        ("b > 0.5 / x.json > c as percent", "16.7 %"),
        ("few as percent", "0.25 %"),
        ("widths", "64, 128, 128"),
        ("widths > last", "128"),
        ("widths > sum", "320"),
        ("b > count", "2"),
        ("b > first", "0.333"),
        ("b > to x", "1,234"),
        ("none", "-"),
        ("yes", "True"),
        ("rate as exact", "0.0025"),
        ("a as millions", "1.23 million"),
        ("a as minutes", "20576.1 min"),
        ("rate as milliseconds", "2.50 ms"),
    ],
)
def test_a_placeholder_is_a_value_in_some_form(tmp_path, asked, expected):
    content = """{"a": 1234567, "b": {"0.5": 0.33333, "to x": 1234.4}, "none": null,
        "c": [2.0, 1.5, 2.5], "widths": [64, 128, 128], "yes": true, "rate": 0.0025,
        "few": 0.0025}"""
    text = f"so {{{{x.json >\n {asked}}}}}."
    assert written(tmp_path, text, content) == f"so {expected}."


@pytest.mark.parametrize(
    "text, content, message",
    [
        ("{{x.json > b}}", '{"a": 1}', "x.json has no 'b'; mend the template, or mend"),
        ("{{x.json > a > b}}", '{"a": 1}', "has no 'a > b'"),
        ("{{x.json > a > first}}", '{"a": []}', "has no 'a > first'"),
        ("{{x.json > a as words}}", '{"a": 1}', "no form 'words'; one of"),
        ("{{x.json > a}}", '{"a": ', "cannot read .*x.json .*; mend x.json"),
        ("{{x.text > a}}", "", "x.text is not there; mend x.text"),
    ],
)
def test_a_placeholder_without_a_value_is_refused(tmp_path, text, content, message):
    with pytest.raises(UserError, match=message):
        written(tmp_path, text, content)
