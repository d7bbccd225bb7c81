"""States are moved towards a higher loss, by as much as was asked for."""

import numpy as np
import pytest
import torch
from test_loop import train
from tiny import EVERY, batch_of, make_tower, tokens_of

from lora_rec.train.adversary import Adversary, Shifts

SIZE = 0.2


def away(tower, batch):
    """A loss that the tower can be moved on, and the vectors."""
    vectors = tower(batch)
    return (vectors[:, 0] - vectors[:, 1]).sum()


@pytest.mark.parametrize("layers", [2, None])  # the states between the layers, and the embeddings
@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("kind", ["fgm", "freelb"])
def test_the_loss_rises_and_the_shift_has_the_asked_size(models, name, kind, layers):
    tower = make_tower(models[name], trained_layers=layers)
    adversary = Adversary(kind, SIZE, 4)
    shifts = Shifts(adversary, width=tower.entry_width, seed=1)
    plain = away(tower, batch_of(tower)).item()
    found = []
    for _ in range(adversary.n_passes):
        batch = shifts.on(batch_of(tower), EVERY)
        loss = away(tower, batch)
        loss.backward()
        found.append(loss.item())
        shifts.move(batch, EVERY)
    if kind == "fgm":
        assert found[0] == pytest.approx(plain, abs=1e-5)
    assert found[-1] > plain + 0.01
    moved = shifts.on(batch_of(tower), EVERY).shift
    tokens = tokens_of(tower).lengths
    sizes = moved.detach().square().sum(dim=(1, 2)).numpy() / tokens
    assert np.sqrt(sizes).max() <= SIZE * 1.0001
    assert np.sqrt(sizes).max() > 0.5 * SIZE
    assert not moved[batch_of(tower).attention_mask == 0].any()


def test_a_text_is_moved_the_same_in_whatever_batch_it_is(models):
    tower = make_tower(models["llama"])
    adversary = Adversary("freelb", SIZE, 3)
    one, other = (Shifts(adversary, width=tower.entry_width, seed=3) for _ in range(2))
    together = one.on(batch_of(tower), EVERY).shift
    alone = other.on(tokens_of(tower).batch(EVERY[1:2]), EVERY[1:2]).shift
    assert torch.equal(together[1, : alone.shape[1]], alone[0])


@pytest.mark.parametrize(("kind", "cached"), [("fgm", True), ("freelb", False)])
def test_micro_batched_equals_whole(recipe_tree, kind, cached):
    found = []
    few = {"examples_per_user": 1, "batch_size": 20, "prefix_cache": cached}
    for budget in (60, 100_000):
        tree = recipe_tree | {"regularisation": {"adversary": kind}}
        _, result, _ = train(tree, token_budget=budget, **few)
        found.append(result.epochs[0].loss)
    assert found[0] == pytest.approx(found[1], abs=2e-4)
    _, plain, _ = train(recipe_tree, **few)
    assert found[0] > plain.epochs[0].loss  # the mean of the passes, of which all but one are harder


def test_the_dropout_of_an_adapter_reaches_it(models):
    for adapter in ({}, {"dora": True}, {"adapter": "adalora", "init_rank": 4, "target_rank": 2}):
        tower = make_tower(models["llama"], lora_dropout=0.5, **adapter)
        for parameter in tower.trained_parameters().values():
            torch.nn.init.normal_(parameter, std=0.5)
        with torch.no_grad():
            tower.train()
            torch.manual_seed(1)
            first = tower(batch_of(tower))
            assert not torch.equal(first, tower(batch_of(tower)))
            torch.manual_seed(1)
            assert torch.equal(first, tower(batch_of(tower)))
            tower.eval()
            assert torch.equal(tower(batch_of(tower)), tower(batch_of(tower)))
