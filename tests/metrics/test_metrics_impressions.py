import numpy as np
import pytest

from lora_rec.metrics import impression_auc


def test_auc_by_hand():
    scores = np.array([2.0, 3, 1, 5, 5, 4, 4])
    clicks = np.array([1, 0, 0, 1, 1, 0, 0], bool)
    found = impression_auc(scores, clicks, np.array([0, 3, 5, 7]))
    # One of two pairs is right; the second list has clicks alone, the third none.
    assert found[0] == 1 / 2
    assert np.isnan(found[1:]).all()


def test_equal_scores_count_half():
    assert impression_auc(np.zeros(3), np.array([True, False, False]), np.array([0, 3])).tolist() == [0.5]


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="scores: 2 for 3 clicks in lists of 3 candidates"):
        impression_auc(np.zeros(2), np.zeros(3, bool), np.array([0, 3]))
    with pytest.raises(ValueError, match="not finite"):
        impression_auc(np.array([np.nan, 0]), np.array([True, False]), np.array([0, 2]))
