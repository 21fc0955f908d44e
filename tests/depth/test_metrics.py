"""Depth metrics: the golden of the specification."""

import numpy as np
import pytest

from medapp.depth.metrics import depth_scores, mean_scores


def test_golden_of_three_pixels():
    scores = depth_scores(np.array([2.2, 4, 6]), np.array([2.0, 4, 8]))

    assert scores.rmse == pytest.approx(1.1605, abs=5e-5)
    assert scores.mae == pytest.approx(0.7333, abs=5e-5)
    assert scores.rel == pytest.approx(0.1167, abs=5e-5)
    assert scores.irmse == pytest.approx(0.0356, abs=5e-5)
    assert scores.imae == pytest.approx(0.0290, abs=5e-5)
    assert scores.delta_125 == pytest.approx(2 / 3)
    assert scores.delta_105 == pytest.approx(1 / 3)
    assert scores.pixels == 3


def test_unknown_truth_takes_no_part_and_what_is_not_finite_counts_as_zero():
    truth = np.array([[2.0, 0.0], [np.nan, 4.0]])
    scores = depth_scores(np.array([[2.0, 50.0], [7.0, np.nan]]), truth)

    assert scores.pixels == 2
    assert scores.mae == pytest.approx(2.0)
    assert scores.imae == pytest.approx(0.125)  # the inverse of no depth is 0


def test_mean_over_images_not_over_pixels():
    few = depth_scores(np.full((1, 1), 3.0), np.full((1, 1), 2.0))
    many = depth_scores(np.full((9, 9), 2.0), np.full((9, 9), 2.0))
    both = mean_scores([few, many])

    assert both.mae == pytest.approx(0.5)
    assert both.pixels == 82


def test_nothing_to_compare_is_said():
    with pytest.raises(ValueError, match="nothing"):
        depth_scores(np.ones((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="size"):
        depth_scores(np.ones((2, 2)), np.ones((2, 3)))
