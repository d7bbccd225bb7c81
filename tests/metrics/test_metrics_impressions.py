import numpy as np
import pytest

from lora_rec.metrics import auc, expected_calibration_error, impression_auc


def test_auc_by_hand():
    scores = np.array([2.0, 3, 1, 5, 5, 4, 4])
    clicks = np.array([1, 0, 0, 1, 1, 0, 0], bool)
    found = impression_auc(scores, clicks, np.array([0, 3, 5, 7]))
    # One of two pairs is right; the second list has clicks alone, the third none.
    assert found[0] == 1 / 2
    assert np.isnan(found[1:]).all()


def test_equal_scores_count_half():
    assert impression_auc(np.zeros(3), np.array([True, False, False]), np.array([0, 3])).tolist() == [0.5]


def test_clicks_may_be_numbers_or_a_list():
    rng = np.random.default_rng(0)
    scores, clicks, offsets = rng.random(40), rng.integers(0, 2, 40), np.array([0, 7, 25, 40])
    expected = impression_auc(scores, clicks.astype(bool), offsets)
    np.testing.assert_array_equal(impression_auc(scores, clicks, offsets), expected)
    np.testing.assert_array_equal(impression_auc(scores.tolist(), clicks.tolist(), offsets), expected)


def test_auc_of_what_is_no_number_is_refused():
    for scores, labels in (([np.nan, 1.0], [True, False]), ([1.0, 2.0, 3.0], [True, False])):
        with pytest.raises(ValueError, match="give as many, and no NaN"):
            auc(scores, labels)


@pytest.mark.parametrize("labels", [[1, np.nan], [-1, 1], ["yes", "no"]])
def test_labels_that_are_neither_0_nor_1_are_refused(labels):
    for judge in (
        lambda: auc([1.0, 2.0], labels),
        lambda: expected_calibration_error([0.5, 0.5], labels),
        lambda: impression_auc([1.0, 2.0], labels, np.array([0, 2])),
    ):
        with pytest.raises(ValueError, match="is neither 0 nor 1; give what is so as 1"):
            judge()


def test_a_chance_on_an_edge_is_in_the_lower_bin_as_published():
    assert expected_calibration_error([0.5, 0.4], [True, False], n_bins=2) == pytest.approx(0.05)
    assert expected_calibration_error([0.0, 1.0], [False, True]) == 0
    with pytest.raises(ValueError, match="n_bins: 0 is below 1"):
        expected_calibration_error([0.5], [True], n_bins=0)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="scores: 2 for 3 clicks in lists of 3 candidates"):
        impression_auc(np.zeros(2), np.zeros(3, bool), np.array([0, 3]))
    with pytest.raises(ValueError, match="not finite"):
        impression_auc(np.array([np.nan, 0]), np.array([True, False]), np.array([0, 2]))
