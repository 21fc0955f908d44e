"""What a person points at, and what an engine answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UsageError


@dataclass(frozen=True, eq=False)
class Prompts:
    """Everything pointed at for one region.

    Attributes:
        include_xy, exclude_xy: Points in pixels of the slice, ``(x, y)``; the centre of the first pixel is (0, 0).
        box_xyxy: Two corners in pixels, in any order, or None.
        mask: ``(H, W)`` bool or float alpha to start from, or None.
    """

    include_xy: tuple[tuple[float, float], ...] = ()
    exclude_xy: tuple[tuple[float, float], ...] = ()
    box_xyxy: tuple[float, float, float, float] | None = None
    mask: NDArray | None = None

    @property
    def is_ambiguous(self) -> bool:
        """True for a single click, which can mean a part, a thing or a group."""
        return len(self.include_xy) + len(self.exclude_xy) <= 1 and self.box_xyxy is None and self.mask is None

    def check(self, shape: tuple[int, int]) -> None:
        """Refuse prompts that point at nothing.

        Args:
            shape: ``(H, W)`` of the slice.

        Raises:
            UsageError: No prompt, a coordinate that is no number, an empty box, or a mask of another size.
        """
        if not self.include_xy and self.box_xyxy is None and self.mask is None:
            raise UsageError("There is nothing to segment yet.", "Click on the thing, or draw a box around it.")
        numbers = [*(n for p in (*self.include_xy, *self.exclude_xy) for n in p), *(self.box_xyxy or ())]
        if not np.isfinite(np.asarray(numbers, dtype=np.float64)).all():
            raise UsageError("A prompt lies nowhere.", "Remove it and click again.")
        if self.box_xyxy is not None:
            x0, y0, x1, y1 = self.box_xyxy
            if x0 == x1 or y0 == y1:
                raise UsageError("The box is empty.", "Draw it around the thing.")
        if self.mask is not None and self.mask.shape != shape:
            raise UsageError("The mask to start from has another size than the slice.", "Use a mask of this series.")

    def ordered_box(self) -> tuple[float, float, float, float] | None:
        """The box with its lower corner first."""
        if self.box_xyxy is None:
            return None
        x0, y0, x1, y1 = self.box_xyxy
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


@dataclass(frozen=True, eq=False)
class Proposal:
    """One region that a person may accept.

    Attributes:
        mask: ``(H, W)`` bool.
        score: 0..1, how sure the engine is; comparable within one engine only.
        origin: The engine's name, such as ``region tree`` or ``SAM · vit_b``.
    """

    mask: NDArray[np.bool_]
    score: float
    origin: str
