"""Distributions fitted to the codes of an autoencoder, to draw new codes from.

An autoencoder's codes need not look like N(0, I); a decoder does best on what it knows
(ex-post density estimation; Ghosh et al. 2020, arXiv:1903.12436).
"""

import math
from pathlib import Path

import torch
from torch import nn

from utils.checkpoint import check_fit, load_checkpoint, weights_name
from utils.cli import UserError

COMPONENTS = 8  # Gaussians of a mixture, at most
PER_COMPONENT = 64  # codes that a Gaussian of the mixture should stand on, at least
SHRINKAGE = 0.05  # share of each covariance that is the average variance, to all sides
ROUNDS = 50  # of expectation and maximisation
MOST_NUMBERS = 256  # of a code, whose covariance is worth keeping
PRIORS = ("gaussian", "gmm")


class Mixture(nn.Module):
    """A mixture of K Gaussians in D dimensions, with full covariances."""

    def __init__(self, components, dim):
        super().__init__()
        self.register_buffer("shares", torch.full((components,), 1 / components))
        self.register_buffer("means", torch.zeros(components, dim))  # (K, D)
        self.register_buffer("roots", torch.eye(dim).repeat(components, 1, 1))

    def log_densities(self, codes):
        """Codes (N, D) -> log(share x density) of each component, (N, K)."""
        offsets = codes - self.means[:, None]  # (K, N, D)
        whitened = torch.linalg.solve_triangular(self.roots, offsets.mT, upper=False)
        spread = self.roots.diagonal(dim1=1, dim2=2).log().sum(dim=1)  # (K,)
        constant = codes.shape[1] / 2 * math.log(2 * math.pi)
        logs = -whitened.square().sum(dim=1) / 2 - (spread + constant)[:, None]
        return logs.T + self.shares.log()

    def log_prob(self, codes):
        """Codes (N, D) -> log density of each, (N,)."""
        return self.log_densities(codes).logsumexp(dim=1)

    def sample(self, count):
        """Draw `count` codes: (count, D)."""
        chosen = torch.multinomial(self.shares, count, replacement=True)
        codes = torch.randn(count, self.means.shape[1])
        for number, (mean, root) in enumerate(zip(self.means, self.roots, strict=True)):
            its = chosen == number
            codes[its] = mean + codes[its] @ root.T
        return codes

    def maximise(self, codes, weights):
        """Set every component to its codes (N, D), which `weights` (N, K) share out.

        A covariance is drawn towards a ball, so that few codes give a positive one.
        """
        totals = weights.sum(dim=0) + 1e-9  # (K,)
        self.shares.copy_(totals / totals.sum())
        self.means.copy_(weights.T @ codes / totals[:, None])
        offsets = codes - self.means[:, None]  # (K, N, D)
        covariances = (offsets * weights.T[:, :, None]).mT @ offsets
        covariances = covariances / totals[:, None, None]
        average = covariances.diagonal(dim1=1, dim2=2).mean(dim=1) + 1e-6  # (K,)
        ball = average[:, None, None] * torch.eye(codes.shape[1]).to(codes)
        self.roots.copy_(torch.linalg.cholesky(covariances.lerp(ball, SHRINKAGE)))


def fit_mixture(codes, components, seed=0):
    """Fit a Mixture to codes (N, D) by expectation and maximisation -> Mixture.

    Dempster et al. 1977. Starts from codes shared out to the nearest of `components`
    of them, drawn from `seed`.

    Raises:
        ValueError: if there are fewer codes than components.
    """
    if not 1 <= components <= len(codes):
        raise ValueError(f"components must be 1 to {len(codes)}, got {components}")
    codes = codes.double()
    generator = torch.Generator().manual_seed(seed)
    first = codes[torch.randperm(len(codes), generator=generator)[:components]]
    nearest = torch.cdist(codes, first).argmin(dim=1)
    mixture = Mixture(components, codes.shape[1]).double()
    mixture.maximise(codes, nn.functional.one_hot(nearest, components).double())
    for _ in range(ROUNDS if components > 1 else 0):
        mixture.maximise(codes, mixture.log_densities(codes).softmax(dim=1))
    return mixture.float()


class Priors(nn.Module):
    """The distributions fitted to one model's codes, by the names in PRIORS."""

    def __init__(self, of, dim, components):
        super().__init__()
        self.args = {"of": of, "dim": dim, "components": components}
        self.gaussian, self.gmm = Mixture(1, dim), Mixture(components, dim)

    @property
    def name(self):
        return f"prior_{self.args['of']}"


def fit_priors(of, codes):
    """Fit a Gaussian and a mixture to a model's codes (N, D) -> Priors.

    of: the model's short name. Few codes get fewer components.
    """
    components = max(1, min(COMPONENTS, len(codes) // PER_COMPONENT))
    priors = Priors(of, codes.shape[1], components)
    priors.gaussian = fit_mixture(codes, 1)
    priors.gmm = fit_mixture(codes, components)
    return priors


def fitted_to(about):
    """Return what tells one training's weights from another's, by their description."""
    return {key: about.get(key) for key in ("seed", "epoch", "valid_loss")}


def load_prior(name, model, about, weights):
    """Return the function that draws codes, count -> (count, D), by a prior's name.

    The fitted ones are in a file beside the model's `weights`, whose description is
    `about`; "normal" needs none.

    Raises:
        UserError: if that file is missing, damaged, or belongs to other weights.
    """
    dim = model.args["encoding_dim"]
    if name == "normal":
        return lambda count: torch.randn(count, dim)
    path = Path(weights).with_name(weights_name(f"prior_{model.name}"))
    again = "train again: python train_script.py --model " + model.name
    if not path.is_file():
        raise UserError(
            f"{path} is missing, which --prior {name} needs; {again}, "
            f"with codes of at most {MOST_NUMBERS} numbers"
        )
    state, facts = load_checkpoint(path)
    if facts.get("fitted_to") != fitted_to(about) or facts.get("model") != (
        f"prior_{model.name}"
    ):
        raise UserError(f"{path} was not fitted to the codes of {weights}; {again}")
    components = state["gmm.shares"].numel() if "gmm.shares" in state else 1
    with torch.device("meta"):  # no memory, whatever sizes the file claims
        check_fit(Priors(model.name, dim, components), state, path)
    priors = Priors(model.name, dim, components)
    priors.load_state_dict(state)
    return getattr(priors, name).sample


@torch.no_grad()
def encode(model, images, draw=True, batch_size=256):
    """Images (N, 3, H, W) in [0, 1] -> codes (N, D).

    Of a Gaussian encoder a draw, or its mean.
    """
    parts = []
    for batch in images.split(batch_size):
        code = model.encoder(batch)
        if isinstance(code, tuple):
            code = model.reparameterize(*code) if draw else code[0]
        parts.append(code)
    return torch.cat(parts)


def linear(start, end, steps):
    """Codes (D,) -> codes (steps, D) on the straight line, both ends included."""
    t = torch.linspace(0, 1, steps)[:, None]
    return (1 - t) * start + t * end


def spherical(start, end, steps):
    """Codes (D,) -> codes (steps, D) on the arc about 0, both ends included.

    Shoemake 1985; keeps the length of codes that are alike in length, as draws of
    N(0, I) are (White 2016, arXiv:1609.04468). Codes on one line are joined by it.
    """
    cosine = torch.cosine_similarity(start, end, dim=0).clamp(-1, 1)
    angle = torch.acos(cosine)
    if torch.sin(angle) < 1e-2:
        return linear(start, end, steps)
    t = torch.linspace(0, 1, steps)[:, None]
    ways = torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end
    return ways / torch.sin(angle)
