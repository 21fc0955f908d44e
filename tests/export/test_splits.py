from __future__ import annotations

import pytest

from medapp.errors import ExportError
from medapp.export.splits import split_groups


def test_each_patient_is_in_one_split_and_the_shares_are_kept():
    weights = {f"patient {i}": 1 + i % 3 for i in range(100)}
    split = split_groups(weights, (0.7, 0.15, 0.15), seed=3)

    assert set(split) == set(weights)
    total = sum(weights.values())
    for name, share in (("train", 0.7), ("val", 0.15), ("test", 0.15)):
        assert abs(sum(weights[g] for g in split if split[g] == name) / total - share) < 0.03


def test_the_order_of_series_does_not_matter_but_the_seed_does():
    weights = {f"p{i}": 1 for i in range(40)}
    backwards = dict(reversed(weights.items()))

    assert split_groups(weights, (0.7, 0.15, 0.15), 1) == split_groups(backwards, (0.7, 0.15, 0.15), 1)
    assert split_groups(weights, (0.7, 0.15, 0.15), 1) != split_groups(weights, (0.7, 0.15, 0.15), 2)


def test_few_patients_still_fill_every_split():
    assert sorted(split_groups({"a": 1, "b": 1, "c": 1}, (0.7, 0.15, 0.15), 0).values()) == ["test", "train", "val"]
    assert split_groups({"a": 5}, (0.7, 0.15, 0.15), 0) == {"a": "train"}
    assert set(split_groups({"a": 1, "b": 1, "c": 1}, (1, 0, 0), 0).values()) == {"train"}


def test_impossible_shares_are_refused():
    with pytest.raises(ExportError, match="shares"):
        split_groups({"a": 1}, (0.0, 0.0, 0.0), 0)
