"""Say what is in files and folders, one plain line each."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from medapp.errors import MedappError
from medapp.progress import Progress
from medapp.requests import InspectRequest
from medapp.scan.intensity import suggested_modality, value_range
from medapp.scan.lazy import FoundScan, LazyScan, Refused, Skipped
from medapp.scan.reading import read_paths
from medapp.scan.scan import Scan

logger = logging.getLogger(__name__)

_MASKS = "import as masks"


def inspect(request: InspectRequest, workspace: Any, progress: Progress) -> list[dict[str, Any]]:
    """Read everything at the paths, voxels included, and describe it.

    Args:
        request: Names the paths.
        workspace: Not needed; every service takes one.
        progress: Told each foreign file before it is parsed; counts slices.

    Returns:
        The JSON lines of ``medapp inspect``: ``kind`` is ``scan``, ``stack`` or ``image``, ``refused`` or ``skipped``.

    Raises:
        Cancelled: The user stopped it.
    """
    lines: list[dict[str, Any]] = []
    progress.start(0, "slices")
    for finding in read_paths(list(request.paths), progress, dict(request.refused), request.modality):
        if isinstance(finding, FoundScan):
            lines.append(_scan_line(finding.scan, progress))
        elif isinstance(finding, Refused):
            lines.append(_refused_line(finding.path, finding.message, finding.hint))
        else:
            lines.append(_skipped_line(finding, request.paths))
    return lines


def _scan_line(lazy: LazyScan, progress: Progress) -> dict[str, Any]:
    try:
        scan = lazy.decode(progress=progress, with_headers=False)
    except MedappError as error:
        return _refused_line(lazy.source.path, error.message, error.hint)
    low, high = value_range(scan)
    unknown = {} if scan.modality is not None else {"modality_note": _modality_note(scan, low)}
    return {
        "kind": scan.kind,
        "path": clean(scan.source.path),
        "series_key": scan.series_key,
        "modality": scan.modality,
        "shape": list(scan.shape),
        "spacing_mm": None if scan.spacing_mm is None else list(scan.spacing_mm),
        "pixel_spacing_mm": None if scan.in_plane_spacing_mm is None else list(scan.in_plane_spacing_mm),
        "affine": None if scan.geometry is None else scan.geometry.affine_xyz.tolist(),
        "unit": scan.unit,
        "value_range": [low, high],
        "notes": [clean(note) for note in scan.notes],
        **unknown,
    }


def _modality_note(scan: Scan, low: float) -> str:
    """What to do about a file that does not say its modality; beside the notes, because nothing is wrong with it."""
    suggested = None if scan.is_colour else suggested_modality(low, bool(np.any(scan.values() % 1)))
    looks = f"; the values look like {suggested}" if suggested else ""
    return f"The modality is not given, so the unit is {scan.unit}{looks}: --modality says it."


def _refused_line(path: str, message: str, hint: str) -> dict[str, Any]:
    return {"kind": "refused", "path": clean(path), "message": clean(message), "hint": clean(hint)}


def _skipped_line(found: Skipped, paths: tuple[str, ...]) -> dict[str, Any]:
    """Set aside among others; refused when it is the only file that was named, unless it can be imported as masks."""
    if len(paths) == 1 and _MASKS not in found.message and Path(paths[0]) == Path(found.path):
        return _refused_line(found.path, found.message, "Choose the images of the study instead.")
    return {"kind": "skipped", "path": clean(found.path), "holds": clean(found.kind), "message": clean(found.message)}


def clean(text: str) -> str:
    """Text that is safe to print: control and formatting characters and bytes that are no text are replaced."""
    return "".join("\ufffd" if unicodedata.category(letter) in ("Cc", "Cf", "Cs") else letter for letter in text)
