import numpy as np
import pytest

from lora_rec.text.labels import label_history, label_item
from lora_rec.text.templates import render_histories, render_items

FIELDS = {"title": ["Heat", "", " Pan's  Labyrinth", "霸王别姬"], "the year": ["1995", "", "2006", "1993"]}
TEMPLATES = ["{title}[ ({the year})]", "{the year}: {title}", "a  film [of {the year}]", "{title}{title}"]


def values(row):
    return {name: column[row] for name, column in FIELDS.items()}


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_text_is_the_one_that_is_rendered(template):
    texts = render_items(template, FIELDS)
    for row, text in enumerate(texts):
        labelled = label_item(template, values(row))
        assert labelled.text == text
        assert len(labelled.fields) == len(labelled.places) == len(text)
    for newest_first in (True, False):
        for history in ([0, 1, 2, 3], [2, 2], []):
            rows = np.array(history, dtype=np.int64)
            options = {"length": 3, "newest_first": newest_first}
            labelled = label_history(rows, template, FIELDS, **options)
            assert [labelled.text] == render_histories([rows], texts, **options)
            assert len(labelled.fields) == len(labelled.places) == len(labelled.text)


def test_characters_know_their_field_and_their_item():
    text = label_history(np.array([0, 2]), "[{the year}: ]{title}", FIELDS, length=5)
    assert text.text == "2006: Pan's Labyrinth; 1995: Heat"
    words = [(text.text[a:b].strip(), *text.origin(a, b)) for a, b in text.words()]
    assert words == [
        ("2006:", "the year", 1),
        ("Pan's", "title", 1),
        ("Labyrinth;", "title", 1),
        ("1995:", "the year", 0),
        ("Heat", "title", 0),
    ]


def test_marks_before_the_first_word_belong_to_it():
    text = label_item("({title})", {"title": "Heat"})
    assert text.words() == [(0, 6)]
    assert text.origin(0, 6) == ("title", 0)
