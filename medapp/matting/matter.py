"""One way to ask for a matte, whatever computes it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UsageError
from medapp.matting.closed_form import solve_closed_form
from medapp.progress import Progress
from medapp.scan.scan import Window


class Matter(Protocol):
    """Slice + trimap -> alpha."""

    name: str

    def matte(
        self,
        values: NDArray,
        window: Window | None,
        trimap: NDArray[np.float32],
        keep: NDArray[np.bool_] | None = None,
        current: NDArray[np.float32] | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Alpha of the unknown band.

        Args:
            values: ``(H, W)`` in the scan's unit, or ``(H, W, 3)`` colours as stored.
            window: The display window: what the person sees is what is matted. None = the range of the values.
            trimap: ``(H, W)`` of 0, 0.5, 1.
            keep: ``(H, W)`` bool, pixels that come back exactly as in ``current``.
            current: ``(H, W)`` float32, the present alpha; needed with ``keep``.
            progress: Notices Stop.

        Returns:
            ``(H, W)`` float32, 0..1; known pixels exactly 0 or 1.

        Raises:
            ComputeError: The matte cannot be computed; says why.
            Cancelled: The user stopped it.
        """
        ...


class ClosedFormMatter:
    """Closed-form matting: no weights, alpha follows the colours in each 3 x 3 window."""

    name = "closed form"

    def matte(
        self,
        values: NDArray,
        window: Window | None,
        trimap: NDArray[np.float32],
        keep: NDArray[np.bool_] | None = None,
        current: NDArray[np.float32] | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """See ``Matter.matte``."""
        return solve_closed_form(shown_image(values, window), trimap, keep, current, progress)


_ENGINES: dict[str, type[ClosedFormMatter]] = {"closed-form": ClosedFormMatter}


def make_matter(engine: str = "closed-form") -> Matter:
    """The matting engine of this name.

    Raises:
        UsageError: There is no such engine.
    """
    if engine not in _ENGINES:
        raise UsageError(f"There is no matting engine called {engine}.", f"Use one of: {', '.join(sorted(_ENGINES))}.")
    return _ENGINES[engine]()


def shown_image(values: NDArray, window: Window | None) -> NDArray[np.float32]:
    """The slice as it is shown: ``(H, W)`` or ``(H, W, 3)`` float32, 0..1; what is not finite counts as the lowest."""
    if values.ndim == 3 and np.issubdtype(values.dtype, np.integer):
        return (values / np.float32(np.iinfo(values.dtype).max)).astype(np.float32)
    shown = np.asarray(values, dtype=np.float32)
    finite = np.isfinite(shown)
    if not finite.all():
        shown = np.where(finite, shown, shown[finite].min() if finite.any() else 0.0)
    if window is not None and window.width > 0:
        low, width = window.center - window.width / 2, window.width
    else:
        low = float(shown.min())
        width = float(shown.max()) - low
    return np.clip((shown - np.float32(low)) / np.float32(max(width, 1e-6)), 0.0, 1.0).astype(np.float32)
