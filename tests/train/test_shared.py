"""One pass of texts through a tower, with its graphs kept or made again."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny import make_tower, tokens_of

from lora_rec.text.collate import plan_micro_batches
from lora_rec.train.adversary import Adversary, Shifts
from lora_rec.train.shared import SharedPass


def passed(tower, *, token_budget, n_passes=1):
    """Gives the tower's gradients of a loss over its embeddings, and how often texts went through it."""
    source, texts = tokens_of(tower), np.arange(4)
    shifts = Shifts(Adversary("fgm", 0.5, 3), width=tower.entry_width, seed=3) if n_passes == 2 else None
    rows, embeddings = [], []
    handle = tower.register_forward_hook(lambda _, inputs, found: rows.append(len(found)))
    tower.zero_grad()
    for _ in range(n_passes):
        encoded = SharedPass(
            Accelerator(cpu=True), tower, source, texts, token_budget=token_budget, seed=5, shifts=shifts
        )
        embeddings.append(encoded.leaf.detach().clone())
        (encoded.leaf[0] @ encoded.leaf[1] + encoded.leaf[2] @ encoded.leaf[3]).backward()
        encoded.backward()
    handle.remove()
    gradients = {name: p.grad.clone() for name, p in tower.trained_parameters().items()}
    return gradients, embeddings, sum(rows)


@pytest.mark.parametrize("n_passes", [1, 2])
def test_kept_graphs_give_what_a_second_pass_gives(models, monkeypatch, n_passes):
    tower = make_tower(models["bert"], lora_dropout=0.0 if n_passes == 2 else 0.5)
    for parameter in tower.trained_parameters().values():
        torch.nn.init.normal_(parameter, std=0.1)
    kept, same, n_kept = passed(tower, token_budget=200, n_passes=n_passes)
    monkeypatch.setattr(SharedPass, "_padded_tokens", lambda _: 201)
    again, others, n_again = passed(tower, token_budget=200, n_passes=n_passes)
    assert (n_kept, n_again) == (4 * n_passes, 8 * n_passes)
    torch.testing.assert_close(same, others)
    torch.testing.assert_close(kept, again)
    assert all(gradient.any() for gradient in kept.values())
    if n_passes == 2:
        assert not torch.equal(same[0], same[1])  # the states were moved in between


def test_graphs_are_kept_within_the_budget(models):
    tower = make_tower(models["bert"])
    lengths = tokens_of(tower).lengths[:4]
    padded = int(sum(len(r) * lengths[r].max() for r in plan_micro_batches(lengths, token_budget=20)))
    assert 20 < padded
    assert passed(tower, token_budget=20)[2] == 8
    assert passed(tower, token_budget=40)[2] == 4
