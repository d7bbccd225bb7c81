"""The card of a bundle on the Hub, written from what the bundle holds and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lora_rec.hub.card_code import load_it, load_plainly, new_items
from lora_rec.hub.card_data import Results, metadata
from lora_rec.hub.contents import Contents
from lora_rec.hub.names import FRONT_PICTURE, USER_FILES
from lora_rec.schema import ITEM_TEXTS, ITEM_VECTORS, DataManifest, Manifest, TowerManifest

WORDS = {
    "popularity": "the items that most people took",
    "item_cosine": "items that the same people took",
    "ease": "EASE, histories weighted by recency",
    "click_rate": "the items that most people clicked",
    "frozen_towers": "both towers **before** training",
    "trained_towers": "both towers **after** training",
    "ranking_head": "the ranking head, as `recommend` gives it with `diversity=0`",
    "ranking_head_diverse": "the same lists, re-ranked for diversity",
}
MEANINGS = {
    "recall": "share of what people took next that is in the list",
    "ndcg": "the same, and the higher up the better",
    "auc": "share of pairs of a clicked and an unclicked item that are in the right order",
    "ild": "mean distance of a list's items by text, as the frozen towers read it",
    "ild_factors": "mean distance of a list's items by who took them",
    "coverage": "share of the catalogue that is in any list",
    "novelty": "how few people took the items of a list, in bits",
}


def write_card(
    contents: Contents, *, name: str, revision: str | None = None, licence: str | None = None
) -> str:
    """Gives README.md: the same text for the same bundle, so that it is sent once.

    Args:
        contents: what is pushed.
        name: OWNER/NAME of the repository.
        revision: branch that its code names; the main one when left out.
        licence: of the bundle.
    """
    manifest = contents.manifest
    at = "" if revision is None else f", revision={revision!r}"
    results = Results.of(contents.read_json("metrics.json"))
    parts = [
        f"# {name.split('/')[1]}",
        _introduction(manifest),
        load_it(contents, name, at),
        "## What is in it",
        *_towers(manifest, results),
        "## Data",
        *_data(manifest.data, results),
        *_quality(results),
        *_trade_off(contents),
        "## Without `lora_rec`",
        load_plainly(manifest, name, at),
        "## New items",
        new_items(contents, name, at),
        "## Limits",
        *_limits(contents),
    ]
    head = metadata(manifest, results, name=name, licence=licence)
    return f"---\n{head}---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _introduction(manifest: Manifest) -> str:
    what = {"user_tower": "reads what a user did", "item_tower": "reads what an item is"}
    read = " and one that ".join(what[name] for name in manifest.towers)
    kinds = sorted({_adapter(tower) for tower in manifest.towers.values()})
    text = (
        f"A recommender's adapter ({', '.join(kinds)}) on a frozen language model that {read}"
        if len(manifest.towers) == 1
        else f"A recommender's adapters ({', '.join(kinds)}) on two frozen language models, one that {read}"
    )
    if ITEM_VECTORS in manifest.left_out:
        return text + f", with maps into one space of {manifest.width} dimensions."
    return (
        text + f", and a light ranking head over {manifest.n_items:,} items that answers with numpy alone,"
        " without the language models. Made with `lora_rec`."
    )


def _adapter(tower: TowerManifest) -> str:
    return (
        "none"
        if tower.adapter == "none"
        else {"lora": "LoRA", "adalora": "AdaLoRA"}.get(tower.adapter, tower.adapter)
    )


def _towers(manifest: Manifest, results: Results) -> Iterator[str]:
    rows: dict[str, list[str]] = {}
    for name, tower in manifest.towers.items():
        settings = ", ".join(f"{k} {_short(v)}" for k, v in tower.adapter_settings.items() if v is not None)
        counted = results.parameters.get(name)
        rows[name.replace("_", " ")] = [
            f"[{tower.base_model_id}](https://huggingface.co/{tower.base_model_id})"
            if tower.is_on_hub
            else f"`{tower.base_model_id}`, a folder of its maker's",
            f"`{tower.revision}`" if tower.revision else _unversioned(tower),
            tower.licence or "not stated; look at the base's own page",
            _adapter(tower) + (f" ({settings})" if settings else ""),
            "every layer" if tower.trained_layers is None else f"the last {tower.trained_layers}",
            f"{counted['trained']:,} of {counted['total']:,} ({counted['trained'] / counted['total']:.2%})"
            if counted
            else "",
            f"{tower.pooling} pooling, {tower.hidden_size} to {manifest.width} wide, at most"
            f" {tower.max_tokens} tokens",
            tower.precision + (f", computed in {tower.compute}" if tower.compute else ""),
        ]
    titles = [
        "base model",
        "revision",
        "licence of the base",
        "adapter",
        "on layers",
        "parameters learned",
        "vector",
        "weights of the base in",
    ]
    yield _table(["", *rows], [[title, *cells] for title, *cells in zip(titles, *rows.values(), strict=True)])
    text = manifest.text
    yield (
        f"An item is written as `{text.item_template}`, a history as its last {text.history_length} items,"
        f" {'newest' if text.newest_first else 'oldest'} first, each as `{text.history_item_template}`."
    )
    missing = {
        ITEM_TEXTS: "The items' texts were left out by the maker: lists give ids alone.",
        ITEM_VECTORS: "The items' vectors and the ranking head were left out by the maker: the towers work,"
        " and whoever uses them encodes items of their own.",
    }
    for part in manifest.left_out:
        yield missing[part]


def _unversioned(tower: TowerManifest) -> str:
    if tower.backbone.startswith("package:"):
        return f"as in the Python package `{tower.backbone.removeprefix('package:')}`"
    return f"fingerprint `{tower.fingerprint[:16]}`"


def _short(value: Any) -> str:
    return json.dumps(value) if isinstance(value, (list, bool)) else f"{value}"


def _data(data: DataManifest | None, results: Results) -> Iterator[str]:
    if data is None:
        yield "Its maker's lora_rec did not write down what it was trained on."
    else:
        source = f"[{data.name}]({data.home})" if data.home else data.name
        yield f"{source}. Licence or terms: {data.licence or 'not stated by the maker.'}"
    numbers = results.data
    if not numbers:
        return
    yield (
        f"{numbers['n_users']:,} users, {numbers['n_items']:,} items, {numbers['n_interactions']:,}"
        f" interactions, split by `{numbers['split']}`:"
    )
    columns = ["users", "items", "interactions"]
    rows = []
    for part, counts in numbers["kept"].items():
        found = [counts.get(column, counts.get("targets", "")) for column in columns]
        rows.append([part, *(f"{value:,}" if isinstance(value, int) else "" for value in found)])
    yield _table(["part", *columns], rows)
    if numbers.get("dropped"):
        yield "Left out: " + "; ".join(f"{n:,} {why}" for why, n in numbers["dropped"].items()) + "."


def _quality(results: Results) -> Iterator[str]:
    if not results.systems:
        return
    yield "## How good it is"
    yield (
        f"On {f'{results.n_users:,} ' if results.n_users else ''}test users whose next items nobody had seen."
        " In brackets the 95 % interval over users, where a number is a mean over users."
    )
    rows = []
    for system, row in results.systems.items():
        cells = [_cell(row[column], results.interval(system, column)) for column in results.columns]
        rows.append([f"`{system}`", WORDS.get(system, ""), *cells])
    yield _table(["system", "what it is", *results.columns], rows, right_from=2)
    names = dict.fromkeys(column.split("@")[0] for column in results.columns)
    yield "\n".join(f"- `{name}`: {MEANINGS[name]}" for name in names if name in MEANINGS)


def _cell(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.4f}" + (f" ({interval[0]:.4f}–{interval[1]:.4f})" if interval else "")


def _trade_off(contents: Contents) -> Iterator[str]:
    if FRONT_PICTURE not in contents.files:
        return
    ranking = contents.manifest.ranking
    own = (
        f"`{ranking.strategy}` by {ranking.space}, diversity {ranking.diversity:g}"
        if ranking.diversity
        else "the order of relevance, diversity 0"
    )
    yield "## Relevance and diversity"
    yield f"![relevance against diversity for each strategy of re-ranking]({FRONT_PICTURE})"
    yield (
        "Each line is a strategy of re-ranking from weak to strong, on validation users. By itself the bundle"
        f' gives {own}; `recommend(..., diversity=0.3, strategy="mmr")` asks for something else.'
    )
    if ranking.steepness is not None and ranking.typical_chance is not None:
        yield (
            "Re-ranking weighs variety against the chance that an item is taken, which scores become with"
            f" steepness {ranking.steepness:.3g}, typical chance {ranking.typical_chance:.3g}."
        )


def _limits(contents: Contents) -> Iterator[str]:
    manifest = contents.manifest
    of_users = [name for name in USER_FILES if name in contents.files]
    told = (
        f"{' and '.join(f'`{name}`' for name in of_users)} tell{'s' * (len(of_users) == 1)} of single users."
        if of_users
        else "No user's id or history is in these files."
    )
    lines = [
        "It has learned from one data set, at one time; elsewhere measure it again before you use it.",
        "The numbers are offline: they say what was found again, not what people would have liked.",
        "What the base models know wrongly or one-sidedly is in the texts' vectors, too.",
        f"{told} Weights between items are learned from many users' histories.",
    ]
    if ITEM_VECTORS not in manifest.left_out:
        lines.append("Lists hold the items of this catalogue alone; see New items for others.")
    if any(tower.precision in ("4bit", "8bit", "bf16") for tower in manifest.towers.values()):
        lines.append(
            "The towers were trained on the base in less than fp32; in fp32 their vectors differ a bit."
        )
    if any(tower.backbone.startswith("package:") for tower in manifest.towers.values()):
        lines.append(
            "A base from a Python package may be rounded against the Hub's weights of the same name;"
            " `lora_rec` uses the package and checks its fingerprint."
        )
    yield "\n".join(f"- {line}" for line in lines)


def _table(header: list[str], rows: list[list[str]], *, right_from: int | None = None) -> str:
    """Writes a Markdown table; columns from a place on are aligned to the right."""
    first = len(header) if right_from is None else right_from
    rule = [":--" if place < first else "--:" for place in range(len(header))]
    lines = [[cell.replace("|", "\\|") for cell in row] for row in [header, rule, *rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
