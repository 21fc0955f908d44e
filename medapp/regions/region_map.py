"""Region maps: every pixel of a slice gets the number of the one region it belongs to.

A network that attends within regions (RAT) takes such a map beside the image. Regions come from an engine (the region
tree, or SAM's automatic masks), and what a person has accepted is painted over them.

Reference:
    Yang et al., "Region Attention Transformer for Medical Image Restoration", MICCAI 2024.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.region_tree import RegionTree
from medapp.errors import MaskMismatchError, UsageError

TREE_REGIONS = 40
"""Into how many regions a tree is cut at most; SAM's automatic masks gave 39 on the CT slice that comes with RAT."""

_ALIKE = 1e-6  # altitude below which the two halves of a node do not differ


def region_map_from_masks(masks: Sequence[NDArray[np.bool_]], shape: tuple[int, int]) -> NDArray[np.int32]:
    """One map from masks that may overlap: larger ones first, so that smaller ones win.

    ``L(p) = max{i : p in S_i}`` with ``|S_1| >= ... >= |S_K|``; what no mask holds is one region more, ``K + 1``, even
    if it is scattered. A mask that others cover completely leaves its number unused. Without any mask the whole slice
    is region 1.

    Args:
        masks: ``(H, W)`` bool each; masks of equal area keep their order. One at a time is looked at, twice.
        shape: ``(H, W)`` of the slice.

    Returns:
        ``(H, W)`` int32, from 1.

    Raises:
        MaskMismatchError: A mask has another size than the slice.
    """
    areas = np.zeros(len(masks), dtype=np.int64)
    for place, mask in enumerate(masks):
        _check_shape(mask, shape)
        areas[place] = np.count_nonzero(mask)
    labels = np.full(shape, len(masks) + 1, dtype=np.int32)
    for number, place in enumerate(np.argsort(-areas, kind="stable").tolist(), start=1):
        labels[np.asarray(masks[place], dtype=bool)] = number
    return labels


def region_map_from_tree(tree: RegionTree, regions: int = TREE_REGIONS) -> NDArray[np.int32]:
    """The cut of a region tree with a given number of regions.

    From the whole slice downward, the region whose two halves differ most is split next, as long as there are fewer
    than ``regions`` and the halves differ at all. This is the horizontal cut of the tree: the same contrast (weighted
    by size, as in building the tree) separates regions everywhere in the slice.

    Args:
        tree: Of the slice.
        regions: How many regions at most.

    Returns:
        ``(H, W)`` int32, from 1; larger regions have smaller numbers.
    """
    children = _children(tree)
    root = len(tree.parent) - 1
    waiting = [(-float(tree.altitude[root]), root)]
    whole: list[int] = []
    while waiting:
        altitude, node = heapq.heappop(waiting)
        if -altitude <= _ALIKE or node not in children or len(whole) + len(waiting) + 1 >= regions:
            whole.append(node)
        else:
            for child in children[node]:
                heapq.heappush(waiting, (-float(tree.altitude[child]), child))
    number_of_leaf = np.zeros(tree.leaf_count, dtype=np.int32)
    for number, node in enumerate(sorted(whole, key=lambda n: (-int(tree.area[n]), int(tree.first[n]))), start=1):
        number_of_leaf[tree.first[node] : tree.last[node]] = number
    return number_of_leaf[tree.leaf]


def paint_mattes(labels: NDArray[np.int32], masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.int32]:
    """Paint what a person has accepted over an engine's regions; each mask becomes a region of its own.

    A person goes over the engine, and among the masks the smaller one over the larger.

    Args:
        labels: ``(H, W)`` int32; left as it is.
        masks: ``(H, W)`` bool each, alpha >= 0.5; empty ones are left out.

    Returns:
        ``(H, W)`` int32; new numbers from ``labels.max() + 1``.

    Raises:
        MaskMismatchError: A mask has another size than the map.
    """
    painted = labels.copy()
    for mask in masks:
        _check_shape(mask, labels.shape)
    next_number = int(labels.max(initial=0)) + 1
    for mask in sorted(masks, key=lambda m: -int(np.count_nonzero(m))):
        if mask.any():
            painted[np.asarray(mask, dtype=bool)] = next_number
            next_number += 1
    return painted


def checked_labels(labels: NDArray, shape: tuple[int, int]) -> NDArray[np.int32]:
    """A foreign label map, checked; without any region (all zero) the whole slice is region 1.

    Args:
        labels: Any integer or float dtype.
        shape: ``(H, W)`` of the slice it is for.

    Returns:
        ``(H, W)`` int32.

    Raises:
        MaskMismatchError: The map has another size than the slice.
        UsageError: A label is negative, fractional, not finite or too large.
    """
    _check_shape(labels, shape)
    if labels.dtype.kind not in "biuf":
        raise UsageError("The region map holds no numbers.", "Use whole numbers from 0, one for each region.")
    if labels.dtype.kind == "f" and not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
        raise UsageError(
            "The region map holds fractions or values that are not finite.",
            "Use whole numbers, one for each region; a map that was resampled must be resampled by nearest neighbour.",
        )
    if labels.size and labels.min() < 0:
        raise UsageError("The region map holds negative labels.", "Use whole numbers from 0, one for each region.")
    if labels.size and labels.max() > np.iinfo(np.int32).max:
        raise UsageError("The region map holds labels that are too large.", "Number the regions from 1.")
    whole = labels.astype(np.int32)
    return whole if whole.any() else np.ones(shape, dtype=np.int32)


def region_count(labels: NDArray[np.int32]) -> int:
    """How many different regions a map shows."""
    return int(np.count_nonzero(np.bincount(labels.ravel())))


def _children(tree: RegionTree) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for node, parent in enumerate(tree.parent.tolist()):
        if parent != node:
            found.setdefault(parent, []).append(node)
    return found


def _check_shape(mask: NDArray, shape: tuple[int, ...]) -> None:
    if mask.shape != shape:
        sides = "x".join(str(n) for n in mask.shape)
        raise MaskMismatchError(
            f"The region map or mask is {sides}, the slice {shape[0]}x{shape[1]}.", "Use one made for this slice."
        )
