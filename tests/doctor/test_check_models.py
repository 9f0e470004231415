"""Checks of the models of parts 1 to 3: faults that were planted in two completions."""

import pytest
import torch
from torch import nn

from tests.doctor.variants_models import VARIANTS
from tests.helpers.doctor import imported_from, mutate, run_check, write_files
from tools.doctor import autoencoders, check_learning, check_models, check_vae
from tools.doctor.checks import CHECKS

OF_MODELS = {f"tools.doctor.check_{name}" for name in ("models", "learning", "vae")}
LONG = "one_batch"  # its own test
KIT_ARGUMENTS = "encoding_dim, img_width, img_height, img_channel=3"
# (variant, file, its text, what a student may have written, check, its findings)
PLANTED = [
    (
        *("functional", "MLPAutoencoder.py", 'return "MLPAE"', 'return "mlp"'),
        *("outputs_MLPAE", ["wrong_name"]),
    ),
    (
        *("functional", "MLPAutoencoder.py", ".view(shape)", ""),
        *("outputs_MLPAE", ["output_shape"]),
    ),
    (
        *("functional", "MLPAutoencoder.py", "torch.sigmoid(self.fc6(x))"),
        *("torch.softmax(self.fc6(x), 1)", "output_range_MLPAE", ["output_softmax"]),
    ),
    (
        *(
            "functional",
            "MLPAutoencoder.py",
            "x = self.fc3(x)",
            "x = self.fc3(x).relu()",
        ),
        *("latent_sign_MLPAE", ["latent_rectified"]),
    ),
    (
        *("modular", "MLPAutoencoder.py", "nn.ReLU(inplace=True)", "nn.GELU()"),
        *("hidden_relu_MLPAE", ["hidden_not_relu"]),
    ),
    (
        *("functional", "MLPAutoencoder.py", KIT_ARGUMENTS),
        "encoding_dim=64, img_width=24, img_height=24, img_channel=3",
        *("constructor_MLPAE", []),
    ),
    (
        *("functional", "MLPAutoencoder.py", KIT_ARGUMENTS + "):"),
        "encoding_dim=64):\n        img_channel, img_width, img_height = 3, 24, 24",
        *("constructor_MLPAE", ["constructor_arguments"]),
    ),
    (
        *("functional", "Autoencoder.py", "F.max_pool2d(F.relu(self.conv2(x)), 2)"),
        *("F.avg_pool2d(F.relu(self.conv2(x)), 2)", "max_pooling_AE"),
        ["no_max_pooling"],
    ),
    (
        *("functional", "Autoencoder.py", "F.max_pool2d(F.relu(self.conv2(x)), 2)"),
        "F.relu(self.conv2(x)).unflatten(2, (6, 2)).unflatten(4, (6, 2)).amax((3, 5))",
        *("dimension_chain_AE", []),
    ),
    (
        *("modular", "Autoencoder.py", "stage(64, 128, 0)]", "stage(64, 128, 1)]"),
        *("dimension_chain_AE", ["dimension_chain"]),
    ),
    (
        *("functional", "Autoencoder.py", "return self.fc(torch.flatten(x, 1))"),
        "return nn.Linear(4608, 64)(torch.flatten(x, 1))",
        *("layers_in_forward_AE", ["layer_made_in_forward"]),
    ),
    (
        *("functional", "Autoencoder.py", "return self.decoder(self.encoder(x))"),
        *("return self.decoder(self.encoder(x).data)", "gradients_AE"),
        ["gradient_missing"],
    ),
    (
        *("functional", "Autoencoder.py", "return self.fc(torch.flatten(x, 1))"),
        "return self.fc(x.transpose(0, 1).reshape(x.size(0), -1))",
        *("separate_images_AE", ["images_mixed"]),
    ),
    (
        *("modular", "VarAutoencoder.py", "(self.body(z) + 1) / 2", "self.body(z)"),
        *("output_range_VAE", ["output_range"]),
    ),
    (
        *("functional", "VarAutoencoder.py", "self.fc_logvar(x)\n"),
        *("self.fc_logvar(x).relu()\n", "latent_sign_VAE", ["latent_rectified"]),
    ),
    (
        *("functional", "VarAutoencoder.py", "return mu + eps * std"),
        *("return mu + eps", "reparameterization", ["reparameterization_scale"]),
    ),
    (
        *("functional", "VarAutoencoder.py", "eps = torch.randn_like(std)"),
        *("eps = torch.randn(1, std.size(1))", "reparameterization"),
        ["reparameterization_shared_noise"],
    ),
    (
        *("functional", "VarAutoencoder.py", "1 + log_var - mu.pow(2) - log_var.exp()"),
        *("1 + log_var - mu.pow(2) - log_var.exp() ** 2", "kl_values", ["kl_formula"]),
    ),
    (
        *("functional", "VarAutoencoder.py", "1 + log_var - mu.pow(2) - log_var.exp()"),
        *("1 + log_var - mu.abs() - log_var.exp()", "kl_values", ["kl_formula"]),
    ),
    (
        *("functional", "VarAutoencoder.py", "torch.sum((x - images) ** 2)"),
        "F.binary_cross_entropy(x, images, reduction='sum')",
        *("loss_reduction", ["reconstruction_not_squared"]),
    ),
    (
        *("functional", "VarAutoencoder.py", "return recon + kld"),
        *("return (recon + kld) / x.size(0)", "loss_reduction", ["loss_reduction"]),
    ),
    (
        *("functional", "VarAutoencoder.py", "return recon + kld"),
        *("return recon + kld / x.numel()", "loss_reduction", ["kl_reduction"]),
    ),
    (  # two functions that agree on another meaning of the second output, or do not
        *("modular", "VarAutoencoder.py", "Normal(mu, log_var.exp()).rsample()"),
        *("Normal(mu, (log_var / 4).exp()).rsample()", "reparameterization"),
        ["reparameterization_scale"],
    ),
    (
        *("modular", "VarAutoencoder.py", "Normal(mu, log_var.exp()).rsample()"),
        *("Normal(mu, (log_var / 2).exp()).rsample()", "kl_values", ["kl_formula"]),
    ),
]


def mine(part):
    """Return the names of the checks of models of a part but for the long one."""
    run = {
        n: getattr(r.run, "func", r.run) for n, r in CHECKS.items() if r.part == part
    }
    return [n for n, f in run.items() if f.__module__ in OF_MODELS and LONG not in n]


@pytest.mark.parametrize("part", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_other_completions_are_all_right(tmp_path, variant, part):
    write_files(tmp_path, VARIANTS[variant])
    outcomes = [run_check(name, tmp_path) for name in mine(part)]
    assert len(outcomes) >= 8
    assert [o for o in outcomes if not o.passed] == []


@pytest.mark.parametrize("row", PLANTED, ids=lambda row: f"{row[4]}-{row[3][:30]}")
def test_planted_faults_are_found(tmp_path, row):
    variant, file, find, replace, check, expected = row
    write_files(tmp_path, VARIANTS[variant])
    mutate(tmp_path, file, find, replace)
    outcome = run_check(check, tmp_path)
    assert [finding.name for finding in outcome.findings] == expected
    assert not outcome.reason


def test_a_batch_is_learned_by_heart_or_not(tmp_path, monkeypatch):
    monkeypatch.setattr(check_learning, "STEPS", 90)
    write_files(tmp_path, VARIANTS["functional"])
    assert run_check("one_batch_MLPAE", tmp_path).passed
    mutate(tmp_path, "MLPAutoencoder.py", "self.fc3(x)", "self.fc3(x) * 0")
    found = run_check("one_batch_MLPAE", tmp_path).findings
    assert [finding.name for finding in found] == ["batch_not_fitted"]


def test_a_model_that_cannot_be_called_gives_one_finding(tmp_path):
    write_files(tmp_path, VARIANTS["functional"])
    mutate(tmp_path, "Autoencoder.py", "nn.Linear(128 * 6 * 6, encoding_dim)", "None")
    outcomes = [run_check(name, tmp_path) for name in mine(2)]
    found = [finding.name for o in outcomes for finding in o.findings]
    assert found == ["raises"]
    assert all(o.findings or "cannot be called" in o.reason for o in outcomes)


def test_missing_modules_are_not_examined(tmp_path):
    outcomes = [run_check(name, tmp_path) for name in mine(1) + mine(3)]
    assert not any(o.findings for o in outcomes) and all(o.reason for o in outcomes)


# What the checks rest on -------------------------------------------------------


def test_a_trace_has_the_steps_of_functions_and_modules():
    """torch.relu, F.relu, nn.ReLU and clamp are all seen, and called rectified."""
    for relu in (torch.relu, nn.functional.relu, nn.ReLU(), lambda x: x.clamp(min=0)):
        model = nn.Sequential(nn.Linear(4, 50), nn.Linear(50, 3))
        forward, model.forward = (
            model.forward,
            lambda x, r=relu, m=model: m[1](r(m[0](x))),
        )
        traced = autoencoders.trace(model, torch.randn(8, 4))
        ((layer, after),) = traced.between_layers()
        assert layer.shape == (50,) and any(map(check_models.rectified, after))
        assert forward is not None
    traced = autoencoders.trace(nn.Sequential(*model, nn.GELU()), torch.randn(8, 4))
    assert not any(check_models.rectified(step) for step in traced.steps)


def test_images_for_the_checks_fill_their_range():
    images = autoencoders.photos_like(64)
    assert images.min() >= 0 and images.max() <= 1
    assert images.min() < 0.1 and images.max() > 0.9


def test_the_meanings_of_the_second_output_are_told_apart():
    """By the KL of torch.distributions, and by no KL at all."""
    normal = torch.distributions.Normal
    prior = normal(0.0, 1.0)
    deviations = {
        "log-variance": lambda v: (v / 2).exp(),
        "log-deviation": torch.exp,
        "variance": torch.sqrt,
        "deviation": lambda v: v,
    }
    assert deviations.keys() == check_vae.MEANINGS.keys()
    for meaning, deviation in deviations.items():

        def loss(images, mu, second, target, deviation=deviation):
            posterior = normal(mu, deviation(second), validate_args=False)
            return 3 * torch.distributions.kl_divergence(posterior, prior).sum().item()

        assert check_vae.kl_meaning(loss) == meaning
        assert check_vae.kl_scale(loss, 2, 5) == pytest.approx(3, rel=1e-4)
    assert check_vae.kl_meaning(lambda _, mu, second, target: mu.sum().item()) is None


def test_arguments_are_guessed_by_their_names(tmp_path):
    """Sizes in another order, and one whose meaning nobody knows."""
    text = """
from torch import nn

class Autoencoder(nn.Module):
    def __init__(self, latent, w, h, c, EXTRA):
        super().__init__()
        self.given = latent, w, h, c
"""
    write_files(tmp_path, {"Autoencoder.py": text.replace(", EXTRA", "")})
    with imported_from(tmp_path) as subject:
        model = autoencoders.build(subject, "AE", dim=5, width=20, height=28)
    assert model.given == (5, 20, 28, 3)
    write_files(tmp_path, {"Autoencoder.py": text.replace("EXTRA", "temperature")})
    assert "temperature" in run_check("constructor_AE", tmp_path).reason
