import pytest

from lora_rec.errors import BundleError
from lora_rec.rank.tradeoff import PLAIN, Front, Point, read_front, store_setting
from lora_rec.schema import RankingManifest


def values(ndcg, ild, coverage=0.1):
    return {"ndcg": ndcg, "recall": ndcg, "ild": ild, "ild_text": ild, "coverage": coverage, "novelty": 1.0}


def front(*points):
    found = tuple(Point("mmr", "text", d, values(n, i)) for d, n, i in points)
    return Front(10, 100, 50, Point(PLAIN, "", 0.0, values(0.2, 0.4)), found)


def test_the_most_diverse_that_keeps_enough():
    measured = front((0.1, 0.198, 0.45), (0.3, 0.191, 0.6), (0.5, 0.17, 0.8))
    assert measured.most_diverse(keep=0.95).diversity == 0.3
    assert measured.most_diverse(keep=0.99).diversity == 0.1
    assert measured.most_diverse(keep=0.8).diversity == 0.5


def test_keep_of_one_loses_nothing():
    assert front((0.1, 0.199, 0.9)).most_diverse(keep=1.0).strategy == PLAIN
    assert front((0.1, 0.201, 0.9)).most_diverse(keep=1.0).diversity == 0.1


def test_a_setting_that_is_worse_in_both_is_never_chosen():
    assert front((0.1, 0.195, 0.3)).most_diverse(keep=0.9).strategy == PLAIN
    assert front((0.1, 0.1, 0.9)).most_diverse(keep=0.95).strategy == PLAIN


def test_the_most_relevant_that_is_diverse_enough():
    measured = front((0.1, 0.198, 0.45), (0.3, 0.191, 0.6), (0.5, 0.17, 0.8))
    assert measured.most_relevant(least=0.3).strategy == PLAIN
    assert measured.most_relevant(least=0.5).diversity == 0.3
    with pytest.raises(
        ValueError,
        match=r"least-diversity: no setting reaches ild 0.9; the most that was measured is"
        r" 0.8000 \(mmr, text,"
        r" diversity 0.5, which keeps 85.0% of ndcg@10\); ask for less",
    ):
        measured.most_relevant(least=0.9)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match=r"keep: 95 is not in \(0, 1\]; 0.95 keeps 95 %"):
        front().most_diverse(keep=95)
    with pytest.raises(ValueError, match="measure: 'ndcg' is unknown; give one of ild, ild_text"):
        front().most_diverse(keep=0.9, measure="ndcg")


def test_as_json_and_back():
    measured = front((0.1, 0.198, 0.45))
    assert Front.from_json(measured.to_json()) == measured


def test_a_bundle_without_measurements(tmp_path):
    with pytest.raises(BundleError, match=r"no diversity.json, .* run its recipe again"):
        read_front(tmp_path)


def test_plain_is_stored_as_diversity_zero():
    ranking = RankingManifest("dpp", 50, 0.7, "both")
    assert store_setting(ranking, front().plain) == RankingManifest("dpp", 50, 0.0, "both")
    chosen = Point("msd", "factors", 0.2, values(0.2, 0.5))
    assert store_setting(ranking, chosen) == RankingManifest("msd", 50, 0.2, "factors")
