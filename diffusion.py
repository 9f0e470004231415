"""Part 4: a denoising diffusion model (DDPM; Ho et al. 2020, arXiv:2006.11239).

Adds Gaussian noise over 300 steps; a network is trained to predict it; sampling starts
at pure noise and removes it step by step.

python diffusion.py > log/train_diffusion.out
python diffusion.py --model diffusion_ddpm > log/train_diffusion_ddpm.out

The last command trains the assignment's DDPM. The others train by flow matching: the
same network and the same loss, with other noise levels and another weighting.
"""

import time
from dataclasses import asdict, fields, replace
from functools import partial

from utils.cli import guard, leads, run
from utils.cli.arguments import command_line
from utils.config import ELSEWHERE, TRAINED_MODELS, DiffusionSettings, settings_for

FLAGS = "--model --preset --resume --budget --species --seed --split-seed --data"
FLAGS += " --strict-data --cache --device --tensorboard --out"


def parse(argv=None):
    """Return (checked command line, settings of the training)."""
    parser = command_line(
        __doc__,
        *FLAGS.split(),
        settings=fields(DiffusionSettings),
        choices={"--model": TRAINED_MODELS},
        elsewhere=ELSEWHERE,
        **{"model": "diffusion", "seed": None, "split_seed": None},
    )
    args = parser.parse_args(argv)
    return args, settings_for(args, args.model)


if __name__ == "__main__":
    guard(parse)

import torch
import torch.nn.functional as F

from utils.checkpoint import save_checkpoint, weights_name
from utils.checkpoint.guide import load_best, save_guide
from utils.checkpoint.resume import training_session
from utils.device import fork_rng, set_seeds
from utils.diffusion import sampling
from utils.diffusion.denoiser import Denoiser, draw_sigma, training_target
from utils.distributed import lead, make_trainer, process_group, start_together
from utils.experiment import start_training, with_budget
from utils.figures import caption, save_curves, save_strip, strip_frames
from utils.files import prepare_target
from utils.optim.factory import prepare_training
from utils.tensorboard import open_board

num_steps, beta_min, beta_max = 300, 1e-4, 5e-2  # a beta: variance that a step adds
PICTURE_EVERY, PICTURE_IMAGES = 10, 20  # epochs; samples on a picture

# The noise schedule ------------------------------------------------------------------


def noise_tables(n_steps):
    """Return the schedule's tables by the paper's names, each (n_steps,) in float32.

    Step t = 0 .. n_steps - 1 adds noise of variance betas[t]; alphas_bar[t] is the
    proportion of the photo's variance that remains after it (equation 4).
    """
    u = torch.linspace(-6, 6, n_steps, dtype=torch.float64, device="cpu")
    betas = beta_min + (beta_max - beta_min) * torch.sigmoid(u)
    alphas, alphas_bar = 1 - betas, torch.cumprod(1 - betas, dim=0)
    tables = {
        "betas": betas,
        "alphas": alphas,
        "alphas_sqrt": alphas.sqrt(),
        "alphas_bar": alphas_bar,
        "alphas_bar_sqrt": alphas_bar.sqrt(),
        "one_minus_alphas_bar_sqrt": (1 - alphas_bar).sqrt(),
    }
    return {name: table.float() for name, table in tables.items()}


# The starter kit's names for the default schedule.
betas, alphas, alphas_sqrt, alphas_bar, alphas_bar_sqrt, one_minus_alphas_bar_sqrt = (
    noise_tables(num_steps).values()
)

# The model ---------------------------------------------------------------------------


class Diffuser(Denoiser):
    """Predicts the noise in a noised image, and samples by removing it step by step.

    Images are (B, C, H, W) in [-1, 1], of any size. Labels (B,) count from 0; without
    them the model is unconditional. network: arguments of the Denoiser, whose x_0 +
    sigma * noise is the paper's x_t / sqrt(alphas_bar[t]) with sigma = sigmas[t].

    Raises:
        ValueError: if `n_steps` is below 1, or there is no such objective.
    """

    def __init__(
        self, n_steps, img_channels=3, name="diffusion", bfloat16=None, **network
    ):
        super().__init__(img_channels, bfloat16=bfloat16, **network)
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, got {n_steps}")
        self.n_steps, self.name = n_steps, name
        args = {"n_steps": n_steps, "img_channels": img_channels, "name": name}
        self.args = args | network

        # Buffers follow the model to its device; the state_dict does not have them.
        for table_name, table in noise_tables(n_steps).items():
            self.register_buffer(table_name, table, persistent=False)
        sigmas = self.one_minus_alphas_bar_sqrt / self.alphas_bar_sqrt  # (n_steps,)
        self.register_buffer("sigmas", sigmas, persistent=False)

    def rates(self, t):
        """Return the factors of photo and noise in x_t: (B,) -> two (B, 1, 1, 1)."""
        tables = self.alphas_bar_sqrt, self.one_minus_alphas_bar_sqrt
        return [table[t].view(-1, 1, 1, 1) for table in tables]

    def forward(self, x, t, labels=None):
        """Predict the noise in x_t: (B, C, H, W) and steps (B,) -> (B, C, H, W)."""
        signal_rate, noise_rate = self.rates(t)
        x_0 = self.denoise(x / signal_rate, self.sigmas[t], labels)
        return (x - signal_rate * x_0) / noise_rate

    def noised(self, x_0, t, noise):
        """Return x_t given x_0, the forward process in one step (equation 4)."""
        # x_0, noise: (B, C, H, W); t: (B,) steps -> (B, C, H, W).
        signal_rate, noise_rate = self.rates(t)
        return signal_rate * x_0 + noise_rate * noise

    def posterior(self, x_0, x, t):
        """Return mean (B, C, H, W) and standard deviation of x_{t-1} given x_t and x_0.

        Equation 7; t is an int. x_{-1} is the photo itself.
        """
        # alphas_bar before step t; before the first step it is 1.
        before = self.alphas_bar[t - 1] if t else torch.ones_like(self.alphas_bar[0])
        variance = self.one_minus_alphas_bar_sqrt[t] ** 2  # of the noise in x_t
        mean = before.sqrt() * self.betas[t] / variance * x_0
        mean = mean + self.alphas_sqrt[t] * (1 - before) / variance * x
        return mean, ((1 - before) / variance * self.betas[t]).sqrt()

    @torch.no_grad()
    def p_theta_sampling(self, x, t):
        """Sample x_{t-1} from x_t (Algorithm 2); t is an int.

        The predicted photo is clipped to [-1, 1], as in the code of Ho et al.
        """
        # The photo that the predicted noise implies.
        noise = self(x, torch.full((len(x),), t, device=x.device))
        x_0 = (x - self.one_minus_alphas_bar_sqrt[t] * noise) / self.alphas_bar_sqrt[t]
        mean, std = self.posterior(x_0.clamp(-1, 1), x, t)
        return mean + std * torch.randn_like(x) if t > 0 else mean

    def states(self, x, n_steps):
        """Yield x_T, ..., x_0 in [-1, 1] (Algorithm 2), holding one state at a time."""
        if not 1 <= n_steps <= self.n_steps:
            raise ValueError(f"n_steps must be 1 to {self.n_steps}, got {n_steps}")
        yield x
        for t in reversed(range(n_steps)):
            x = self.p_theta_sampling(x, t)
            yield x

    def sample(self, shape, n_steps):
        """Return all n_steps + 1 states (B, C, H, W), from noise to finished images."""
        self.eval()
        x = torch.randn(shape).to(self.betas.device)
        return list(self.states(x, n_steps))

    def save(self, path):
        """Save the weights as a bare state_dict; makes the folder."""
        save_checkpoint(prepare_target(path), self)


def build(settings, num_classes, name):
    """Return the untrained model that the settings describe."""
    return Diffuser(
        num_steps,
        name=name,
        channels=settings.channels,
        num_blocks=settings.num_blocks,
        num_classes=num_classes,
        objective=settings.objective,
        dropout=settings.dropout,
        patch=settings.patch,
        bfloat16={"auto": None, "bf16": True, "fp32": False}[settings.precision],
    )


# The loss ----------------------------------------------------------------------------


def diffusion_loss_fn(model, x_0, labels=None, *, sigma=None, weight="eps"):
    """Return the denoising loss, a mean over batch and pixels: a scalar.

    `diffusion_loss_fn(model, x_0)` is the loss of DDPM (Ho et al. 2020, equation 14):
    the squared error of the predicted noise at uniform steps. The keywords choose how
    noise levels are drawn and weighted, which is all in which flow matching differs
    (Kingma & Gao 2023, arXiv:2303.00848): with x = x_0 + sigma * n, the squared error
    of the velocity n - x_0 is (1 + sigma)^2 / sigma^2 times that of the estimated x_0,
    and (1 + sigma)^2 times that of the estimated noise (sigma, x_0 in units of the
    data's deviation). `python diffusion.py` trains by that weight, "flow".

    x_0: (B, C, H, W) in [-1, 1]; labels: (B,) or None; sigma: noise levels (B,); with
    them, weight: the quantity whose squared error counts, of utils.config.OBJECTIVES.
    """
    if sigma is None:  # Algorithm 1
        t = torch.randint(model.n_steps, (len(x_0),), device=x_0.device)  # (B,)
        noise = torch.randn_like(x_0)
        return F.mse_loss(model(model.noised(x_0, t, noise), t, labels), noise)
    noise = torch.randn_like(x_0)
    x = x_0 + sigma.view(-1, 1, 1, 1) * noise  # x_t / sqrt(alphas_bar_t)
    prediction = model.predict(weight, x, sigma, labels)
    return F.mse_loss(prediction, training_target(weight, x_0, noise, sigma))


def training_loss(settings):
    """Return loss(model, images (B, C, H, W) in [0, 1], labels (B,)) -> scalar."""

    def loss(model, images, labels):
        x_0, labels = 2 * images - 1, labels.to(images.device)
        sigma = draw_sigma(settings, len(x_0), model.sigmas)
        # Without labels at times, for guidance (Ho & Salimans 2022, arXiv:2207.12598).
        if model.training:
            dropped = torch.rand(len(x_0), device=x_0.device) < settings.label_dropout
            labels = labels.masked_fill(dropped, model.network.null_label)
        options = {"sigma": sigma, "weight": settings.objective}
        return diffusion_loss_fn(model, x_0, labels, **options)

    return loss


# Sampling ----------------------------------------------------------------------------


def visualize_sampling(
    model, sample_shape, n_steps, save_path, title="diffusion", config=None, labels=None
):
    """Sample images, and save ten of the states and the finished images.

    By the ancestral sampler, or by `config`, a utils.config.SamplerConfig, in n_steps.
    """
    model.eval()
    x, sigmas = torch.randn(sample_shape).to(model.betas.device), None
    if config is None:
        states = model.states(x, n_steps)
    else:
        config = replace(config, steps=n_steps)
        states = sampling.sample_states(model, x, config, labels)
        sigmas = sampling.free_sigmas(model, config)
    save_strip(*strip_frames(states, n_steps, sigmas), save_path, title)


def save_samples(model, metadata, seed, path, title):
    """Save a picture of samples from `seed`; training's random state is unchanged."""
    # Species in the proportions of the training photos.
    config = sampling.default_sampler_config(metadata)
    size = metadata["settings"]["image_size"]
    with fork_rng(seed):
        labels = sampling.draw_labels(metadata["class_proportions"], PICTURE_IMAGES)
        shape = (PICTURE_IMAGES, 3, size, size)
        visualize_sampling(model, shape, config.steps, path, title, config, labels)


# The training ------------------------------------------------------------------------


@process_group()
def main(argv=None):
    started = time.monotonic()
    args, settings = parse(argv)
    sampling.check_sampler(settings, one_minus_alphas_bar_sqrt / alphas_bar_sqrt)
    with training_session(args, settings) as run, open_board(args) as board:
        run_training(args, *run, board, started)


def run_training(args, settings, state, board, started):
    """Train, and draw samples of the best weights; state: of a resumed run."""
    name, vis, folder = args.model, args.out / "vis", args.out / "models"
    csv_path = args.out / "log" / f"{name}.csv"

    # The data and the model.
    set_seeds(args.seed)
    device, loaders, metadata = start_together(start_training, args, settings, state)
    print(f"using device {device}", flush=True)
    data, loss = loaders[0].dataset, training_loss(settings)
    make = partial(build, num_classes=len(data.classes), name=name)
    if args.budget and not state:  # a resumed run has its settings
        settings = lead(with_budget, args, settings, started, make, loaders[0], loss)
    model = make(settings).to(device, memory_format=torch.channels_last)
    metadata["settings"] = asdict(settings)
    metadata["class_proportions"] = data.class_proportions()

    # The optimizer and the loop.
    total, steps = settings.epochs, settings.epochs * len(loaders[0])
    optimizer, scheduler, ema = prepare_training(settings, model, steps)
    trainer = make_trainer(optimizer, scheduler, model, loaders, loss, device, ema=ema)
    stopping = (total, settings.patience, PICTURE_EVERY)
    for epoch in trainer.fit(folder, *stopping, csv_path, metadata, resumed=state):
        done = epoch.number + 1
        print(f"Epoch: {done}/{total}, Train Loss: {epoch.train_loss:.4f}", flush=True)
        board.scalars(epoch)
        if epoch.restored or not leads():
            continue
        if settings.guide_at and done == max(1, round(settings.guide_at * total)):
            save_guide(folder, trainer.eval_model, metadata)
        if done % PICTURE_EVERY == 0:
            path = vis / f"random_images_{name}_epoch_{done}.png"
            title = f"{name}: epoch {done}/{total}"
            save_samples(trainer.eval_model, metadata, args.seed, path, title)
            board.picture("samples", path, done)

    if not leads():
        return
    # Pictures of the best weights, with their guide, and of the losses.
    best, path = trainer.eval_model, folder / weights_name(name)
    metadata = load_best(best, partial(make, settings), path)
    title = caption(name, "samples", metadata)
    save_samples(best, metadata, args.seed, vis / f"random_images_{name}", title)
    title = caption(name, model.objective, metadata)
    save_curves(csv_path, vis / f"loss_{name}.png", title, "mean squared error")


if __name__ == "__main__":
    run(main)
