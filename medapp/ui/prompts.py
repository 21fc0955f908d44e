"""What a person points at, and the regions that may answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PromptKind = Literal["point", "box", "scribble"]
PROMPT_KINDS: tuple[PromptKind, ...] = ("point", "box", "scribble")


@dataclass(frozen=True)
class Prompt:
    """One mark on a slice.

    Attributes:
        kind: ``point`` has one point, ``box`` two corners, ``scribble`` as many as were drawn.
        points_xy: Pixels of the raw slice ``slice_stored(z, axis)``: column, row; pixel centres are whole numbers.
        is_include: False marks what must stay outside.
        axis, slice_index: The slice that was clicked.
    """

    kind: PromptKind
    points_xy: tuple[tuple[float, float], ...]
    is_include: bool = True
    axis: int = 0
    slice_index: int = 0


@dataclass(frozen=True, eq=False)
class Candidate:
    """A region that may be accepted.

    Attributes:
        mask: ``(H, W)`` bool, pixels of the raw slice.
        score: 0..1 as a network gives it; None from the region tree, whose scores have no such scale.
        origin: ``region tree``, or the model's name and version.
        level: Place in the region tree, smallest first; None elsewhere.
        alpha: ``(H, W)`` float32, 0..1, of a soft matte that is accepted as it is; ``mask`` is then where it is at
            least a half. None for a region.
        name: What lists call it; empty = by its place.
        note: Where it comes from, for the undo text; empty = nothing to add.
    """

    mask: NDArray[np.bool_]
    score: float | None
    origin: str
    axis: int = 0
    slice_index: int = 0
    level: int | None = None
    alpha: NDArray[np.float32] | None = None
    name: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class MattingSet:
    """What a matting model made of one click or box: several masks, their disagreement, an alpha.

    Attributes:
        box_xyxy: The crop in the raw slice; everything else is outside.
        uncertainty: ``(h, w)`` float32 bits, 0..1, of the crop.
        seed: Of the draws.
        model: Name and version.
        axis, slice_index: The slice.
        thumbnails: One ``(h, w, 3)`` uint8 picture a candidate, in display orientation.
        aspect: Width over height of a displayed pixel.
        told: The rough mask that the model looked at: ``region``, ``active matte``; empty where it looks at none.
    """

    box_xyxy: tuple[int, int, int, int]
    uncertainty: NDArray[np.float32]
    seed: int
    model: str
    axis: int = 0
    slice_index: int = 0
    thumbnails: tuple[NDArray[np.uint8], ...] = ()
    aspect: float = 1.0
    told: str = ""

    def uncertain(self, bits: float, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Where the masks disagree by at least so many bits: ``shape`` ``(H, W)`` bool of the raw slice."""
        left, top, right, bottom = self.box_xyxy
        found = np.zeros(shape, dtype=bool)
        found[top:bottom, left:right] = self.uncertainty >= bits
        return found

    def suggested_bits(self, mask: NDArray[np.bool_]) -> float:
        """The lowest threshold from 0.1 bit on, in steps of 0.1, that leaves most of a mask ``(H, W)`` known.

        A model that is unsure even of the middle of a thing would otherwise leave nothing to refine from.
        """
        area = int(mask.sum())
        for tenths in range(1, 10):
            bits = tenths / 10
            if 2 * int((self.uncertain(bits, mask.shape) & mask).sum()) <= area:
                return bits
        return 0.9
