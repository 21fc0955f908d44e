"""Masks of tumours that lie beside PET files: ``<name>_gtv`` beside ``<name>_pet``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medapp.scan.reading import read_scan
from medapp.training.references import Reference

_IMAGE, _MASK = "_pet", "_gtv"


def tumour_beside(place: Path, reference: Reference) -> NDArray[np.bool_] | None:
    """Where the tumour of a reference is.

    Args:
        place: Folder the reference was found in.
        reference: PET.

    Returns:
        ``(Z, Y, X)`` bool; None when no mask of its size lies beside the file.

    Raises:
        MedappError: The mask is there and cannot be read.
    """
    path = place / reference.source.split(" ")[0]
    beside = path.with_name(path.name.replace(_IMAGE, _MASK))
    if beside == path or not beside.is_file():
        return None
    mask = np.asarray(read_scan(beside, "PT").values()) > 0.5
    return mask if mask.shape == reference.shape else None
