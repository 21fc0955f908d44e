"""Closed-form matting of the unknown band, on scipy alone.

Small bands are solved at once by a sparse factorisation. Large ones (more than 35 % of the picture or many pixels) are
solved on a reduced picture first and then tile by tile, so memory stays bounded.

Reference:
    Levin, Lischinski, Weiss, "A Closed-Form Solution to Natural Image Matting", TPAMI 2008.
"""

from __future__ import annotations

import logging
import time
import warnings

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import MatrixRankWarning, splu

from medapp.errors import ComputeError
from medapp.matting.laplacian import band_system
from medapp.progress import Progress

log = logging.getLogger(__name__)

EPSILON = 1e-7
TIME_LIMIT_S = 10.0

_MOST_AT_ONCE = 130_000  # unknown pixels in one factorisation: 0.3 to 0.6 GB
_MOST_SHARE = 0.35
_SMALL = 16_000  # up to here the share does not matter
_SHIFTS = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)  # of the mean diagonal, one after another until the system is solved
_RESIDUAL = 1e-5
_TILE = 160
_OVERLAP = 24
_SWEEPS = 2


def solve_closed_form(
    image: NDArray,
    trimap: NDArray[np.float32],
    keep: NDArray[np.bool_] | None = None,
    current: NDArray[np.float32] | None = None,
    progress: Progress | None = None,
    epsilon: float = EPSILON,
    time_limit_s: float = TIME_LIMIT_S,
) -> NDArray[np.float32]:
    """Alpha of the unknown pixels from the colours around them.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` float, 0..1.
        trimap: ``(H, W)``: 0 and 1 are known and come back exactly; anything between is unknown.
        keep: ``(H, W)`` bool, pixels whose present alpha is kept exactly and helps the others.
        current: ``(H, W)`` float32 0..1, the present alpha; needed with ``keep``. Elsewhere it is only the first guess
            of very large bands.
        progress: Notices Stop between tiles.
        epsilon: Regularisation, as PyMatting's.
        time_limit_s: After this long a large band keeps what it has.

    Returns:
        ``(H, W)`` float32, 0..1.

    Raises:
        ComputeError: Nothing is known, or the system could not be solved.
        Cancelled: The user stopped it.
    """
    progress = progress or Progress()
    if keep is not None and current is None:
        raise ValueError("what is kept must be given as current")
    unknown = (trimap > 0.0) & (trimap < 1.0)
    result = np.where(trimap >= 1.0, 1.0, 0.0).astype(np.float32)
    if keep is not None and current is not None:
        result[keep] = current[keep]
        unknown &= ~keep
    if not unknown.any():
        return result
    if unknown.all():
        raise ComputeError(
            "Refine found nothing that is surely inside or outside; the matte is unchanged.",
            "Paint a little of both, or make the unknown band narrower.",
        )
    y0, y1, x0, x1 = _crop(unknown)
    part = np.atleast_3d(np.asarray(image[y0:y1, x0:x1], dtype=np.float64))
    known = result[y0:y1, x0:x1].astype(np.float64)
    holes = unknown[y0:y1, x0:x1]
    height, width = holes.shape
    pad = [(0, max(0, 3 - height)), (0, max(0, 3 - width))]  # no 3 x 3 window fits into less: repeat the edge
    part, known, holes = np.pad(part, [*pad, (0, 0)], "edge"), np.pad(known, pad, "edge"), np.pad(holes, pad, "edge")
    solved = _solve(part, known, holes, progress, epsilon, time_limit_s)[:height, :width]
    holes = holes[:height, :width]
    result[y0:y1, x0:x1][holes] = solved[holes]
    return result


def resolve_around(
    image: NDArray,
    alpha: NDArray[np.float32],
    trimap: NDArray[np.float32],
    box: tuple[int, int, int, int],
    margin: int = 24,
    keep: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], tuple[int, int, int, int]]:
    """Solve again around a stroke, everything farther away held as it is.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` float, 0..1.
        alpha: ``(H, W)`` float32, the matte with the stroke in it; not changed.
        trimap: ``(H, W)``; only its unknown pixels within the box and margin are solved.
        box: ``x0, y0, x1, y1`` of the stroke, upper ends exclusive.
        margin: Pixels around the box that may change too.
        keep: ``(H, W)`` bool, pixels kept exactly.

    Returns:
        The new alpha of the grown box, and that box ``x0, y0, x1, y1``. Pixels outside the unknown band and kept ones
        come back exactly.
    """
    height, width = trimap.shape
    x0, y0 = max(0, box[0] - margin), max(0, box[1] - margin)
    x1, y1 = min(width, box[2] + margin), min(height, box[3] + margin)
    # Two more pixels are needed as the known border; they never change.
    u0, v0, u1, v1 = max(0, x0 - 2), max(0, y0 - 2), min(width, x1 + 2), min(height, y1 + 2)
    present = alpha[v0:v1, u0:u1]
    held = np.ones(present.shape, dtype=bool)
    inner = (slice(y0 - v0, y1 - v0), slice(x0 - u0, x1 - u0))
    band = (trimap[y0:y1, x0:x1] > 0.0) & (trimap[y0:y1, x0:x1] < 1.0)
    if keep is not None:
        band &= ~keep[y0:y1, x0:x1]
    held[inner] = ~band
    if not held.any() or held.all():
        return present[inner].copy(), (x0, y0, x1, y1)
    solved = solve_closed_form(
        image[v0:v1, u0:u1], np.full(present.shape, 0.5, dtype=np.float32), keep=held, current=present
    )
    return solved[inner], (x0, y0, x1, y1)


def refine_soft(
    image: NDArray,
    alpha: NDArray[np.float32],
    unknown: NDArray[np.bool_],
    weight: NDArray[np.float64],
    epsilon: float = EPSILON,
) -> NDArray[np.float32]:
    """Closed form that goes on from a soft alpha instead of a trimap.

    What is made small is the matting Laplacian's energy plus ``weight`` times the squared distance from the given
    alpha; equation 13 of the reference has the scribbles' weight in its place.

    Args:
        image: ``(H, W)`` or ``(H, W, 3)`` float, 0..1; both sides at least 3.
        alpha: ``(H, W)`` float32, 0..1; not changed.
        unknown: ``(H, W)`` bool, what may change; all else is kept exactly.
        weight: ``(H, W)``, 0 or more.
        epsilon: As in ``solve_closed_form``.

    Returns:
        ``(H, W)`` float32, 0..1; the given alpha where nothing may change, or too much for one factorisation.

    Raises:
        ComputeError: The system could not be solved.
    """
    if not unknown.any() or int(unknown.sum()) > _MOST_AT_ONCE or min(unknown.shape) < 3:
        return alpha
    picture = np.atleast_3d(np.asarray(image, dtype=np.float64))
    matrix, right = band_system(picture, np.where(unknown, 0.0, alpha).astype(np.float64), unknown, epsilon)
    pull = weight[unknown].astype(np.float64)
    right = right + pull * alpha[unknown]
    made = alpha.copy()
    made[unknown] = _factorised((matrix + scipy.sparse.diags(pull)).tocsc(), right)
    return made


def _crop(unknown: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """``y0, y1, x0, x1`` around the unknown pixels with the two known pixels that they can see."""
    rows, cols = np.flatnonzero(unknown.any(1)), np.flatnonzero(unknown.any(0))
    height, width = unknown.shape
    return max(0, rows[0] - 2), min(height, rows[-1] + 3), max(0, cols[0] - 2), min(width, cols[-1] + 3)


def _solve(
    image: NDArray[np.float64],
    known: NDArray[np.float64],
    unknown: NDArray[np.bool_],
    progress: Progress,
    epsilon: float,
    time_limit_s: float,
) -> NDArray[np.float64]:
    count = int(unknown.sum())
    if count <= _SMALL or (count <= _MOST_AT_ONCE and count <= _MOST_SHARE * unknown.size):
        progress.check()
        solved = known.copy()
        solved[unknown] = _solve_at_once(image, known, unknown, epsilon)
        return solved
    return _solve_in_tiles(image, known, unknown, progress, epsilon, time.monotonic() + time_limit_s)


def _solve_at_once(
    image: NDArray[np.float64], known: NDArray[np.float64], unknown: NDArray[np.bool_], epsilon: float
) -> NDArray[np.float64]:
    """``(U,)`` alpha 0..1 by factorisation; a growing shift of the diagonal when that fails."""
    return _factorised(*band_system(image, known, unknown, epsilon))


def _factorised(matrix: scipy.sparse.csc_matrix, right: NDArray[np.float64]) -> NDArray[np.float64]:
    diagonal = float(matrix.diagonal().mean()) or 1.0
    scale = float(np.abs(right).max()) or 1.0
    for shift in _SHIFTS:
        shifted = matrix if shift == 0.0 else (matrix + shift * diagonal * scipy.sparse.identity(len(right))).tocsc()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", MatrixRankWarning)
                factor = splu(
                    shifted, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
                )
                solution = factor.solve(right)
        except (RuntimeError, MatrixRankWarning, ValueError) as error:
            log.debug("closed form: factorisation with shift %g failed: %s", shift, error)
            continue
        if np.isfinite(solution).all() and np.abs(shifted @ solution - right).max() <= _RESIDUAL * scale:
            return np.clip(solution, 0.0, 1.0)
        log.debug("closed form: shift %g left too large a residual", shift)
    raise ComputeError(
        "The matte could not be solved: the picture is too even around the unknown band. The matte is unchanged.",
        "Narrow the unknown band, or choose a display window with more contrast.",
    )


def _solve_in_tiles(
    image: NDArray[np.float64],
    known: NDArray[np.float64],
    unknown: NDArray[np.bool_],
    progress: Progress,
    epsilon: float,
    deadline: float,
) -> NDArray[np.float64]:
    """Half the size first, then each tile with its surroundings held, until the time is over."""
    solved = known.copy()
    solved[unknown] = _solve_reduced(image, known, unknown, progress, epsilon, deadline)[unknown]
    height, width = unknown.shape
    corners = [
        (y, x)
        for y in range(0, height, _TILE)
        for x in range(0, width, _TILE)
        if unknown[y : y + _TILE, x : x + _TILE].any()
    ]
    progress.start(_SWEEPS * len(corners), "tiles", "Refining")
    for sweep in range(_SWEEPS):
        for y, x in corners:
            if time.monotonic() > deadline:
                log.info("closed form: %d px unknown, stopped in sweep %d at the time limit", unknown.sum(), sweep + 1)
                return solved
            y0, y1 = max(0, y - _OVERLAP), min(height, y + _TILE + _OVERLAP)
            x0, x1 = max(0, x - _OVERLAP), min(width, x + _TILE + _OVERLAP)
            here = unknown[y0:y1, x0:x1].copy()
            # The outer two pixels are held, but not where the picture ends.
            here[: 2 if y0 > 0 else 0] = False
            here[-2 if y1 < height else y1 - y0 :] = False
            here[:, : 2 if x0 > 0 else 0] = False
            here[:, -2 if x1 < width else x1 - x0 :] = False
            if here.any() and min(here.shape) >= 3:
                solved[y0:y1, x0:x1][here] = _solve_at_once(image[y0:y1, x0:x1], solved[y0:y1, x0:x1], here, epsilon)
            progress.step()
    return solved


def _solve_reduced(
    image: NDArray[np.float64],
    known: NDArray[np.float64],
    unknown: NDArray[np.bool_],
    progress: Progress,
    epsilon: float,
    deadline: float,
) -> NDArray[np.float64]:
    """The solution on a picture of half the size, brought back to full size."""
    height, width = unknown.shape
    if min(height, width) < 32:
        return known
    bottom, right = height % 2, width % 2
    pad = ((0, bottom), (0, right))
    holes: NDArray[np.bool_] = np.asarray(_quartered(np.pad(unknown, pad, "edge")).all(axis=(1, 3)))
    weight = _quartered(np.pad((~unknown).astype(np.float64), pad, "edge")).sum(axis=(1, 3))
    sums = _quartered(np.pad(np.where(unknown, 0.0, known), pad, "edge")).sum(axis=(1, 3))
    small_known = sums / np.maximum(weight, 1.0)
    small_image = np.stack(
        [_quartered(np.pad(image[..., c], pad, "edge")).mean(axis=(1, 3)) for c in range(image.shape[2])], axis=-1
    )
    if holes.all():
        return np.full(known.shape, float(known[~unknown].mean()))
    small = small_known
    if holes.any():
        small = _solve(small_image, small_known, holes, progress, epsilon, max(0.5, deadline - time.monotonic()) * 0.4)
    return np.repeat(np.repeat(small, 2, axis=0), 2, axis=1)[:height, :width]


def _quartered(array: NDArray) -> NDArray:
    """``(H, W)`` with even sides as ``(H / 2, 2, W / 2, 2)``."""
    return array.reshape(array.shape[0] // 2, 2, array.shape[1] // 2, 2)
