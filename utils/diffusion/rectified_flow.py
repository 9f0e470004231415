"""Rectified flow: straight trajectories between a model's own noise and images.

Liu et al. 2022, arXiv:2209.03003, section 2. The probability-flow ODE maps each noise
to one image. A model that is trained on the straight lines between the two has nearly
straight trajectories, which few Euler steps can follow.

A line is x = image + sigma * noise. It starts at x = SIGMA_MAX * (the drawn noise),
where samplers start, so its `noise` is the drawn one minus image / SIGMA_MAX.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from utils.cli.progress import TimeEstimate, bar
from utils.diffusion.denoiser import stratified_uniform, training_target
from utils.diffusion.samplers import SAMPLERS, dpm_solver_3m
from utils.diffusion.sampling import (
    BATCH_SIZE,
    SIGMA_MAX,
    SIGMA_MIN,
    draw_labels,
    sample_states,
)

VALIDATION = 0.1  # proportion of the couplings
LABEL_DROPOUT = 0.1  # proportion of the couplings with the null label
FIRST = 0.3  # proportion of the times in training that are where samplers start
TRAJECTORY_STEPS = 64  # evaluations along a trajectory, at even times
TRAJECTORY_SIGMA_MIN = 0.01  # where trajectories end; lower than for samples

# Couplings of noise and image --------------------------------------------------------


def draw_coupling_labels(proportions, null_label, count):
    """Draw labels (count,) int64, some of which are the null label."""
    # proportions: of each class among the photos, or None. The model maps the same
    # noise and the null label to another image, so labels are dropped before sampling.
    if not proportions:
        return torch.full((count,), null_label)
    dropped = torch.rand(count) < LABEL_DROPOUT
    return draw_labels(proportions, count).masked_fill(dropped, null_label)


def draw_couplings(model, config, labels, size):
    """Draw noise and the image that the ODE maps it to -> (N, 2, 3, size, size)."""
    # [:, 0] is the noise of the line, [:, 1] the image, about [-1, 1], not clipped; on
    # the CPU. labels: (N,) int64.
    # Raises ValueError if the sampler adds noise, and so follows no ODE.
    if SAMPLERS[config.sampler].adds_noise or config.eta:
        raise ValueError(
            f"couplings need a sampler that adds no noise, got {config.sampler}"
        )
    couplings = torch.empty(len(labels), 2, 3, size, size)
    estimate = TimeEstimate("couplings", len(labels) * (config.steps + 1))
    for start in bar(range(0, len(labels), BATCH_SIZE), "couplings"):
        batch = couplings[start : start + BATCH_SIZE]
        batch_labels = labels[start : start + BATCH_SIZE]
        noise = torch.randn(len(batch), 3, size, size)
        for state in sample_states(model, noise, config, batch_labels):
            image = state
            estimate.add(len(batch))
        image = image.cpu()
        batch[:, 0], batch[:, 1] = noise - image / SIGMA_MAX, image
    return couplings


def rectified_flow_loss(model, couplings, labels):
    """Return the mean squared error of the network's output along lines: a scalar."""
    # couplings: (B, 2, 3, H, W), of `draw_couplings`; labels: (B,). Times t = sigma /
    # (1 + sigma) are uniform, but for FIRST of them at SIGMA_MAX: all that a sample in
    # one evaluation depends on.
    noise, image = couplings.unbind(dim=1)  # each (B, 3, H, W)
    last, first = (sigma / (1 + sigma) for sigma in (SIGMA_MIN, SIGMA_MAX))
    place = stratified_uniform(len(image), image.device) / (1 - FIRST)
    time = last + (first - last) * place.clamp(max=1)
    sigma, labels = time / (1 - time), labels.to(image.device)
    x = image + sigma.view(-1, 1, 1, 1) * noise
    output = model.model_output(x, sigma, labels)
    return F.mse_loss(output, training_target(model.objective, image, noise, sigma))


class MirroredCouplings(TensorDataset):
    """Couplings and labels, of which half are mirrored at random.

    A model that was trained on flipped photos maps mirrored noise to nearly the
    mirrored image, so these are couplings too.
    """

    def __getitem__(self, indices):
        couplings, labels = super().__getitem__(indices)
        shape = -1, *[1] * (couplings.dim() - 1)
        mirrored = torch.rand(len(couplings)).view(shape) < 0.5
        return torch.where(mirrored, couplings.flip(-1), couplings), labels


def coupling_loaders(couplings, labels, batch_size, seed, hflip=False):
    """Return (training, validation) loaders of batches (couplings, labels)."""
    # The last couplings are the validation set; `seed` shuffles the others, of which
    # `hflip` mirrors half.
    cut = len(couplings) - max(1, round(VALIDATION * len(couplings)))
    kind = MirroredCouplings if hflip else TensorDataset
    training = kind(couplings[:cut], labels[:cut])
    validation = TensorDataset(couplings[cut:], labels[cut:])
    generator = torch.Generator().manual_seed(seed)
    shuffled = RandomSampler(training, generator=generator)
    return tuple(
        DataLoader(dataset, None, sampler=BatchSampler(order, batch_size, False))
        for dataset, order in (
            (training, shuffled),
            (validation, range(len(validation))),
        )
    )


# Straightness of trajectories --------------------------------------------------------


class Trajectories(NamedTuple):
    """Trajectories of B images at T times, in the coordinates of flow matching."""

    # z = x / (1 + sigma), t = sigma / (1 + sigma): noise z_1 at t = 1, image z_0 at 0.

    times: torch.Tensor  # (T,), falling from 1 to 0
    points: torch.Tensor  # (T, B, C, H, W)
    velocities: torch.Tensor  # (T, B, C, H, W), dz / dt = noise - image


def trajectories(denoise, noise, steps=TRAJECTORY_STEPS):
    """Solve the ODE from noise (B, C, H, W) -> Trajectories with T = steps + 2."""
    # The noise is on the denoiser's device, and the result on the CPU.
    # denoise(x, sigma: float) estimates the image in x. Beyond the highest and the
    # lowest sigma trajectories are continued as straight lines.
    ends = [sigma / (1 + sigma) for sigma in (SIGMA_MAX, TRAJECTORY_SIGMA_MIN)]
    times = torch.linspace(*ends, steps, dtype=torch.float64)
    sigmas = [*(times / (1 - times)).tolist(), 0.0]
    points, velocities = [], []

    # The solver calls the denoiser once per time; record what it sees.
    def recording_denoise(x, sigma):
        denoised = denoise(x, sigma)
        points.append(x / (1 + sigma))
        velocities.append((x - denoised) / sigma - denoised)
        return denoised

    *_, images = dpm_solver_3m(recording_denoise, sigmas[0] * noise, sigmas)
    # The straight continuation to t = 1.
    first = points[0] + (1 - ends[0]) * velocities[0]
    return Trajectories(
        torch.cat([torch.ones(1), times.float(), torch.zeros(1)]),
        torch.stack([first, *points, images]).cpu(),
        torch.stack([velocities[0], *velocities, velocities[-1]]).cpu(),
    )


def deviation_from_straight(found):
    """Return the squared distance of the velocity from z_1 - z_0 at each time: (T,)."""
    # found: Trajectories. A mean over images and pixel values.
    chord = found.points[0] - found.points[-1]
    return (chord - found.velocities).square().flatten(1).mean(dim=1)


def straightness(found):
    """Return the integral of `deviation_from_straight` over time; 0 if straight."""
    # S(Z) of Liu et al. 2022, section 2.2, per pixel value.
    return -torch.trapezoid(deviation_from_straight(found), found.times).item()
