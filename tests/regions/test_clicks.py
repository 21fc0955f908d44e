"""A simulated person clicks into the middle of a thing, and then of what is most wrong."""

import numpy as np
import pytest

from medapp.regions.clicks import middle_of, next_click, overlap


def disc(x, y, radius, side=60):
    rows, cols = np.mgrid[:side, :side]
    return (rows - y) ** 2 + (cols - x) ** 2 <= radius**2


def test_the_first_click_lies_in_the_middle_of_the_largest_part():
    click = next_click(disc(40, 20, 9) | disc(10, 50, 4))
    assert click.is_include
    assert click.point_xy == (40, 20)


def test_a_thing_at_the_edge_of_the_slice_is_clicked_away_from_the_edge():
    x, y = middle_of(disc(0, 30, 12))
    assert 3 <= x <= 8
    assert 26 <= y <= 34


def test_later_clicks_go_to_the_largest_error_and_say_on_which_side_it_is():
    truth = disc(30, 30, 15)
    too_little = next_click(truth, truth & (np.arange(60) < 32)[None])
    too_much = next_click(truth, truth | disc(8, 8, 6))
    assert too_little.is_include
    assert 35 <= too_little.point_xy[0] <= 43
    assert not too_much.is_include
    assert too_much.point_xy == (8, 8)


def test_nothing_is_clicked_where_nothing_is_wrong():
    assert next_click(disc(30, 30, 5), disc(30, 30, 5)) is None


def test_an_empty_mask_has_no_middle():
    with pytest.raises(ValueError, match="empty"):
        middle_of(np.zeros((4, 4), dtype=bool))


def test_overlap_is_intersection_over_union():
    assert overlap(disc(30, 30, 5), disc(30, 30, 5)) == 1
    assert overlap(disc(10, 10, 5), disc(40, 40, 5)) == 0
