"""Differences between two methods, with intervals over patients; calibration; tables."""

import numpy as np
import pytest

from medapp.services.evaluation.calibration import by_decile, rank_correlation
from medapp.services.evaluation.figures import mean_interval, paired_change_percent, paired_interval
from medapp.services.evaluation.tables import Block, as_markdown, as_text
from medapp.services.evaluation.tasks import table


def test_the_interval_holds_the_mean_and_narrows_with_more_patients():
    few = mean_interval([30.0, 31.0, 33.0], ["a", "b", "c"])
    many = mean_interval([30.0, 31.0, 33.0] * 20, [str(i) for i in range(60)])
    assert few[1] < few[0] < few[2]
    assert many[2] - many[1] < few[2] - few[1]
    assert np.isnan(mean_interval([], [])).all()


def test_patients_count_alike_however_many_slices_they_have():
    challenger, champion = [11.0] * 9 + [10.0], [10.0] * 10
    mean, low, high = paired_interval(challenger, champion, ["a"] * 9 + ["b"])
    assert (mean, low, high) == (0.5, 0.0, 1.0)


def test_a_steady_gain_is_certain_even_where_cases_differ_much():
    champion = [10.0, 30.0, 20.0, 50.0]
    mean, low, high = paired_interval([v + 1 for v in champion], champion, list("abcd"))
    assert mean == pytest.approx(1.0)
    assert low == pytest.approx(high)


def test_cases_of_a_single_patient_are_resampled_and_what_is_not_finite_is_left_out():
    mean, low, high = paired_interval([1.0, 3.0, np.nan], [0.0, 0.0, 0.0], ["a", "a", "a"])
    assert mean == 2
    assert low < mean < high


def test_a_change_is_a_share_of_the_champions_mean():
    change, low, high = paired_change_percent([0.9, 1.8], [1.0, 2.0], ["a", "b"])
    assert change == pytest.approx(-10)
    assert low == pytest.approx(high)
    assert np.isnan(paired_change_percent([1.0], [0.0], ["a"])[0])


def test_a_spread_that_follows_the_error_correlates_and_rises():
    random = np.random.default_rng(0)
    spread = random.random(5000)
    error = spread + 0.1 * random.random(5000)
    assert rank_correlation(spread, error) > 0.9
    assert (np.diff(by_decile(spread, error)) > 0).all()
    assert abs(rank_correlation(spread, random.random(5000))) < 0.1
    assert np.isnan(rank_correlation(spread, np.zeros(5000)))


def test_columns_line_up_on_a_terminal_and_are_a_table_in_markdown():
    block = Block("Title", ("name", "x"), (("a", "1.0"), ("long name", "10.0")))
    lines = as_text([block], ["note"]).splitlines()
    assert lines[0] == "Title"
    assert lines[3].index(".") == lines[4].index(".")
    assert lines[-1] == "note"
    markdown = as_markdown([block], ["note"])
    assert "#### Title" in markdown
    assert "| long name | 10.0 |" in markdown


def test_depth_results_become_a_row_each_also_where_nothing_was_measured():
    where = {"kind": "rooms", "method": "linear fill"}
    figures = {"mae": 12.5, "rmse": 30.0, "rel": 0.1, "delta_110": 0.8, "gain_percent": -4.0}
    rows = [{**where, "pattern": "uniform", "points": 5, **figures}]
    rows += [{**where, "pattern": "none", "points": 0, "is_finite": True}]
    result = {"task": "depth-completion", "data_sha256": "ab", "n_frames": 3, "seeds": 1, "rows": rows}
    text = table(result)
    assert "12.50" in text
    assert "+4.0" in text  # the error is 4 % above the better fill's
    assert "finite" in text
    assert table(result, is_markdown=True).count("| rooms |") == 2
