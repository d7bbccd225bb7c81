"""The scorer of shown lists, on a made-up world whose answer is known."""

import numpy as np
import pytest
import torch

from lora_rec.data.impressions import Impressions, ImpressionSplit
from lora_rec.data.lists import Lists
from lora_rec.errors import DataError, TrainingError
from lora_rec.metrics import impression_auc
from lora_rec.pipeline.candidates import RATE_PRIORS, fit_candidates, last_histories
from lora_rec.train.candidates import count_clicks, fit_weights, learn_click_bias
from lora_rec.train.text_match import TextMatch, hold_out, train_text_match

N_ITEMS, N_TOPICS, DAY = 240, 4, 86_400


def make_texts(rng):
    """Item i is about topic i % 4; what tells topics apart is faint beside what does not matter."""
    topics = np.arange(N_ITEMS) % N_TOPICS
    texts = rng.normal(size=(N_ITEMS, 12))
    texts[:, :N_TOPICS] = 0.7 * np.eye(N_TOPICS)[topics] + 0.1 * rng.normal(size=(N_ITEMS, N_TOPICS))
    return texts.astype("f4"), topics


def draw(rng, topics, items, *, n=200):
    """Histories of one topic each, over the older half of the items."""
    likes = rng.integers(N_TOPICS, size=n)
    old = np.arange(N_ITEMS // 2)
    histories = [rng.permutation(old[topics[old] == like])[:8] for like in likes]
    shown = [rng.permutation(items)[:10] for _ in range(n)]
    return likes, Lists.from_arrays(histories), Lists.from_arrays(shown)


def mean_auc(scorer, shown):
    scores = scorer.scores(shown.histories, shown.candidates)
    return np.nanmean(impression_auc(scores, shown.clicks, shown.candidates.offsets))


def test_a_planted_match_is_found_for_items_that_nobody_has_taken():
    rng = np.random.default_rng(0)
    texts, topics = make_texts(rng)
    likes, histories, candidates = draw(rng, topics, np.arange(N_ITEMS // 2, N_ITEMS))
    clicks = topics[candidates.values] == np.repeat(likes, candidates.counts)
    shown = Impressions(np.arange(200), np.arange(200), histories, candidates, clicks)
    start = train_text_match(texts, histories, width=12, epochs=1, learning_rate=0.0)
    trained = train_text_match(texts, histories, width=12, epochs=20, learning_rate=0.02)
    # With four seeds .61 to .67 before and .998 or more after.
    assert mean_auc(start, shown) < 0.75
    assert mean_auc(trained, shown) > 0.97


def test_the_same_seed_gives_the_same_scorer():
    rng = np.random.default_rng(0)
    texts, topics = make_texts(rng)
    _, histories, _ = draw(rng, topics, np.arange(N_ITEMS), n=60)
    one, two, other = (train_text_match(texts, histories, width=6, epochs=2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.items, two.items)
    assert np.abs(one.items - other.items).max() > 1e-4


def test_an_item_that_the_user_has_too_is_no_negative():
    """All histories are one, so what is held out of another was taken as well: nothing is to be learned."""
    texts, _ = make_texts(np.random.default_rng(0))
    start, trained = (
        train_text_match(texts, Lists.from_arrays([np.arange(9)] * 5), width=6, epochs=3, learning_rate=rate)
        for rate in (0.0, 0.1)
    )
    np.testing.assert_array_equal(trained.projection, start.projection)


def test_numpy_equals_torch():
    rng = np.random.default_rng(0)
    texts, topics = make_texts(rng)
    _, histories, _ = draw(rng, topics, np.arange(N_ITEMS), n=30)
    scorer = train_text_match(texts, histories, width=6, epochs=3, learning_rate=0.02)
    centred = texts - texts.mean(axis=0)
    model = TextMatch(torch.nn.functional.normalize(torch.from_numpy(centred), dim=1), width=6)
    with torch.no_grad():
        model.projection.copy_(torch.from_numpy(scorer.projection))
        model.sharpness.fill_(scorer.sharpness)
        model.weight.fill_(scorer.history_weight)
        table, mask = torch.tensor([[3, 9, 1], [7, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
        unit = torch.nn.functional.normalize(torch.from_numpy(centred), dim=1)
        expected = model(unit, table, mask, torch.tensor([5, 6])).numpy()
    found = scorer.scores(Lists.from_arrays([[3, 9, 1], [7]]), Lists.from_arrays([[5, 6], [5, 6]]))
    np.testing.assert_allclose(found.reshape(2, 2), expected, atol=1e-4)


def test_what_is_held_out_is_not_seen():
    rng = np.random.default_rng(0)
    for length in (2, 3, 30, 500):
        history = rng.permutation(1000)[:length]
        seen, held_out = hold_out(history, rng)
        assert len(seen) >= 1
        assert 1 <= len(held_out) <= 16
        assert not set(seen) & set(held_out)
        places = [history.tolist().index(item) for item in seen]
        assert places == sorted(places)


def clicked_by_rate(rng, *, n=400):
    """Four days on which item i is clicked by its rate, or by chance where it is new; nothing else counts."""
    rates = np.where(np.arange(20) % 2 == 0, 0.6, 0.1)
    candidates = Lists.from_arrays([rng.permutation(20)[:5] for _ in range(n)])
    clicks = rng.random(len(candidates.values)) < rates[candidates.values]
    histories = Lists.from_arrays([rng.integers(20, size=3) for _ in range(n)])
    return Impressions(np.arange(n), np.arange(n) * 4 * DAY // n, histories, candidates, clicks)


def test_items_that_are_clicked_rise():
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(25, 6)).astype("f4")
    shown = clicked_by_rate(rng)
    match = train_text_match(texts, shown.histories, width=4, epochs=1)
    scorer = learn_click_bias(match, shown, rate_prior=10.0)
    # 400 lists of 5 show each item 100 times, so its click rate is known to .05.
    assert scorer.item_bias[0:20:2].min() > scorer.item_bias[1:20:2].max() + 0.5
    # The texts say nothing, and the weight of the match shrinks.
    assert abs(scorer.history_weight) < 0.3 * match.history_weight
    assert (scorer.item_bias[20:] == np.float32(scorer.new_item_bias)).all()
    np.testing.assert_array_equal(scorer.items, match.items)


def test_new_items_that_are_clicked_are_preferred():
    rng = np.random.default_rng(0)
    days = np.arange(200) // 50
    # Each day has three new items beside three of the first day; nine of ten clicks fall on a new one.
    candidates = Lists.from_arrays([[0, 1, 2, *(3 + 3 * day + np.arange(3))] for day in days])
    places = np.where(rng.random(200) < 0.9, rng.integers(3, 6, size=200), rng.integers(3, size=200))
    clicks = np.arange(6) == places[:, None]
    histories = Lists.from_arrays([rng.integers(15, size=3) for _ in range(200)])
    shown = Impressions(np.arange(200), days * DAY, histories, candidates, clicks.ravel())
    match = train_text_match(rng.normal(size=(16, 6)).astype("f4"), histories, width=4, epochs=1)
    scorer = learn_click_bias(match, shown)
    # The log of the odds of 9 to 1 is 2.2, with a standard error of .27 in 150 lists.
    assert scorer.new_item_bias - scorer.item_bias[:3].max() > 1.3
    assert scorer.new_item_bias > 0.5
    assert scorer.item_bias[15] == np.float32(scorer.new_item_bias)  # never shown
    assert scorer.with_items(match.text_mean[None]).item_bias[16] == scorer.item_bias[15]


def test_click_rates_are_those_of_the_days_before():
    """On the only day that is learned from, every item is new: its own clicks must not tell."""
    rng = np.random.default_rng(0)
    first, second = clicked_by_rate(rng, n=50), clicked_by_rate(rng, n=200)
    candidates = Lists(
        np.concatenate([first.candidates.values + 20, second.candidates.values]),
        np.concatenate([first.candidates.offsets, second.candidates.offsets[1:] + 250]),
    )
    shown = Impressions(
        np.arange(250),
        np.repeat([0, DAY], [50, 200]),
        Lists.from_arrays([rng.integers(40, size=3) for _ in range(250)]),
        candidates,
        np.concatenate([first.clicks, second.clicks]),
    )
    match = train_text_match(rng.normal(size=(40, 6)).astype("f4"), shown.histories, width=4, epochs=1)
    np.testing.assert_allclose(learn_click_bias(match, shown).item_bias, 0, atol=1e-6)


def test_counts_by_hand():
    lists = Lists.from_arrays([[0, 1], [1, 0]])
    shown = Impressions(np.arange(2), np.arange(2), lists, lists, np.array([True, False, True, True]))
    counts = count_clicks(shown, n_items=3, rate_prior=2.0)
    rate = 3 / 4
    np.testing.assert_allclose(
        counts.log_lift, np.log([(2 + 2 * rate) / (2 + 2) / rate, (1 + 2 * rate) / (2 + 2) / rate, 1])
    )
    assert counts.new.tolist() == [0, 0, 1]


def test_weights_are_those_that_made_the_clicks():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 5, 2))
    chosen = (features @ [1.5, -0.7] + rng.gumbel(size=(4000, 5))).argmax(axis=1)  # a conditional logit
    clicks = np.arange(5) == chosen[:, None]
    lists = Lists.from_arrays(np.zeros((4000, 5), int))
    found = fit_weights(features.reshape(-1, 2), lists, clicks.ravel())
    np.testing.assert_allclose(found, [1.5, -0.7], atol=0.1)  # the standard error is about .025


def test_a_log_that_says_nothing_is_refused():
    lists = Lists.from_arrays([[0, 1], [1, 0]])
    texts = np.eye(3, dtype="f4")
    match = train_text_match(texts, lists, width=2, epochs=1)
    day = Impressions(np.arange(2), np.array([0, DAY - 1]), lists, lists, np.array([True, False] * 2))
    with pytest.raises(DataError, match="impressions.times: all 2 lists to learn from lie within 86,400"):
        learn_click_bias(match, day)
    days = Impressions(np.arange(2), np.array([0, DAY]), lists, lists, np.ones(4, bool))
    with pytest.raises(DataError, match=r"impressions\.clicks: no list after the first 86,400 seconds"):
        learn_click_bias(match, days)
    with pytest.raises(DataError, match="histories: none of 2 has two items"):
        train_text_match(texts, Lists.from_arrays([[1], [2, 2]]), width=2)
    with pytest.raises(TrainingError, match="text match: the loss is nan; lower learning_rate=inf"):
        train_text_match(texts, lists, width=2, learning_rate=np.inf)
    texts[1, 2] = np.nan
    with pytest.raises(DataError, match="text_vectors: the vector of item 1 is not finite"):
        train_text_match(texts, lists, width=2)


def test_settings_are_chosen_and_all_before_the_test_is_learned_from():
    rng = np.random.default_rng(0)
    shown = clicked_by_rate(rng)
    age = shown.times // DAY
    parts = [shown.take(np.flatnonzero(rows)) for rows in (age < 2, age == 2, age == 3)]
    texts, split = rng.normal(size=(20, 6)).astype("f4"), ImpressionSplit(*parts)
    scorer, choice = fit_candidates(texts, split, n_trials=4, width=4)
    match = train_text_match(texts, last_histories(parts[0]), width=4, epochs=choice.epochs)
    found = [mean_auc(learn_click_bias(match, parts[0], rate_prior=prior), parts[1]) for prior in RATE_PRIORS]
    assert len(set(found)) > 1
    assert (choice.validation, choice.rate_prior) == (max(found), RATE_PRIORS[int(np.argmax(found))])
    assert choice.trials == 4
    # What was learned for the test knows the validation day as well.
    before = learn_click_bias(match, parts[0], rate_prior=choice.rate_prior)
    assert np.abs(scorer.item_bias - before.item_bias).max() > 1e-3
    # Rates of .6 and .1 order three quarters of the pairs; the text orders none.
    assert mean_auc(scorer, parts[2]) > 0.65


def test_the_newest_history_of_each_user_is_kept():
    lists = Lists.from_arrays([[1, 2], [1], [3], [1, 2, 4]])
    shown = Impressions(np.array([7, 7, 2, 7]), np.array([5, 1, 2, 9]), lists, lists, np.zeros(7, bool))
    assert [history.tolist() for history in last_histories(shown)] == [[3], [1, 2, 4]]
