"""Ranking heads over 20 items, for the tests."""

import numpy as np
import torch

from lora_rec.data.lists import Lists
from lora_rec.rank.head import RankingHead
from lora_rec.rank.item_item import ItemItemModel
from lora_rec.rank.new_items import find_neighbours
from lora_rec.rank.sequence import SequencePart
from lora_rec.train.item_item import ItemItemSettings, prepare_fit
from lora_rec.train.sequence import SequenceHead

GENERATOR = np.random.default_rng(0)
HISTORIES = Lists.from_arrays([GENERATOR.permutation(20)[: n % 9] for n in range(30)])
TEXT = GENERATOR.normal(size=(20, 6)).astype("f4")


def sequence():
    torch.manual_seed(0)
    module = SequenceHead(
        TEXT,
        np.bincount(HISTORIES.values, minlength=20),
        user_width=4,
        width=8,
        n_blocks=2,
        n_heads=2,
        history_length=5,
        dropout=0.1,
        id_dropout=0.3,
        min_id_count=2,
        temperature=0.2,
    )
    return SequencePart(**module.to_arrays())


def make_head(weight=0.05, **more):
    settings = ItemItemSettings(nearness=5.0, regularisation=5.0, text_weight=0.0)
    table = prepare_fit(HISTORIES, n_items=20).table(settings, n_neighbours=12)
    return RankingHead(ItemItemModel(*table, decay=0.8), sequence(), weight, **more)


def every_part():
    counts = GENERATOR.random(20).astype("f4")
    table = find_neighbours(TEXT, np.arange(20) >= 17, factor=2.0, n_neighbours=4)
    return make_head(recent=counts, recent_weight=0.3, new_items=table)
