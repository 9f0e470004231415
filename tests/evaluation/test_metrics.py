"""Metrics of sets of images, against closed forms and known sets."""

import math
import re

import pytest
import torch

from tests.helpers.metrics import normal, whitened
from utils.data.synthetic import draw_flowers
from utils.evaluation.evaluate import (
    ALTERATIONS,
    METRICS,
    Comparison,
    ReferencePhotos,
    at_equal_count,
    copies_found,
    evaluate,
    precision,
    recall,
)
from utils.evaluation.metrics import (
    extract,
    extrapolated_frechet_distance,
    frechet_distance,
    in_manifold,
    kernel_distance,
    nearest_training_images,
    proportion,
    with_interval,
)


@pytest.fixture(scope="module")
def flowers():
    """Return drawn flowers: (600, 3, 24, 24) in [0, 1]."""
    return draw_flowers(200, 24, 24)[0].float() / 255


def test_few_images_get_reasons(flowers):
    """Of fewer images, or photos, than a jackknife has groups; no metric raises."""
    colours = torch.nn.Sequential(torch.nn.AvgPool2d(24), torch.nn.Flatten())
    training, few = (
        ReferencePhotos(flowers[rows], colours) for rows in (slice(100), slice(12))
    )
    for images, held_out in ((flowers[:12], training), (flowers[:50], few)):
        found = evaluate(Comparison(images, colours, training, held_out))
        assert found.keys() == METRICS.keys()
        reasons = [text for text in found.values() if isinstance(text, str)]
        assert all(
            re.match("needs (more than )?[0-9]+ images, got", r) for r in reasons
        )
        assert len(reasons) >= 4


# Frechet distance ---------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 8])
def test_frechet_distance_of_known_gaussians(size):
    """With diagonal covariances it is the sum of (m1 - m2)^2 + (s1 - s2)^2."""
    unit = whitened(500, size, 0)
    scales = torch.arange(3, 3 + size).double()
    expected = size * 0.5**2 + (scales - 1).square().sum().item()
    found = frechet_distance(unit, unit * scales + 0.5)
    assert found == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_gaussians_that_do_not_commute():
    """Against the eigenvalues of the product C1 C2, as torchmetrics computes it."""
    x = normal(400, 12, 1) @ normal(12, 12, 2)
    y = normal(500, 12, 3) @ normal(12, 12, 4) + 0.3
    first, second = x.T.cov(), y.T.cov()
    cross = torch.linalg.eigvals(first @ second).sqrt().real.sum()
    means = (x.mean(dim=0) - y.mean(dim=0)).square().sum()
    expected = (means + first.trace() + second.trace() - 2 * cross).item()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count, size, error", [(300, 16, 1e-9), (10, 30, 1e-6)])
def test_frechet_distance_to_itself_is_zero(count, size, error):
    """In any order; also with singular covariances, of fewer images than features."""
    x = normal(count, size, 0)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=error)


def test_the_extrapolated_distance_has_no_bias_of_few_images():
    """Of two draws from one distribution, where the plain distance is above 1."""
    factor = normal(40, 40, 0) / 40**0.5
    draws = [(normal(600, 40, i), normal(120, 40, 99 + i)) for i in range(6)]
    pairs = [(x @ factor, y @ factor) for x, y in draws]
    plain = torch.tensor([frechet_distance(*pair) for pair in pairs])
    found = torch.tensor([extrapolated_frechet_distance(*pair) for pair in pairs])
    assert plain.min() > 1 and found.abs().max() < plain.min() / 4
    assert found.mean().abs() < plain.mean() / 10


def test_the_extrapolated_distance_of_shifted_draws_is_the_shift():
    """Squared, whatever the numbers of images."""
    for counts in ((2000, 150), (150, 2000), (400, 400)):
        x, y = normal(counts[0], 20, 0), normal(counts[1], 20, 1) + 2 / 20**0.5
        assert extrapolated_frechet_distance(x, y) == pytest.approx(4, abs=0.6)


# Kernel distance ----------------------------------------------------------------


def test_kernel_distance_by_its_definition():
    """Three sums over pairs, written out."""
    x, y = normal(11, 3, 0), normal(10, 3, 1, shift=0.5)

    def mean(first, second, same):
        values = [
            (float(a @ b) / 3 + 1) ** 3
            for i, a in enumerate(first)
            for j, b in enumerate(second)
            if not (same and i == j)
        ]
        return sum(values) / len(values)

    # Within each set, no image is paired with itself: this makes it unbiased.
    expected = mean(x, x, True) + mean(y, y, True)
    expected -= 2 * mean(x, y, False)
    assert kernel_distance(x, y).value == pytest.approx(expected, rel=1e-9)


def test_only_the_interval_of_equal_distributions_covers_zero():
    """In at least 18 of 20 draws; its ends are on both sides of the value."""
    inside = 0
    for i in range(20):
        value, low, high = kernel_distance(normal(60, 4, i), normal(60, 4, 99 + i))
        assert low < value < high
        inside += low <= 0 <= high
    assert inside >= 18
    assert kernel_distance(normal(100, 4, 0), normal(100, 4, 1, shift=1.0)).low > 0


def test_the_interval_is_repeatable():
    sets = normal(30, 4, 0), normal(30, 4, 1)
    assert kernel_distance(*sets) == kernel_distance(*sets)
    assert kernel_distance(*sets) != kernel_distance(*sets, seed=1)


# Intervals ----------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [10, 50])
def test_the_jackknife_of_a_mean_is_its_standard_error(blocks):
    """Exactly 1.96 s / sqrt(B) on either side, s that of the means of B blocks."""
    numbers = normal(50, 1, 0)[:, 0]
    value, low, high = with_interval(lambda rows: rows.mean().item(), numbers, blocks)
    means = numbers.view(-1, blocks).mean(dim=0)  # of every B-th row
    half = 1.96 * means.std().item() / math.sqrt(blocks)
    assert value == pytest.approx(numbers.mean().item())
    assert (low, high) == pytest.approx((value - half, value + half))


@pytest.mark.parametrize("chosen, count", [(0, 1000), (3, 40), (20, 40), (40, 40)])
def test_the_interval_of_a_proportion(chosen, count):
    """Wilson: the observed value is 1.96 standard deviations from either end."""
    value, low, high = proportion(torch.arange(count) < chosen)
    assert value == chosen / count and 0 <= low <= value <= high <= 1
    for p in (low, high):
        if 0 < p < 1:
            deviations = abs(value - p) / math.sqrt(p * (1 - p) / count)
            assert deviations == pytest.approx(1.96, rel=1e-6)
    assert high - low > 0.003


# Precision and recall -----------------------------------------------------------


def precision_and_recall(real, generated, neighbours=3):
    """Return both proportions, without intervals."""
    sides = (generated, real), (real, generated)
    return tuple(
        in_manifold(*side, neighbours).double().mean().item() for side in sides
    )


def test_one_of_two_modes():
    """Images of one mode have high precision, and recall half of the photos."""
    left, right = normal(200, 2, 0, 0.1), normal(200, 2, 1, 0.1, shift=9)
    precision, recall = precision_and_recall(
        torch.cat([left, right]), normal(200, 2, 2, 0.1)
    )
    assert precision > 0.9 and 0.4 < recall <= 0.5


def test_precision_and_recall_by_hand():
    """On a line: the balls around 0, 1 and 5 have the radii 1, 1 and 4."""
    real = torch.tensor([[0.0], [1.0], [5.0]])
    generated = torch.tensor([[2.0], [2.5], [8.9], [9.5], [-1.5]])
    # 9.5 and -1.5 are outside. Of the balls around the generated images, with the
    # radii 0.5, 0.5, 0.6, 0.6 and 3.5, only the last contains photos: 0 and 1.
    found = precision_and_recall(real, generated, neighbours=1)
    assert found == pytest.approx((3 / 5, 2 / 3))


def test_precision_and_recall_are_means_over_parts_of_equal_number():
    """150 images in two parts of 60; the intervals of independent parts add up."""
    real, generated = normal(90, 2, 0), normal(150, 2, 1, shift=1.5)
    for which, measure in enumerate((precision, recall)):
        parts = [
            with_interval(
                lambda rows, which=which: precision_and_recall(real, rows)[which], part
            )
            for part in (generated[0::2][:60], generated[1::2][:60])
        ]
        value, low, high = at_equal_count(measure, generated, real, 60)
        assert value == pytest.approx(sum(part.value for part in parts) / 2)
        half = math.hypot(*(part.high - part.value for part in parts)) / 2
        assert low == pytest.approx(value - half) and 0 < low < value
        assert high == pytest.approx(min(1, value + half)) and value < high
    words = "needs 60 images, got 59"
    assert at_equal_count(recall, generated[:59], real, 60) == words


# Copies -------------------------------------------------------------------------


def test_copies_are_found_and_other_images_are_not(flowers):
    """Copies of training photos, flipped or not, with noise of 0.02."""
    training, other = flowers[:500], flowers[500:]
    noise = 0.02 * torch.randn(
        500, 3, 24, 24, generator=torch.Generator().manual_seed(0)
    )
    for copies in (training + noise, training.flip(3) + noise):
        found = nearest_training_images(copies, training)
        assert found.copies().float().mean() > 0.95
        assert (found.indices == torch.arange(500)).float().mean() > 0.99
    assert nearest_training_images(other, training).copies().float().mean() < 0.02


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_copies_are_found(flowers, name):
    """By pixels, whether moved, mirrored, brighter, darker or noisy."""
    torch.manual_seed(0)
    training = ReferencePhotos(flowers[:400], torch.nn.Flatten())
    found = copies_found(name, 300, training, torch.nn.Flatten())
    assert found["copies by pixels"].value > 0.9


def test_mirrored_copies_are_found_by_features(flowers):
    """An image is compared to the photos and to their mirror images."""
    left = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    training = ReferencePhotos(flowers[:400], left)
    found = copies_found("mirrored", 300, training, left)
    assert found["copies by features"].value == 1


def test_a_copy_of_a_photo_that_is_there_twice_is_found(flowers):
    """Near-duplicates among the photos do not count as second nearest."""
    photos = torch.cat([flowers[:50], flowers[:1]])
    training = ReferencePhotos(photos, torch.nn.Flatten())
    comparison = Comparison(flowers[:20], torch.nn.Flatten(), training)
    for metric in ("copies by pixels", "copies by features"):
        assert evaluate(comparison, [metric])[metric].value == 1
    assert training.unique.tolist() == [True] * 50 + [False]


def test_the_second_nearest_is_another_photo():
    """Not the mirror image of the nearest one, and not the photo moved."""
    photos = torch.zeros(2, 3, 5, 5)
    photos[0, :, :, 1], photos[1, :, 2] = 1, 1
    found = nearest_training_images(photos[:1].flip(3), photos)
    assert found.indices.tolist() == [0] and found.flipped.tolist() == [True]
    assert found.first.item() == pytest.approx(0, abs=1e-3)
    # Orthogonal stripes: one is there half as often in any window.
    assert found.second.item() == pytest.approx(math.sqrt(2), rel=0.01)


def test_nearest_by_features(flowers):
    """With any extractor, here the brightness of an image."""
    sides = flowers[:5], flowers[5:]
    found = nearest_training_images(*sides, lambda x: x.mean(dim=(1, 2, 3))[:, None])
    values, others = (side.mean(dim=(1, 2, 3)) for side in sides)
    expected = (values[:, None] - others).abs().argmin(dim=1)
    assert torch.equal(found.indices, expected)


# Refusals -----------------------------------------------------------------------


def test_too_few_images_are_refused():
    one, nine, many = normal(1, 4, 0), normal(9, 4, 0), normal(30, 4, 1)
    for measure in (frechet_distance, kernel_distance, in_manifold):
        with pytest.raises(ValueError, match="needed, got 1"):
            measure(many, one)
    with pytest.raises(ValueError, match="at least 10 images are needed, got 9"):
        kernel_distance(nine, many)
    with pytest.raises(ValueError, match="at least 20 images are needed, got 9"):
        with_interval(lambda rows: rows.mean().item(), nine)
    with pytest.raises(ValueError, match="at least 2 images"):
        nearest_training_images(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4))


def test_an_extractor_that_cannot_be_used_is_refused(flowers):
    """In training mode its features depend on the batch, and its statistics change."""
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Flatten())
    with pytest.raises(ValueError, match="training mode"):
        extract(model, flowers[:2])
    assert extract(model.eval(), flowers[:2]).shape == (2, 1728)
    # An extractor of another shape.
    with pytest.raises(ValueError, match=r"\(N, D\)"):
        extract(lambda images: images, flowers[:2])
