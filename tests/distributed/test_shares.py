"""Which photos and batches a process has, without any other process."""

import pytest
import torch

from diffusion import training_loss
from tests.helpers.diffusion import randomize_zeros, small
from tests.helpers.loaders import loader, numbers
from utils.config import PRESETS
from utils.device import random_state
from utils.distributed import trainer as distributed
from utils.train import every_batch
from VarAutoencoder import VAE_loss_function, VarAutoencoder

LOSSES = {  # which draw random numbers
    "VAE": lambda model, images, _: VAE_loss_function(model(images), images),
    "diffusion": training_loss(PRESETS["diffusion"][0]),
}


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("count, batch_size", [(5, 16), (11, 5), (12, 4)])
def test_shares_are_the_batches_of_one_process(count, batch_size, processes):
    """D05, P20: same photos, same order, same random numbers; none twice."""
    whole = loader(count, batch_size)
    shares = [
        distributed.Shares(loader(count, batch_size), number, processes)
        for number in range(processes)
    ]
    for _ in range(2):  # epochs
        for batch, *parts in zip(whole, *shares, strict=True):
            sizes = [share.sizes for share in shares]
            assert {total for _, total in sizes} == {len(batch[0])}
            own = [size for size, _ in sizes]
            assert sum(own) == len(batch[0]) and max(own) - min(own) <= 1
            # Every photo of the batch is in one share; an empty share borrows one.
            assert [len(images) for images, _ in parts] == [max(1, n) for n in own]
            found = [
                (number, int(label))
                for (images, labels), size in zip(parts, own, strict=True)
                for number, label in zip(
                    numbers(images)[:size], labels[:size], strict=True
                )
            ]
            wanted = zip(numbers(batch[0]), batch[1].tolist(), strict=True)
            assert sorted(found) == sorted(wanted)
    for share in shares:
        state = share.loader.generator.get_state()
        assert torch.equal(state, whole.generator.get_state())


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
@pytest.mark.parametrize("name", LOSSES)
def test_blocks_draw_the_random_numbers_of_one_process(name, processes):
    """P20, P26: the results of all batches are equal, bit by bit, at every check."""
    torch.manual_seed(0)
    model = VarAutoencoder(4, 8, 8) if name == "VAE" else small(num_classes=3)
    model, batches = randomize_zeros(model), loader(19, 4, shuffle=False)

    def result(images, labels):
        details = model.validation_details(images, labels)
        return {"loss": LOSSES[name](model, images, labels)[None]} | details

    arguments = result, model, batches, torch.device("cpu"), 0
    whole = every_batch(*arguments)
    passes = [distributed.BlockPass(n, processes) for n in range(processes)]
    state = random_state([])["torch"]
    for _ in range(3):  # checks; the first one draws what the others only remember
        found = [part for one in passes for part in one.block(*arguments)]
        assert len(found) == len(whole) == 5
        for one, other in zip(found, whole, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(state, random_state([])["torch"])


def test_a_block_computes_nothing_but_itself_at_later_checks():
    """At the first check also what draws the random numbers before it."""
    model, batches, computed = small(), loader(20, 4, shuffle=False), []

    def result(images, labels):
        computed.append(numbers(images)[0])
        return torch.rand(1)

    last, empty = distributed.BlockPass(1, 2), distributed.BlockPass(0, 6)
    for wanted in ([0, 4, 8, 12, 16], [8, 12, 16], [8, 12, 16]):
        computed.clear()
        last.block(result, model, batches, torch.device("cpu"), 0)
        assert computed == wanted
    assert empty.block(result, model, batches, torch.device("cpu"), 0) == []
    assert computed == wanted


def test_seeds_differ_by_run_epoch_and_rank():
    seeds = {
        distributed.seed_of(seed, epoch, rank)
        for seed in (0, 1, 2**32 - 1)
        for epoch in range(20)
        for rank in range(1, 8)
    }
    assert len(seeds) == 3 * 20 * 7 and all(0 <= seed < 2**63 for seed in seeds)
