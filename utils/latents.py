"""Latent codes: encoding, interpolation, and distributions fitted to them."""

# The codes of an autoencoder need not follow N(0, I). Sampling from a distribution that
# is fitted to them is ex-post density estimation (Ghosh et al. 2020, arXiv:1903.12436).

from pathlib import Path

import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from utils.checkpoint import (
    load_checkpoint,
    restore,
    save_checkpoint,
    weights_name,
)
from utils.cli import UserError
from utils.device import device_of

MAX_COMPONENTS = 8  # Gaussians of the mixture
CODES_PER_COMPONENT = 64  # below which the mixture has fewer components
SHRINKAGE = 0.05  # weight of the isotropic covariance in each covariance
EM_STEPS = 50
MAX_CODES = 2**14  # to which priors are fitted
MAX_DIM = 256  # of codes; the covariance of longer ones is not stored

# Encoding and interpolation --------------------------------------------------------


@torch.no_grad()
def encode(model, images, draw=True, batch_size=256):
    """Return the codes of images: (N, 3, H, W) in [0, 1] -> (N, D), on the CPU.

    images: a tensor, or FlowerImages. Of a Gaussian encoder a draw, or its mean.
    """
    parts, device = [], device_of(model)
    for batch in images.split(batch_size):
        code = model.encoder(batch.to(device))
        if isinstance(code, tuple):
            code = model.reparameterize(*code) if draw else code[0]
        parts.append(code.cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode(model, codes):
    """Return the images of codes: (N, D) -> (N, 3, H, W) in [0, 1], on the CPU."""
    return model.decoder(codes.to(device_of(model))).cpu()


@torch.no_grad()
def reconstruct(model, images):
    """Return an autoencoder's reconstructions of images (N, 3, H, W) in [0, 1]."""
    # Both are on the model's device.
    outputs = model(images)
    return outputs[0] if isinstance(outputs, tuple) else outputs


def lerp(start, end, steps):
    """Interpolate codes (D,) linearly -> (steps, D), both ends included."""
    t = torch.linspace(0, 1, steps)[:, None]
    return (1 - t) * start + t * end


def slerp(start, end, steps):
    """Interpolate codes (D,) on the arc about 0 -> (steps, D), both ends included.

    Shoemake 1985; keeps the norm of codes of similar norm, such as draws from N(0, I)
    (White 2016, arXiv:1609.04468). Nearly parallel codes are interpolated linearly.
    """
    cosine = torch.cosine_similarity(start, end, dim=0).clamp(-1, 1)
    angle = torch.acos(cosine)
    if torch.sin(angle) < 1e-2:
        return lerp(start, end, steps)
    t = torch.linspace(0, 1, steps)[:, None]
    arc = torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end
    return arc / torch.sin(angle)


# Gaussian mixtures -----------------------------------------------------------------


class GaussianMixture(nn.Module):
    """A mixture of K Gaussians in D dimensions, with full covariances."""

    def __init__(self, components, dim):
        super().__init__()
        self.register_buffer("weights", torch.full((components,), 1 / components))
        self.register_buffer("means", torch.zeros(components, dim))  # (K, D)
        # Lower Cholesky factors of the covariances, (K, D, D).
        self.register_buffer("cholesky", torch.eye(dim).repeat(components, 1, 1))

    def gaussians(self):
        """Return the K Gaussians as a distribution of torch."""
        return MultivariateNormal(self.means, scale_tril=self.cholesky)

    def log_densities(self, codes):
        """Codes (N, D) -> log(weight * density) of each component, (N, K)."""
        return self.gaussians().log_prob(codes[:, None]) + self.weights.log()

    def sample(self, count):
        """Draw `count` codes: (count, D)."""
        mixture = MixtureSameFamily(Categorical(self.weights), self.gaussians())
        return mixture.sample((count,))

    def maximize(self, codes, responsibilities):
        """Fit each component to its codes (N, D): the M step of EM."""
        # responsibilities: (N, K). Covariances are shrunk towards isotropic ones, so
        # that few codes give a positive definite one.
        # Weights and means of the components.
        totals = responsibilities.sum(dim=0) + 1e-9  # (K,)
        self.weights.copy_(totals / totals.sum())
        self.means.copy_(responsibilities.T @ codes / totals[:, None])
        # Covariances, shrunk.
        offsets = codes - self.means[:, None]  # (K, N, D)
        covariances = (offsets * responsibilities.T[:, :, None]).mT @ offsets
        covariances = covariances / totals[:, None, None]
        variance = covariances.diagonal(dim1=1, dim2=2).mean(dim=1) + 1e-6  # (K,)
        isotropic = variance[:, None, None] * torch.eye(codes.shape[1]).to(codes)
        shrunk = covariances.lerp(isotropic, SHRINKAGE)
        self.cholesky.copy_(torch.linalg.cholesky(shrunk))


def fit_gaussian_mixture(codes, components, seed=0):
    """Fit a GaussianMixture to codes (N, D) by expectation-maximization.

    Dempster et al. 1977. At the start each code belongs to the nearest of `components`
    codes, which are drawn from `seed`.

    Raises:
        ValueError: if there are fewer codes than components.
    """
    if not 1 <= components <= len(codes):
        raise ValueError(f"components must be 1 to {len(codes)}, got {components}")
    # Start with hard assignments.
    codes = codes.double()
    generator = torch.Generator().manual_seed(seed)
    centers = codes[torch.randperm(len(codes), generator=generator)[:components]]
    nearest = torch.cdist(codes, centers).argmin(dim=1)
    mixture = GaussianMixture(components, codes.shape[1]).double()
    mixture.maximize(codes, nn.functional.one_hot(nearest, components).double())
    # E step: responsibilities; M step: maximize.
    for _ in range(EM_STEPS if components > 1 else 0):
        mixture.maximize(codes, mixture.log_densities(codes).softmax(dim=1))
    return mixture.float()


# Priors of a trained model ----------------------------------------------------------


class Priors(nn.Module):
    """The distributions fitted to one model's codes: `gaussian` and `gmm`."""

    def __init__(self, of, dim, components):
        super().__init__()
        self.args = {"of": of, "dim": dim, "components": components}
        self.gaussian = GaussianMixture(1, dim)
        self.gmm = GaussianMixture(components, dim)

    @property
    def name(self):
        return f"prior_{self.args['of']}"


def fit_priors(of, codes):
    """Fit a Gaussian and a Gaussian mixture to a model's codes (N, D) -> Priors."""
    # of: the model's short name. Few codes get fewer components.
    components = max(1, min(MAX_COMPONENTS, len(codes) // CODES_PER_COMPONENT))
    priors = Priors(of, codes.shape[1], components)
    priors.gaussian = fit_gaussian_mixture(codes, 1)
    priors.gmm = fit_gaussian_mixture(codes, components)
    return priors


def fitted_to(metadata):
    """Return what identifies weights among those of other trainings."""
    return {key: metadata.get(key) for key in ("seed", "epoch", "valid_loss")}


def save_priors(path, model, metadata, codes):
    """Fit priors to the codes (N, D) of a model's weights; save and return them."""
    priors = fit_priors(model.name, codes)
    save_checkpoint(path, priors, {"fitted_to": fitted_to(metadata)})
    return priors


def load_prior(name, model, metadata, weights, fit=None):
    """Return the function that draws codes, count -> (count, D), by a prior's name."""
    # The fitted ones are in a file beside `weights`, the file of the model's weights
    # with this metadata; "normal" needs none. fit(path) -> Priors, where that file is
    # missing or belongs to other weights. Raises UserError if it is damaged, or cannot
    # be fitted.
    dim = model.args["encoding_dim"]
    if name == "normal":
        return lambda count: torch.randn(count, dim)
    if dim > MAX_DIM:
        raise UserError(
            f"--prior {name} needs codes of at most {MAX_DIM} numbers, got {dim}; "
            "train again with a smaller --encoding-dim"
        )

    # The file must exist and belong to these weights.
    path = Path(weights).with_name(weights_name(f"prior_{model.name}"))
    state, found = load_checkpoint(path) if path.exists() else ({}, {})
    belongs = found.get("fitted_to") == fitted_to(metadata)
    if not belongs or found.get("model") != f"prior_{model.name}":
        if fit is None:
            raise UserError(
                f"{path} is missing or was not fitted to the codes of {weights}; train "
                f"again: python train_script.py --model {model.name}"
            )
        return getattr(fit(path), name).sample

    components = state["gmm.weights"].numel() if "gmm.weights" in state else 1
    priors = restore(lambda: Priors(model.name, dim, components), state, path)
    return getattr(priors, name).sample
