"""From the recipe's `tasks` section to tasks over a domain's texts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lora_rec.data.columns import read_texts
from lora_rec.data.lists import Lists
from lora_rec.data.separators import find_other_separator
from lora_rec.data.sources import read_table
from lora_rec.errors import DataError, did_you_mean
from lora_rec.pipeline.data import number_texts
from lora_rec.pipeline.domain import Domain
from lora_rec.pipeline.sources import open_source
from lora_rec.pretrain_recipe import PretrainRecipe
from lora_rec.rank.categories import Categories
from lora_rec.task_sections import CategorySection, EntitiesSection, Reads
from lora_rec.text.collate import BatchSource, TokenizedTexts, tokenize, tokenize_pairs
from lora_rec.text.entities import Entity, Gazetteer, tag_tokens
from lora_rec.text.templates import find_fields, render_items
from lora_rec.towers.two_tower import Tower
from lora_rec.train.tasks.classification import TextClassification
from lora_rec.train.tasks.clm import CausalLanguageModelling
from lora_rec.train.tasks.entities import EntityRecognition
from lora_rec.train.tasks.losses import IGNORED
from lora_rec.train.tasks.mlm import MaskedLanguageModelling, Vocabulary
from lora_rec.train.tasks.nsp import draw_pairs
from lora_rec.train.tasks.task import Task
from lora_rec.train.tasks.views import ContrastiveViews, Histories, Items

if TYPE_CHECKING:
    from accelerate import Accelerator

Indices = NDArray[np.int64]


logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Builder:
    """Builds the tasks of a run; each method is called as its task."""

    recipe: PretrainRecipe
    domain: Domain
    tower: Tower
    accelerator: Accelerator

    def build(self) -> list[Task]:
        """Gives the chosen tasks.

        Raises:
            DataError: a task finds nothing to learn from.
        """
        tasks: list[Task] = []
        for name, section in self.recipe.tasks.chosen.items():
            make: Callable[[Any], Task] = getattr(self, name)
            task = make(section)
            for purpose, n in (("learn from", task.n_examples), ("measure on", task.n_held_out)):
                if n < 2:
                    raise DataError(f"tasks.{name}: {n} examples to {purpose} are too few; give more texts")
            tasks.append(task)
        return tasks

    def mlm(self, section: Any) -> Task:
        """Masked language modelling."""
        tokenizer = self.tower.backbone_info.tokenizer
        tokens, train, held_out = self._texts(section.reads)
        special = np.array(tokenizer.all_special_ids, dtype=np.int64)
        config: Any = self.tower.backbone_info.model.config
        size = min(len(tokenizer), int(config.vocab_size))
        return MaskedLanguageModelling(
            tokens.take(train),
            tokens.take(held_out),
            head=self._lm_head(),
            vocabulary=Vocabulary(tokenizer.mask_token_id, special, size),
            masked_share=section.masked_share,
        )

    def clm(self, section: Any) -> Task:
        """Causal language modelling."""
        tokens, train, held_out = self._texts(section.reads)
        source = self._open(tokens, "texts")
        return CausalLanguageModelling(tokens, source, train=train, held_out=held_out, head=self._lm_head())

    def nsp(self, section: Any) -> Task:
        """Next-sentence prediction."""
        domain = self.domain
        texts, numbers = number_texts(render_items(domain.template, domain.fields, where=domain.where))
        sequences = Lists(numbers[domain.sequences.values], domain.sequences.offsets)
        # Each part by itself: a stranger from the other one would be seen in training, as a stranger alone.
        seed, per_sequence = self.recipe.train.seed, section.pairs_per_sequence
        parts = [
            draw_pairs(sequences.take(part), per_sequence=per_sequence, seed=seed)
            for part in domain.sequence_parts
        ]
        tokens = tokenize_pairs(
            self.tower.backbone_info.tokenizer,
            [texts[i] for pairs in parts for i in pairs.firsts],
            [texts[i] for pairs in parts for i in pairs.seconds],
            max_tokens=self.recipe.tower.max_tokens,
        )
        follow = np.concatenate([pairs.follow for pairs in parts]).astype(np.int64)
        n_train = len(parts[0].follow)
        return TextClassification(
            "nsp",
            self._open(tokens, "pairs"),
            np.eye(2, dtype=np.float32)[follow],
            train=np.arange(n_train),
            held_out=np.arange(n_train, len(follow)),
            hidden_size=self.tower.hidden_size,
        )

    def category(self, section: CategorySection) -> Task:
        """Text classification."""
        domain = self.domain
        values = self._column(section.field, "tasks.category.field")
        others = [name for name in find_fields(domain.template) if name != section.field]
        if not others:
            raise DataError(
                f"tasks.category.field: {section.field!r} is all that the texts hold, and is left out"
                " of them; name another field, or more of them in text.item_template"
            )
        _warn_of_separator(values, section.separator, "tasks.category.separator")
        # A text is one category where nothing parts them.
        categories = Categories.from_field(values, separator=section.separator or "\0")
        n = len(categories.names)
        if n < 2:
            raise DataError(f"tasks.category.field: {section.field!r} has {n} categories; name another field")
        known = categories.weights.sum(axis=1) > 0
        train, held_out = (part[known[part]] for part in domain.item_parts)
        tokens = self._tokenize(domain.item_texts(without=section.field))
        return TextClassification(
            "category",
            self._open(tokens, "texts without categories"),
            categories.weights,
            train=train,
            held_out=held_out,
            hidden_size=self.tower.hidden_size,
        )

    def entities(self, section: EntitiesSection) -> Task:
        """Entity recognition."""
        texts = self.domain.item_texts()
        found = self._find_entities(section, texts)
        kinds = sorted({entity.kind for row in found for entity in row})
        train, held_out = self.domain.item_parts
        if not any(found[i] for i in train):
            raise DataError(
                "tasks.entities: none of the names stands in a text; look at columns, separator and gazetteer"
            )
        encoded = self.tower.backbone_info.tokenizer(
            texts,
            truncation=True,
            max_length=self.recipe.tower.max_tokens,
            return_offsets_mapping=True,
        )["offset_mapping"]
        # A text without a token is read as one that stands for no text.
        tags = [
            tag_tokens(entities, offsets or [(0, 0)], kinds, ignored=IGNORED)
            for entities, offsets in zip(found, encoded, strict=True)
        ]
        return EntityRecognition(
            self._open(self._tokenize(texts), "texts"),
            tags,
            train=train,
            held_out=held_out,
            n_kinds=len(kinds),
            hidden_size=self.tower.hidden_size,
        )

    def history_views(self, section: Any) -> Task:
        """Contrastive views of a history."""
        domain, text = self.domain, self.recipe.text
        if not domain.are_histories:
            raise DataError(
                "tasks.history_views: this corpus has no histories; name corpus.group_column or drop the task"
            )
        train, held_out = (domain.sequences.take(part) for part in domain.sequence_parts)
        names = ("crop_share", "mask_share", "reorder_share")
        newest = Lists.from_arrays([history[-text.history_length :] for history in held_out])
        written = partial(
            Histories,
            item_texts=domain.history_item_texts(),
            length=text.history_length,
            newest_first=text.newest_first,
            mask_text=self.tower.backbone_info.tokenizer.mask_token or "...",
            shares={name: getattr(section, name) for name in names},
        )
        return ContrastiveViews(
            "history_views",
            written(train),
            written(newest),
            tokenize=self._tokenize,
            temperature=section.temperature,
        )

    def item_views(self, section: Any) -> Task:
        """Contrastive views of an item."""
        domain = self.domain
        train, held_out = (
            Items(
                domain.items[part],
                domain.template,
                domain.fields,
                field_dropout=section.field_dropout,
                word_dropout=section.word_dropout,
            )
            for part in domain.item_parts
        )
        return ContrastiveViews(
            "item_views", train, held_out, tokenize=self._tokenize, temperature=section.temperature
        )

    def _lm_head(self) -> Any:
        head = self.tower.backbone_info.lm_head
        assert head is not None  # the tower was built for these tasks
        return head

    def _tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        return tokenize(self.tower.backbone_info.tokenizer, texts, max_tokens=self.recipe.tower.max_tokens)

    def _open(self, tokens: TokenizedTexts, what: str) -> BatchSource:
        section = self.recipe.train
        return open_source(
            self.tower,
            tokens,
            self.accelerator,
            what=what,
            prefix_cache=section.prefix_cache,
            token_budget=section.token_budget,
        )

    def _texts(self, reads: Reads) -> tuple[TokenizedTexts, Indices, Indices]:
        """Gives texts, which of them to learn from, and which to measure on."""
        domain, text = self.domain, self.recipe.text
        texts: list[str] = []
        parts: list[list[Indices]] = [[], []]
        if reads != "histories":
            texts += domain.item_texts()
            for part, own in zip(parts, domain.item_parts, strict=True):
                part.append(own)
        if reads != "items":
            for part, own in zip(parts, domain.sequence_parts, strict=True):
                written = domain.history_texts(
                    own, length=text.history_length, newest_first=text.newest_first
                )
                part.append(np.arange(len(texts), len(texts) + len(written)))
                texts += written
        train, held_out = (np.concatenate(part) for part in parts)
        return self._tokenize(texts), train, held_out

    def _column(self, name: str, where: str) -> list[str]:
        """Gives a field of each distinct text's item."""
        fields = self.domain.fields
        if name not in fields:
            hint = did_you_mean(name, fields) or f"there are: {', '.join(fields)}"
            raise DataError(f"{where}: there is no field {name!r}; {hint}")
        return [fields[name][i] for i in self.domain.items]

    def _find_entities(self, section: EntitiesSection, texts: Sequence[str]) -> list[list[Entity]]:
        shared = _read_gazetteer(section.gazetteer) if section.gazetteer is not None else Gazetteer({})
        columns = {name: self._column(name, "tasks.entities.columns") for name in section.columns}
        for values in columns.values():
            _warn_of_separator(values, section.separator, "tasks.entities.separator")
        found = []
        for row, text in enumerate(texts):
            cells = [(name, values[row]) for name, values in columns.items()]
            pairs = [
                (part, name)
                for name, cell in cells
                for part in (cell.split(section.separator) if section.separator else [cell])
            ]
            own = Gazetteer(pairs).find(text)
            others = [e for e in shared.find(text) if all(e.end <= o.start or o.end <= e.start for o in own)]
            found.append(sorted([*own, *others], key=lambda entity: entity.start))
        return found


def _read_gazetteer(path: str) -> Gazetteer:
    table = read_table(path, name="tasks.entities.gazetteer")
    missing = [name for name in ("name", "kind") if name not in table.columns]
    if missing:
        raise DataError(
            f"tasks.entities.gazetteer: {path} lacks the column {missing[0]!r}; it needs name and kind"
        )
    return Gazetteer(zip(read_texts(table["name"]), read_texts(table["kind"]), strict=True))


def _warn_of_separator(values: Sequence[str], separator: str | None, setting: str) -> None:
    """Says where another text seems to part the names of a cell; without a separator a cell is one name."""
    if separator is not None and (other := find_other_separator(values, separator)) is not None:
        logger.warning("%s: %r, but %r seems to part the names of a cell", setting, separator, other)
