"""Runs one peer of rectools on a prepared set; called by quality_rectools.py with the peers' interpreter.

It reads a set as flat arrays, chooses settings on validation (or takes them from the choice file), fits again
on all that lies before the test, and writes the lists: at most ten items that the user did not have.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quality_search import Settings, climb, keep_scores
from rectools import Columns
from rectools.dataset import Dataset
from sessions import cut_into_sessions, session_length

from lora_rec.metrics import ndcg_at_k, pad_lists

K = 10
Arrays = dict[str, NDArray[Any]]


def build_model(peer: str, settings: Settings, *, length: int, seed: int) -> Any:
    """Gives an unfitted model; what is not among the settings is as rectools and implicit have it.

    Args:
        peer: a key of quality_rectools.AXES.
        settings: a value of each of its axes.
        length: of the sessions that transformers read, in items.
        seed: of first weights and dropout.
    """
    factors = int(settings["factors"])
    if peer == "ials":
        from implicit.als import AlternatingLeastSquares
        from rectools.models import ImplicitALSWrapperModel

        return ImplicitALSWrapperModel(
            AlternatingLeastSquares(
                factors=factors,
                regularization=settings["regularisation"],
                alpha=settings["alpha"],
                random_state=seed,
                num_threads=1,
            )
        )
    if peer == "bpr":
        from implicit.bpr import BayesianPersonalizedRanking
        from rectools.models import ImplicitBPRWrapperModel

        return ImplicitBPRWrapperModel(
            BayesianPersonalizedRanking(
                factors=factors,
                learning_rate=settings["learning_rate"],
                regularization=settings["regularisation"],
                iterations=int(settings["epochs"]),
                random_state=seed,
                num_threads=1,
            )
        )
    return _build_transformer(peer, settings, length=length, seed=seed)


def _build_transformer(peer: str, settings: Settings, *, length: int, seed: int) -> Any:
    from pytorch_lightning import Trainer, seed_everything
    from rectools import models
    from targets_only import TargetsOnly

    seed_everything(seed, verbose=False)
    epochs = int(settings["epochs"])

    def trainer() -> Trainer:
        return Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            # Most of their hours are products: up to twice as fast, and one setting of BERT4Rec had .116 on
            # MovieLens validation instead of .117.
            precision="bf16-mixed",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    kind = {"sasrec": models.SASRecModel, "bert4rec": models.BERT4RecModel, "hstu": models.HSTUModel}[peer]
    # HSTU also looks at times, and not every set has them; the order is what all of them get.
    own = {"relative_time_attention": False} if peer == "hstu" else {}
    if "temperature" in settings:
        own["lightning_module_kwargs"] = {"logits_t": settings["temperature"]}
    return kind(
        n_blocks=2,
        n_heads=2,
        n_factors=int(settings["factors"]),
        dropout_rate=settings["dropout"],
        lr=settings["learning_rate"],
        epochs=epochs,
        session_max_len=length,
        loss="softmax",
        lightning_module_type=TargetsOnly,
        get_trainer_func=trainer,
        **own,
    )


def rank_with(peer: str, settings: Settings, task: Arrays, part: str, *, seed: int) -> NDArray[np.int64]:
    """Fits on one part and gives a list for each of its evaluation's users."""
    offsets, items = task[f"{part}_fit_offsets"], task[f"{part}_fit_values"]
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    # Only the order counts, so a day for each place in the history.
    place = np.arange(len(items)) - offsets[users]
    table = pd.DataFrame(
        {
            Columns.User: users,
            Columns.Item: items,
            # How often, where that is known; iALS alone reads it.
            Columns.Weight: task[f"{part}_fit_weights"],
            Columns.Datetime: pd.Timestamp("2000-01-01") + pd.to_timedelta(place, unit="D"),
        }
    ).drop_duplicates([Columns.User, Columns.Item])
    dataset = Dataset.construct(table)
    length = session_length(np.diff(task["validation_fit_offsets"]))
    model = build_model(peer, settings, length=length, seed=seed)
    if peer in ("ials", "bpr"):
        model.fit(dataset)
    else:
        rows, sessions = cut_into_sessions(table[Columns.User].to_numpy(), length=length)
        model.fit(Dataset.construct(table.iloc[rows].assign(**{Columns.User: sessions})))
    wanted = task[f"{part}_users"]
    known = wanted[np.isin(wanted, dataset.user_id_map.external_ids)]
    given = model.recommend(users=known, dataset=dataset, k=K, filter_viewed=True)
    given = given.sort_values([Columns.User, Columns.Rank])
    lists = {user: group.to_numpy() for user, group in given.groupby(Columns.User)[Columns.Item]}
    return pad_lists([lists.get(user, np.empty(0, np.int64)) for user in wanted], k=K)


def targets_of(task: Arrays, part: str) -> list[NDArray[np.int64]]:
    """Gives what each user of a part took."""
    return np.split(task[f"{part}_targets_values"], task[f"{part}_targets_offsets"][1:-1])


def main() -> None:
    """Parses the command line, chooses, and writes the lists."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", type=Path, required=True, help=".npz that quality_rectools.write_set wrote")
    parser.add_argument("--output", type=Path, required=True, help=".npz to write")
    parser.add_argument("--settings", type=json.loads, required=True, help="peer, axes and start, as JSON")
    parser.add_argument("--choice", type=Path, required=True, help="kept choice; written if it is missing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, required=True)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with np.load(arguments.set) as arrays:
        task = {name: arrays[name] for name in arrays.files}
    given, seed = arguments.settings, arguments.seed

    def evaluate(settings: Settings) -> float:
        lists = rank_with(given["peer"], settings, task, "validation", seed=seed)
        score = float(ndcg_at_k(lists, targets_of(task, "validation"), k=K).mean())
        print(f"  {given['peer']}: validation {score:.4f} with {settings}", flush=True)
        return score

    about = json.loads(arguments.choice.read_text()) if arguments.choice.exists() else {}
    if about.get("given") != given:
        trials = arguments.choice.with_suffix(".trials.json")
        look = keep_scores(evaluate, trials, given=given | {"seed": seed})
        found = climb(look, given["axes"], given["start"], trials=arguments.trials)
        about = {"settings": found.settings, "validation": found.score, "trials": found.trials}
        about["given"] = given
        arguments.choice.write_text(json.dumps(about), encoding="utf-8")
    lists = rank_with(given["peer"], about["settings"], task, "test", seed=seed)
    np.savez_compressed(arguments.output, lists=lists, about=np.array(json.dumps(about)))


if __name__ == "__main__":
    main()
