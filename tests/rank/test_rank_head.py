import numpy as np
from rank_heads import GENERATOR, HISTORIES, every_part, make_head

from lora_rec.rank.head import RankingHead


def test_save_and_load_give_the_same_scores():
    head = every_part()
    again = RankingHead.from_arrays(head.to_arrays())
    assert (again.sequence_weight, again.linear.decay, again.recent_weight) == (0.05, 0.8, 0.3)
    assert again.new_items.factor == 2.0
    assert head.scores(HISTORIES).dtype == np.float32
    # Weights are kept in half precision.
    np.testing.assert_allclose(again.scores(HISTORIES), head.scores(HISTORIES), atol=5e-3)


def test_the_linear_part_is_saved_and_loaded_alone():
    head = RankingHead(make_head().linear)
    again = RankingHead.from_arrays(head.to_arrays())
    assert again.sequence is None and again.recent is None
    np.testing.assert_allclose(again.scores(HISTORIES), head.scores(HISTORIES), atol=5e-3)


def test_lists_are_the_best_scores_outside_the_history():
    head = every_part()
    items, scores = head.top_k(HISTORIES, k=3)
    for row, history in enumerate(HISTORIES):
        left = head.scores(HISTORIES)[row]
        left[history] = -np.inf
        assert items[row].tolist() == np.argsort(-left, kind="stable")[:3].tolist()
        np.testing.assert_allclose(scores[row], left[items[row]], rtol=1e-5)


def standardised(head):
    scores = head.linear.scores(HISTORIES)
    spread = scores.std(axis=1, keepdims=True)
    return scores / np.where(spread > 0, spread, 1)


def test_without_weight_the_linear_part_ranks_alone():
    head = make_head(weight=0.0)
    np.testing.assert_allclose(head.scores(HISTORIES), standardised(head), rtol=1e-6)


def test_scores_are_the_sum_of_the_parts():
    head = make_head(recent=np.ones(20, np.float32), recent_weight=0.3)
    texts = GENERATOR.normal(size=(30, 4)).astype("f4")
    part = head.sequence
    expected = 0.05 * (part.user_vectors(HISTORIES, texts) @ part.items.T + part.item_bias)
    expected += standardised(head) + 0.3 * np.log(2)
    np.testing.assert_allclose(head.scores(HISTORIES, texts), expected, atol=1e-5)


def test_recent_counts_of_a_moment_replace_those_of_the_end():
    head = make_head(recent=np.zeros(20, np.float32), recent_weight=2.0)
    counts = np.zeros((30, 20), np.float32)
    counts[:, 3] = 1000
    assert (head.scores(HISTORIES, recent=counts)[:, 3] > head.scores(HISTORIES)[:, 3] + 10).all()


def test_new_items_score_by_their_neighbours_alone():
    head = every_part()
    scores = head.scores(HISTORIES)
    others = RankingHead(head.linear, head.sequence, 0.05, head.recent, 0.3).scores(HISTORIES)
    np.testing.assert_allclose(scores[:, :17], others[:, :17], rtol=1e-6)
    means = others[:, :17].mean(axis=1)
    near = (others[:, head.new_items.neighbours] * head.new_items.weights).sum(axis=2)
    # For users without a history nothing is stretched.
    factors = np.where(HISTORIES.counts == 0, 1, 2)[:, None]
    expected = means[:, None] + factors * (near - means[:, None])
    np.testing.assert_allclose(scores[:, 17:], expected, rtol=1e-4, atol=1e-5)
