"""Correct completions of parts 1 to 3 in other styles than this project's, as texts.

VARIANTS: name -> {path in the completion's folder: text}. Each keeps to the starter
kit's names and is written as a student would write it.
"""

SCHEDULER = """
class exponential_decay:
    def __init__(self, initial_learning_rate=0.001, decay_rate=0.5, decay_epochs=100):
        self.initial_learning_rate = initial_learning_rate
        self.decay_rate = decay_rate
        self.decay_epochs = decay_epochs

    def __call__(self, epoch):
        power = epoch // self.decay_epochs
        return self.initial_learning_rate * self.decay_rate**power
"""

# Functional style: hooks see none of its activations and poolings ---------------

FUNCTIONAL_MLP = """
import torch
import torch.nn as nn
import torch.nn.functional as F

MLPAE_ENCODING_DIM = 64


class MLPAutoencoder(nn.Module):
    def __init__(self, encoding_dim, img_width, img_height, img_channel=3):
        super(MLPAutoencoder, self).__init__()
        pixels = img_channel * img_width * img_height
        self.fc1 = nn.Linear(pixels, 256)
        self.fc2 = nn.Linear(256, 128)
        self.fc3 = nn.Linear(128, encoding_dim)
        self.fc4 = nn.Linear(encoding_dim, 128)
        self.fc5 = nn.Linear(128, 256)
        self.fc6 = nn.Linear(256, pixels)

    @property
    def name(self):
        return "MLPAE"

    def forward(self, x):
        shape = x.shape
        x = x.view(x.size(0), -1)
        x = F.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        x = self.fc3(x)
        x = self.fc4(x).clamp(min=0)
        x = self.fc5(x).relu()
        return torch.sigmoid(self.fc6(x)).view(shape)
"""

FUNCTIONAL_AE = """
import torch
import torch.nn as nn
import torch.nn.functional as F

AE_ENCODING_DIM = 64


class Encoder(nn.Module):
    def __init__(self, encoding_dim):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.fc = nn.Linear(128 * 6 * 6, encoding_dim)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.conv3(x))
        return self.fc(torch.flatten(x, 1))


class Decoder(nn.Module):
    def __init__(self, encoding_dim):
        super().__init__()
        self.fc = nn.Linear(encoding_dim, 128 * 6 * 6)
        self.up1 = nn.ConvTranspose2d(128, 64, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.up3 = nn.ConvTranspose2d(32, 3, 2, stride=2)

    def forward(self, z):
        x = self.fc(z).reshape(-1, 128, 6, 6)
        x = F.relu(self.up1(x))
        x = nn.ReLU()(self.up2(x))
        return torch.sigmoid(self.up3(x))


class Autoencoder(nn.Module):
    def __init__(self, encoding_dim):
        super().__init__()
        self.encoder = Encoder(encoding_dim)
        self.decoder = Decoder(encoding_dim)

    @property
    def name(self):
        return "AE"

    def forward(self, x):
        return self.decoder(self.encoder(x))
"""

FUNCTIONAL_VAE = """
import torch
import torch.nn as nn
import torch.nn.functional as F

VAE_ENCODING_DIM = 64


class VarEncoder(nn.Module):
    def __init__(self, encoding_dim):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 4, stride=2, padding=1)
        self.fc_mu = nn.Linear(64 * 6 * 6, encoding_dim)
        self.fc_logvar = nn.Linear(64 * 6 * 6, encoding_dim)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = x.view(x.size(0), -1)
        return self.fc_mu(x), self.fc_logvar(x)


class VarDecoder(nn.Module):
    def __init__(self, encoding_dim):
        super().__init__()
        self.fc = nn.Linear(encoding_dim, 64 * 6 * 6)
        self.up1 = nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1)
        self.up2 = nn.ConvTranspose2d(32, 3, 4, stride=2, padding=1)

    def forward(self, z):
        x = F.relu(self.fc(z)).view(-1, 64, 6, 6)
        x = F.relu(self.up1(x))
        return torch.sigmoid(self.up2(x))


class VarAutoencoder(nn.Module):
    def __init__(self, encoding_dim):
        super().__init__()
        self.encoder = VarEncoder(encoding_dim)
        self.decoder = VarDecoder(encoding_dim)

    @property
    def name(self):
        return "VAE"

    def reparameterize(self, mu, log_var):
        if not self.training:
            return mu
        std = torch.exp(0.5 * log_var)
        eps = torch.randn_like(std)
        return mu + eps * std

    def forward(self, x):
        mu, log_var = self.encoder(x)
        z = self.reparameterize(mu, log_var)
        return self.decoder(z), mu, log_var


def VAE_loss_function(outputs, images):
    x, mu, log_var = outputs
    recon = torch.sum((x - images) ** 2)
    kld = -0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())
    return recon + kld
"""

FUNCTIONAL_TRAIN = """
import os

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm


def train(optimizer, scheduler, model, training_dataloader, validation_dataloader,
          num_epochs, early_stopping_patience, device, model_save_root,
          loss_fn=F.mse_loss):
    model.to(device)
    best_loss = float("inf")
    patience_counter = 0
    avg_valid_loss = 10000.
    os.makedirs(model_save_root, exist_ok=True)
    for epoch in range(num_epochs):
        lr = scheduler(epoch)
        for param_group in optimizer.param_groups:
            param_group["lr"] = lr
        model.train()
        train_losses = []
        for images, _ in tqdm(training_dataloader, leave=False):
            images = images.to(device)
            outputs = model(images)
            loss = loss_fn(outputs, images)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            train_losses.append(loss.item())
        avg_train_loss = np.mean(train_losses)

        stop = False
        if epoch % 3 == 0:
            model.eval()
            valid_losses = []
            with torch.no_grad():
                for images, _ in validation_dataloader:
                    images = images.to(device)
                    outputs = model(images)
                    valid_losses.append(loss_fn(outputs, images).item())
            avg_valid_loss = np.mean(valid_losses)
            if avg_valid_loss < best_loss:
                best_loss = avg_valid_loss
                patience_counter = 0
                path = os.path.join(model_save_root, f"Best_{model.name}.pth")
                torch.save(model.state_dict(), path)
            else:
                patience_counter += 1
                stop = patience_counter >= early_stopping_patience
        print(f"Epoch: {epoch}, Train Loss: {avg_train_loss}, "
              f"Valid Loss: {avg_valid_loss}")
        if stop:
            print("Early stopping!")
            break
"""

# Modules of other names, normalization, distributions, more arguments -----------

MODULAR_MLP = """
import torch
from torch import nn

MLPAE_ENCODING_DIM = 64


def block(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(inplace=True))


class MLPAutoencoder(nn.Module):
    name = "MLPAE"

    def __init__(self, encoding_dim, img_width, img_height, img_channel=3):
        super().__init__()
        self.shape = (img_channel, img_width, img_height)
        n = img_channel * img_width * img_height
        self.down = nn.Sequential(
            block(n, 256), nn.Dropout(0.1), block(256, 128),
            nn.Linear(128, encoding_dim),
        )
        self.up = nn.Sequential(
            block(encoding_dim, 128), block(128, 256), nn.Linear(256, n), nn.Sigmoid()
        )

    def encode(self, x):
        return self.down(torch.flatten(x, start_dim=1))

    def decode(self, z):
        return self.up(z).reshape(len(z), *self.shape)

    def forward(self, x):
        return self.decode(self.encode(x))
"""

MODULAR_AE = """
from torch import nn

AE_ENCODING_DIM = 64


def stage(inputs, outputs, pool):
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, nn.ReLU(), *[nn.MaxPool2d(2, 2)] * pool)


class Encoder(nn.Module):
    def __init__(self, latent_dim, w, h):
        super().__init__()
        stages = [stage(3, 32, 1), stage(32, 64, 1), stage(64, 128, 0)]
        self.stages = nn.ModuleList(stages)
        self.out = nn.LazyLinear(latent_dim)

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.out(x.flatten(1))


class Decoder(nn.Module):
    def __init__(self, latent_dim, w, h):
        super().__init__()
        self.w, self.h = w // 4, h // 4
        self.fc = nn.Linear(latent_dim, 128 * self.w * self.h)
        self.net = nn.Sequential(
            nn.ReLU(), nn.Conv2d(128, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(64, 32, 3, padding=1), nn.ReLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(32, 3, 3, padding=1), nn.Sigmoid(),
        )

    def forward(self, z):
        return self.net(self.fc(z).view(z.size(0), 128, self.h, self.w))


class Autoencoder(nn.Module):
    def __init__(self, latent_dim, img_width, img_height):
        super().__init__()
        self.encoder = Encoder(latent_dim, img_width, img_height)
        self.decoder = Decoder(latent_dim, img_width, img_height)
        self.name = "AE"

    def forward(self, x):
        z = self.encoder(x)
        return self.decoder(z)
"""

MODULAR_VAE = """
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

VAE_ENCODING_DIM = 64


class VarEncoder(nn.Module):
    def __init__(self, encoding_dim):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 32, 3, 2, 1),
            nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(32 * 6 * 6, 2 * encoding_dim),
        )

    def forward(self, x):
        mu, log_std = self.body(x).chunk(2, dim=1)
        return mu, log_std


class VarDecoder(nn.Module):
    def __init__(self, encoding_dim):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(encoding_dim, 32 * 6 * 6), nn.LeakyReLU(0.2),
            nn.Unflatten(1, (32, 6, 6)), nn.ConvTranspose2d(32, 16, 4, 2, 1),
            nn.LeakyReLU(0.2), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
        )

    def forward(self, z):
        return (self.body(z) + 1) / 2


class VarAutoencoder(nn.Module):
    def __init__(self, encoding_dim):
        super().__init__()
        self.encoder = VarEncoder(encoding_dim)
        self.decoder = VarDecoder(encoding_dim)

    @property
    def name(self):
        return "VAE"

    def reparameterize(self, mu, log_var):
        # log_var is the log of the standard deviation here
        return Normal(mu, log_var.exp()).rsample()

    def forward(self, x):
        mu, log_std = self.encoder(x)
        return self.decoder(self.reparameterize(mu, log_std)), mu, log_std


def VAE_loss_function(outputs, images):
    x, mu, log_std = outputs
    posterior = Normal(mu, log_std.exp())
    prior = Normal(torch.zeros_like(mu), torch.ones_like(mu))
    error = nn.MSELoss(reduction="sum")(x, images)
    return error + kl_divergence(posterior, prior).sum()
"""

MODULAR_TRAIN = """
import copy
from pathlib import Path

import torch
import torch.nn.functional as F


class EarlyStopping:
    def __init__(self, patience):
        self.patience, self.bad, self.best = patience, 0, None

    def update(self, value):
        improved = self.best is None or value < self.best
        if improved:
            self.best = value
        self.bad = 0 if improved else self.bad + 1
        return improved

    @property
    def done(self):
        return self.bad > self.patience


def run_epoch(model, loader, loss_fn, device, optimizer=None):
    model.train(optimizer is not None)
    total, count = 0.0, 0
    with torch.set_grad_enabled(optimizer is not None):
        for batch in loader:
            images = batch[0].to(device)
            loss = loss_fn(model(images), images)
            if optimizer is not None:
                loss.backward()
                optimizer.step()
                for p in model.parameters():
                    p.grad = None
            total += loss.item() * images.size(0)
            count += images.size(0)
    return total / count


def train(optimizer, scheduler, model, training_dataloader, validation_dataloader,
          num_epochs, early_stopping_patience, device, model_save_root,
          loss_fn=F.mse_loss, verbose=True):
    stopping = EarlyStopping(early_stopping_patience)
    folder = Path(model_save_root)
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(num_epochs):
        optimizer.param_groups[0]["lr"] = scheduler(epoch)
        avg_train_loss = run_epoch(
            model, training_dataloader, loss_fn, device, optimizer
        )
        avg_valid_loss = run_epoch(model, validation_dataloader, loss_fn, device)
        if stopping.update(avg_valid_loss):
            best = copy.deepcopy(model.state_dict())
            torch.save(best, folder / f"Best_{model.name}.pkl")
            if verbose:
                print("saved")
        losses = f"Train Loss: {avg_train_loss}, Valid Loss: {avg_valid_loss}"
        print(f"Epoch: {epoch}, {losses}")
        if stopping.done:
            return
"""

VARIANTS = {
    "functional": {
        "MLPAutoencoder.py": FUNCTIONAL_MLP,
        "Autoencoder.py": FUNCTIONAL_AE,
        "VarAutoencoder.py": FUNCTIONAL_VAE,
        "utils/train.py": FUNCTIONAL_TRAIN,
        "utils/scheduler.py": SCHEDULER,
    },
    "modular": {
        "MLPAutoencoder.py": MODULAR_MLP,
        "Autoencoder.py": MODULAR_AE,
        "VarAutoencoder.py": MODULAR_VAE,
        "utils/train.py": MODULAR_TRAIN,
        "utils/scheduler.py": SCHEDULER,
    },
}
