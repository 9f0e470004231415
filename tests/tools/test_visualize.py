"""The pictures of a latent space, and of what a diffusion model can do."""

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


@pytest.mark.parametrize(
    "name, encoding_dim", [("MLPAE", 5), ("AE", 1), ("VAE", 1), ("VAE", 6)]
)
def test_every_autoencoder_gets_its_picture(photos, tmp_path, name, encoding_dim):
    model = build_model(name, encoding_dim=encoding_dim, img_width=24, img_height=24)
    save_checkpoint(tmp_path / "w.pth", model)
    where = f"--data {photos} --out {tmp_path} --weights {tmp_path / 'w.pth'}"
    command.main(["--model", name, *where.split()])
    with Image.open(tmp_path / "vis" / f"latent_{name}.png") as picture:
        assert min(picture.size) > 500


def test_walks_lead_from_photo_to_photo():
    """Two rows a pair, line and arc, from one reconstruction to the other."""
    torch.manual_seed(0)
    model = build_model("AE", encoding_dim=8, img_width=24, img_height=24).eval()
    photos = torch.rand(4, 3, 24, 24)
    rows = latents.interpolate(model, photos).view(4, latents.STEPS, 3, 24, 24)
    with torch.no_grad():
        ends = model(photos)
    for row, pair in zip(rows, (0, 0, 2, 2), strict=True):
        torch.testing.assert_close(row[0], ends[pair], atol=1e-5, rtol=0)
        torch.testing.assert_close(row[-1], ends[pair + 1], atol=1e-5, rtol=0)
    assert not torch.allclose(rows[0], rows[1], atol=1e-4)


def test_dimensions_of_a_vae_are_its_kl(photos):
    """One bar a dimension, whose sum is the KL; of others the variance of the codes."""
    images = torch.rand(20, 3, 24, 24)
    vae = build_model("VAE", encoding_dim=6, img_width=24, img_height=24).eval()
    bars, what, title = latents.dimension_bars(vae, images, None)
    assert what == "KL (nats)" and len(bars) == 6 and "of 6" in title
    assert sum(bars) == pytest.approx(
        vae.validation_details(images)["kl"].sum(1).mean().item(), rel=1e-4
    )
    codes = torch.randn(500, 3) * torch.tensor([1.0, 2.0, 3.0])
    ae = build_model("AE", encoding_dim=3, img_width=24, img_height=24)
    bars, what, _ = latents.dimension_bars(ae, images, codes)
    assert what == "variance" and sum(bars) == pytest.approx(
        codes.var(0).sum().item(), rel=1e-4
    )


def test_too_few_photos_are_refused(tmp_path):
    """One validation photo leads nowhere."""
    root = write_photos(tmp_path / "few", 1)
    save_checkpoint(tmp_path / "w.pth", build_model("AE", encoding_dim=2))
    options = f"--model AE --data {root} --weights {tmp_path / 'w.pth'}"
    with pytest.raises(UserError, match="two validation photos, got 2 and 1"):
        command.main([*options.split(), "--out", str(tmp_path)])


# Diffusion models -----------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_small(tmp_path_factory.mktemp("diffusion") / "w.pkl")


def run(out, photos, weights, *more):
    """Run the command on a small model -> names of the pictures it made."""
    where = ["--out", out, "--data", photos, "--weights", weights]
    command.main([*QUICK, *map(str, where), *map(str, more)])
    return {path.name for path in (out / "vis").iterdir()}


def context_of(weights, *more):
    """Return the FigureContext of a command line."""
    args = command.parse([*QUICK, "--out", str(weights.parent), *more])
    return FigureContext(args, *load_model("diffusion", weights))


def test_every_picture_is_made(photos, weights, tmp_path, capsys):
    """All that need no further input, and nothing is said."""
    found = run(tmp_path, photos, weights)
    assert tuple(FIGURES) == command.FIGURES
    names = {f"{what}_diffusion.png" for what in command.FIGURES if what != "init"}
    assert found == names | {"denoise_diffusion.gif"}
    for name in found:
        with Image.open(tmp_path / "vis" / name) as picture:
            assert min(picture.size) > 200
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("strength", [[], ["--strength", "0.4"]])
def test_an_image_begins_as_a_photo(photos, weights, tmp_path, strength):
    photo = next((photos / SPECIES[0]).iterdir())
    found = run(tmp_path, photos, weights, "--init", photo, *strength)
    assert found == {"init_diffusion.png"}


def test_pictures_do_not_depend_on_each_other(photos, weights, tmp_path):
    """The same bits alone and after others; other bits from another seed."""
    one, two, three = (tmp_path / name for name in "abc")
    run(one, photos, weights, "--show", "guidance", "species", "inpaint")
    run(two, photos, weights, "--show", "inpaint")
    run(three, photos, weights, "--show", "inpaint", "--seed", "1")
    name = "vis/inpaint_diffusion.png"
    alike = [(place / name).read_bytes() for place in (one, two, three)]
    assert alike[0] == alike[1] != alike[2]


def test_a_stage_draws_the_species_asked_for(weights):
    """In even shares; noise on the way is the same at every call."""
    context = context_of(
        weights, "--species", "calendula", "astilbe", "--sampler", "ddpm"
    )
    species = context.labels(5)
    assert species.tolist() == [2, 2, 2, 0, 0]
    assert context.names(species)[2:4] == ["calendula", "astilbe"]
    noise = context.noise(5)
    first, again = (context.generate(noise, species) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, context.generate(noise, species, guidance=3))


def test_photos_are_of_species_that_are_wanted(photos, weights):
    """Validation photos with the number that the weights give their species."""
    context = context_of(weights, "--data", str(photos), "--species", "calendula")
    images, species = context.photos(100)
    assert images.shape[1:] == (3, 8, 8) and 0 <= images.min() < images.max() <= 1
    assert 0 < len(species) < 12 and set(species.tolist()) == {2}
    context.classes = context.wanted = ["rose"]
    with pytest.raises(UserError, match="no validation photo shows rose; .*--data"):
        _ = FigureContext.validation.func(context)


def test_middles_and_halves_are_hidden():
    known = known_pixels(3, 8)
    assert known.shape == (3, 1, 8, 8)
    assert (~known).sum(dim=(1, 2, 3)).tolist() == [16, 32, 16]
    assert not known[0, 0, 2:6, 2:6].any() and not known[1, 0, :, 4:].any()


@pytest.mark.parametrize(
    "line, words",
    [
        ("--model VAE --init x.jpg", "--init: VAE is no diffusion model"),
        ("--model AE --show species", "--show: AE is no diffusion model"),
        ("--model MLPAE --guidance 2", "--guidance: MLPAE is no diffusion model"),
        ("--model diffusion --strength 0.5", "--strength: there is no photo"),
        ("--model diffusion --show init", "--show: init needs a photo"),
        ("--model diffusion --init no.jpg", "--init: no.jpg is not a file"),
        (f"--model diffusion --init {__file__} --show species", "--init: it belongs"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(line, words):
    with pytest.raises(UsageError, match=words):
        command.parse(line.split())


@pytest.mark.parametrize("strength", ["-0.1", "1.1", "nan", "much"])
def test_a_strength_is_a_share(strength, capsys):
    with pytest.raises(SystemExit) as end:
        command.parse(["--model", "diffusion", "--init", "x", "--strength", strength])
    assert end.value.code == 2
    words = f"--strength: must be a number from 0 to 1, got {strength!r}"
    assert words in capsys.readouterr().err


def test_what_cannot_be_drawn_is_refused(photos, weights, tmp_path):
    """No photo, no such species, weights that tell nothing."""
    with pytest.raises(UserError, match="test_visualize.py cannot be read: damaged"):
        run(tmp_path, photos, weights, "--init", __file__)
    with pytest.raises(UsageError, match="no 'rose'; choose from astilbe"):
        run(tmp_path, photos, weights, "--show", "species", "--species", "rose")
    save_checkpoint(tmp_path / "bare.pkl", small())
    with pytest.raises(UserError, match="do not name their photos"):
        run(tmp_path, photos, tmp_path / "bare.pkl")
