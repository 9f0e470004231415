"""The checks of part 4: right completions in other styles, and planted faults."""

import pytest

from tests.doctor.variants_diffusion import VARIANTS
from tests.helpers.doctor import imported_from, mutate, run_check, write_files
from tools.doctor import check_diffusion
from tools.doctor.check_diffusion import check_network
from tools.doctor.checks import CHECKS

# (variant, its text, what a student may have written, check, its findings)
PLANTED = [
    (
        *("small_unet", "        self.eval()\n", ""),
        *("sampling", ["sampling_in_training_mode"]),
    ),
    (
        *("small_unet", "    @torch.no_grad()\n", ""),
        *("sampling", ["sampling_keeps_graph"]),
    ),
    (
        *("small_unet", "return self.out(h)", "return self.out(h)[..., 1:]"),
        *("network_output", ["network_output_shape"]),
    ),
    (
        *("small_unet", "        return self.out(h)", "        return 0 * self.out(h)"),
        *("diffusion_overfits", ["diffusion_does_not_learn"]),
    ),
    (
        *("small_unet", " + emb)", ")"),
        *("time_used", ["time_not_used"]),
    ),
    (
        *("small_unet", " + emb)", ")"),
        *("diffusion_gradients", ["no_gradient_in_diffuser"]),
    ),
    (
        *(
            "small_unet",
            "self.out(h)",
            "self.out(h)[..., : x.shape[2]]",
        ),
        *("network_sizes", ["oblong_images"]),
    ),
    (
        *("small_unet", "(beta_max - beta_min) + beta_min", "beta_max / 2"),
        *("noise_tables", ["kit_schedule_values"]),
    ),
    (
        *("small_unet", "num_steps = 300", "num_steps = 40"),
        *("noise_tables", ["noise_too_weak"]),
    ),
    (
        *("small_unet", "a = alphas_bar_sqrt[t]", "a = alphas_bar_sqrt[t - 1]"),
        *("forward_noising", ["forward_noise"]),
    ),
    (
        *("small_unet", "betas[t] / one_minus", "betas[t].sqrt() / one_minus"),
        *("reverse_step", ["reverse_mean"]),
    ),
    (
        *("small_unet", "mean + torch.sqrt(betas[t])", "mean + betas[t]"),
        *("reverse_step", ["reverse_noise"]),
    ),
    (
        *("small_unet", "if t > 0:", "if t >= 0:"),
        *("reverse_step", ["noise_at_last_step"]),
    ),
    (
        *("small_unet", "        return mean\n", "        return mean.clamp(-1, 1)\n"),
        *("reverse_step", ["reverse_mean"]),
    ),
    (
        *("small_unet", 'lr"] = scheduler(epoch)', 'lr"] = 1e-3'),
        *("diffusion_schedule", ["schedule_not_applied"]),
    ),
    (
        # The photo in the place of the noise, as in a public completion (R14).
        *("conditional_x0", "mean = before.sqrt() * betas[t] / (1 - bar) * x_0\n"),
        "mean = (x - betas[t] / (1 - bar).sqrt() * (x - x_0)) / alphas[t].sqrt()\n"
        "        return mean + betas[t].sqrt() * torch.randn_like(x) if t else mean\n",
        *("reverse_step", ["reverse_mean"]),
    ),
    (
        *("conditional_x0", "(x_0_pred - x_0) ** 2", "(x_0_pred - noise) ** 2"),
        *("reverse_step", ["reverse_mean"]),
    ),
    (
        *("conditional_x0", "diffusion_loss_fn(model, images, labels)"),
        "diffusion_loss_fn(model, images)",
        *("diffusion_calls", ["extra_required_argument"]),
    ),
    (
        *("conditional_x0", "+ self.species(labels)", "+ 0 * self.species(labels)"),
        *("network_labels", ["labels_not_used"]),
    ),
    (
        *("flow_transformer", "return x - dt * v", "return x + dt * v"),
        *("sampling_result", ["sampling_misses_photo"]),
    ),
    (
        *("flow_transformer", "(len(x),), 1000 * t", "(len(x),), t"),
        *("sampling_result", ["sampling_misses_photo"]),
    ),
    (
        *("flow_transformer", ", noise - x_0)", ", x_0 - noise)"),
        *("sampling_result", ["sampling_misses_photo"]),
    ),
    (
        *("flow_transformer", ", noise - x_0)", ", torch.randn_like(x_0) - x_0)"),
        *("diffusion_loss", ["loss_target"]),
    ),
    (
        *("flow_transformer", "t = torch.sigmoid(torch.randn("),
        "t = 0.5 * torch.sigmoid(torch.randn(",
        *("training_times", ["times_not_covered"]),
    ),
    (
        # Layers that see the time are left out without labels (R15).
        *("flow_transformer", "        for block in self.blocks:\n"),
        "        for block in self.blocks[int((labels == 3).all()) :]:\n",
        *("network_labels", ["labels_skip_layers"]),
    ),
    (
        *("implicit", "before = self.bar[t - 1]", "before = self.bar[t]"),
        *("reverse_step", ["reverse_mean"]),
    ),
]


def part_4():
    """Return the names of the checks of part 4 in this package."""
    package = check_diffusion.__name__
    return [n for n, row in CHECKS.items() if row.run.__module__.startswith(package)]


@pytest.mark.parametrize("name", VARIANTS)
def test_other_styles_are_all_right(name, tmp_path):
    """All checks are carried out, and find nothing."""
    folder = write_files(tmp_path, VARIANTS[name])
    with imported_from(folder) as subject:
        for check in part_4():
            assert list(CHECKS[check].run(subject)) == [], check


@pytest.mark.parametrize("variant, find, replace, check, expected", PLANTED)
def test_planted_faults_are_named(variant, find, replace, check, expected, tmp_path):
    folder = write_files(tmp_path, VARIANTS[variant])
    mutate(folder, "diffusion.py", find, replace)
    outcome = run_check(check, folder)
    assert [finding.name for finding in outcome.findings] == expected, outcome


def test_a_loss_that_raises_is_reported_once(tmp_path):
    folder = write_files(tmp_path, VARIANTS["small_unet"])
    mutate(folder, "diffusion.py", "t = torch.randint(0, num_steps", "t = torch.rand(0")
    names = {
        check: [finding.name for finding in run_check(check, folder).findings]
        for check in ("diffusion_loss", "forward_noising", "diffusion_gradients")
    }
    assert names.pop("diffusion_loss") == ["raises"]
    assert list(names.values()) == [[], []]


def test_an_unknown_forward_process_is_left_to_the_teacher(tmp_path):
    folder = write_files(tmp_path, VARIANTS["flow_transformer"])
    known = "(1 - t.view(-1, 1, 1, 1)) * x_0"
    mutate(folder, "diffusion.py", known, "(1 - t.view(-1, 1, 1, 1) ** 3) * x_0")
    for check in ("forward_noising", "diffusion_loss", "sampling_result"):
        outcome = run_check(check, folder)
        assert outcome.reason and not outcome.findings, check


def test_a_model_without_steps_is_made_without_them(tmp_path):
    folder = write_files(tmp_path, VARIANTS["flow_transformer"])
    mutate(
        folder,
        "diffusion.py",
        "def __init__(self, n_steps, img",
        "def __init__(self, img",
    )
    for check in ("diffuser_made", "diffusion_loss", "sampling_result"):
        outcome = run_check(check, folder)
        assert not outcome.reason and not outcome.findings, check


def test_layers_at_full_resolution_are_costly(tmp_path, monkeypatch):
    """The variant pools; without that its cost is above a lower cap."""
    monkeypatch.setattr(check_network, "FLAT_CAP", 0.001)
    folder = write_files(tmp_path, VARIANTS["small_unet"])
    assert not run_check("network_cost", folder).findings
    mutate(folder, "diffusion.py", "F.max_pool2d(h1, 2)", "h1")
    mutate(folder, "diffusion.py", "2, stride=2", "1")
    (finding,) = run_check("network_cost", folder).findings
    assert finding.name == "network_too_costly"
