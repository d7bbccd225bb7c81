import numpy as np
import pytest

from lora_rec.errors import TrainingError
from lora_rec.towers.two_tower import Projection
from lora_rec.train.projections import build_teacher, solve_projection


def test_teacher_keeps_the_order_of_the_scores():
    generator = np.random.default_rng(0)
    items, users = generator.normal(size=(50, 6)).astype("f4"), generator.normal(size=(7, 6)).astype("f4")
    teacher = build_teacher(items, users, width=16)
    np.testing.assert_allclose(np.linalg.norm(teacher.items, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(teacher.users, axis=1), 1, atol=1e-5)
    # 50 random scores in one order for 7 users: 7 * log2(50!) bits do not agree by luck.
    assert (np.argsort(teacher.users @ teacher.items.T) == np.argsort(users @ items.T)).all()


def test_the_teacher_does_not_know_what_nobody_took():
    items = np.random.default_rng(0).normal(size=(5, 3)).astype("f4")
    items[[1, 4]] = 0
    assert build_teacher(items, items[:2], width=4).knows.tolist() == [True, False, True, True, False]


def test_a_linear_map_is_recovered():
    import torch

    generator = np.random.default_rng(0)
    states = (generator.normal(size=(400, 5)) * [1, 10, 100, 1, 1] + 3).astype("f4")
    targets = (states @ generator.normal(size=(5, 3)) + 1).astype("f4")
    projection = Projection(5, 3)
    solve_projection(projection, states, targets, where="item_tower")
    found = projection(torch.from_numpy(states)).numpy()
    assert np.abs(found - targets).max() < 0.05 * targets.std()  # the penalty shrinks by about a hundredth


def test_texts_that_are_all_the_same_are_refused():
    states, targets = np.ones((6, 5), dtype="f4"), np.eye(6, 3, dtype="f4")
    with pytest.raises(TrainingError, match="item_tower: all 6 texts have the same vector"):
        solve_projection(Projection(5, 3), states, targets, where="item_tower")
