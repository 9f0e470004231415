"""Part 4: a denoising diffusion model (DDPM; Ho et al. 2020, arXiv:2006.11239).

Photos are drowned in noise over 300 steps; a network learns to see the noise in them;
sampling starts at pure noise and takes it away again, step by step.

python diffusion.py > log/train_diffusion.out
"""

if __name__ == "__main__":  # refuse a wrong command before torch loads
    from utils.cli import begin
    from utils.flags import diffusion_line

    begin()
    diffusion_line(__doc__).parse_args()
    import numpy  # noqa: F401  (inside torch's own import it would swallow a Ctrl-C)

import torch
import torch.nn.functional as F
from torch import nn

from utils.unet import UNet

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


def step_density(alphas_bar, uniform=0.05):
    """Return how often training draws each step, (n_steps,), with sum 1.

    Normal in log(noise rate / signal rate), with mean 0 and deviation 1: most often
    the middling noise that settles an image's shapes (logit-normal times; Esser et al.
    2024, arXiv:2403.03206). A share is `uniform`, so that no step is forgotten.
    """
    level = -torch.logit(alphas_bar.double()) / 2  # log(noise rate / signal rate)
    spacing = torch.diff(level, append=level[-1:])  # the last step counts by `uniform`
    weights = torch.exp(-(level**2) / 2) * spacing + 1e-12
    weights = (1 - uniform) * weights / weights.sum() + uniform / len(weights)
    return weights.float()


# The starter kit's names for the default schedule.
betas, alphas, alphas_sqrt, alphas_bar, alphas_bar_sqrt, one_minus_alphas_bar_sqrt = (
    noise_tables(num_steps).values()
)


class Diffuser(nn.Module):
    """Predicts the noise in a noised image, and samples by taking it away.

    Images are (B, C, H, W) in [-1, 1], of any size. The schedule's tables are buffers,
    so that they follow the model to its device, and not part of its state_dict.
    """

    def __init__(self, n_steps, img_channels=3):
        super().__init__()
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, got {n_steps}")
        self.args = {"n_steps": n_steps, "img_channels": img_channels}
        self.n_steps = n_steps
        for name, table in noise_tables(n_steps).items():
            self.register_buffer(name, table, persistent=False)
        density = step_density(self.alphas_bar)
        self.register_buffer("step_density", density, persistent=False)
        self.network = UNet(img_channels)

    @property
    def name(self):
        return "diffusion"

    def rates(self, t):
        """Steps (B,) -> what is left of the photo, and the noise: 2 x (B, 1, 1, 1)."""
        tables = self.alphas_bar_sqrt, self.one_minus_alphas_bar_sqrt
        return [table[t].view(-1, 1, 1, 1) for table in tables]

    def forward(self, x, t):
        """Noised images (B, C, H, W) and steps (B,), from 0 -> the noise in them.

        The network predicts the velocity, signal_rate * noise - noise_rate * x_0
        (Salimans & Ho 2022, appendix D): where x is nearly all noise it need not copy
        that noise, only see what little of the photo is left.
        """
        signal_rate, noise_rate = self.rates(t)
        return noise_rate * x + signal_rate * self.network(x, t)

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


def velocity_loss_fn(model, x_0):
    """Mean squared error of the predicted velocity, steps by `step_density` -> scalar.

    What the training minimises: the noise's error weighted by 1 / alphas_bar[t].
    x_0: (B, C, H, W) in [-1, 1].
    """
    t = torch.multinomial(model.step_density, len(x_0), replacement=True)  # (B,)
    noise = torch.randn_like(x_0)
    signal_rate, noise_rate = model.rates(t)
    velocity = signal_rate * noise - noise_rate * x_0
    return F.mse_loss(model.network(model.noised(x_0, t, noise), t), velocity)


def training_loss(model, images):
    """Velocity loss of images (B, C, H, W) in [0, 1] -> scalar.

    The network runs in bfloat16 where the CPU has units for it; weights, noise and loss
    stay float32.
    """
    from utils.runtime import has_bfloat16_units

    fast = has_bfloat16_units(images.device)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=fast):
        return velocity_loss_fn(model, 2 * images - 1)


def visualize_sampling(model, sample_shape, n_steps, save_path, title="diffusion"):
    """Sample images and save the way there: ten frames, and the finished images."""
    from utils.figures import save_strip

    steps = torch.linspace(0, n_steps, STRIP_FRAMES).round().int().tolist()
    model.eval()
    x = torch.randn(sample_shape, device=model.betas.device)
    frames = {i: x for i, x in enumerate(model.states(x, n_steps)) if i in steps}
    shown = [(frames[step] + 1) / 2 for step in steps]  # [-1, 1] -> [0, 1]
    save_strip(shown, steps, save_path, title)


def prepare_training(settings, steps, device):
    """Return (model, its running average, optimizer, scheduler over `steps`)."""
    from utils.ema import running_average
    from utils.optimizers import make_optimizer, make_scheduler

    model = Diffuser(num_steps).to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(settings, model.parameters())
    scheduler = make_scheduler(settings, optimizer, steps)
    return model, running_average(model, settings.ema), optimizer, scheduler


def draw(model, image_size, seed, path, title):
    """Sample under `seed` and save the picture; training's randomness is untouched."""
    from utils.train import fixed_noise

    shape = (PICTURE_IMAGES, 3, image_size, image_size)
    with fixed_noise(seed):
        visualize_sampling(model, shape, model.n_steps, path, title)


def draw_results(model, out, image_size, seed):
    """Draw samples of the best weights that were saved, and the curves of losses."""
    from utils.checkpoint import load_checkpoint, weights_name
    from utils.figures import caption, save_curves

    name, path = model.name, out / "models" / weights_name(model.name)
    weights, about = load_checkpoint(path)
    model.load_state_dict(weights, strict=True)
    about["epoch"] += 1  # this command's log counts from 1
    title = caption(name, f"samples of {model.n_steps} steps", about)
    draw(model, image_size, seed, out / "vis" / f"random_images_{name}", title)
    title = caption(name, "velocity", about)
    save_curves(out / "log" / f"{name}.csv", out / "vis" / f"loss_{name}.png", title)


def main(argv=None):
    from utils.flags import diffusion_line
    from utils.registry import settings_for

    args = diffusion_line(__doc__).parse_args(argv)
    settings = settings_for(args, "diffusion")

    from utils.runtime import set_seeds, start_training
    from utils.train import training_epochs

    set_seeds(args.seed)
    name, vis = "diffusion", args.out / "vis"
    device, loaders, about = start_training(args, settings, name)
    print(f"using device {device}", flush=True)
    model, averaged, optimizer, scheduler = prepare_training(
        settings, settings.epochs * len(loaders[0]), device
    )
    judged, size = averaged.module, settings.image_size
    epochs = training_epochs(
        optimizer,
        scheduler,
        model,
        loaders,
        training_loss,
        num_epochs=settings.epochs,
        patience=settings.patience,
        device=device,
        model_save_root=args.out / "models",
        log_path=args.out / "log" / f"{name}.csv",
        about=about,
        averaged=averaged,
    )
    for number, train_loss, *_ in epochs:
        done = f"{number + 1}/{settings.epochs}"
        print(f"Epoch: {done}, Train Loss: {train_loss:.4f}", flush=True)
        if (number + 1) % PICTURE_EVERY == 0:
            picture = vis / f"random_images_{name}_epoch_{number + 1}"
            draw(judged, size, args.seed, picture, f"{name}: epoch {done}")

    draw_results(judged, args.out, size, args.seed)


if __name__ == "__main__":
    from utils.cli import run

    run(main)
