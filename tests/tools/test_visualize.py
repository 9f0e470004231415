"""The figures of latent spaces and of diffusion models."""

import pytest
import torch
from PIL import Image

from tests.helpers.diffusion import SPECIES, save_small, small
from tests.helpers.project import write_photos
from tools.visualize import __main__ as command
from tools.visualize import latents
from tools.visualize.diffusion import FIGURES, FigureContext, known_pixels
from utils.checkpoint import save_checkpoint
from utils.cli import UsageError, UserError
from utils.registry import build_model, load_model

QUICK = ["--model", "diffusion", "--count", "3", "--steps", "3"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("visualize") / "photos", 12)


# Autoencoders -------------------------------------------------------------------------


def autoencoder(name, encoding_dim):
    """Return an untrained autoencoder of 24 x 24 images, in evaluation mode."""
    args = {"encoding_dim": encoding_dim, "img_width": 24, "img_height": 24}
    return build_model(name, **args).eval()


@pytest.mark.parametrize(
    "name, encoding_dim",
    # Codes of one dimension have a single principal axis.
    [("MLPAE", 5), ("AE", 1), ("VAE", 1), ("VAE", 6)],
)
def test_every_autoencoder_has_a_figure(photos, tmp_path, name, encoding_dim):
    save_checkpoint(tmp_path / "w.pth", autoencoder(name, encoding_dim))
    where = f"--data {photos} --out {tmp_path} --weights {tmp_path / 'w.pth'}"
    command.main(["--model", name, *where.split()])
    with Image.open(tmp_path / "vis" / f"latent_{name}.png") as picture:
        assert min(picture.size) > 500


def test_interpolations_start_and_end_at_reconstructions():
    """Two rows for each pair of photos: linear and spherical."""
    torch.manual_seed(0)
    model, photos = autoencoder("AE", 8), torch.rand(4, 3, 24, 24)
    rows = latents.interpolate(model, photos).view(4, latents.STEPS, 3, 24, 24)
    with torch.no_grad():
        ends = model(photos)
    for row, first in zip(rows, (0, 0, 2, 2), strict=True):
        torch.testing.assert_close(row[0], ends[first], atol=1e-5, rtol=0)
        torch.testing.assert_close(row[-1], ends[first + 1], atol=1e-5, rtol=0)
    # The two rows of a pair differ between their ends.
    assert not torch.allclose(rows[0], rows[1], atol=1e-4)


def test_the_bars_sum_to_the_kl_or_to_the_variance():
    """One bar per dimension: KL of a VAE, variance of codes of other autoencoders."""
    images, vae = torch.rand(20, 3, 24, 24), autoencoder("VAE", 6)
    bars, label, title = latents.dimension_bars(vae, images, None)
    assert label == "KL (nats)" and len(bars) == 6 and "of 6" in title
    kl = vae.validation_details(images)["kl"].sum(1).mean().item()
    assert sum(bars) == pytest.approx(kl, rel=1e-4)
    # An autoencoder, whose codes have standard deviations 1, 2 and 3.
    codes = torch.randn(500, 3) * torch.tensor([1.0, 2.0, 3.0])
    bars, label, _ = latents.dimension_bars(autoencoder("AE", 3), images, codes)
    assert label == "variance"
    assert sum(bars) == pytest.approx(codes.var(0).sum().item(), rel=1e-4)


# Diffusion models ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("diffusion") / "w.pkl")


def run(out, photos, weights, *more):
    """Run the command on a small model -> names of the pictures that it saved."""
    where = ["--out", out, "--data", photos, "--weights", weights]
    command.main([*QUICK, *map(str, where), *map(str, more)])
    return {path.name for path in (out / "vis").iterdir()}


def context_of(weights, *more):
    """Return the FigureContext of a command line."""
    args = command.parse([*QUICK, "--out", str(weights.parent), *more])
    return FigureContext(args, *load_model("diffusion", weights))


def test_every_figure_is_saved(photos, weights, tmp_path, capsys):
    """By default all that need no photo; nothing is printed."""
    found = run(tmp_path, photos, weights)
    names = {f"{name}_diffusion.png" for name in command.WITHOUT_PHOTO}
    assert found == names | {"denoise_diffusion.gif"}
    for name in found:
        with Image.open(tmp_path / "vis" / name) as picture:
            assert min(picture.size) > 200
    assert capsys.readouterr().out == ""
    # The choices of --show are the rows of the table.
    assert tuple(FIGURES) == command.FIGURES


@pytest.mark.parametrize("strength", [[], ["--strength", "0.4"]])
def test_only_the_figure_of_a_given_photo_is_saved(photos, weights, tmp_path, strength):
    photo = next((photos / SPECIES[0]).iterdir())
    found = run(tmp_path, photos, weights, "--init", photo, *strength)
    assert found == {"init_diffusion.png"}


def test_figures_do_not_depend_on_each_other(photos, weights, tmp_path):
    """The same bits alone and after other figures; other bits from another seed."""
    # Inpainting draws photos, noise of the start, and noise of every step.
    saved = []
    for words in ("guidance species inpaint", "inpaint", "inpaint --seed 1"):
        run(tmp_path, photos, weights, "--show", *words.split())
        saved.append((tmp_path / "vis" / "inpaint_diffusion.png").read_bytes())
    assert saved[0] == saved[1] != saved[2]


def test_samples_are_of_the_wanted_species(weights):
    """In equal proportions; noise that the sampler adds is the same at every call."""
    wanted = ["calendula", "astilbe"]  # labels 2 and 0
    context = context_of(weights, "--species", *wanted, "--sampler", "ddpm")
    labels = context.labels(5)
    assert labels.tolist() == [2, 2, 2, 0, 0]
    assert context.names(labels)[2:4] == wanted
    # One noise gives one result, until the config changes.
    noise = context.noise(5)
    first, again = (context.generate(noise, labels) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, context.generate(noise, labels, guidance=3))


def test_photos_are_of_the_wanted_species(photos, weights):
    """Validation photos, with the label that the weights give their species."""
    context = context_of(weights, "--data", str(photos), "--species", "calendula")
    images, labels = context.photos(100)
    assert images.shape[1:] == (3, 8, 8) and 0 <= images.min() < images.max() <= 1
    # Fewer than the folder's 12 of this species: the validation photos only.
    assert 0 < len(labels) < 12 and set(labels.tolist()) == {2}
    # A species without photos in the folder.
    context = context_of(weights, "--data", str(photos))
    context.wanted = ["rose"]
    with pytest.raises(UserError, match="no validation photo shows rose; .*--data"):
        context.photos(1)


def test_centres_and_halves_are_hidden():
    known = known_pixels(3, 8)
    assert known.shape == (3, 1, 8, 8)
    # Alternately 4 x 4 pixels at the centre, and 8 x 4 at the right.
    assert (~known).sum(dim=(1, 2, 3)).tolist() == [16, 32, 16]
    assert not known[0, 0, 2:6, 2:6].any() and not known[1, 0, :, 4:].any()


# Refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, words",
    [
        # Flags of diffusion models.
        ("--model VAE --init x.jpg", "--init: VAE is no diffusion model"),
        ("--model AE --show species", "--show: AE is no diffusion model"),
        ("--model MLPAE --guidance 2", "--guidance: MLPAE is no diffusion model"),
        # Flags of a photo, and the photo.
        ("--model diffusion --strength 0.5", "--strength: there is no photo"),
        ("--model diffusion --show init", "--show: init needs a photo"),
        ("--model diffusion --init no.jpg", "--init: no.jpg is not a file"),
        (f"--model diffusion --init {__file__} --show species", "--init: it belongs"),
    ],
)
def test_flags_that_exclude_each_other_are_refused(line, words):
    with pytest.raises(UsageError, match=words):
        command.parse(line.split())


@pytest.mark.parametrize("strength", ["-0.1", "1.1", "nan", "much"])
def test_a_strength_is_a_proportion(strength, capsys):
    with pytest.raises(SystemExit) as end:
        command.parse(["--model", "diffusion", "--init", "x", "--strength", strength])
    assert end.value.code == 2
    words = f"--strength: must be a number from 0 to 1, got {strength!r}"
    assert words in capsys.readouterr().err


def test_unusable_files_species_and_photos_are_refused(photos, weights, tmp_path):
    # A file that is not a photo.
    with pytest.raises(UserError, match="test_visualize.py cannot be read: damaged"):
        run(tmp_path, photos, weights, "--init", __file__)
    # A species that the weights do not know.
    with pytest.raises(UsageError, match="no 'rose'; choose from astilbe"):
        run(tmp_path, photos, weights, "--show", "species", "--species", "rose")
    # An interpolation of two validation photos, of which there is one.
    save_checkpoint(tmp_path / "w.pth", autoencoder("AE", 2))
    line = f"--model AE --data {write_photos(tmp_path / 'few', 1)} --out {tmp_path}"
    with pytest.raises(UserError, match="two validation photos, got 2 and 1"):
        command.main([*line.split(), "--weights", str(tmp_path / "w.pth")])
    # Weights without the metadata of a training.
    save_checkpoint(tmp_path / "bare.pkl", small())
    with pytest.raises(UserError, match="do not name their photos"):
        run(tmp_path, photos, tmp_path / "bare.pkl")
