"""Lossless JPEG of signed pixels, which some encoders predict with signed numbers and every decoder with unsigned ones.

Predictors 5 to 7 halve a sum or difference of neighbours. When such a number wraps around 16 bits, half of it differs
between signed and unsigned arithmetic, and a decoder that takes the other one than the encoder gives garbage without a
word. The differences in the file are the same for both, so the other reading can be worked out from a decoded frame.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

HALVING = frozenset({5, 6, 7})


def predict(left: NDArray, above: NDArray, corner: NDArray, predictor: int) -> NDArray:
    """The prediction from three neighbours, ``int32`` in and out.

    Reference:
        ISO/IEC 10918-1, table H.1.
    """
    if predictor == 5:
        return left + ((above - corner) >> 1)
    if predictor == 6:
        return above + ((left - corner) >> 1)
    return (left + above) >> 1


def with_signed_predictor(decoded: NDArray[np.int16], predictor: int) -> NDArray[np.int16]:
    """What the encoder meant if it predicted with signed numbers.

    Args:
        decoded: ``(Y, X)`` as a decoder with unsigned prediction gave it.
        predictor: 5, 6 or 7.

    Returns:
        The same array when both readings agree, else the other reading.
    """
    signed = decoded.astype(np.int32)
    unsigned = signed & 0xFFFF
    predicted = [
        predict(values[1:, :-1], values[:-1, 1:], values[:-1, :-1], predictor) & 0xFFFF for values in (unsigned, signed)
    ]
    if np.array_equal(predicted[0], predicted[1]):
        return decoded
    differences = ((unsigned[1:, 1:] - predicted[0]) & 0xFFFF).tolist()
    rows = [signed[0].tolist()]  # the first row and column have one neighbour: nothing is halved there
    for y, differences_of_row in enumerate(differences, start=1):
        above = rows[-1]
        left = int(signed[y, 0])
        row = [left]
        for difference, (corner, up) in zip(differences_of_row, pairwise(above), strict=True):
            if predictor == 5:
                value = left + ((up - corner) >> 1)
            elif predictor == 6:
                value = up + ((left - corner) >> 1)
            else:
                value = (left + up) >> 1
            left = ((value + difference + 0x8000) & 0xFFFF) - 0x8000
            row.append(left)
        rows.append(row)
    return np.array(rows, dtype=np.int16)


def roughness(values: NDArray) -> float:
    """Mean absolute step between neighbours: small for a picture, huge for wrapped garbage."""
    numbers = values.astype(np.float64)
    return float(np.abs(np.diff(numbers, axis=0)).mean() + np.abs(np.diff(numbers, axis=1)).mean())
