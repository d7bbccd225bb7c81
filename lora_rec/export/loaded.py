"""Both towers of a bundle in memory, and further bundles' adapters beside them on the same backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import RLock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lora_rec.bundle import read_manifest, read_unreplaced
from lora_rec.errors import BundleError, TowerError
from lora_rec.export.explain import MatchExplanation, explain_match
from lora_rec.export.projections import copy_state, mix_projections, read_projection
from lora_rec.export.threads import one_at_a_time
from lora_rec.export.towers import check_base, check_precision, load_tower, warn_of_precision
from lora_rec.hub import find_bundle
from lora_rec.rank.candidates import unit_rows
from lora_rec.schema import TOWERS, Manifest
from lora_rec.text.labels import label_history, label_item
from lora_rec.text.templates import check_rows, find_fields, render_histories, render_items
from lora_rec.towers.adapters import (
    add_adapter,
    add_mixed,
    check_adapter,
    check_addable,
    check_name,
    mix_adapters,
    remove_adapter,
    require_lora,
    use_adapter,
)
from lora_rec.towers.two_tower import Tower, encode, encode_states

FIRST = "default"
"""Name of the adapter that the towers were loaded with."""


class LoadedTowers:
    """Both towers of a bundle; they encode texts that nobody has seen yet.

    Adapters of other bundles, a domain or a tenant each, can be put beside the first one on the same
    backbones, switched between, mixed, and taken off again. Each brings its own projection and templates.
    Threads may share one object: its calls run one at a time.
    """

    def __init__(self, manifest: Manifest, model: nn.ModuleDict) -> None:
        """Use `load_towers`."""
        self.model = model
        """The towers that the bundle holds, by name."""
        self._manifests: dict[str, Manifest] = {FIRST: manifest}
        self._projections: dict[tuple[str, str], dict[str, torch.Tensor]] = {
            (name, FIRST): copy_state(getattr(model, name).projection) for name in manifest.towers
        }
        self._active = dict.fromkeys(manifest.towers, FIRST)
        self.lock = RLock()  # held by every call: which adapter is in use is a state of the models

    @property
    def manifest(self) -> Manifest:
        """Of the bundle whose adapter the item tower uses, or the only tower."""
        return self._manifests[self._active.get("item_tower") or self._active["user_tower"]]

    @property
    def adapters(self) -> list[str]:
        """Names of the adapters that are there, the first one first."""
        return list(self._manifests)

    @property
    def active(self) -> dict[str, str]:
        """Tower to the name of the adapter that it uses."""
        return dict(self._active)

    @one_at_a_time
    def add(self, bundle: str | Path, *, name: str) -> None:
        """Puts the adapters of another bundle, here or on the Hub, beside those that are there.

        Raises:
            BundleError: the bundle is damaged, or was trained on other bases or for another width.
            TowerError: the name is taken, or an adapter cannot stand beside others.
        """
        manifest = read_manifest(folder := find_bundle(bundle))
        if manifest.width != self.manifest.width:
            raise BundleError(
                f"{bundle}: its embeddings are {manifest.width} wide, these are {self.manifest.width};"
                " load it with load_towers instead"
            )
        if name in self._manifests:
            raise TowerError(f"adapters: there is one named {name!r}; remove it first or take another name")
        for tower_name, tower in self._towers():
            described = manifest.tower(tower_name)
            check_base(tower.backbone_info, described, where=tower_name)
            if described.adapter == "none":
                raise BundleError(f"{tower_name}: {bundle} holds no adapter for it; there is nothing to add")
            check_adapter(folder / tower_name, described.adapter, where=tower_name)
            check_precision(described, tower.backbone_info.precision.name, where=tower_name)
            check_addable(tower.model, folder / tower_name, name, where=tower_name)
            if described.pooling != tower.pooling:
                raise BundleError(
                    f"{tower_name}: {bundle} pools by {described.pooling}, this tower by {tower.pooling};"
                    " load it with load_towers instead"
                )
            warn_of_precision(tower, described, tower_name)
        added: list[Tower] = []
        try:
            for tower_name, tower in self._towers():
                add_adapter(tower.model, folder / tower_name, name, where=tower_name)
                tower.split()
                added.append(tower)
                self._projections[tower_name, name] = read_projection(
                    folder, tower_name, width=manifest.width, hidden_size=tower.hidden_size
                )
        except BaseException:
            for tower in added:
                remove_adapter(tower.model, name)
            for tower_name in self._active:
                self._projections.pop((tower_name, name), None)
            raise
        self._manifests[name] = manifest

    @one_at_a_time
    def use(self, name: str, *, tower: str | None = None) -> None:
        """Switches both towers, or one, to an adapter.

        Raises:
            TowerError: there is no such adapter.
        """
        for tower_name, part in self._towers(tower):
            check_name(require_lora(part.model, where=tower_name), name, where=tower_name)
        for tower_name, part in self._towers(tower):
            use_adapter(part.model, name)
            part.projection.load_state_dict(self._projections[tower_name, name])
            self._active[tower_name] = name

    @one_at_a_time
    def mix(self, weights: Mapping[str, float], *, name: str) -> None:
        """Adds an adapter that is the weighted sum of others, exactly, with the weighted sum of their maps.

        Its templates are those of the adapter with the largest weight.

        Raises:
            TowerError: a name is unknown or taken, an adapter is no sum of factors, or a weight is not
                finite or none differs from 0.
        """
        if not np.isfinite(list(weights.values())).all() or not any(weights.values()):
            raise TowerError(
                f"adapters: nothing to mix in {dict(weights)}; give each a number, e.g. {{'default': 0.5}}"
            )
        mixed = [mix_adapters(tower.model, weights, name, where=where) for where, tower in self._towers()]
        for (tower_name, tower), new in zip(self._towers(), mixed, strict=True):
            add_mixed(tower.model, new, name)
            parts = {part: self._projections[tower_name, part] for part in weights}
            self._projections[tower_name, name] = mix_projections(parts, weights)
        self._manifests[name] = self._manifests[max(weights, key=lambda part: weights[part])]

    @one_at_a_time
    def remove(self, name: str) -> None:
        """Takes an adapter off both towers.

        Raises:
            TowerError: it is not there or in use.
        """
        for tower_name, tower in self._towers():
            model = require_lora(tower.model, where=tower_name)
            check_name(model, name, where=tower_name)
            if self._active[tower_name] == name:
                raise TowerError(f"{tower_name}: adapter {name!r} is in use; use another one, then remove it")
        for tower_name, tower in self._towers():
            remove_adapter(tower.model, name)
            del self._projections[tower_name, name]
        del self._manifests[name]

    def encode_items(
        self, texts: Sequence[str], *, adapters: Sequence[str] | None = None, token_budget: int = 4096
    ) -> NDArray[np.float32]:
        """Gives (n, D) unit vectors of item texts, written as `render_items` writes them.

        Args:
            texts: n of them.
            adapters: the name of each text's adapter; the one in use for all when left out.
            token_budget: padded tokens in one micro-batch.
        """
        return self._encode("item_tower", texts, adapters, token_budget)

    def encode_users(
        self, texts: Sequence[str], *, adapters: Sequence[str] | None = None, token_budget: int = 4096
    ) -> NDArray[np.float32]:
        """Gives (n, D) unit vectors of history texts, written as `render_histories` writes them."""
        return self._encode("user_tower", texts, adapters, token_budget)

    @one_at_a_time
    def read_items(self, texts: Sequence[str], *, token_budget: int = 4096) -> NDArray[np.float32]:
        """Gives (n, H) unit vectors of item texts as the user tower reads them, for `rank_shown`."""
        tower = self._tower("user_tower")
        max_tokens = self._manifest_of("user_tower").tower("user_tower").max_tokens
        tokens = tower.tokenize(texts, max_tokens=max_tokens)
        return unit_rows(encode_states(tower, tokens, np.arange(len(tokens)), token_budget=token_budget))

    def render_items(self, fields: dict[str, Sequence[str]]) -> list[str]:
        """Writes items down as the item tower was trained to read them."""
        return render_items(self.manifest.text.item_template, fields)

    def render_histories(
        self, histories: Sequence[Sequence[int]], fields: dict[str, Sequence[str]]
    ) -> list[str]:
        """Writes histories of rows of `fields`, oldest first, as the user tower was trained to read them."""
        text = self._manifest_of("user_tower").text
        in_history = render_items(text.history_item_template, fields)
        rows = [check_rows(history, n_rows=len(in_history), where="history") for history in histories]
        return render_histories(rows, in_history, length=text.history_length, newest_first=text.newest_first)

    @one_at_a_time
    def explain(
        self, history: Sequence[int], item: int, fields: Mapping[str, Sequence[str]], *, n_subsets: int = 200
    ) -> MatchExplanation:
        """Says which words and fields of a history and of an item carry the cosine of their vectors.

        Args:
            history: rows of `fields`, oldest first.
            item: a row of `fields`.
            fields: as `render_histories` takes them, e.g. `Recommender.item_fields`.
            n_subsets: texts with words taken out that each tower encodes, about; errors fall with its root.
        """
        user, own = (self._manifest_of(name) for name in TOWERS)
        n_rows = len(next(iter(fields.values())))
        user_text = label_history(
            check_rows(history, n_rows=n_rows, where="history"),
            user.text.history_item_template,
            fields,
            length=user.text.history_length,
            newest_first=user.text.newest_first,
        )
        (item,), template = check_rows([item], n_rows=n_rows, where="item"), own.text.item_template
        item_text = label_item(template, {name: fields[name][item] for name in find_fields(template)})
        lengths = user.tower("user_tower").max_tokens, own.tower("item_tower").max_tokens
        towers = self._tower("user_tower"), self._tower("item_tower")
        return explain_match(*towers, user_text, item_text, max_tokens=lengths, n_subsets=n_subsets)

    def _towers(self, only: str | None = None) -> list[tuple[str, Tower]]:
        if only is not None and only not in TOWERS:
            raise TowerError(f"tower: {only!r} is neither of {', '.join(TOWERS)}")
        return [(name, self._tower(name)) for name in (self._active if only is None else [only])]

    def _tower(self, name: str) -> Tower:
        """Gives a tower, or says that the bundle holds the other one alone."""
        if name not in self._active:
            held = ", ".join(self._active)
            raise BundleError(f"{name}: this bundle does not hold it, it holds {held}; get the whole bundle")
        return getattr(self.model, name)

    def _manifest_of(self, name: str) -> Manifest:
        """Gives the manifest of the adapter that a tower uses; see `_tower` where it was not loaded."""
        self._tower(name)
        return self._manifests[self._active[name]]

    @one_at_a_time
    def _encode(
        self, name: str, texts: Sequence[str], adapters: Sequence[str] | None, token_budget: int
    ) -> NDArray[np.float32]:
        tower = self._tower(name)
        if adapters is None:
            tokens = tower.tokenize(texts, max_tokens=self._manifest_of(name).tower(name).max_tokens)
            return encode(tower, tokens, np.arange(len(tokens)), token_budget=token_budget)
        if len(adapters) != len(texts):
            raise TowerError(f"{name}: {len(adapters)} adapters for {len(texts)} texts; name one for each")
        for adapter in dict.fromkeys(adapters):
            check_name(require_lora(tower.model, where=name), adapter, where=name)
        result = np.zeros((len(texts), tower.width), dtype=np.float32)
        before = self._active[name]
        try:
            for adapter in dict.fromkeys(adapters):
                rows = [row for row, of_row in enumerate(adapters) if of_row == adapter]
                self.use(adapter, tower=name)
                result[rows] = self._encode(name, [texts[row] for row in rows], None, token_budget)
        finally:
            self.use(before, tower=name)
        return result


def load_towers(
    bundle: str | Path,
    *,
    user_backbone: str | None,
    item_backbone: str | None,
    precision: str | None,
    device: str,
) -> LoadedTowers:
    """Builds the towers that a bundle holds; see `lora_rec.load_towers`."""
    folder, given = Path(bundle), dict(zip(TOWERS, (user_backbone, item_backbone), strict=True))

    def read() -> LoadedTowers:
        manifest = read_manifest(folder)
        load = partial(load_tower, folder, manifest, precision=precision, device=device)
        towers = {name: load(name, backbone=given[name]) for name in manifest.towers}
        return LoadedTowers(manifest, nn.ModuleDict(towers))

    return read_unreplaced(folder, read)
