"""The command: one file, the same bytes twice, and what is missing is named."""

import pytest

from tests.helpers.project import PROJECT
from tools.playground import __main__ as tool
from tools.playground import content
from utils.checkpoint import weights_name


def test_two_calls_write_the_same_bytes_without_most_models(
    tmp_path, monkeypatch, caplog
):
    """Of one model; each other is named in one line."""
    monkeypatch.setattr(content, "REFERENCE", 12)
    (tmp_path / "models").mkdir()
    kept = weights_name("AE")
    (tmp_path / "models" / kept).symlink_to(PROJECT / "models" / kept)
    tool.main(["--out", str(tmp_path)])
    warnings = [record.getMessage() for record in caplog.records]
    for name in ("VAE", "diffusion_fast", "diffusion"):
        (line,) = [
            w for w in warnings if w.startswith(f"the page goes without {name}:")
        ]
        assert weights_name(name) in line and "\n" not in line
    first = (tmp_path / "docs" / "playground.html").read_bytes()
    other = tmp_path / "other.html"
    tool.main(["--out", str(tmp_path), "--to", str(other)])
    assert other.read_bytes() == first and b'id="weights"' in first


@pytest.mark.slow
def test_two_calls_write_the_same_bytes(tmp_path):
    for name in ("a.html", "b.html"):
        tool.main(["--to", str(tmp_path / name)])
    first = (tmp_path / "a.html").read_bytes()
    assert first == (tmp_path / "b.html").read_bytes()
    assert len(first) < 8e6
