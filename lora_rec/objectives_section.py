"""What the towers learn, and what keeps them from learning it by heart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lora_rec.config import require

OBJECTIVES = (
    "softmax",
    "alignment",
    "sampled_softmax",
    "bpr",
    "listwise",
    "interest",
    "item_features",
)
"""Those of phase two; each is a setting with its weight."""
_WITH_NEGATIVES = ("softmax", "sampled_softmax", "bpr")


@dataclass(frozen=True)
class ObjectivesSection:
    """Weights of the objectives, 0 for those that take no part, and their settings."""

    softmax: float = 0.1
    """The next items against those of the batch that others took, and `train.extra_items` random ones; each
    counts for as many as it stands for, so it is a softmax over all that anybody took."""
    alignment: float = 0.9
    """Vectors near those of a linear item-item model. On small data that model is the far stronger signal."""
    sampled_softmax: float = 0.0
    """The same softmax, from `train.extra_items` random items alone."""
    bpr: float = 0.0
    """The next items above random ones, pair by pair."""
    listwise: float = 0.0
    """Within lists that were shown, what was clicked against the rest; `recipes/shown_lists.py` alone."""
    interest: float = 0.0
    """Will this user like this item: ratings from `liked_from` against lower ones, or, where there are no
    ratings, what was taken against as many random items. The report has calibrated chances."""
    item_features: float = 0.0
    """The item's own fields from its vector; name some below."""
    weighting: Literal["fixed", "uncertainty"] = "fixed"
    """`uncertainty` learns the weights, which start as given (Kendall et al. 2018, arXiv 1705.07115)."""
    mined_negatives: int = 0
    """For each example of a batch, items that the present model ranks high and the user never took: further
    negatives of softmax, sampled softmax and BPR."""
    mined_pool: int = 50
    """Each example's best unknown items, of which these are drawn; found anew after each epoch from the
    vectors that validation has just encoded, so it costs one ranking."""
    list_length: int = 20
    """Items of a shown list in a step: its clicks, and others drawn from the rest."""
    lists_per_step: int = 32
    liked_from: float = 4.0
    """Lowest rating that counts as liking."""
    class_fields: tuple[str, ...] = ()
    """Fields of the item table with one label each, such as a category."""
    tag_fields: tuple[str, ...] = ()
    """Fields with several labels, parted by ","."""
    band_fields: tuple[str, ...] = ()
    """Fields with a number, such as a price, of which the fifth is told; `rating` is the mean rating in
    training where the table has no such field."""
    judged_by: Literal["lists", "interest"] = "lists"
    """What chooses the best epoch on validation data: `ndcg@10` of lists over the catalogue, or the AUC of
    likes against dislikes."""

    def __post_init__(self) -> None:
        """Checks ranges and combinations."""
        fields = (*self.class_fields, *self.tag_fields, *self.band_fields)
        default = ObjectivesSection.__dataclass_fields__
        only = {
            "listwise": ("list_length", "lists_per_step"),
            "interest": ("liked_from", "judged_by"),
            "mined_negatives": ("mined_pool",),
        }
        checks = [(self.weight(n) >= 0, f"{n}: {self.weight(n)} is negative") for n in OBJECTIVES]
        checks += [
            (
                getattr(self, owner) != 0 or all(getattr(self, n) == default[n].default for n in names),
                f"{', '.join(names)}: no effect without {owner}; leave out",
            )
            for owner, names in only.items()
        ]
        checks += [
            (bool(self.active), "objectives: every weight is 0; give one, e.g. alignment=1"),
            (
                self.weighting == "fixed" or len(self.active) > 1,
                f"weighting: 'uncertainty' weighs several objectives, and there is {len(self.active)};"
                " leave it out",
            ),
            (self.mined_negatives >= 0, f"mined_negatives: {self.mined_negatives} is negative"),
            (
                self.mined_pool >= self.mined_negatives,
                f"mined_pool: {self.mined_pool} is below mined_negatives {self.mined_negatives}",
            ),
            (
                self.mined_negatives == 0 or any(name in self.active for name in _WITH_NEGATIVES),
                "mined_negatives: has no effect without one of " + ", ".join(_WITH_NEGATIVES),
            ),
            (self.list_length >= 2, f"list_length: {self.list_length} is below 2"),
            (self.lists_per_step >= 1, f"lists_per_step: {self.lists_per_step} is below 1"),
            (
                bool(fields) == (self.item_features > 0),
                "class_fields, tag_fields, band_fields: have no effect without item_features; leave them out"
                if fields
                else "item_features: name fields of the items in class_fields, tag_fields or band_fields",
            ),
            (len(set(fields)) == len(fields), f"class_fields, tag_fields, band_fields: {fields} repeat one"),
        ]
        require(checks)

    def weight(self, name: str) -> float:
        """Gives the weight of one of `OBJECTIVES`."""
        return float(getattr(self, name))

    @property
    def active(self) -> dict[str, float]:
        """Gives the objectives that take part, with their weights."""
        return {name: self.weight(name) for name in OBJECTIVES if self.weight(name) > 0}


@dataclass(frozen=True)
class RegularisationSection:
    """Against overfitting, beside `train.weight_decay`, `train.patience` and a tower's `lora_dropout`."""

    label_smoothing: float = 0.0
    """Share of a label that goes to the other answers (Szegedy et al. 2016, arXiv 1512.00567); in BPR, the
    chance that a pair is taken to be the wrong way round. Alignment has no labels."""
    word_dropout: float = 0.0
    """Chance that a word of a training text is left out of one of its variants."""
    synonyms: float = 0.0
    """Chance that a word of a training text is replaced by a synonym in one of its variants, from an English
    WordNet that nltk finds (extra `synonyms`)."""
    word_variants: int = 4
    """Variants of each training text with words dropped or replaced. A step draws one or the text itself.
    Variants are fixed, and the prefix cache holds each, so it grows by as many times; texts that are judged
    have none."""
    translate_there: str | None = None
    """A translation model by its Hub id or folder. With `translate_back` each training text has one variant
    more: itself, there and back. Translations are kept under LORA_REC_CACHE."""
    translate_back: str | None = None
    """The model for the way back."""
    adversary: Literal["none", "fgm", "freelb"] = "none"
    """Moves the states that enter the trained layers (the embeddings, where all are trained) towards a higher
    loss. `fgm` adds one pass with them moved (Miyato et al. 2017, arXiv 1605.07725); `freelb` makes
    `adversarial_steps` (Zhu et al. 2020, arXiv 1909.11764)."""
    adversarial_size: float = 0.05
    """How far, as a share of a state's length: the root mean square over a text's tokens."""
    adversarial_steps: int = 3
    """Passes of `freelb`; each costs as much as a plain step."""

    def __post_init__(self) -> None:
        """Checks ranges and combinations."""
        plain = RegularisationSection.__dataclass_fields__
        require(
            [
                (
                    0 <= self.label_smoothing < 0.5,
                    f"label_smoothing: {self.label_smoothing} is not in [0, 0.5)",
                ),
                (0 <= self.word_dropout < 1, f"word_dropout: {self.word_dropout} is not in [0, 1)"),
                (0 <= self.synonyms <= 1, f"synonyms: {self.synonyms} is not in [0, 1]"),
                (self.word_variants >= 1, f"word_variants: {self.word_variants} is below 1"),
                (
                    self.word_dropout > 0
                    or self.synonyms > 0
                    or self.word_variants == plain["word_variants"].default,
                    "word_variants: has no effect without word_dropout or synonyms; leave it out",
                ),
                (
                    (self.translate_there is None) == (self.translate_back is None),
                    "translate_there, translate_back: give both models or none",
                ),
                (
                    self.adversarial_size > 0,
                    f"adversarial_size: {self.adversarial_size} is not positive",
                ),
                (
                    self.adversary != "none" or self.adversarial_size == plain["adversarial_size"].default,
                    "adversarial_size: has no effect without an adversary; leave it out",
                ),
                (
                    self.adversary == "freelb"
                    or self.adversarial_steps == plain["adversarial_steps"].default,
                    "adversarial_steps: has no effect without adversary 'freelb'; leave it out",
                ),
                (self.adversarial_steps >= 2, f"adversarial_steps: {self.adversarial_steps} is below 2"),
            ]
        )

    @property
    def has_variants(self) -> bool:
        """Whether training texts have variants."""
        return self.word_dropout > 0 or self.synonyms > 0 or self.translate_there is not None
