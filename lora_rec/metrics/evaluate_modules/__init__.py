"""The metrics as modules of the library `evaluate`: a folder each, as on the Hub, loaded offline by path.

Example::

    metric = evaluate.load(evaluate_module("ndcg_at_k"))
    metric.compute(predictions=[[4, 2, 7]], references=[[2]], k=3)  # {"ndcg@3": ...}
"""

from __future__ import annotations

from pathlib import Path

from lora_rec.errors import did_you_mean


def evaluate_module(name: str) -> str:
    """Gives the path of a metric's script, for `evaluate.load` and `evaluate.combine`.

    `compute` takes `predictions` (a list of item indices per user, best first), `k` (10 unless given), and by
    name what the function of the metric takes; `references` are the relevant items of each user, for
    `recall_at_k`, `ndcg_at_k`, `mrr_at_k`, `hit_rate_at_k` and `serendipity_at_k`. The result is the mean
    over users, `{"ndcg@10": 0.25}`. What only the other metrics need is let through, because
    `evaluate.combine` hands everything to each.

    Raises:
        ValueError: there is no such metric.

    >>> Path(evaluate_module("ndcg_at_k")).name
    'ndcg_at_k.py'
    """
    folder = Path(__file__).parent
    known = sorted(script.stem for script in folder.glob("*_at_k/*_at_k.py"))
    if name not in known:
        hint = did_you_mean(name, known) or "choose a known one"
        raise ValueError(f"evaluate_module: there is no metric {name!r}; {hint} (known: {', '.join(known)})")
    return str(folder / name / f"{name}.py")
