"""One way to ask for regions, whatever finds them: the region tree, always there, or SAM with weights."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.region_tree import RegionTree
from medapp.progress import Progress
from medapp.regions.prompts import Prompts, Proposal
from medapp.regions.region_tree_builder import build_region_tree
from medapp.scan.scan import Window

TREE_NAME = "region tree"
CANDIDATES = 3


class RegionEngine(Protocol):
    """Slice + prompts -> regions."""

    name: str

    def prepare(self, values: NDArray, window: Window | None, progress: Progress | None = None) -> None:
        """Do the slow part for a slice, so that ``propose`` answers at once. Args as in ``propose``."""
        ...

    def propose(
        self, values: NDArray, window: Window | None, prompts: Prompts, progress: Progress | None = None
    ) -> list[Proposal]:
        """Up to three regions, best first.

        Args:
            values: ``(H, W)`` in the scan's unit, or ``(H, W, 3)`` colours as stored.
            window: The display window; None = the range of the values. Ignored for colours.
            prompts: What was pointed at.
            progress: Notices Stop.

        Raises:
            UsageError: The prompts point at nothing.
            Cancelled: The user stopped it.
        """
        ...


class TreeEngine:
    """Regions out of the region tree; needs no weights and is never called SAM."""

    name = TREE_NAME

    def __init__(self) -> None:
        self._tree: RegionTree | None = None
        self._of: tuple[int, Window | None] | None = None
        self._values: NDArray | None = None

    def prepare(self, values: NDArray, window: Window | None, progress: Progress | None = None) -> None:
        """See ``RegionEngine.prepare``; the last slice's tree is kept."""
        key = (id(values), window)
        if self._of != key:
            self._tree = build_region_tree(values, window, progress)
            self._of, self._values = key, values  # holding the array keeps its id its own

    def propose(
        self, values: NDArray, window: Window | None, prompts: Prompts, progress: Progress | None = None
    ) -> list[Proposal]:
        """See ``RegionEngine.propose``."""
        self.prepare(values, window, progress)
        assert self._tree is not None
        return propose_from_tree(self._tree, prompts)


def propose_from_tree(tree: RegionTree, prompts: Prompts) -> list[Proposal]:
    """Up to three regions of a tree, best first.

    Raises:
        UsageError: The prompts point at nothing.
    """
    prompts.check(tree.shape)
    if prompts.is_ambiguous:
        point = prompts.include_xy[0]
        path = tree.path(point)
        scores = tree.score[path].astype(np.float64)
        chance = np.exp(scores - scores.max())
        chance /= chance.sum()
        best = np.argsort(-chance)[:CANDIDATES]
        return [Proposal(tree.mask_of([int(path[i])]), float(chance[i]), TREE_NAME) for i in best]
    masks: list[NDArray[np.bool_]] = []
    if prompts.box_xyxy is not None:
        masks.append(tree.region_for_box(prompts.box_xyxy))
    include = list(prompts.include_xy)
    if prompts.mask is not None:
        rows, cols = np.nonzero(np.asarray(prompts.mask) >= 0.5)
        include += list(zip(cols.tolist(), rows.tolist(), strict=True))
    if include:
        masks.append(tree.region_for_scribble(include, prompts.exclude_xy))
    union = np.logical_or.reduce(masks)
    return [Proposal(union, 1.0, TREE_NAME)] if union.any() else []
