"""The denoising network: its shape, its cost, and what its answer depends on."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.diffusion import randomize_zeros
from utils import device
from utils.diffusion.unet import ResidualBlock, SelfAttention, UNet, sigma_embedding

MOST_MFLOP = 1000  # of one 24 x 24 image forward (R5: 4,019 was seen elsewhere)


def network(**options):
    """Return a small network whose every layer shows in the answer."""
    torch.manual_seed(0)
    return randomize_zeros(UNet(**{"channels": (16, 32), **options})).eval()


def question(count=2, height=8, width=8):
    """Images, levels and species."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, height, width, generator=generator)
    return x, torch.logspace(-1, 1, count), torch.arange(count) % 4


@pytest.fixture
def exact(monkeypatch):
    """Products in float32, also where the processor has units for less."""
    monkeypatch.setattr("utils.diffusion.unet.has_bfloat16_units", lambda device: False)


def test_it_really_down_samples():
    """R5: few operations at full size, and the bottom is at a quarter of it."""
    net, seen = UNet(), []
    net.middle[1].register_forward_hook(lambda _m, _i, y: seen.append(y.shape[-2:]))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(*question(1, 24, 24))
    assert seen == [(6, 6)]
    assert counter.get_total_flops() / 1e6 < MOST_MFLOP


@pytest.mark.parametrize(
    "options",
    [
        {"channels": (16,)},
        {"channels": (20, 36, 7)},  # no multiples of a group
        {"channels": (16, 16, 32, 16)},
        {"num_blocks": 3},
        {"num_classes": 16, "img_channels": 1},
    ],
)
@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_answers_have_the_shape_of_images_in_float32(options, size):
    """R20; and every weight takes part (R22: no layer is made in `forward`)."""
    net = network(**options).train()
    before = [name for name, _ in net.named_parameters()]
    x, sigma, labels = question(3, *size)
    model_output = net(x[:, : options.get("img_channels", 3)], sigma, labels)
    assert model_output.shape[-2:] == size and model_output.dtype == torch.float32
    model_output.square().sum().backward()
    assert [name for name, _ in net.named_parameters()] == before
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("height, width", [(5, 8), (6, 6), (9, 7)])
def test_an_odd_size_is_the_padded_image_cropped(exact, height, width):
    """To multiples of 4, by repeating the last row and column."""
    net, (x, *rest) = network(channels=(16, 16, 16)), question(2, height, width)
    padded = x[:, :, [*range(height), *[height - 1] * (-height % 4)]]
    padded = padded[..., [*range(width), *[width - 1] * (-width % 4)]]
    expected = net(padded, *rest)[..., :height, :width]
    torch.testing.assert_close(net(x, *rest), expected)


def test_a_patch_is_a_pixel_of_more_channels(exact):
    """The same weights on the image whose 2 x 2 pixels were moved into channels."""
    x, sigma, labels = question(2, 16, 8)
    net, plain = network(patch=2), network(img_channels=12)
    plain.load_state_dict(net.state_dict(), strict=True)
    # Channel 4 c + 2 i + j holds the pixels at rows i, i + 2, ... and columns j, ...
    parts = [x[:, c, i::2, j::2] for c in range(3) for i in (0, 1) for j in (0, 1)]
    expected = plain(torch.stack(parts, dim=1), sigma, labels)
    found = net(x, sigma, labels)
    parts = [found[:, c, i::2, j::2] for c in range(3) for i in (0, 1) for j in (0, 1)]
    torch.testing.assert_close(torch.stack(parts, dim=1), expected)
    # Other sizes are padded to whole positions of the bottleneck, 4 pixels.
    x, sigma, labels = question(2, 7, 9)
    padded = net(F.pad(x, (0, 3, 0, 1), mode="replicate"), sigma, labels)
    torch.testing.assert_close(net(x, sigma, labels), padded[..., :7, :9])


def test_an_untrained_network_answers_zero():
    """And every block begins as its shortcut."""
    torch.manual_seed(0)
    assert not UNet(channels=(16, 32))(*question()).any()
    block, x = ResidualBlock(16, 16, 8), torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x, torch.randn(2, 8)), x)
    assert torch.equal(SelfAttention(16)(x), x)


def test_level_and_species_change_the_answer_and_neighbours_do_not(exact):
    """Each image is answered by itself, once the last layers are alive."""
    net, (x, sigma, labels) = network(), question(4)
    whole = net(x, sigma, labels)
    for index in range(4):
        one = slice(index, index + 1)
        torch.testing.assert_close(
            net(x[one], sigma[one], labels[one]), whole[one], atol=1e-5, rtol=1e-4
        )
    for other in (net(x, 1.3 * sigma, labels), net(x, sigma, (labels + 1) % 4)):
        assert ((other - whole).flatten(1).abs().amax(dim=1) > 1e-3).all()


def test_features_tell_levels_apart_by_a_few_percent():
    """From 0.001 to 1000, and finite at the ends."""
    sigmas = 1.03 ** torch.arange(-234, 235)
    features = sigma_embedding(sigmas)
    assert features.isfinite().all() and features.abs().max() <= 1
    assert torch.cdist(features, features).fill_diagonal_(9).min() > 0.1


def test_half_precision_answers_alike():
    """To about 1 %, with bfloat16 units or without; autocast needs none."""
    net, ask = network(channels=(32, 64)), question(4, 12, 12)
    answers = []
    for net.bfloat16 in (False, True):
        with torch.no_grad():
            answers.append(net(*ask))
        assert answers[-1].dtype == torch.float32
    off = (answers[1] - answers[0]).norm() / answers[0].norm()
    assert 1e-5 < off < 0.02


@pytest.mark.parametrize("units", [False, True])
def test_the_processor_decides_where_nothing_is_said(monkeypatch, units):
    monkeypatch.setattr("utils.diffusion.unet.has_bfloat16_units", lambda device: units)
    net, ask = network(), question()
    assert net.bfloat16 is None
    free = net(*ask)
    net.bfloat16 = units
    assert torch.equal(net(*ask), free)
    net.bfloat16 = not units
    assert not torch.equal(net(*ask), free)


def test_bfloat16_that_computes_wrong_products_is_not_used(monkeypatch, caplog):
    """With a convolution that is a tenth off in bfloat16; asked without gradients."""
    cpu = torch.device("cpu")
    assert device.bfloat16_products_are_right(cpu) and not caplog.records
    device.bfloat16_products_are_right.cache_clear()
    conv2d = torch.nn.functional.conv2d

    def wrong(*args):
        return conv2d(*args) * (1.1 if torch.is_autocast_enabled("cpu") else 1)

    monkeypatch.setattr(device.F, "conv2d", wrong)
    monkeypatch.setattr("utils.diffusion.unet.has_bfloat16_units", lambda device: True)
    net, ask = network(), question()
    with torch.inference_mode():
        found = net(*ask)
    monkeypatch.undo()
    device.bfloat16_products_are_right.cache_clear()
    assert "float32 is used" in caplog.text
    net.bfloat16 = False
    assert torch.equal(net(*ask), found)


@pytest.mark.parametrize("channels, size", [((32, 64), 16), ((24, 40), None)])
def test_groups_have_sixteen_channels_or_all(channels, size):
    """Odd widths are one group, so that any width works."""
    norms = [
        m for m in network(channels=channels).modules() if isinstance(m, nn.GroupNorm)
    ]
    assert len(norms) == 2 * 5 + 2  # two a block, of the attention, before the end
    for norm in norms:
        assert norm.num_channels // norm.num_groups == (size or norm.num_channels)


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_inner_weights_lead_from_features_to_features(num_blocks):
    """All matrices and filters of the U, but neither its ends nor its conditions."""
    net = network(num_blocks=num_blocks)
    expected = {
        name
        for name, weight in net.named_parameters()
        if name.split(".")[0] in ("down", "middle", "up") and weight.ndim >= 2
    }
    names = {id(weight): name for name, weight in net.named_parameters()}
    found = [names[id(weight)] for weight in net.inner_weights()]
    assert len(found) == len(set(found)) and set(found) == expected


def test_attention_is_the_fused_kernels(exact):
    """torch's own scaled dot product, on the same query, key and value."""
    torch.manual_seed(0)
    attention, x = randomize_zeros(SelfAttention(16)), torch.randn(2, 16, 3, 5)
    places = attention.norm(x).flatten(2).transpose(1, 2)
    parts = attention.qkv(places).chunk(3, dim=2)
    seen = attention.out(F.scaled_dot_product_attention(*parts))
    expected = x + seen.transpose(1, 2).view_as(x)
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-4)


def test_dropout_is_for_training_alone():
    net, ask = network(dropout=0.5), question()
    assert torch.equal(net(*ask), net(*ask))
    net.train()
    assert not torch.equal(net(*ask), net(*ask))
