"""Checks of what the autoencoders learn: gradients, and one batch by heart."""

import time

import torch
import torch.nn.functional as F

from .autoencoders import (
    BATCH,
    DIM,
    check_each,
    decoder_of,
    encoder_of,
    image_shaped,
    needs,
    photos_like,
    reconstruct,
    working,
)
from .check_models import layers_in_forward, output_range
from .checks import Finding, NotExamined

# Completions of several styles need 60 steps at most; the limit leaves room for others.
STEPS, FITTED = 300, 0.5  # of the overfitted batch; proportion of its variance
SECONDS = 40  # of processor time, before a batch is given up


@check_each("MLPAE", "AE", "VAE")
def gradients(subject, name):
    """The loss of one batch reaches every parameter that acts on the output."""
    model, images = working(subject, name).train(), photos_like()
    outputs = seeded(model, images)
    loss = F.mse_loss(first := image_shaped(outputs, images), images)
    if isinstance(outputs, tuple | list):  # the KL's part, whatever is drawn
        loss = loss + sum(values.square().mean() for values in outputs[1:])
    if loss.requires_grad:  # or no parameter is reached at all
        loss.backward()

    # A layer that is not used is no fault: a change of it does not change the output.
    missed = []
    for key, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            with torch.no_grad():
                parameter.add_(change := torch.randn_like(parameter))
                second = image_shaped(seeded(model, images), images)
                parameter.sub_(change)
            if not torch.allclose(first, second, atol=1e-4):
                missed.append(key)
    if missed:
        seen = f"no gradient for {', '.join(missed[:4])}"
        yield Finding("gradient_missing", seen, "one for every parameter that is used")


def seeded(model, images):
    """Return a model's outputs, with the same random numbers at every call."""
    torch.manual_seed(0)
    return model(images)


@check_each("MLPAE", "AE", "VAE")
def separate_images(subject, name):
    """An image's output does not depend on the other images of its batch."""
    # In evaluation mode, where batch normalization does not mix images either.
    needs(subject, name, output_range, layers_in_forward)
    model, images = working(subject, name).eval(), photos_like()
    parts = [(model, images)]
    if name == "VAE":  # its forward pass draws random numbers
        encoder, decoder = encoder_of(model), decoder_of(model)
        if not (encoder and decoder):
            raise NotExamined("no encoder and decoder")
        parts = [(lambda x: encoder(x)[0], images), (decoder, torch.randn(BATCH, DIM))]
    for part, batch in parts:
        together, alone = part(batch)[:1], part(batch[:1])
        if not torch.allclose(together, alone, atol=1e-4):
            gap = (together - alone).abs().max().item()
            seen = f"alone, an image's output differs by up to {gap:.3g}"
            yield Finding("images_mixed", seen, "no difference")
            return


@check_each("MLPAE", "AE", seconds=60.0)
def one_batch(subject, name):
    """A batch of eight images is learned by heart."""
    needs(subject, name, output_range, gradients, layers_in_forward)
    yield from learn_by_heart(working(subject, name))


def learn_by_heart(model):
    """Yield a finding if the model does not fit one batch."""
    # The best that a model can do which does not look at its input is the mean image.
    images = photos_like()
    baseline = images.var(dim=0, correction=0).mean().item()  # the mean image's error
    optimizer = torch.optim.Adam(model.train().parameters(), lr=1e-3)
    started = time.process_time()
    for _ in range(STEPS):
        loss = F.mse_loss(reconstruct(model, images), images)
        if loss.item() < FITTED * baseline:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if time.process_time() - started > SECONDS:
            raise NotExamined("too slow to learn a batch by heart")
    seen = f"loss {loss.item():.4g} after {STEPS} steps of Adam on one batch"
    wanted = f"below {FITTED * baseline:.4g}, half that of the mean image"
    yield Finding("batch_not_fitted", seen, wanted)
