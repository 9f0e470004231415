"""The training loop on several processes, which all see the same losses and weights."""

# Of each batch a process has every W-th photo. Their gradients are averaged, weighted
# by the number of photos, so that a step is that of one process with the whole batch,
# but for the random numbers that a loss draws.

from datetime import timedelta
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from utils.cli import UserError
from utils.cli.ranks import rank, world_size
from utils.device import fork_rng, random_state, set_random_state
from utils.distributed.group import gather, wait_for_all
from utils.train import Trainer

STEP = timedelta(seconds=120)  # of a collective in a step


def make_trainer(*args, **options):
    """Return a Trainer of these arguments, of one process or for all of torchrun's."""
    trainer = Trainer if world_size() == 1 else DistributedTrainer
    return trainer(*args, **options)


class DistributedTrainer(Trainer):
    """A Trainer that shares each batch with the other processes.

    Its arguments are those of Trainer; the loaders are DataLoaders, equal in all
    processes. Losses, early stops and weights are equal in all of them too. Random
    numbers of training continue in rank 0 as in one process; in the others they depend
    on the run's seed, the epoch and the rank.
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seed = torch.initial_seed()  # the run's
        self.shares = Shares(self.loaders[0], rank(), world_size())
        self.passes = BlockPass(rank(), world_size()), BlockPass(rank(), world_size())
        # Gradients are averaged while the backward pass computes the others.
        backend = "nccl" if self.device.type == "cuda" else "gloo"
        self.group = dist.new_group(timeout=STEP, backend=backend)
        self.local_loss = DistributedDataParallel(
            LossModule(self.model, self.batch_loss),
            process_group=self.group,
        )

    def train_epoch(self, number):
        """Train on every batch once -> mean of the batch losses, of all processes."""
        # Rank 0 may have drawn a picture or written files since the last epoch.
        wait_for_all()
        if rank():
            torch.manual_seed(seed_of(self.seed, number, rank()))
        return super().train_epoch(number)

    def batches(self):
        """Return this process's part of each batch."""
        return self.shares

    def loss(self, images, labels):
        """Return the loss of the whole batch, and its number of photos.

        Its gradient is that of this process's photos, times the weight with which the
        average over processes is the gradient of the whole batch.
        """
        own, count = self.shares.sizes
        local = self.local_loss(images, labels)
        # A photo that only takes part counts nothing, unless its loss is not finite.
        mean = self.reduction == "mean"
        part = own / count if mean else float(own > 0)
        total = part * local.detach().double()
        dist.all_reduce(total, group=self.group)
        return WholeLoss.apply(local, total.to(local.dtype), world_size() * part), count


class LossModule(nn.Module):
    """A model and its loss as one module, whose output is the loss."""

    # A loss may call other methods of the model than `forward`, which alone would let
    # DistributedDataParallel prepare the backward pass. Buffers are constants: they are
    # no part of this module, so that no step sends them.

    def __init__(self, model, batch_loss):
        super().__init__()
        self.weights = nn.ParameterList(model.parameters())
        self.batch_loss = partial(batch_loss, model)

    def forward(self, images, labels):
        """Return the loss of images (B, C, H, W) and labels (B,), a scalar."""
        return self.batch_loss(images, labels)


class WholeLoss(torch.autograd.Function):
    """The loss of the whole batch, with the weighted gradient of a part's loss."""

    @staticmethod
    def forward(ctx, local, value, weight):
        """Return the value; local: loss of the part; all scalars."""
        ctx.weight = weight
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient of the part's loss."""
        return gradient * ctx.weight, None, None


def seed_of(seed, epoch, number):
    """Return a seed for torch that depends on all three numbers."""
    sequence = np.random.SeedSequence([seed, epoch, number])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


# Parts of the photos -----------------------------------------------------------


def index_loader(loader):
    """Return a loader of the indices in the batches that a DataLoader would give."""
    # It draws from the same generator of random numbers, as often as the loader does.
    return DataLoader(
        range(len(loader.dataset)),
        batch_sampler=loader.batch_sampler,
        generator=loader.generator,
        collate_fn=list,
    )


class Shares:
    """One process's photos of each batch of a DataLoader: (images, labels).

    While a batch is used, `sizes` are the numbers of photos that count in it: of this
    process, and of all. A process without one has the batch's first photo, so that it
    takes part in the collectives.
    """

    def __init__(self, loader, number, processes):
        self.loader, self.indices = loader, index_loader(loader)
        self.number, self.processes = number, processes

    def __len__(self):
        return len(self.indices)

    def __iter__(self):
        for indices in self.indices:
            own = indices[self.number :: self.processes]
            self.sizes = len(own), len(indices)
            yield fetch(self.loader, own or indices[:1])


def fetch(loader, indices):
    """Return the photos of these indices as a DataLoader does."""
    dataset = loader.dataset
    if hasattr(dataset, "__getitems__"):
        return loader.collate_fn(dataset.__getitems__(indices))
    return loader.collate_fn([dataset[index] for index in indices])


class BlockPass:
    """Passes over the validation photos, of which each process has a block of batches.

    A call returns what `utils.train.every_batch` returns, in every process, and draws
    the same random numbers. At the first call they are drawn from the first batch on,
    and the random state at the block's start is kept for the others.
    """

    def __init__(self, number, processes):
        self.number, self.processes = number, processes
        self.state = None  # of random numbers, where the block starts

    def __call__(self, function, model, loader, device, seed):
        """Return function(images, labels) of every batch, in evaluation mode.

        Raises:
            UserError: in every process, the first one that any of them had.
        """
        try:
            error, results = "", self.block(function, model, loader, device, seed)
        except UserError as found:
            error, results = str(found), []
        parts = gather((error, results))
        if errors := [error for error, _ in parts if error]:
            raise UserError(errors[0])
        return [result for _, results in parts for result in results]

    @torch.no_grad()
    def block(self, function, model, loader, device, seed):
        """Return the results of this process's block."""
        model.eval()
        batches = list(index_loader(loader))
        start = len(batches) * self.number // self.processes
        stop = len(batches) * (self.number + 1) // self.processes
        # In the first pass the batches before the block draw their random numbers.
        first, results = 0 if start < stop else stop, []
        with fork_rng(seed):
            if self.state:
                first = start
                set_random_state(self.state, [])
            for position in range(first, stop):
                if position == start > 0:
                    self.state = random_state([])
                images, labels = fetch(loader, batches[position])
                results.append(on_cpu(function(images.to(device), labels)))
        return results[start - first :]


def on_cpu(result):
    """Return a batch's result, with its tensors on the CPU."""
    if isinstance(result, dict):
        return {name: value.cpu() for name, value in result.items()}
    return result
