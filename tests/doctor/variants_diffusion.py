"""Correct completions of part 4 in other styles than this project's, as texts.

VARIANTS: name -> {path in the completion's folder: text}. Each keeps to the starter
kit's names and is written as a student would write it.
"""

SCHEDULER = '''
class exponential_decay:
    """The learning rate of an epoch: lr0 * rate ** (epoch // decay_epochs)."""

    def __init__(
        self, initial_learning_rate=0.001, decay_rate=0.5, decay_epochs=100
    ):
        self.initial_learning_rate = initial_learning_rate
        self.decay_rate = decay_rate
        self.decay_epochs = decay_epochs

    def __call__(self, epoch):
        power = epoch // self.decay_epochs
        return self.initial_learning_rate * self.decay_rate**power
'''

DATA = '''
import torch
from torch.utils.data import DataLoader, random_split
from torchvision import datasets, transforms


def create_flower_dataloaders(batch_size, root, IMG_WIDTH, IMG_HEIGHT, num_worker=0):
    """Return the training and the validation loader of a folder of photos."""
    steps = [transforms.Resize((IMG_HEIGHT, IMG_WIDTH)), transforms.ToTensor()]
    photos = datasets.ImageFolder(root, transforms.Compose(steps))
    count = int(0.8 * len(photos))
    train, valid = random_split(photos, [count, len(photos) - count])
    return DataLoader(train, batch_size, shuffle=True), DataLoader(valid, batch_size)
'''

HEAD = """
import math
import os

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim

from utils.data_processor import create_flower_dataloaders
from utils.scheduler import exponential_decay

np.random.seed(0)
torch.manual_seed(0)

data_root = "./flowers"
model_save_path = "./model/Bestmodel_diffusion.pkl"
vis_root = "./vis"
batch_size = 16
num_epochs = 100
img_channel = 3
img_width, img_height = 24, 24
num_classes = 3
device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"using device {device}")
"""

KIT_TABLES = """
num_steps = 300
beta_min = 1e-4
beta_max = 5e-2
betas = torch.sigmoid(torch.linspace(-6, 6, num_steps, device=device))
betas = betas * (beta_max - beta_min) + beta_min
alphas = 1 - betas
alphas_sqrt = torch.sqrt(alphas)
alphas_bar = torch.cumprod(alphas, 0)
alphas_bar_sqrt = torch.sqrt(alphas_bar)
one_minus_alphas_bar_sqrt = torch.sqrt(1 - alphas_bar)
"""

SAVE = """
    def save(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        torch.save(self.state_dict(), path)
"""

MAIN = """
def visualize_sampling(model, sample_shape, n_steps, save_path, LABELS_IN):
    model.eval()
    x_seq = model.sample(sample_shape, n_steps, LABELS_IN)
    figure, axes = plt.subplots(1, 10, figsize=(15, 5))
    for i, ax in enumerate(axes):
        step = (i + 1) * n_steps // 10
        image = x_seq[step][0].permute(1, 2, 0).cpu().numpy()
        ax.imshow(((image + 1) / 2).clip(0, 1))
        ax.set_title(f"Step {step}")
        ax.axis("off")
    plt.savefig(save_path)
    plt.close(figure)


if __name__ == "__main__":
    train_loader, valid_loader = create_flower_dataloaders(
        batch_size, data_root, img_width, img_height
    )
    model = Diffuser(n_steps=num_steps).to(device)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    scheduler = exponential_decay(1e-3, 0.9, 5)
    os.makedirs(vis_root, exist_ok=True)
    for epoch in range(num_epochs):
        for group in optimizer.param_groups:
            group["lr"] = scheduler(epoch)
        model.train()
        train_losses = []
        for images, labels in train_loader:
            images = 2 * images.to(device) - 1
            labels = labels.to(device)
            loss = diffusion_loss_fn(model, images, LABELS_IN)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            train_losses.append(loss.item())
        avg_train_loss = sum(train_losses) / len(train_losses)
        print(f"Epoch: {epoch+1}/{num_epochs}, Train Loss: {avg_train_loss:.4f}")
    model.save(model_save_path)
    shape = (1, img_channel, img_height, img_width)
    labels = torch.zeros(1, dtype=torch.long, device=device)
    path = os.path.join(vis_root, "random_images_diffusion")
    visualize_sampling(model, shape, num_steps, path, LABELS_IN)
"""

SMALL_UNET = (
    """
class Diffuser(nn.Module):
    def __init__(self, n_steps, img_channels=3):
        super().__init__()
        self.embed = nn.Embedding(n_steps, 64)
        self.mlp = nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64))
        self.enc1 = nn.Conv2d(img_channels, 32, 3, padding=1)
        self.enc2 = nn.Conv2d(32, 64, 3, padding=1)
        self.mid = nn.Conv2d(64, 64, 3, padding=1)
        self.up = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.dec = nn.Conv2d(64, 32, 3, padding=1)
        self.out = nn.Conv2d(32, img_channels, 1)
        self.norm = nn.GroupNorm(8, 64)
        self.drop = nn.Dropout(0.1)

    def forward(self, x, t):
        emb = self.mlp(self.embed(t))[:, :, None, None]
        h1 = F.relu(self.enc1(x))
        h2 = F.relu(self.norm(self.enc2(F.max_pool2d(h1, 2))) + emb)
        h2 = self.drop(F.relu(self.mid(h2))) + h2
        h = F.relu(self.dec(torch.cat([self.up(h2), h1], dim=1)))
        return self.out(h)

    @torch.no_grad()
    def sample(self, shape, n_steps):
        self.eval()
        x_t = torch.randn(shape, device=next(self.parameters()).device)
        x_seq = [x_t]
        for t in reversed(range(n_steps)):
            x_t = self.p_theta_sampling(x_t, t)
            x_seq.append(x_t)
        return x_seq

    def p_theta_sampling(self, x, t):
        step = torch.full((x.size(0),), t, device=x.device, dtype=torch.long)
        eps = self.forward(x, step)
        mean = (x - betas[t] / one_minus_alphas_bar_sqrt[t] * eps) / alphas_sqrt[t]
        if t > 0:
            mean = mean + torch.sqrt(betas[t]) * torch.randn_like(x)
        return mean
"""
    + SAVE
    + """

def diffusion_loss_fn(model, x_0):
    t = torch.randint(0, num_steps, size=(x_0.size(0),), device=device)
    noise = torch.randn_like(x_0)
    a = alphas_bar_sqrt[t].reshape(-1, 1, 1, 1)
    b = one_minus_alphas_bar_sqrt[t].reshape(-1, 1, 1, 1)
    return nn.MSELoss()(model(a * x_0 + b * noise, t), noise)

"""
)

CONDITIONAL_X0 = (
    """
num_steps = 200


def cosine(n_steps, s=0.008):
    x = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64)
    f = torch.cos((x + s) / (1 + s) * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(1e-4, 0.999).float().to(device)


betas = cosine(num_steps)
alphas = 1 - betas
alphas_bar = torch.cumprod(alphas, 0)
alphas_bar_prev = torch.cat([torch.ones(1, device=device), alphas_bar[:-1]])
posterior_variance = betas * (1 - alphas_bar_prev) / (1 - alphas_bar)


class Block(nn.Module):
    def __init__(self, c_in, c_out, dim):
        super().__init__()
        self.a = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.b = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.scale = nn.Linear(dim, c_out)
        self.shift = nn.Linear(dim, c_out)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x, cond):
        h = self.norm(self.a(x)) * (1 + self.scale(cond)[:, :, None, None])
        return self.b(F.silu(h + self.shift(cond)[:, :, None, None]))


class Diffuser(nn.Module):
    def __init__(self, n_steps, img_channels=3, num_classes=3):
        super().__init__()
        self.n_steps = n_steps
        self.time = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 64))
        self.species = nn.Embedding(num_classes, 64)
        self.down1 = Block(img_channels, 32, 64)
        self.down2 = Block(32, 48, 64)
        self.middle = Block(48, 48, 64)
        self.up2 = Block(96, 32, 64)
        self.up1 = Block(64, 32, 64)
        self.last = nn.Conv2d(32, img_channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def waves(self, t):
        frequencies = torch.exp(torch.linspace(0, 6, 16, device=t.device))
        angles = t[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    def forward(self, x, t, labels):
        cond = self.time(self.waves(t)) + self.species(labels)
        h1 = self.down1(x, cond)
        h2 = self.down2(F.avg_pool2d(h1, 2), cond)
        h3 = self.middle(F.avg_pool2d(h2, 2), cond)
        h = F.interpolate(h3, scale_factor=2)
        h = self.up2(torch.cat([h, h2], dim=1), cond)
        h = F.interpolate(h, scale_factor=2)
        h = self.up1(torch.cat([h, h1], dim=1), cond)
        return self.last(F.silu(h))

    @torch.no_grad()
    def sample(self, shape, n_steps, labels):
        self.eval()
        x = torch.randn(shape, device=device)
        x_seq = [x]
        for t in range(n_steps - 1, -1, -1):
            x = self.p_theta_sampling(x, t, labels)
            x_seq.append(x)
        return x_seq

    def p_theta_sampling(self, x, t, labels):
        times = torch.full((len(x),), t / self.n_steps, device=x.device)
        x_0 = self(x, times, labels).clamp(-1, 1)
        before, bar = alphas_bar_prev[t], alphas_bar[t]
        mean = before.sqrt() * betas[t] / (1 - bar) * x_0
        mean = mean + alphas[t].sqrt() * (1 - before) / (1 - bar) * x
        if t == 0:
            return mean
        return mean + posterior_variance[t].sqrt() * torch.randn_like(x)
"""
    + SAVE
    + """

def diffusion_loss_fn(model, x_0, labels):
    half = torch.randint(0, num_steps, (x_0.size(0) // 2 + 1,), device=device)
    t = torch.cat([half, num_steps - 1 - half])[: x_0.size(0)]
    noise = torch.randn_like(x_0)
    bar = alphas_bar[t][:, None, None, None]
    x_t = bar.sqrt() * x_0 + (1 - bar).sqrt() * noise
    x_0_pred = model(x_t, t.float() / num_steps, labels)
    # Weighted by the signal-to-noise ratio, at most 5.
    weight = (bar / (1 - bar)).clamp(max=5)
    return (weight * (x_0_pred - x_0) ** 2).mean()

"""
)

FLOW_TRANSFORMER = (
    """
num_steps = 50


def tokens_of_time(t, dim=64):
    frequencies = torch.exp(-math.log(10000) * torch.arange(dim // 2) / (dim // 2))
    angles = t[:, None].float() * frequencies.to(t.device)[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class DiTBlock(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )
        self.ada = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        nn.init.zeros_(self.ada[1].weight)
        nn.init.zeros_(self.ada[1].bias)

    def forward(self, x, c):
        s1, b1, g1, s2, b2, g2 = self.ada(c).unsqueeze(1).chunk(6, dim=-1)
        h = self.norm1(x) * (1 + s1) + b1
        x = x + g1 * self.attn(h, h, h, need_weights=False)[0]
        return x + g2 * self.mlp(self.norm2(x) * (1 + s2) + b2)


class Diffuser(nn.Module):
    def __init__(self, n_steps, img_channels=3, num_classes=3, dim=64, depth=2):
        super().__init__()
        self.patch, self.dim, self.num_classes = 4, dim, num_classes
        self.embed = nn.Conv2d(img_channels, dim, 4, stride=4)
        self.pos = nn.Parameter(0.02 * torch.randn(1, 36, dim))
        self.time = nn.Sequential(nn.Linear(64, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.label = nn.Embedding(num_classes + 1, dim)
        self.blocks = nn.ModuleList(DiTBlock(dim, 4) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.final = nn.Linear(dim, 16 * img_channels)
        nn.init.zeros_(self.final.weight)
        nn.init.zeros_(self.final.bias)

    def forward(self, x, t, labels=None):
        if labels is None:
            labels = torch.full((len(x),), self.num_classes, device=x.device)
        c = self.time(tokens_of_time(t)) + self.label(labels)
        h = self.embed(x).flatten(2).transpose(1, 2) + self.pos
        for block in self.blocks:
            h = block(h, c)
        h = self.final(self.norm(h)).reshape(-1, 6, 6, 4, 4, 3)
        return torch.einsum("nhwpqc->nchpwq", h).reshape(-1, 3, 24, 24)

    @torch.no_grad()
    def sample(self, shape, n_steps, labels=None, guidance=2.0):
        self.eval()
        x = torch.randn(shape, device=device)
        x_seq = [x]
        for i in range(n_steps):
            t = 1 - i / n_steps
            x = self.p_theta_sampling(x, t, 1 / n_steps, labels, guidance)
            x_seq.append(x)
        return x_seq

    def p_theta_sampling(self, x, t, dt, labels, guidance):
        time = torch.full((len(x),), 1000 * t, device=x.device)
        v = self(x, time)
        if labels is not None:
            v = v + guidance * (self(x, time, labels) - v)
        return x - dt * v
"""
    + SAVE
    + """

def diffusion_loss_fn(model, x_0, labels=None):
    t = torch.sigmoid(torch.randn(x_0.size(0), device=device))
    noise = torch.randn_like(x_0)
    x_t = (1 - t.view(-1, 1, 1, 1)) * x_0 + t.view(-1, 1, 1, 1) * noise
    if labels is not None:
        drop = torch.rand(len(labels), device=device) < 0.1
        labels = torch.where(drop, model.num_classes, labels)
    return F.mse_loss(model(x_t, 1000 * t, labels), noise - x_0)

"""
)

IMPLICIT = (
    """
num_steps = 250
betas = torch.linspace(1e-4, 0.04, num_steps)


class Diffuser(nn.Module):
    def __init__(self, n_steps, img_channels=3, hidden=48):
        super().__init__()
        self.n_steps = n_steps
        bar = torch.cumprod(1 - torch.linspace(1e-4, 0.04, n_steps), 0)
        self.register_buffer("bar", torch.cat([torch.ones(1), bar]))
        self.time = nn.Sequential(nn.Linear(1, hidden), nn.Tanh())
        self.first = nn.Conv2d(img_channels, hidden, 4, stride=2, padding=1)
        self.hidden = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.last = nn.ConvTranspose2d(hidden, img_channels, 4, stride=2, padding=1)

    def forward(self, x, t):
        time = self.time(t[:, None] / self.n_steps)[:, :, None, None]
        h = torch.relu(self.first(x) + time)
        return self.last(torch.relu(self.hidden(h) + h))

    def noise_and_photo(self, x, t):
        v = self(x, torch.full((x.shape[0],), t, device=x.device))
        a, b = self.bar[t].sqrt(), (1 - self.bar[t]).sqrt()
        return b * x + a * v, (a * x - b * v).clamp(-1, 1)

    def p_theta_sampling(self, x, t):
        noise, x_0 = self.noise_and_photo(x, t)
        before = self.bar[t - 1]
        return before.sqrt() * x_0 + (1 - before).sqrt() * noise

    def sample(self, shape, n_steps):
        self.eval()
        x_seq = [torch.randn(shape)]
        with torch.inference_mode():
            for t in range(n_steps, 0, -1):
                x_seq.append(self.p_theta_sampling(x_seq[-1], t))
        return x_seq
"""
    + SAVE
    + """

def diffusion_loss_fn(model, x_0):
    t = torch.from_numpy(np.random.randint(1, model.n_steps + 1, len(x_0)))
    noise = torch.randn(x_0.shape)
    a = model.bar[t].sqrt().view(-1, 1, 1, 1)
    b = (1 - model.bar[t]).sqrt().view(-1, 1, 1, 1)
    v = a * noise - b * x_0
    return F.smooth_l1_loss(model(a * x_0 + b * noise, t), v)

"""
)


def completion(*parts, labels=False):
    """Return the files of a completion of part 4 with the kit's frame."""
    main = MAIN if labels else MAIN.replace(", LABELS_IN", "")
    text = "".join((HEAD, *parts, main.replace("LABELS_IN", "labels")))
    return {
        "diffusion.py": text,
        "utils/scheduler.py": SCHEDULER,
        "utils/data_processor.py": DATA,
    }


VARIANTS = {
    # Predicts the noise; variance beta; embedding table of the steps.
    "small_unet": completion(KIT_TABLES, SMALL_UNET),
    # Predicts x_0 with required labels and times in [0, 1); cosine schedule; batch
    # norm; antithetic times; weighted loss; posterior variance and clipping.
    "conditional_x0": completion(CONDITIONAL_X0, labels=True),
    # Patch transformer of one size with rectified flow and guidance; other steps.
    "flow_transformer": completion(FLOW_TRANSFORMER, labels=True),
    # Predicts v, steps from 1, noise by numpy's times, deterministic DDIM steps.
    "implicit": completion(IMPLICIT),
}
