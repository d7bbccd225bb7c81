import numpy as np
import pytest

from lora_rec.errors import DataError
from lora_rec.text.templates import render_histories, render_items

FIELDS = {"title": ["Heat", "", "霸王别姬"], "year": ["1995", "", "1993"]}


def test_a_segment_goes_with_its_empty_field():
    assert render_items("{title}[ ({year})]", FIELDS) == ["Heat (1995)", "untitled", "霸王别姬 (1993)"]


def test_an_unknown_field_is_named():
    with pytest.raises(
        DataError, match=r"text.item_template: there is no field 'titel'; did you mean 'title'\?"
    ):
        render_items("{titel}", FIELDS, where="text.item_template")
    with pytest.raises(DataError, match="title: 'Heat' is one string; give a list, one text per item"):
        render_items("{title}", {"title": "Heat"})
    with pytest.raises(DataError, match="names no field; write one in braces"):
        render_items("title", FIELDS)


def test_histories_keep_their_newest_items():
    history = [np.array([0, 1, 2])]
    assert render_histories(history, ["a", "b", "c"], length=2) == ["c; b"]
    assert render_histories(history, ["a", "b", "c"], length=2, newest_first=False) == ["b; c"]
