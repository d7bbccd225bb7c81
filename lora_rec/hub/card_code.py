"""The code on a card; tests run it as it stands there.

A repository is named by its name as Python writes it, and by what says which branch, e.g. `, revision='v2'`.
"""

from __future__ import annotations

from typing import Any

from lora_rec.hub.contents import Contents
from lora_rec.schema import ITEM_VECTORS, OWN_FORMAT, Manifest, TowerManifest

_POOLING = {
    "mean": "(states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)",
    "first": "states[:, 0]",
    "last": "states[torch.arange(len(states)), mask.sum(1) - 1]",
}
EXAMPLE = {"item_tower": "A text of an item", "user_tower": "One item; another item"}


def load_it(contents: Contents, name: str, at: str) -> str:
    """Gives the lines that load and use it."""
    manifest = contents.manifest
    if ITEM_VECTORS in manifest.left_out:
        return (
            _block("pip install 'lora-rec[train,hub]'", language="text")
            + "\n\n"
            + _block(_towers(manifest, name, at))
        )
    if "shown.safetensors" in contents.files:
        use = "rec.rank_shown(history={0!r}, shown={1!r})"
    else:
        use = "rec.recommend(history={0!r}, k=10)"
    ids = contents.read_json("items.json")["ids"]
    history, shown = ids[:2], ids[2:6] or ids[:1]
    return (
        _block("pip install 'lora-rec[hub]'", language="text")
        + "\n\n"
        + _block(
            "import lora_rec\n\n"
            f"rec = lora_rec.load({name!r}{at})  # numpy alone\n"
            f"for item in {use.format(history, shown)}:\n"
            "    print(item.rank, item.item_id, item.title)"
        )
    )


def _towers(manifest: Manifest, name: str, at: str) -> str:
    lines = ["import lora_rec", "", f"towers = lora_rec.load_towers({name!r}{at}{_bases(manifest)})"]
    calls = {"item_tower": "items = towers.encode_items", "user_tower": "users = towers.encode_users"}
    lines += [f"{calls[tower]}([{EXAMPLE[tower]!r}])  # (1, {manifest.width})" for tower in manifest.towers]
    if len(manifest.towers) > 1:
        lines.append("print(users @ items.T)")
    return "\n".join(lines)


def _bases(manifest: Manifest) -> str:
    """Gives the arguments that say where a base lies which is no model on the Hub."""
    return "".join(
        f", {name.removesuffix('_tower')}_backbone={'FOLDER/' + tower.base_model_id!r}"
        for name, tower in manifest.towers.items()
        if not tower.is_on_hub
    )


def load_plainly(manifest: Manifest, name: str, at: str) -> str:
    """Gives the lines that make vectors with transformers and peft alone."""
    plain = [tower for tower in ("item_tower", "user_tower") if _is_plain(manifest, tower)]
    own = sorted({f"`{t.adapter}`" for t in manifest.towers.values() if t.adapter in OWN_FORMAT})
    if not plain:
        return f"peft has no adapter of the kind {' or '.join(own)}; load it with `lora_rec`."
    folders = " and ".join(f"`{tower}`" for tower in plain)
    other = " The other tower goes the same way, with its own pooling." if len(plain) > 1 else ""
    if own:
        other = f" Of the other tower's kind, {' or '.join(own)}, peft has none; load it with `lora_rec`."
    return (
        f"The adapter lies in {folders}, as plain [PEFT](https://github.com/huggingface/peft) has it; pooling"
        f" and map are four lines.{other}\n\n"
        + _block(plain_code(manifest.towers[plain[0]], plain[0], name, at))
    )


def _is_plain(manifest: Manifest, tower: str) -> bool:
    return tower in manifest.towers and manifest.towers[tower].adapter not in OWN_FORMAT


def plain_code(tower: TowerManifest, folder: str, name: str, at: str) -> str:
    """Gives the code of one tower."""
    base = tower.base_model_id if tower.is_on_hub else f"FOLDER/{tower.base_model_id}"
    revision = f", revision={tower.revision!r}" if tower.revision else ""
    load = f"AutoModel.from_pretrained({base!r}{revision}, dtype=torch.float32)"
    adapted = tower.adapter != "none"
    lines = [
        "import torch",
        "from huggingface_hub import hf_hub_download",
        *(["from peft import PeftModel"] if adapted else []),
        "from safetensors.torch import load_file",
        "from transformers import AutoModel, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({base!r}{revision}, padding_side='right')",
        "tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token",
        f"model = {load}",
    ]
    if adapted:
        lines.append(f"model = PeftModel.from_pretrained(model, {name!r}{at}, subfolder={folder!r})")
    lines += [
        "model.eval()",
        f"batch = tokenizer([{EXAMPLE[folder]!r}], return_tensors='pt', padding=True, truncation=True,"
        f" max_length={tower.max_tokens})",
        "with torch.no_grad():",
        "    states = model(**batch).last_hidden_state",
        "mask = batch['attention_mask']",
        f"pooled = {_POOLING[tower.pooling]}",
        f"p = load_file(hf_hub_download({name!r}, 'projections.safetensors'{at}))",
        f"p = {{key: p[f'{folder}.{{key}}'] for key in ('mean', 'scale', 'weight', 'bias')}}",
        "vectors = (pooled - p['mean']) * p['scale'] @ p['weight'].T + p['bias']",
        "vectors = torch.nn.functional.normalize(vectors, dim=-1)",
    ]
    return "\n".join(lines)


def new_items(contents: Contents, name: str, at: str) -> str:
    """Says how items are ranked that are not in the bundle."""
    manifest = contents.manifest
    if len(manifest.towers) < 2:
        return (
            "The tower encodes any text; the other tower, whose vectors it is to be compared with, is not in"
            " this bundle."
        )
    if ITEM_VECTORS in manifest.left_out:
        return "Both towers encode any text: the code above ranks whatever you give it."
    if "shown.safetensors" in contents.files:
        return "A new item needs its text alone:\n\n" + _block(
            f"towers = lora_rec.load_towers({name!r}{at}{_bases(manifest)})\n"
            "vectors = towers.read_items(['The text of a new item'])\n"
            f"rec.rank_shown({contents.read_json('items.json')['ids'][:2]!r}, shown=['new'],"
            " new_items={'new': vectors[0]})"
        )
    return (
        "Items of the catalogue that nobody has taken yet are in the lists already. An item that came later"
        " is scored by its text, beside the catalogue's; the ranking head learns of it in the next run.\n\n"
        + _block(
            f"towers = lora_rec.load_towers({name!r}{at}{_bases(manifest)})\n"
            "new = towers.encode_items(['The text of a new item'])\n"
            f"user = towers.encode_users([{EXAMPLE['user_tower']!r}])\n"
            "print(user @ new.T, (user @ rec.item_vectors.T).max())"
        )
    )


def _block(code: Any, *, language: str = "python") -> str:
    return f"```{language}\n{code}\n```"
