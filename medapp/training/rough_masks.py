"""What a person has in hand before a matte is made, drawn from the true one: a hurried mask, a region, or a box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.matting.rough import box_picture, rough_picture
from medapp.regions.region_tree_builder import build_region_tree
from medapp.training.degradations.mattes import click_inside, disturbed_mask

KINDS = ("disturbed", "careless", "region", "box")
USUAL_SHARES: Mapping[str, float] = {"disturbed": 0.78, "careless": 0.06, "region": 0.04, "box": 0.12}
_SIDE_PX = 128
"""Displacements are in pixels of a crop of this side."""
_BOX_ERROR = 0.07  # of the longer side: a hand is not exact
_LEAST_OVERLAP = 0.35  # a region that has little to do with the thing is not what a person would go on with
_SUPERPIXELS = 200  # of a crop: what a whole slice is cut into leaves about as many around a thing
_CARELESS = (0.01, 0.04)  # of the crop: corners and thin parts that a quick outline cuts off

Span = tuple[float, float, float, float]


@dataclass(frozen=True)
class RoughPlan:
    """How often each kind of rough mask is drawn.

    Attributes:
        shares: ``disturbed``: the true mask with its border moved. ``careless``: a smoothed outline of it, moved.
            ``region``: what the region tree has around a click. ``box``: a box alone. Scaled to a sum of 1.
        px: Largest displacement of a border, low and high, in pixels of a crop of 128.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    px: tuple[float, float] = (0.5, 7.5)

    def without_box(self) -> RoughPlan:
        """The same, but a box alone is never drawn; disturbed masks where nothing else is planned."""
        shares = {kind: share for kind, share in self.shares.items() if kind != "box"}
        return replace(self, shares=shares if sum(shares.values()) > 0 else {"disturbed": 1.0})

    def problem(self) -> str:
        """What cannot work, in words; empty when all can."""
        if any(kind not in KINDS for kind in self.shares):
            return f"rough masks are {', '.join(KINDS)}"
        shares = tuple(self.shares.values())
        if shares and not (min(shares) >= 0 and sum(shares) > 0):
            return "shares of rough masks are above 0"
        return "" if 0 <= self.px[0] <= self.px[1] else "rough_px rises from 0"


def drawn_picture(
    plan: RoughPlan,
    truth: NDArray[np.bool_],
    box_xyxy: Span,
    image: NDArray[np.float32],
    random: np.random.Generator,
) -> NDArray[np.float32]:
    """What the network is shown of what a person has in hand of a thing in a square crop.

    Args:
        plan: How often which kind.
        truth: ``(S, S)`` bool, the true mask.
        box_xyxy: Around the thing, in pixels of the crop; it may reach beyond it.
        image: ``(S, S, C)`` float32, 0..1, as shown.
        random: Of the draw.

    Returns:
        ``(S, S)`` float32, see ``rough_picture`` and ``box_picture``; a box where the true mask is empty.
    """
    kinds = [kind for kind in KINDS if plan.shares.get(kind, 0.0) > 0]
    shares = np.array([plan.shares[kind] for kind in kinds])
    kind = kinds[int(random.choice(len(kinds), p=shares / shares.sum()))]
    side, seed = truth.shape[0], int(random.integers(2**31))
    px = float(random.uniform(*plan.px)) * side / _SIDE_PX
    if kind == "box" or not truth.any():
        x0, y0, x1, y1 = np.array(box_xyxy) + random.uniform(-1, 1, 4) * _BOX_ERROR * _longer(box_xyxy)
        return box_picture((float(x0), float(y0), float(x1), float(y1)), (side, side))
    if kind == "region":
        found = _region(truth, image, seed)
        if found is not None:
            return rough_picture(found)
    if kind == "careless":
        smooth = ndimage.gaussian_filter(truth.astype(np.float32), random.uniform(*_CARELESS) * side) > 0.5
        truth = smooth if smooth.any() else truth
    return rough_picture(disturbed_mask(truth, px, seed))


def _region(truth: NDArray[np.bool_], image: NDArray[np.float32], seed: int) -> NDArray[np.bool_] | None:
    """Of the regions that the tree of the crop has around a click on the thing the one that a person would stop at, who
    goes up and down its levels; None where none has much to do with the thing."""
    tree = build_region_tree(image if image.shape[2] == 3 else image[..., 0], superpixels=_SUPERPIXELS)
    best, overlap = None, _LEAST_OVERLAP
    for node in tree.path(click_inside(truth, seed)):
        region = tree.mask_of([int(node)])
        shared = float((region & truth).sum()) / int((region | truth).sum())
        if shared > overlap:
            best, overlap = region, shared
    return best


def _longer(box: Span) -> float:
    return max(box[2] - box[0], box[3] - box[1])
