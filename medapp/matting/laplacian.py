"""The matting Laplacian of a picture, only where something is unknown.

Reference:
    Levin, Lischinski, Weiss, "A Closed-Form Solution to Natural Image Matting", TPAMI 2008, equations 5 and 12.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

_REACH = 2  # two pixels share a 3 x 3 window when they are at most two apart
_WINDOW = 9


def band_system(
    image: NDArray[np.float64], known: NDArray[np.float64], unknown: NDArray[np.bool_], epsilon: float
) -> tuple[scipy.sparse.csc_matrix, NDArray[np.float64]]:
    """The linear system of the unknown pixels, the known ones moved to the right-hand side.

    Args:
        image: ``(H, W, C)`` float64, 0..1, one or three channels; both sides at least 3.
        known: ``(H, W)`` float64, alpha of the known pixels; ignored elsewhere.
        unknown: ``(H, W)`` bool.
        epsilon: Regularisation per window as PyMatting counts it (three channels, not divided by the window area).

    Returns:
        ``(U, U)`` symmetric matrix and ``(U,)`` right-hand side, unknown pixels in C order.
    """
    height, width = unknown.shape
    size = height * width
    centres = _window_centres(unknown)
    offsets = np.array([dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    members = centres[:, None] + offsets  # (windows, 9) flat pixel numbers
    affinity = _affinities(image.reshape(size, -1)[members], epsilon)  # (windows, 9, 9)

    # Pixels that lie the same way from each other form one diagonal of the matrix. Within one pair of window places
    # every window writes to another pixel, so plain indexing adds up rightly.
    below = {(dy, dx): np.zeros(size) for dy in range(_REACH + 1) for dx in range(-_REACH, _REACH + 1)}
    places = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    for i, (yi, xi) in enumerate(places):
        for j in range(i, _WINDOW):
            yj, xj = places[j]
            below[yj - yi, xj - xi][members[:, i]] += affinity[:, i, j]

    pixels = np.flatnonzero(unknown)
    number = np.full(size, -1, dtype=np.int32)
    number[pixels] = np.arange(len(pixels), dtype=np.int32)
    flat_known = known.ravel()
    rows, cols, weights = [], [], []
    right = np.zeros(len(pixels))
    y, x = np.divmod(pixels, width)
    for (dy, dx), diagonal in below.items():
        if dy == 0 and dx < 0:
            continue  # the mirrored pair is counted with its positive twin
        for sign in (1, -1) if (dy, dx) != (0, 0) else (1,):
            ny, nx = y + sign * dy, x + sign * dx
            valid = (ny >= 0) & (ny < height) & (nx >= 0) & (nx < width)
            here = np.flatnonzero(valid)
            there = pixels[here] + sign * (dy * width + dx)
            weight = diagonal[pixels[here] if sign == 1 else there]
            other = number[there]
            is_unknown = other >= 0
            rows.append(here[is_unknown].astype(np.int32))
            cols.append(other[is_unknown])
            weights.append(weight[is_unknown])
            right[here[~is_unknown]] -= weight[~is_unknown] * flat_known[there[~is_unknown]]
    matrix = scipy.sparse.coo_matrix(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(cols))), shape=(len(pixels), len(pixels))
    ).tocsc()
    return matrix, right


def _window_centres(unknown: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Flat numbers of the pixels whose 3 x 3 window lies in the picture and holds an unknown pixel."""
    touched = unknown.copy()
    touched[1:] |= unknown[:-1]
    touched[:-1] |= unknown[1:]
    across = touched.copy()
    touched[:, 1:] |= across[:, :-1]
    touched[:, :-1] |= across[:, 1:]
    touched[0] = touched[-1] = False
    touched[:, 0] = touched[:, -1] = False
    return np.flatnonzero(touched)


def _affinities(colours: NDArray[np.float64], epsilon: float) -> NDArray[np.float64]:
    """``(windows, 9, C)`` colours to the ``(windows, 9, 9)`` contributions of each window."""
    centred = colours - colours.mean(axis=1, keepdims=True)
    if centred.shape[2] == 1:
        grey = centred[:, :, 0]
        # Three equal channels with the regularisation on each are one channel with a third of it.
        variance = (grey * grey).mean(axis=1) + epsilon / (3 * _WINDOW)
        likeness = (grey / variance[:, None])[:, :, None] * grey[:, None, :]
    else:
        covariance = np.einsum("wic,wid->wcd", centred, centred) / _WINDOW
        covariance += np.eye(centred.shape[2]) * (epsilon / _WINDOW)
        likeness = np.matmul(np.matmul(centred, _inverse_3x3(covariance)), centred.transpose(0, 2, 1))
    result: NDArray[np.float64] = (-1.0 - likeness) / _WINDOW
    result[:, np.arange(_WINDOW), np.arange(_WINDOW)] += 1.0
    return result


def _inverse_3x3(m: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverses of symmetric ``(N, 3, 3)`` matrices by cofactors, several times faster than LAPACK on many."""
    a, b, c = m[:, 0, 0], m[:, 0, 1], m[:, 0, 2]
    d, e, f = m[:, 1, 1], m[:, 1, 2], m[:, 2, 2]
    inverse = np.empty_like(m)
    inverse[:, 0, 0] = d * f - e * e
    inverse[:, 0, 1] = inverse[:, 1, 0] = c * e - b * f
    inverse[:, 0, 2] = inverse[:, 2, 0] = b * e - c * d
    inverse[:, 1, 1] = a * f - c * c
    inverse[:, 1, 2] = inverse[:, 2, 1] = b * c - a * e
    inverse[:, 2, 2] = a * d - b * b
    determinant = a * inverse[:, 0, 0] + b * inverse[:, 0, 1] + c * inverse[:, 0, 2]
    inverse /= determinant[:, None, None]
    return inverse
