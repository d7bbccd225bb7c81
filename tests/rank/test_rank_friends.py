import numpy as np
import pytest

from lora_rec.data import Lists
from lora_rec.errors import DataError
from lora_rec.rank.friends import FriendModel, FriendSettings
from lora_rec.rank.taste import describe_tastes
from lora_rec.train.friends import FriendFit

N_ITEMS, N_USERS = 30, 12
SETTINGS = FriendSettings(regularisation=3.0, taste_weight=4.0, text_share=0.25)
GENERATOR = np.random.default_rng(0)
VECTORS = GENERATOR.normal(size=(N_ITEMS, 6)).astype("f4")
FRIENDS = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [4, 5], [5, 6], [7, 8], [1, 8]])


def random_tastes(n_users=N_USERS):
    generator = np.random.default_rng(1)
    items = [generator.permutation(N_ITEMS)[: 2 + n % 5] for n in range(n_users)]
    histories = Lists.from_arrays(items, [generator.integers(1, 90, len(own)) for own in items])
    return describe_tastes(histories, n_items=N_ITEMS, item_vectors=VECTORS)


def test_scores_are_those_of_the_formula():
    tastes = random_tastes()
    model = FriendFit(FRIENDS, tastes).model(SETTINGS)
    x = np.eye(N_USERS)
    x[FRIENDS[:, 0], FRIENDS[:, 1]] = x[FRIENDS[:, 1], FRIENDS[:, 0]] = 1
    by_items, by_texts = tastes.own_cosines()
    p = np.linalg.inv(x @ x + 4 * (0.75 * by_items + 0.25 * by_texts) + 3 * np.eye(N_USERS))
    b = -p / p.diagonal()
    np.fill_diagonal(b, 0)
    strangers = x == 0
    np.testing.assert_allclose(
        model.scores(np.arange(N_USERS))[strangers], (x @ b + (x @ b).T)[strangers], atol=1e-5
    )


@pytest.mark.parametrize("friends", [[], [0, 2, 7]])
def test_a_newcomer_is_scored_as_if_they_had_been_there(friends):
    tastes = random_tastes()
    histories, n = tastes.histories, N_USERS
    history, strengths = np.array([3, 4, 9]), np.array([5, 50, 1], "f4")
    found = (
        FriendFit(FRIENDS, tastes)
        .model(SETTINGS)
        .newcomer_scores(history, friends=np.array(friends, np.int64), strengths=strengths)
    )
    # The same profiles, so that the rarity of items is the same, with one user more.
    weights = np.log1p(strengths) * tastes.rarity[history]
    by_items, by_texts = tastes.cosines(Lists.from_arrays([history], [strengths]))
    text = VECTORS - VECTORS.mean(axis=0)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    text = weights @ text[history]
    text = text / np.linalg.norm(text) - tastes.text_mean
    more = type(tastes)(
        Lists.from_arrays([*histories, history]),
        np.append(tastes.weights, weights / np.linalg.norm(weights)).astype("f4"),
        tastes.rarity,
        tastes.item_vectors,
        tastes.text_mean,
        np.vstack([tastes.user_vectors, text / np.linalg.norm(text)]).astype("f4"),
    )
    np.testing.assert_allclose(more.own_cosines()[0][n, :n], by_items[0], atol=1e-5)
    np.testing.assert_allclose(more.own_cosines()[1][n, :n], by_texts[0], atol=1e-5)
    pairs = np.concatenate([FRIENDS, np.array([[n, f] for f in friends], np.int64).reshape(-1, 2)])
    whole = FriendFit(pairs, more).model(SETTINGS).scores(np.array([n]))[0, :n]
    strangers = ~np.isin(np.arange(n), friends)
    np.testing.assert_allclose(found[strangers], whole[strangers], atol=1e-5)
    assert np.ptp(found[strangers]) > 1e-3


def two_circles():
    """Users of even number take even items, the others odd ones; user 0 has no friend."""
    generator = np.random.default_rng(3)
    histories = [2 * generator.permutation(N_ITEMS // 2)[:8] + n % 2 for n in range(N_USERS)]
    tastes = describe_tastes(Lists.from_arrays(histories), n_items=N_ITEMS)
    pairs = [[a, b] for a in range(1, N_USERS) for b in range(a + 2, N_USERS, 2)]
    return np.array(pairs), tastes


def test_without_friends_taste_alone_speaks():
    friends, tastes = two_circles()
    model = FriendFit(friends, tastes).model(FriendSettings(regularisation=5.0))
    found, _ = model.top_k(np.array([0]), k=5)
    assert found[0].tolist() != sorted(found[0].tolist())  # by taste, not by number
    assert set(found[0]) == {2, 4, 6, 8, 10}
    newcomer = model.newcomer_scores(np.array([1, 3, 5, 7]))
    assert set(np.argsort(-newcomer)[:6]) == {1, 3, 5, 7, 9, 11}


def test_lists_leave_out_friends_and_oneself():
    model = FriendFit(FRIENDS, random_tastes()).model(SETTINGS)
    found, scores = model.top_k(np.array([2, 9]), k=N_USERS)
    assert sorted(found[0][found[0] >= 0]) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert sorted(found[1][found[1] >= 0]) == [n for n in range(N_USERS) if n != 9]
    assert (np.diff(scores[1][:-1]) <= 0).all()


def test_somebody_without_friends_and_items_has_finite_scores():
    tastes = describe_tastes(Lists.from_arrays([[0, 1], [1], []]), n_items=2)
    model = FriendFit(np.array([[0, 1]]), tastes).model(FriendSettings())
    assert np.isfinite(model.scores(np.array([2]))).all()
    assert np.isfinite(model.newcomer_scores(np.array([], np.int64))).all()


def test_save_and_load_give_the_same_scores():
    model = FriendFit(FRIENDS, random_tastes()).model(SETTINGS)
    again = FriendModel.from_arrays(model.to_arrays())
    assert again.settings == SETTINGS
    users = np.arange(N_USERS)
    assert np.array_equal(again.scores(users), model.scores(users))
    assert np.array_equal(again.newcomer_scores(np.array([5, 6])), model.newcomer_scores(np.array([5, 6])))


def test_mistakes_are_told():
    with pytest.raises(DataError, match="text_share=1.5"):
        FriendSettings(text_share=1.5)
    tastes = describe_tastes(Lists.from_arrays([[0], [1]]), n_items=2)
    with pytest.raises(DataError, match="0.5 without item_vectors"):
        FriendFit(np.array([[0, 1]]), tastes).model(FriendSettings(text_share=0.5))
