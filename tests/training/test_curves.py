"""The picture of a training's losses, and what captions say of weights."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tests.helpers.project import PROJECT
from tests.helpers.training import rows_of
from utils.checkpoint import load_checkpoint, result_words, weights_name
from utils.config import AUTOENCODERS
from utils.figures import caption, save_curves
from utils.registry import autoencoders

HEAD = "epoch,train_per_photo,valid_per_photo\n"


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw the curves of a CSV file's text -> their axes, which are rendered."""
    figures = []
    monkeypatch.setattr(
        "utils.figures.save", lambda figure, path: figures.append(figure)
    )

    def draw(text, *args):
        (tmp_path / "x.csv").write_text(text)
        save_curves(tmp_path / "x.csv", tmp_path / "x.png", "title", *args)
        FigureCanvasAgg(figures[-1]).draw()
        return figures[-1].axes[0]

    return draw


@pytest.mark.parametrize("name", AUTOENCODERS)
def test_the_assignments_bounds_are_dashed_lines(drawn, name):
    """M12, M22, M33, with plain ticks; epochs count from 1, as in the CSV file."""
    row = autoencoders()[name]
    text = (PROJECT / "log" / f"{name}.csv").read_text()
    axes = drawn(text, row.unit, row.asked)
    bounds = {"MLPAE": [0.03], "AE": [0.010, 0.012], "VAE": [50]}[name]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == bounds
    assert all(line.get_label().startswith("asked of ") for line in dashed)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == [line.get_label() for line in axes.lines]

    # Labels are numbers as people write them, at their heights.
    low, high = axes.get_ylim()
    labels = [text.get_text() for text in axes.get_yticklabels()]
    shown = dict(zip(axes.get_yticks(), labels, strict=True))
    shown = {y: text for y, text in shown.items() if low <= y <= high}
    assert len(shown) >= 3 and all(text == f"{y:g}" for y, text in shown.items())
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel() == f"loss per photo: {row.unit}, log scale"
    epochs = [int(row["epoch"]) for row in rows_of(PROJECT / "log" / f"{name}.csv")]
    assert list(axes.lines[0].get_xdata()) == epochs and epochs[0] == 1
    assert axes.get_xlim() == (0.5, len(epochs) + 0.5)


def test_a_negative_loss_is_drawn_without_a_logarithm(drawn):
    """That of a calibrated VAE; an epoch without a check has no point."""
    axes = drawn(HEAD + "1,5,4\n2,2,\n3,1,-1\n", "nats")
    assert axes.get_yscale() == "linear"
    assert axes.get_ylabel() == "loss per photo: nats"
    assert list(axes.lines[1].get_xdata()) == [1, 3] and len(axes.lines) == 2


@pytest.mark.parametrize("low, high", [(0.41, 0.43), (0.42, 0.8), (0.9, 40), (3, 3)])
def test_any_range_has_plain_ticks(drawn, low, high):
    """Also a narrow one, and that of one epoch."""
    axes = drawn(HEAD + f"1,{high},{high}\n2,{low},{low}\n", "error")
    bottom, top = axes.get_ylim()
    shown = [y for y in axes.get_yticks() if bottom <= y <= top]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert len(shown) >= 2 and {f"{y:g}" for y in shown} <= set(labels)


@pytest.mark.parametrize("name", ["MLPAE", "AE", "VAE", "diffusion", "diffusion_64"])
def test_captions_name_the_epoch_and_the_loss_of_the_csv_file(name):
    """Of the best epoch, which the weights are of."""
    metadata = load_checkpoint(PROJECT / "models" / weights_name(name))[1]
    rows = rows_of(PROJECT / "log" / f"{name}.csv")
    assert [int(row["epoch"]) for row in rows] == list(range(1, len(rows) + 1))
    checked = [row for row in rows if row["valid_per_photo"]]
    best = min(checked, key=lambda row: float(row["valid_loss"]))
    loss = f"validation loss per photo {float(best['valid_per_photo']):.4g}"
    title = caption(name, "samples", metadata)
    assert title.endswith(f", epoch {best['epoch']}, {loss}")


def test_a_caption_says_what_is_known():
    assert result_words({}) == []
    assert result_words({"epoch": 0}) == ["epoch 1"]
    assert caption("AE", "codes", {}) == "AE: codes"
