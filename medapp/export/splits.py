"""Train, val and test by patient group: no patient is ever in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

from medapp.errors import ExportError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def split_groups(weights: Mapping[str, int], fractions: tuple[float, float, float], seed: int) -> dict[str, Split]:
    """Deal patient groups out to train, val and test.

    Groups are ordered by a seeded hash of their name, so a group's place does not depend on the order or number of its
    series. Each group goes to the split that lacks most of its share; a split with a share above zero gets a group
    before any other gets a second, as far as there are groups, train first.

    Args:
        weights: Number of series per group.
        fractions: Shares of train, val and test; scaled to sum to 1.
        seed: Equal seeds give equal splits.

    Raises:
        ExportError: A share is negative or all are zero.
    """
    total = sum(fractions)
    if min(fractions) < 0 or not total > 0:
        raise ExportError("The shares of train, val and test must not be negative or all zero.", "Use 0.7 0.15 0.15.")
    shares = {name: share / total for name, share in zip(SPLITS, fractions, strict=True)}
    series = sum(weights.values())
    dealt = dict.fromkeys(SPLITS, 0)
    result: dict[str, Split] = {}
    for group in sorted(weights, key=lambda name: (_rank(name, seed), name)):
        empty = [name for name in SPLITS if shares[name] > 0 and dealt[name] == 0]
        open_splits = empty or [name for name in SPLITS if shares[name] > 0]
        chosen = max(open_splits, key=lambda name: (shares[name] * series - dealt[name], -SPLITS.index(name)))
        result[group] = chosen
        dealt[chosen] += max(weights[group], 1)
    return result


def _rank(group: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{group}".encode()).digest()
