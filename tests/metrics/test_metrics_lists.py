import numpy as np
import pytest

from lora_rec.metrics import pad_lists
from lora_rec.metrics.lists import flatten_lists, lists_at_k


def test_pad_lists_cuts_long_lists_and_fills_short_ones():
    padded = pad_lists([[5, 6, 7], [], np.array([8])], k=2)
    np.testing.assert_array_equal(padded, [[5, 6], [-1, -1], [8, -1]])
    assert padded.dtype == np.int64


def test_pad_lists_of_no_user():
    assert pad_lists([], k=3).shape == (0, 3)


def test_pad_lists_refuses_what_is_not_a_list_of_indices():
    with pytest.raises(ValueError, match="k: 0 is below 1"):
        pad_lists([[1]], k=0)
    with pytest.raises(ValueError, match="lists: items are float64, not integers"):
        pad_lists([[1.5]], k=1)
    with pytest.raises(ValueError, match="relevant: one of the lists is not one-dimensional"):
        flatten_lists([[[1, 2]]], name="relevant")


@pytest.mark.parametrize(
    ("recommended", "k", "text"),
    [
        ([[1, 2]], 0, r"k: 0 is not within 1\.\.2"),
        ([[1, 2]], 3, r"k: 3 is not within 1\.\.2"),
        ([1, 2], 1, r"recommended: int64 of shape \(2,\) is not a two-dimensional array of integers"),
        ([[1.0, 2.0]], 1, r"recommended: float64 of shape \(1, 2\)"),
        ([[1, 2], [1, -2]], 1, "list 1 has an index below -1"),
        ([[1, 2, 3], [1, -1, 2]], 1, "list 1 has an item behind an empty slot"),
        ([[1, 2, 3], [4, 5, 4]], 2, "list 1 has an item twice"),
    ],
)
def test_lists_at_k_refuses(recommended, k, text):
    with pytest.raises(ValueError, match=text):
        lists_at_k(np.array(recommended), k=k)


def test_lists_at_k_lets_empty_slots_repeat_at_the_end():
    np.testing.assert_array_equal(lists_at_k(np.array([[3, -1, -1], [-1, -1, -1]]), k=2), [[3, -1], [-1, -1]])
