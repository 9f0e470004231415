"""Part 4: a denoising diffusion model (DDPM; Ho et al. 2020, arXiv:2006.11239).

Photos are drowned in noise over 300 steps; a network learns to see the noise in them;
sampling starts at pure noise and takes it away again, step by step.

python diffusion.py > log/train_diffusion.out
"""

from utils.experiment import within
from utils.optim.factory import prepare_training

if __name__ == "__main__":  # refuse a wrong command before torch loads
    from utils.cli.arguments import diffusion_line
    from utils.cli.process import begin

    begin()
    diffusion_line(__doc__).parse_args()
    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

import time
from dataclasses import asdict

import torch
import torch.nn.functional as F

from utils.diffusion.denoiser import Denoiser, training_loss

num_steps = 300
beta_min, beta_max = 1e-4, 5e-2  # variance of the noise added in a step
PICTURE_EVERY = 10  # epochs
PICTURE_IMAGES = 20  # samples on a picture
STRIP_FRAMES = 10  # of the denoising strip, noise and finished image included


def noise_tables(n_steps):
    """Return the schedule's tables by the paper's names, each (n_steps,) in float32.

    Step t = 0 .. n_steps - 1 adds noise of variance betas[t]; alphas_bar[t] is the
    share of the photo's variance left after it (equation 4). Computed in float64.
    """
    u = torch.linspace(-6, 6, n_steps, dtype=torch.float64)
    betas = beta_min + (beta_max - beta_min) * torch.sigmoid(u)
    alphas_bar = torch.cumprod(1 - betas, dim=0)
    tables = {
        "betas": betas,
        "alphas": 1 - betas,
        "alphas_sqrt": (1 - betas).sqrt(),
        "alphas_bar": alphas_bar,
        "alphas_bar_sqrt": alphas_bar.sqrt(),
        "one_minus_alphas_bar_sqrt": (1 - alphas_bar).sqrt(),
    }
    return {name: table.float() for name, table in tables.items()}


# The starter kit's names for the default schedule.
betas, alphas, alphas_sqrt, alphas_bar, alphas_bar_sqrt, one_minus_alphas_bar_sqrt = (
    noise_tables(num_steps).values()
)


class Diffuser(Denoiser):
    """Predicts the noise in a noised image, and samples by taking it away.

    Images are (B, C, H, W) in [-1, 1], of any size. `species` (B,), where it is given,
    counts from 0; without it the model answers for flowers of any kind. The schedule's
    tables are buffers, so that they follow the model to its device, and not part of its
    state_dict. The kit's x_t is utils.denoiser's x_0 + level * noise, scaled down to
    the variance of x_0 and noise.
    """

    def __init__(self, n_steps, img_channels=3, name="diffusion", **network):
        super().__init__(img_channels, **network)
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, got {n_steps}")
        self.n_steps, self.name = n_steps, name
        args = {"n_steps": n_steps, "img_channels": img_channels, "name": name}
        self.args = args | network
        for table_name, table in noise_tables(n_steps).items():
            self.register_buffer(table_name, table, persistent=False)
        levels = self.one_minus_alphas_bar_sqrt / self.alphas_bar_sqrt  # noise / signal
        self.register_buffer("levels", levels, persistent=False)

    def rates(self, t):
        """Steps (B,) -> what is left of the photo, and the noise: 2 x (B, 1, 1, 1)."""
        tables = self.alphas_bar_sqrt, self.one_minus_alphas_bar_sqrt
        return [table[t].view(-1, 1, 1, 1) for table in tables]

    def forward(self, x, t, species=None):
        """Noised images (B, C, H, W) and steps (B,), from 0 -> the noise in them."""
        signal_rate, noise_rate = self.rates(t)
        x_0 = self.denoise(x / signal_rate, self.levels[t], species)
        return (x - signal_rate * x_0) / noise_rate

    def noised(self, x_0, t, noise):
        """Draw x_t given x_0, the forward process in one go (equation 4).

        x_0, noise: (B, C, H, W); t: (B,) steps -> (B, C, H, W).
        """
        signal_rate, noise_rate = self.rates(t)
        return signal_rate * x_0 + noise_rate * noise

    def posterior(self, x_0, x, t):
        """Mean (B, C, H, W) and standard deviation of x_{t-1} given x_t and x_0.

        Equation 7; t is an int. Before step 0 there is the photo itself.
        """
        before = self.alphas_bar[t - 1] if t else torch.ones_like(self.alphas_bar[0])
        left = self.one_minus_alphas_bar_sqrt[t] ** 2  # variance of the noise in x_t
        mean = before.sqrt() * self.betas[t] / left * x_0
        mean = mean + self.alphas_sqrt[t] * (1 - before) / left * x
        return mean, ((1 - before) / left * self.betas[t]).sqrt()

    @torch.no_grad()
    def p_theta_sampling(self, x, t):
        """Take one step back, from x_t to x_{t-1} (Algorithm 2); t is an int.

        The photo that the noise implies is clipped to [-1, 1], as in the authors' code.
        """
        steps = torch.full((len(x),), t, device=x.device)  # (B,)
        noise = self(x, steps)
        x_0 = (x - self.one_minus_alphas_bar_sqrt[t] * noise) / self.alphas_bar_sqrt[t]
        mean, deviation = self.posterior(x_0.clamp(-1, 1), x, t)
        return mean + deviation * torch.randn_like(x) if t > 0 else mean

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
        x = torch.randn(shape, device=self.betas.device)
        return list(self.states(x, n_steps))

    def save(self, path):
        """Save the weights as a bare state_dict; makes the folder."""
        from utils.checkpoint import prepare_target, save_checkpoint

        prepare_target(path)
        save_checkpoint(path, self)


def diffusion_loss_fn(model, x_0):
    """Mean squared error of the predicted noise at uniform steps -> scalar.

    Equation 14 of Ho et al. 2020, a mean over batch and pixels. x_0: (B, C, H, W) in
    [-1, 1].
    """
    t = torch.randint(model.n_steps, (len(x_0),), device=x_0.device)  # (B,)
    noise = torch.randn_like(x_0)
    return F.mse_loss(model(model.noised(x_0, t, noise), t), noise)


def visualize_sampling(
    model, sample_shape, n_steps, save_path, title="diffusion", how=None, species=None
):
    """Sample images and save the way there: ten frames, and the finished images.

    By the ancestral chain, or `how` utils.sampling says (its `Sampling`), in n_steps.
    """
    from utils.diffusion.sampling import sampled_states
    from utils.figures import save_strip

    model.eval()
    x = torch.randn(sample_shape, device=model.betas.device)
    if how is None:
        states = model.states(x, n_steps)
    else:
        states = sampled_states(model, x, how._replace(steps=n_steps), species)
    shown = torch.linspace(0, n_steps, STRIP_FRAMES).round().int().tolist()
    frames = {i: state for i, state in enumerate(states) if i in shown}
    images = [(frames[step] + 1) / 2 for step in shown]  # [-1, 1] -> [0, 1]
    save_strip(images, shown, save_path, title)


def build(settings, species, name):
    """Return the model that the settings describe, for a number of species."""
    model = Diffuser(
        num_steps,
        name=name,
        widths=settings.widths,
        blocks=settings.blocks,
        species=species,
        objective=settings.objective,
        dropout=settings.dropout,
    )
    if settings.precision != "auto":
        model.network.bfloat16 = settings.precision == "bf16"
    return model


def draw(model, about, seed, path, title):
    """Sample under `seed` and save the picture; training's randomness is untouched."""
    from utils.device import fixed_noise
    from utils.diffusion.sampling import drawn_species, usual_sampling

    how, size = usual_sampling(about), about["settings"]["image_size"]
    with fixed_noise(seed):
        species = drawn_species(about["species_shares"], PICTURE_IMAGES)
        species = species.to(model.betas.device)
        shape = (PICTURE_IMAGES, 3, size, size)
        visualize_sampling(model, shape, how.steps, path, title, how, species)


def draw_results(model, out, seed):
    """Draw samples of the best weights that were saved, and the curves of losses."""
    from utils.checkpoint import load_checkpoint, weights_name
    from utils.figures import caption, save_curves

    name = model.name
    weights, about = load_checkpoint(out / "models" / weights_name(name))
    model.load_state_dict(weights, strict=True)
    path, title = out / "vis" / f"random_images_{name}", caption(name, "samples", about)
    draw(model, about, seed, path, title)
    title = caption(name, model.objective, about)
    save_curves(out / "log" / f"{name}.csv", out / "vis" / f"loss_{name}.png", title)


def main(argv=None):
    from utils.cli.arguments import diffusion_line
    from utils.config import settings_for

    started, args = time.monotonic(), diffusion_line(__doc__).parse_args(argv)
    settings = settings_for(args, args.model)

    from utils.device import set_seeds
    from utils.experiment import Pace, start_training
    from utils.train import training_epochs

    set_seeds(args.seed)
    device, loaders, about = start_training(args, settings, args.model)
    print(f"using device {device}", flush=True)
    data = loaders[0].dataset
    model = build(settings, len(data.classes), args.model)
    model.to(device, memory_format=torch.channels_last)
    if args.budget:
        left = args.budget - (time.monotonic() - started)
        settings = within(left, settings, model, loaders[0])
    about |= {"settings": asdict(settings), "species_shares": data.species_shares()}
    steps = settings.epochs * len(loaders[0])
    averaged, *way = prepare_training(settings, model, steps)
    epochs = training_epochs(
        *way,
        model,
        loaders,
        training_loss(settings),
        num_epochs=settings.epochs,
        patience=settings.patience,
        device=device,
        model_save_root=args.out / "models",
        log_path=args.out / "log" / f"{args.model}.csv",
        about=about,
        averaged=averaged,
        check_every=PICTURE_EVERY,
    )
    judged, pace = averaged.module if averaged else model, Pace(len(data), settings)
    for number, train_loss, *_ in epochs:
        done = f"{number + 1}/{settings.epochs}"
        print(f"Epoch: {done}, Train Loss: {train_loss:.4f}", flush=True)
        pace.after(number + 1)
        if (number + 1) % PICTURE_EVERY == 0:
            path = args.out / "vis" / f"random_images_{args.model}_epoch_{number + 1}"
            draw(judged, about, args.seed, path, f"{args.model}: epoch {done}")
    draw_results(judged, args.out, args.seed)


if __name__ == "__main__":
    from utils.cli import run

    run(main)
