"""Slice -> region tree: superpixels by watershed, merged by what is alike and by weak borders.

Runs in the reader process, so it imports scikit-image and scipy, never torch.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.segmentation import watershed

from medapp.annotation.region_tree import RegionTree
from medapp.progress import Progress
from medapp.scan.scan import Window

SUPERPIXELS = 2500
"""How many superpixels a slice is cut into, roughly."""

_LARGEST_SIDE = 1100  # px; larger pictures are cut up at a whole fraction of their size


@dataclass(frozen=True)
class MergeRule:
    """How two neighbouring regions are compared.

    Attributes:
        border_weight: Share of the gradient along the common border; the rest is the difference of the means.
        size_power: How strongly large regions resist merging; 0.5 is Ward's rule, 0 ignores size.
        full_size: Share of the slice from which on a region counts as large.
    """

    border_weight: float = 0.6
    size_power: float = 0.3
    full_size: float = 1.0


def build_region_tree(
    values: NDArray,
    window: Window | None = None,
    progress: Progress | None = None,
    superpixels: int = SUPERPIXELS,
    rule: MergeRule = MergeRule(),
) -> RegionTree:
    """Cut one slice into superpixels and merge them into a hierarchy.

    Args:
        values: ``(H, W)`` in the scan's unit, or ``(H, W, 3)`` uint8 / uint16 colours. Values that are not finite count
            as the lowest.
        window: The display window; None = 0.5 to 99.5 % of the values. Ignored for colours.
        progress: Notices Stop between the stages.
        superpixels: How many to aim for.
        rule: How regions are compared.

    Raises:
        Cancelled: The user stopped it.
    """
    progress = progress or Progress()
    progress.start(3, "stages")
    height, width = values.shape[:2]
    step = max(1, -(-max(height, width) // _LARGEST_SIDE))
    features = slice_features(values[::step, ::step], window)
    smooth = np.stack([ndimage.gaussian_filter(f, 0.7) for f in features])
    strength = gradient_strength(features)
    progress.step()
    labels = _superpixels(strength, superpixels)
    progress.step()
    tree = _merge(labels, smooth, strength, rule)
    if step > 1:
        tree = _enlarged(tree, step, (height, width))
    progress.step()
    return tree


def slice_features(values: NDArray, window: Window | None) -> NDArray[np.float32]:
    """``(C, H, W)`` float32: grey in the display window, softly clipped, or Lab / 100."""
    if values.ndim == 3:
        full = float(np.iinfo(values.dtype).max) if np.issubdtype(values.dtype, np.integer) else 1.0
        lab = rgb2lab((values[..., :3] / full).astype(np.float32))
        return np.ascontiguousarray(np.moveaxis(lab / 100.0, -1, 0), dtype=np.float32)
    grey = np.asarray(values, dtype=np.float32)
    finite = np.isfinite(grey)
    lowest = float(grey[finite].min()) if finite.any() else 0.0
    grey = np.where(finite, grey, lowest)
    if window is None or window.width <= 0:
        low, high = (float(v) for v in np.percentile(grey, (0.5, 99.5)))
    else:
        low, high = window.center - window.width / 2, window.center + window.width / 2
    shown = (grey - low) / max(high - low, 1e-6)
    inside = np.clip(shown, 0.0, 1.0)
    # What lies outside the window keeps a little contrast, so that lung and air do not become one.
    return (inside + 0.1 * np.tanh(shown - inside))[None].astype(np.float32)


def gradient_strength(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(H, W)`` float32 gradient magnitude over all features, per pixel."""
    total = np.zeros(features.shape[1:], dtype=np.float32)
    for feature in features:
        for axis in (0, 1):
            total += ndimage.gaussian_filter(feature, 1.0, order=(1, 0) if axis == 0 else (0, 1)) ** 2
    return np.sqrt(total)


def _superpixels(strength: NDArray[np.float32], count: int) -> NDArray[np.int32]:
    """Watershed of the gradient from the flattest pixel of each grid cell; labels from 0."""
    height, width = strength.shape
    cell = max(3, round((height * width / count) ** 0.5))
    rows, cols = -(-height // cell), -(-width // cell)
    padded = np.full((rows * cell, cols * cell), np.inf, dtype=np.float32)
    padded[:height, :width] = strength
    # Ties go to the middle of the cell: flat regions get even superpixels.
    middle = np.abs(np.arange(cell) - (cell - 1) / 2)
    tie = 1e-4 * (middle[:, None] + middle[None]).astype(np.float32)
    cells = padded.reshape(rows, cell, cols, cell).transpose(0, 2, 1, 3).reshape(rows, cols, cell, cell) + tie
    flattest = cells.reshape(rows, cols, -1).argmin(-1)
    y = (np.arange(rows)[:, None] * cell + flattest // cell).ravel()
    x = (np.arange(cols)[None] * cell + flattest % cell).ravel()
    keep = (y < height) & (x < width)
    markers = np.zeros((height, width), dtype=np.int32)
    markers[y[keep], x[keep]] = np.arange(1, keep.sum() + 1)
    return (watershed(strength, markers) - 1).astype(np.int32)


def _borders(
    labels: NDArray[np.int32], strength: NDArray[np.float32], count: int
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Neighbouring superpixels ``a < b``, the length of their common border in px, and the gradient summed along it."""
    keys, weights = [], []
    for a, b, s, t in (
        (labels[:, :-1], labels[:, 1:], strength[:, :-1], strength[:, 1:]),
        (labels[:-1], labels[1:], strength[:-1], strength[1:]),
    ):
        differ = a != b
        low, high = np.minimum(a[differ], b[differ]), np.maximum(a[differ], b[differ])
        keys.append(low.astype(np.int64) * count + high)
        weights.append(np.maximum(s[differ], t[differ]).astype(np.float64))
    key = np.concatenate(keys)
    pairs, index = np.unique(key, return_inverse=True)
    length = np.bincount(index, minlength=len(pairs)).astype(np.float64)
    summed = np.bincount(index, np.concatenate(weights), minlength=len(pairs))
    return pairs // count, pairs % count, length, summed


def _merge(
    labels: NDArray[np.int32], features: NDArray[np.float32], strength: NDArray[np.float32], rule: MergeRule
) -> RegionTree:
    """Merge the most alike pair again and again until one region is left."""
    count = int(labels.max()) + 1
    flat = labels.ravel()
    sizes = np.bincount(flat, minlength=count).astype(np.float64)
    sums = np.stack([np.bincount(flat, f.ravel(), minlength=count) for f in features], axis=1)
    squares = np.stack([np.bincount(flat, (f * f).ravel(), minlength=count) for f in features], axis=1).sum(1)
    total = 2 * count - 1
    area: list[float] = [*sizes.tolist(), *([0.0] * (count - 1))]
    mean: list[tuple[float, ...]] = [tuple(m) for m in (sums / sizes[:, None]).tolist()]
    square: list[float] = [*squares.tolist(), *([0.0] * (count - 1))]
    parent = list(range(total))
    altitude = [0.0] * total
    contour = [(0.0, 0.0)] * total
    children: list[tuple[int, int]] = [(-1, -1)] * total
    neighbours: list[dict[int, tuple[float, float]]] = [{} for _ in range(total)]
    first, second, lengths, summed = _borders(labels, strength, count)
    for a, b, length, gradient in zip(first.tolist(), second.tolist(), lengths.tolist(), summed.tolist(), strict=True):
        neighbours[a][b] = neighbours[b][a] = (length, gradient)

    full = rule.full_size * labels.size
    border_weight, mean_weight, power = rule.border_weight * 4.0, 1.0 - rule.border_weight, rule.size_power

    def difference(a: int, b: int) -> float:
        return float(sum((p - q) ** 2 for p, q in zip(mean[a], mean[b], strict=True)) ** 0.5)

    def cost(a: int, b: int) -> float:
        length, gradient = neighbours[a][b]
        size = min(area[a], area[b], full) / full
        return float((mean_weight * difference(a, b) + border_weight * gradient / length) * size**power)

    heap = [(cost(a, b), a, b) for a in range(count) for b in neighbours[a] if a < b]
    heapq.heapify(heap)
    alive = [True] * count + [False] * (count - 1)
    node = count
    while heap:
        price, a, b = heapq.heappop(heap)
        if not (alive[a] and alive[b]):
            continue
        alive[a] = alive[b] = False
        alive[node] = True
        parent[a] = parent[b] = node
        children[node] = (a, b)
        altitude[node] = max(price, altitude[a], altitude[b])
        whole = area[a] + area[b]
        area[node] = whole
        square[node] = square[a] + square[b]
        mean.append(tuple((p * area[a] + q * area[b]) / whole for p, q in zip(mean[a], mean[b], strict=True)))
        joined = neighbours[node]
        for part in (a, b):
            contour[part] = (
                sum(length for length, _ in neighbours[part].values()),
                sum(length * difference(part, other) for other, (length, _) in neighbours[part].items()),
            )
            for other, (length, gradient) in neighbours[part].items():
                if other in (a, b):
                    continue
                old = joined.get(other, (0.0, 0.0))
                joined[other] = (old[0] + length, old[1] + gradient)
        for other, border in joined.items():
            neighbours[other].pop(a, None)
            neighbours[other].pop(b, None)
            neighbours[other][node] = border
            heapq.heappush(heap, (cost(other, node), other, node))
        neighbours[a] = neighbours[b] = {}
        node += 1
    return _as_tree(labels, children, parent, area, mean, square, altitude, contour)


def _as_tree(
    labels: NDArray[np.int32],
    children: list[tuple[int, int]],
    parent: list[int],
    area: list[float],
    mean: list[tuple[float, ...]],
    square: list[float],
    altitude: list[float],
    contour: list[tuple[float, float]],
) -> RegionTree:
    """Renumber the superpixels so that each node is a run of numbers, and sum up each node's figures."""
    total = len(parent)
    count = (total + 1) // 2
    first = np.zeros(total, dtype=np.int32)
    size = np.ones(total, dtype=np.int32)
    for node in range(count, total):
        a, b = children[node]
        size[node] = size[a] + size[b]
    for node in range(total - 1, count - 1, -1):
        a, b = children[node]
        first[a], first[b] = first[node], first[node] + size[a]
    rank = first[:count]
    order = np.empty(total, dtype=np.int64)  # new number -> old number
    order[rank] = np.arange(count)
    order[count:] = np.arange(count, total)
    renumber = np.empty(total, dtype=np.int32)
    renumber[order] = np.arange(total, dtype=np.int32)
    leaf = rank[labels].astype(np.int32)

    boxes = np.zeros((total, 4), dtype=np.int32)
    for index, found in enumerate(ndimage.find_objects(leaf + 1)):
        rows, cols = found
        boxes[index] = (cols.start, rows.start, cols.stop, rows.stop)
    for node in range(count, total):
        a, b = (renumber[child] for child in children[node])
        boxes[node, :2] = np.minimum(boxes[a, :2], boxes[b, :2])
        boxes[node, 2:] = np.maximum(boxes[a, 2:], boxes[b, 2:])

    areas = np.array(area)[order]
    means = np.array(mean)[order]
    variance = np.maximum(np.array(square)[order] / areas - (means**2).sum(1), 0.0)
    parents = renumber[np.array(parent)[order]]
    altitudes = np.array(altitude)[order]
    score = _scores(areas, altitudes, parents, np.array(contour)[order], np.sqrt(variance))
    return RegionTree(
        leaf=leaf,
        parent=parents.astype(np.int32),
        first=first[order],
        last=(first + size)[order],
        area=areas.astype(np.int32),
        box=boxes,
        altitude=altitudes.astype(np.float32),
        score=score.astype(np.float32),
        mean=means.astype(np.float32),
    )


def _scores(
    area: NDArray[np.float64],
    altitude: NDArray[np.float64],
    parent: NDArray[np.int32],
    contour: NDArray[np.float64],
    spread: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How much each node looks like one thing, in log odds against the other nodes over the same pixel.

    The weights were fitted on clicks into organs, tumours, lesions, cells and brain tissue such that the chosen node
    overlaps best; each group of pictures was left out in turn to choose the five terms.
    """
    pixels = float(area[-1])
    length, contrast = contour.T
    share = np.log(area / pixels)
    stands_out = np.log(contrast / np.maximum(length, 1.0) / (spread + 0.02) + 0.05)
    lives = np.log((altitude[parent] + 1e-3) / (altitude + 1e-3))
    gains_spread = np.log((spread[parent] + 0.01) / (spread + 0.01))
    too_large = np.maximum(share - np.log(0.1), 0.0)
    too_small = np.minimum(share - np.log(0.002), 0.0)
    return 6.1 * stands_out + 3.5 * lives - 5.2 * gains_spread - 2.8 * too_large + 9.0 * too_small


def _enlarged(tree: RegionTree, step: int, shape: tuple[int, int]) -> RegionTree:
    """The tree of a reduced picture on the full one."""
    leaf = np.repeat(np.repeat(tree.leaf, step, axis=0), step, axis=1)[: shape[0], : shape[1]]
    box = tree.box * step
    box[:, 2:] = np.minimum(box[:, 2:], (shape[1], shape[0]))
    leaf_area = np.bincount(leaf.ravel(), minlength=tree.leaf_count)
    below = np.concatenate([[0], np.cumsum(leaf_area)])
    return RegionTree(
        leaf=np.ascontiguousarray(leaf),
        parent=tree.parent,
        first=tree.first,
        last=tree.last,
        area=(below[tree.last] - below[tree.first]).astype(np.int32),
        box=box,
        altitude=tree.altitude,
        score=tree.score,
        mean=tree.mean,
    )
