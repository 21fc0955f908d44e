"""What a person has accepted on one plane, as hard masks: what is painted into a region map."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.annotation import Annotation
from medapp.annotation.matte import FULL

_HALF = FULL // 2 + 1  # the smallest stored alpha that is at least 0.5


def accepted_masks(annotation: Annotation, index: int, axis: int = 0) -> list[NDArray[np.bool_]]:
    """Every matte of a plane where alpha is at least 0.5, in the order of the layer list; empty ones are left out.

    Hidden mattes count: hiding is a matter of looking, not of accepting.

    Args:
        annotation: The mattes of a series.
        index, axis: The plane, and the axis it is perpendicular to.

    Returns:
        ``(H, W)`` bool each.
    """
    masks = []
    for matte in annotation:
        if axis != 0 or index in matte.annotated_slices():
            mask = matte.slice_stored(index, axis) >= _HALF
            if mask.any():
                masks.append(mask)
    return masks


def masks_sha256(masks: list[NDArray[np.bool_]]) -> str:
    """SHA-256 of hard masks, larger ones first as they are painted: the same hash means the same painting.

    Empty for no mask.
    """
    if not masks:
        return ""
    digest = hashlib.sha256()
    for mask in sorted(masks, key=lambda m: -int(np.count_nonzero(m))):
        digest.update(repr(mask.shape).encode())
        digest.update(np.packbits(mask).tobytes())
    return digest.hexdigest()
