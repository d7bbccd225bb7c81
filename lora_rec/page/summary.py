"""What the numbers say, in sentences; what is worse is said like what is better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lora_rec.page.run import SERVED, Run
from lora_rec.page.users import AGAINST, Again
from lora_rec.pipeline.evidence import PairedTest
from lora_rec.pipeline.slices import Slice


def summarise(run: Run, again: Again | None = None) -> list[str]:
    """Gives the sentences of the summary.

    Args:
        run: of the bundle.
        again: its test users ranked for again, if the data was given.
    """
    sentences = [_setting(run), _tuning(run), _baseline(run), _towers_alone(run), _reranking(run)]
    slices = run.slices if again is None else again.slices
    sentences.append(_parts(run, slices, SERVED if again is not None else "ranking_head"))
    if again is not None:
        sentences.append(_users(run, again))
    return [text for text in sentences if text]


def verdict(test: PairedTest) -> str:
    """Says whether a difference is more than chance; see `PairedTest.is_sure`."""
    if not test.is_sure:
        return "no sure difference"
    higher, lower = ("more", "less") if test.metric.startswith("ild") else ("better", "worse")
    return f"surely {higher if test.mean > 0 else lower}"


def certainty(test: PairedTest) -> str:
    """Gives the interval and the p-value of a difference.

    >>> certainty(PairedTest("ours", "ease", "ndcg@10", 0.02, 0.01, 0.03, 600, 0.0004))
    'difference +0.0100 to +0.0300, p < 0.001'
    """
    p_value = "p < 0.001" if test.p_value < 0.001 else f"p = {test.p_value:.3f}"
    return f"difference {test.low:+.4f} to {test.high:+.4f}, {p_value}"


def _setting(run: Run) -> str:
    if not run.data:
        return ""
    n_users = next(iter(run.data["kept"].get("test", {}).values()), 0)
    return (
        f"{run.data['n_users']:,} users, {run.data['n_items']:,} items, {run.data['n_interactions']:,}"
        f" interactions; the whole catalogue was ranked for {n_users:,} test users."
    )


def _tuning(run: Run) -> str:
    """Says what the adapters brought."""
    name, before = "trained_towers", "frozen_towers"
    if not {name, before} <= run.rows.keys():
        return ""
    if run.metrics.get("training", {}).get("best_epoch") == 0:
        return "No epoch of fine-tuning beat the frozen towers on validation users, so none was kept."
    said = {
        "surely better": "Fine-tuning made the two towers better",
        "surely worse": "Fine-tuning made the two towers worse",
        "no sure difference": "Fine-tuning changed the two towers by no more than chance may",
    }
    test = run.test(name, before)
    start = said[verdict(test)] if test else "Fine-tuning changed the two towers"
    return f"{start}, when they rank alone: {_change(run, before, name, test)}."


def _baseline(run: Run) -> str:
    """Sets the head beside the strongest baseline."""
    best, name = run.best_baseline, "ranking_head"
    if best is None or name not in run.rows:
        return ""
    said = {
        "surely better": "better than",
        "surely worse": "worse than",
        "no sure difference": "not surely different from",
    }
    test = run.test(name, best)
    how = said[verdict(test)] if test else "set beside"
    return (
        f"The ranking head, which serves without the language models, is {how} {run.label(best)}, the"
        f" strongest baseline: {_change(run, best, name, test)}."
    )


def _change(run: Run, other: str, system: str, test: PairedTest | None) -> str:
    """Gives the `ndcg` of two systems with what is known of the difference."""
    before, after = (run.rows[name][f"ndcg@{run.k}"] for name in (other, system))
    known = [f"{after / before - 1:+.0%}"] if before > 0 else []
    known += [certainty(test)] if test else []
    return f"ndcg@{run.k} {after:.4f} instead of {before:.4f}" + (f" ({'; '.join(known)})" if known else "")


def _towers_alone(run: Run) -> str:
    """Warns where the towers lose to a baseline, and of what such a run does not measure."""
    best, name = run.best_baseline, "trained_towers"
    if best is None or name not in run.rows:
        return ""
    text = ""
    if run.rows[name][f"ndcg@{run.k}"] < run.rows[best][f"ndcg@{run.k}"]:
        text = f"Alone the towers stay below {run.label(best)}. "
    return text + "How the head would do on the frozen towers' vectors was not measured in this run."


def _reranking(run: Run) -> str:
    """Says what variety costs in the re-ranked lists of the run."""
    if not {"ranking_head", "ranking_head_diverse"} <= run.rows.keys():
        return ""
    plain, diverse = (run.rows[name] for name in ("ranking_head", "ranking_head_diverse"))
    names = (f"ndcg@{run.k}", f"ild_factors@{run.k}", f"ild@{run.k}", f"coverage@{run.k}")
    parts = [f"{name} by {diverse[name] / plain[name] - 1:+.1%}" for name in names if plain.get(name)]
    return f"Re-ranking for variety changes {', '.join(parts)}." if parts else ""


def _parts(run: Run, slices: Sequence[Slice], system: str) -> str:
    """Counts the parts of the users where the system is surely above or below the baseline."""
    compared = [(part, part.difference) for part in slices if part.difference is not None]
    if not compared:
        return ""
    better = [part.name for part, found in compared if part.is_sure and found.mean > 0]
    worse = [part.name for part, found in compared if part.is_sure and found.mean < 0]
    what = "the bundle as it serves" if system == SERVED else run.label(system)
    text = (
        f"In {len(better)} of {len(compared)} parts of the users {what} is surely above {run.label(AGAINST)},"
        f" in {len(worse)} surely below it"
    )
    return text + (f": {', '.join(worse)}." if worse else ".")


def _users(run: Run, again: Again) -> str:
    difference = again.difference
    helped, hurt = int((difference > 0).sum()), int((difference < 0).sum())
    moved = np.abs(difference[difference != 0])
    size = f" (by {moved.mean():.2f} of ndcg@{run.k} on average)" if len(moved) else ""
    return (
        f"User by user, the bundle helps {helped:,} of {len(difference):,} and hurts {hurt:,}{size};"
        f" for {len(difference) - helped - hurt:,} both lists are equally good."
    )
