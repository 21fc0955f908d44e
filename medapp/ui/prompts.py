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
    """

    mask: NDArray[np.bool_]
    score: float | None
    origin: str
    axis: int = 0
    slice_index: int = 0
    level: int | None = None
