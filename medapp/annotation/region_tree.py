"""The hierarchy of a slice as plain arrays: point + level -> region.

A region tree is made once per slice by the reader process (``medapp.regions.region_tree_builder``) and kept by the
window, so that a click is a look-up: superpixels are numbered such that every region of the tree is a run of
consecutive numbers, and its mask is one comparison inside its box.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UnreadableFileError

LEVEL_GROWTH = 1.2
"""Regions on the way up that grow by less than this factor count as one level: a key press must show a change."""

Points = NDArray | Sequence[tuple[float, float]]
"""``(N, 2)`` pixels ``x, y``."""

_BOX_MARGIN = 0.06  # people draw boxes a little too tight or too wide
_FIT_WEIGHT = 30.0  # of the overlap of boxes against the score
_GOOD_FIT = 0.7  # from this overlap of boxes on one node is the answer
_OUTVOTED = 0.5  # a large node needs half as many marks as the parts that others chose within it
_LEAST_PART = 0.05  # of the largest part in a box; smaller ones are crumbs


@dataclass(frozen=True, eq=False)
class RegionTree:
    """Superpixels of one slice and the order in which they merge.

    Nodes ``0 .. L - 1`` are the superpixels, later ones the merged regions, the last one the whole slice; a parent has
    a higher number than its children. Node ``n`` holds the superpixels ``first[n] .. last[n] - 1``.

    Attributes:
        leaf: ``(H, W)`` int32, the superpixel of each pixel.
        parent: ``(N,)`` int32; the root is its own parent.
        first, last: ``(N,)`` int32.
        area: ``(N,)`` int32, pixels.
        box: ``(N, 4)`` int32, ``x0, y0, x1, y1``, the upper ends exclusive.
        altitude: ``(N,)`` float32, dissimilarity at which the node came to be; never falls on the way up.
        score: ``(N,)`` float32, how much the node looks like one thing; the default level has the highest.
        mean: ``(N, C)`` float32, mean feature (grey in the display window, or Lab / 100).
    """

    leaf: NDArray[np.int32]
    parent: NDArray[np.int32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    area: NDArray[np.int32]
    box: NDArray[np.int32]
    altitude: NDArray[np.float32]
    score: NDArray[np.float32]
    mean: NDArray[np.float32]

    def __post_init__(self) -> None:
        n, leaves = len(self.parent), self.leaf_count
        same_length = all(
            len(getattr(self, name)) == n for name in ("first", "last", "area", "box", "altitude", "score")
        )
        if self.leaf.ndim != 2 or not same_length or len(self.mean) != n or n < leaves or leaves < 1:
            raise ValueError("these arrays are not a region tree")

    # ------------------------------------------------------------------ looking up

    @property
    def shape(self) -> tuple[int, int]:
        """``(H, W)`` of the slice."""
        return cast(tuple[int, int], self.leaf.shape)

    @cached_property
    def leaf_count(self) -> int:
        """How many superpixels there are."""
        return int(self.last[-1]) if len(self.last) else 0

    def levels_at(self, point_xy: tuple[float, float]) -> int:
        """How many levels a click at this point has; 1 at least."""
        return len(self.path(point_xy))

    def best_level(self, point_xy: tuple[float, float]) -> int:
        """The level that looks most like one thing: what a plain click shows."""
        path = self.path(point_xy)
        return int(np.argmax(self.score[path]))

    def region_at(self, point_xy: tuple[float, float], level: int | None = None) -> NDArray[np.bool_]:
        """The region under a point.

        Args:
            point_xy: Pixels; the centre of the first pixel is (0, 0). Points outside count as the nearest pixel.
            level: 0 = the superpixel, ``levels_at(...) - 1`` = the whole slice; clipped to that range.
                None = ``best_level``.

        Returns:
            ``(H, W)`` bool.
        """
        path = self.path(point_xy)
        if level is None:
            level = int(np.argmax(self.score[path]))
        return self.mask_of([int(path[min(max(level, 0), len(path) - 1)])])

    def region_for_box(self, box_xyxy: tuple[float, float, float, float]) -> NDArray[np.bool_]:
        """The region that best fills a box drawn around a thing; empty when the box holds no whole superpixel.

        One node of the tree when its own box agrees with the drawn one, else all parts in the box that look more like
        its middle than like what surrounds it.

        Args:
            box_xyxy: Two corners in pixels, in any order.

        Returns:
            ``(H, W)`` bool.
        """
        low = np.minimum(box_xyxy[:2], box_xyxy[2:])
        high = np.maximum(box_xyxy[:2], box_xyxy[2:]) + 1.0
        shared = np.prod(np.clip(np.minimum(self.box[:, 2:], high) - np.maximum(self.box[:, :2], low), 0, None), axis=1)
        filled = np.prod(self.box[:, 2:] - self.box[:, :2], axis=1)
        fit = shared / (filled + np.prod(high - low) - shared)
        best = int(np.argmax(_FIT_WEIGHT * np.log(np.maximum(fit, 1e-6)) + self.score))
        if fit[best] >= _GOOD_FIT:
            return self.mask_of([best])
        return self.mask_of(self._parts_in_box(low, high))

    def region_for_scribble(
        self,
        include_points: Points,
        exclude_points: Points = (),
    ) -> NDArray[np.bool_]:
        """The region that a scribble means.

        Args:
            include_points: ``(N, 2)`` ``x, y`` pixels on the thing.
            exclude_points: ``(M, 2)`` pixels that must stay outside; they win where both fall on one superpixel.

        Returns:
            ``(H, W)`` bool; empty without include points.
        """
        include = np.unique(self._leaves_at(include_points))
        exclude = np.unique(self._leaves_at(exclude_points))
        include = include[~np.isin(include, exclude)]
        if len(include) == 0:
            return np.zeros(self.shape, dtype=bool)
        return self.mask_of(self._chosen_nodes(include, exclude))

    def mask_of(self, nodes: list[int]) -> NDArray[np.bool_]:
        """``(H, W)`` bool, the union of the given nodes."""
        mask = np.zeros(self.shape, dtype=bool)
        for node in nodes:
            x0, y0, x1, y1 = self.box[node]
            leaf = self.leaf[y0:y1, x0:x1]
            mask[y0:y1, x0:x1] |= (leaf >= self.first[node]) & (leaf < self.last[node])
        return mask

    def path(self, point_xy: tuple[float, float]) -> NDArray[np.int32]:
        """The nodes under a point, one per level, smallest first."""
        groups: list[int] = []
        start_area = 0
        for node in self._ancestors(int(self._leaves_at([point_xy])[0])):
            area = int(self.area[node])
            if groups and area <= start_area * LEVEL_GROWTH:
                if self.score[node] > self.score[groups[-1]]:
                    groups[-1] = node
            else:
                groups.append(node)
                start_area = area
        return np.array(groups, dtype=np.int32)

    # ------------------------------------------------------------------ keeping

    def to_bytes(self) -> bytes:
        """The tree as an uncompressed npz, for the cache and the way to the window."""
        buffer = io.BytesIO()
        np.savez(buffer, **{f.name: getattr(self, f.name) for f in fields(self)})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> RegionTree:
        """The tree that ``to_bytes`` wrote.

        Raises:
            UnreadableFileError: The bytes are no region tree.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return cls(**{f.name: arrays[f.name] for f in fields(cls)})
        except Exception as error:  # zipfile, numpy and our own check each have their own kind
            raise UnreadableFileError("The stored region tree is damaged.", "It is built again on its own.") from error

    # ------------------------------------------------------------------ inside

    def _leaves_at(self, points_xy: Points) -> NDArray[np.int32]:
        points = np.asarray(points_xy, dtype=np.float64).reshape(-1, 2)
        x = np.clip(np.rint(points[:, 0]), 0, self.shape[1] - 1).astype(np.intp)
        y = np.clip(np.rint(points[:, 1]), 0, self.shape[0] - 1).astype(np.intp)
        return self.leaf[y, x]

    def _ancestors(self, node: int) -> list[int]:
        path = [node]
        while self.parent[path[-1]] != path[-1]:
            path.append(int(self.parent[path[-1]]))
        return path

    def _parts_in_box(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> list[int]:
        """The largest nodes within the box that look like its middle; none when no superpixel lies within."""
        count, size = self.leaf_count, high - low
        margin = _BOX_MARGIN * size + 2
        within: NDArray[np.bool_] = np.asarray(
            (self.box[:, :2] >= low - margin).all(1) & (self.box[:, 2:] <= high + margin).all(1)
        )
        if not within[:count].any():
            return []
        x0, y0 = np.maximum(np.rint(low).astype(int) - 3, 0)
        x1, y1 = np.rint(high).astype(int) + 3
        around = np.zeros(count, dtype=bool)
        around[self.leaf[y0:y1, x0:x1].ravel()] = True
        around &= ~within[:count]
        centre = (self.box[:count, :2] + self.box[:count, 2:]) / 2
        core = within[:count] & (np.abs(centre - (low + high) / 2) < size / 4).all(1)
        likeness = self._likeness(core if core.any() else within[:count], around)
        below = np.concatenate([[0.0], np.cumsum(likeness * self.area[:count])])
        total = below[self.last] - below[self.first]
        largest = np.flatnonzero(within & ~(within[self.parent] & (self.parent != np.arange(len(self.parent)))))
        area = self.area[largest]
        chosen = largest[(area >= _LEAST_PART * area.max()) & (total[largest] > 0)]
        return [int(n) for n in (chosen if len(chosen) else largest[[int(np.argmax(area))]])]

    def _likeness(self, core: NDArray[np.bool_], around: NDArray[np.bool_]) -> NDArray[np.float64]:
        """``(L,)`` log odds, cut at 3, that a superpixel belongs to the core's colours rather than to the others'."""

        def distance(chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
            area = self.area[: len(chosen)][chosen].astype(np.float64)
            colours = self.mean[: len(chosen)]
            middle = area @ colours[chosen] / area.sum()
            spread = np.sqrt(area @ ((colours[chosen] - middle) ** 2).sum(1) / area.sum()) + 0.03
            return np.asarray(((colours - middle) ** 2).sum(1) / (2 * spread**2) + np.log(spread))

        if not around.any():
            return np.full(len(core), 3.0)
        return np.clip(distance(around) - distance(core), -3.0, 3.0)

    def _holds(self, leaves: NDArray[np.int32]) -> NDArray[np.int64]:
        """``(N,)``: how many of the given superpixels each node holds."""
        counts = np.zeros(self.leaf_count + 1, dtype=np.int64)
        counts[leaves + 1] = 1
        below = np.cumsum(counts)
        return below[self.last] - below[self.first]

    def _chosen_nodes(self, include: NDArray[np.int32], exclude: NDArray[np.int32]) -> list[int]:
        """Per included superpixel its best node that holds nothing excluded; outvoted large nodes are left out."""
        forbidden = self._holds(exclude) > 0
        choice: dict[int, int] = {}
        for leaf in include.tolist():
            allowed = [node for node in self._ancestors(leaf) if not forbidden[node]]
            choice[leaf] = max(allowed, key=lambda node: float(self.score[node]))
        votes = Counter(choice.values())
        chosen: list[int] = []
        for node, count in votes.items():
            first, last = self.first[node], self.last[node]
            within = sum(n for other, n in votes.items() if other < node and first <= self.first[other] < last)
            if count >= _OUTVOTED * within:
                chosen.append(node)
            else:  # few marks want the large region, many a part of it: the few stand for themselves
                chosen += [leaf for leaf, wanted in choice.items() if wanted == node]
        return sorted(chosen)
