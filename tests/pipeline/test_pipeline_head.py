"""The head's weights and new items are chosen on validation data: planted structure is found."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lora_rec.data import Dataset, EvaluationSet, Lists, leave_last_out
from lora_rec.data.dataset import Split
from lora_rec.errors import TrainingError
from lora_rec.pipeline import item_item, new_items
from lora_rec.pipeline.head import fit_on_texts
from lora_rec.pipeline.judge import mean_ndcg
from lora_rec.pipeline.new_items import FACTORS, choose_new_items, place_by_neighbours
from lora_rec.pipeline.weights import choose_recent
from lora_rec.rank.head import RankingHead
from lora_rec.rank.linear import centre
from lora_rec.rank.new_items import find_neighbours
from lora_rec.rank.sequence import SequencePart
from lora_rec.recipe import HeadSection
from lora_rec.train.item_item import ExactFit
from lora_rec.train.sequence import SequenceHead

N_TOPICS, PER_TOPIC, N_USERS = 6, 10, 300
N_ITEMS = N_TOPICS * PER_TOPIC
DAY = 86_400
SECTION = HeadSection(n_fits=2, epochs=0, new_item_cost=0.05)


def make(items_of, times_of) -> Split:
    """Each user takes items at rising times."""
    rng = np.random.default_rng(0)
    users, items, times = [], [], []
    for user in range(N_USERS):
        moments = np.sort(times_of(rng))
        users += [user] * len(moments)
        items += items_of(rng, moments)
        times += moments.tolist()
    dataset = Dataset(
        user_ids=np.array([str(u) for u in range(N_USERS)]),
        item_ids=np.array([str(i) for i in range(N_ITEMS)]),
        item_fields={},
        users=np.array(users),
        items=np.array(items),
        times=np.array(times),
    )
    return leave_last_out(dataset)


def by_topic(rng, moments, new=()):
    """One topic a user; the items in `new` are not taken."""
    topic = rng.integers(0, N_TOPICS)
    choice = np.setdiff1d(np.arange(topic * PER_TOPIC, (topic + 1) * PER_TOPIC), new)
    return rng.permutation(choice)[: len(moments)].tolist()


def texts(noise=0.3):
    rng = np.random.default_rng(1)
    topics = np.repeat(np.eye(N_TOPICS), PER_TOPIC, axis=0)
    return centre((topics + noise * rng.normal(size=topics.shape)).astype("f4"))


def over_a_month(rng):
    return rng.integers(0, 24 * DAY, 6)


def sold_in_season(rng, moments):
    items = (moments // (2 * DAY)).astype(int) * 5 + rng.integers(0, 5, len(moments))
    return (items % N_ITEMS).tolist()


def test_what_sells_now_is_found_and_served():
    split = make(sold_in_season, over_a_month)
    fitted = fit_on_texts(SECTION, texts(), split)
    assert fitted.half_life in (1.0, 3.0)
    assert fitted.validation > fitted.choice.validation + 0.1
    # Each test user gets what sold at the own moment, a visitor of today what sells at the end of the log.
    lists, _ = fitted.top_k(split.test, k=5)
    seasons = (split.test.times // (2 * DAY)) * 5 % N_ITEMS
    assert (np.abs(lists - seasons[:, None]) < 5).mean() > 0.6
    today, _ = fitted.head.top_k(split.test.histories, k=5)
    assert (np.bincount(today.ravel(), minlength=N_ITEMS)[55:60]).sum() > 0.5 * today.size


def test_a_date_in_the_future_empties_no_counts_and_one_far_off_is_told(caplog):
    def dated(moment):
        split = make(sold_in_season, over_a_month)
        log = split.validation_log
        times = log.times.copy()
        times[-1] = moment
        return replace(split, validation_log=replace(log, times=times))

    sane, future, late = (
        fit_on_texts(SECTION, texts(), dated(moment)).head.recent
        for moment in (24 * DAY, 4_000_000_000, 400 * DAY)
    )
    np.testing.assert_allclose(future.sum(), sane.sum(), rtol=0.5)  # of 1,500 interactions
    assert late.sum() == pytest.approx(1, abs=1e-4)
    assert caplog.text.count("a few interactions are dated long after all others") == 1


def test_a_trial_that_cannot_be_inverted_is_left_out(monkeypatch):
    split = make(by_topic, over_a_month)

    def table(fit, settings, *, n_neighbours):
        if settings.nearness is not None:
            raise TrainingError("head: cannot be inverted")
        return fitted(fit, settings, n_neighbours=n_neighbours)

    fitted = ExactFit.table
    monkeypatch.setattr(ExactFit, "table", table)
    assert fit_on_texts(SECTION, texts(), split).choice.settings.nearness is None
    monkeypatch.setattr(item_item, "STARTS", item_item.STARTS[:1])
    with pytest.raises(TrainingError, match="cannot be inverted"):
        fit_on_texts(SECTION, texts(), split)


def test_the_seed_alone_decides_the_sequence_part():
    section, split = replace(SECTION, epochs=1), make(by_topic, over_a_month)
    found = []
    for seed, drawn in ((3, 0), (3, 5), (4, 0)):
        torch.manual_seed(drawn)  # whatever came before
        found.append(fit_on_texts(section, texts(), split, seed=seed).head.sequence.items)
    assert np.array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


def test_recent_counts_that_do_not_help_are_left_out():
    split = make(by_topic, lambda rng: rng.integers(0, 24 * DAY, 6))
    fitted = fit_on_texts(SECTION, texts(), split)
    assert fitted.validation >= fitted.choice.validation
    head, half_life = choose_recent(RankingHead(fitted.head.linear), None, split.validation)
    assert half_life is None and head.recent_weight == 0


def test_a_catalogue_of_fewer_items_than_a_list_has_places_is_judged():
    wanted = EvaluationSet(np.array([0]), Lists.from_arrays([[0]]), Lists.from_arrays([[2]]))
    assert mean_ndcg(np.array([[2, 1, -1]]), wanted) == 1
    assert mean_ndcg(np.array([[1, 2, -1]]), wanted) == pytest.approx(1 / np.log2(3))


def test_new_items_are_found_by_the_topic_of_their_text():
    new = np.arange(0, N_ITEMS, PER_TOPIC)  # the first of each topic
    split = make(lambda rng, m: by_topic(rng, m, new), lambda rng: rng.integers(0, 24 * DAY, 6))
    fitted = fit_on_texts(SECTION, texts(), split)
    assert fitted.head.new_items.items.tolist() == new.tolist()
    scores = fitted.head.scores(split.test.histories)[:, new]
    topics = split.test.histories.values[split.test.histories.offsets[:-1]] // PER_TOPIC
    assert (scores.argmax(axis=1) == topics).mean() > 0.95


@pytest.mark.parametrize("cost", [0.0, 0.5])
def test_new_items_cost_no_more_than_is_allowed(cost):
    split = make(by_topic, lambda rng: rng.integers(0, 24 * DAY, 6))
    fitted = fit_on_texts(SECTION, texts(noise=1.0), split)
    head = RankingHead(fitted.head.linear)
    choice = choose_new_items(
        head, texts(noise=1.0), split.item_counts(), split.validation, recent=None, cost=cost
    )
    assert choice.factor == FACTORS[0] or choice.known >= (1 - cost) * choice.known_alone
    if cost:
        assert choice.factor > 1.0 and choice.new > 0


def test_vague_texts_ask_for_more_neighbours(monkeypatch):
    monkeypatch.setattr(new_items, "NEIGHBOURS", (4, 40))
    vague, new = texts(noise=1.5), np.arange(0, N_ITEMS, PER_TOPIC)
    split = make(lambda rng, m: by_topic(rng, m, new), over_a_month)
    fitted = fit_on_texts(SECTION, vague, split)
    assert fitted.new_items.n_neighbours == 40
    assert fitted.head.new_items.neighbours.shape == (N_TOPICS, 40)


def test_what_known_items_lose_is_asked_of_known_items_alone():
    counts = np.ones(N_ITEMS, dtype=np.int64)
    counts[[3, 7]] = 0
    targets = Lists.from_arrays([[3], [7, 12], [25]])
    judged = EvaluationSet(np.arange(3), Lists.from_arrays([[1], [2], [4]]), targets)
    head = RankingHead(fit_on_texts(SECTION, texts(), make(by_topic, over_a_month)).head.linear)
    trial = new_items._Trial(head, np.array([25]), counts == 0, judged, None)
    withheld, known = trial._targets
    assert [part.tolist() for part in withheld] == [[], [], [25]]
    assert [part.tolist() for part in known] == [[], [12], []]


def test_what_came_after_the_sequence_part_scores_as_its_neighbours():
    rng = np.random.default_rng(0)
    sizes = {"user_width": 0, "width": 8, "n_blocks": 1, "n_heads": 2, "history_length": 5}
    rates = {"dropout": 0.0, "id_dropout": 0.0, "min_id_count": 1, "temperature": 0.1}
    module = SequenceHead(texts(), np.ones(N_ITEMS, dtype=np.int64), **sizes, **rates)
    arrays = module.to_arrays()
    part = SequencePart(**(arrays | {"item_bias": rng.normal(size=N_ITEMS).astype("f4")}))
    is_new = np.arange(N_ITEMS) % PER_TOPIC == 0
    table = find_neighbours(texts(), is_new, n_neighbours=3)
    placed, histories = place_by_neighbours(part, table), Lists.from_arrays([[1, 2], [33, 34, 35]])
    expected = part.scores(histories)
    table.fill(expected)  # with a factor of 1
    np.testing.assert_allclose(placed.scores(histories), expected, atol=1e-5)
