"""From the frames of one DICOM series to volumes: parts, order, geometry, regularity."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UnreadableFileError
from medapp.scan.frames import (
    FLAT_MODALITIES,
    SPLIT_NAMES,
    TRIGGER,
    Frame,
    directions,
    is_valid_orientation,
)
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Kind

SAME_PIXELS = Callable[[Frame, Frame], bool]
_EXPORT = "Export the series again from its source."


@dataclass(eq=False)
class Volume:
    """Frames in order that become one scan.

    Attributes:
        key: What tells this volume from the others of its series.
        pixel_spacing_mm: ``(y, x)`` where the spacing in the slice is known but there is no geometry.
    """

    frames: list[Frame]
    kind: Kind
    geometry: Geometry | None
    pixel_spacing_mm: tuple[float, float] | None
    notes: list[str] = field(default_factory=list)
    key: tuple[object, ...] = ()


@dataclass(eq=False)
class Sorted:
    """A series sorted out: its volumes, frames set aside, and parts that had to be refused."""

    volumes: list[Volume]
    set_aside: list[Frame] = field(default_factory=list)
    refused: list[tuple[Frame, UnreadableFileError]] = field(default_factory=list)


def sort_series(frames: Sequence[Frame], modality: str, same_pixels: SAME_PIXELS) -> Sorted:
    """Split the frames of one series into parts and each part into volumes.

    Args:
        frames: All frames of one Series Instance UID.
        modality: DICOM code.
        same_pixels: Decodes two frames and compares them; asked only for frames at one position.
    """
    result = Sorted([])
    positioned = [f for f in frames if f.position is not None and f.orientation is not None]
    if positioned and len(positioned) < len(frames):
        result.set_aside = [f for f in frames if f.position is None or f.orientation is None]
        frames = positioned
    parts, reasons = split_parts(frames)
    parts.sort(key=lambda part: len(part) == 1)  # parts of one slice last; stable
    for number, part in enumerate(parts):
        try:
            volumes = _part_volumes(part, modality, same_pixels)
        except UnreadableFileError as error:
            result.refused.append((part[0], error))
            continue
        for index, volume in enumerate(volumes):
            volume.key = (_stable(part[0].split), _rounded(part[0]), index if len(volumes) > 1 else 0)
            if len(parts) > 1:
                volume.notes.insert(
                    0,
                    f"The series was split into {len(parts)} parts, which differ in {_and(reasons)}; "
                    f"this is part {number + 1}.",
                )
            if result.set_aside:
                count = len(result.set_aside)
                volume.notes.append(
                    f"{count} {_slices(count)} without position or orientation {_were(count)} set aside."
                )
        result.volumes.extend(volumes)
    return result


def split_parts(frames: Sequence[Frame]) -> tuple[list[list[Frame]], list[str]]:
    """Frames that may lie in one volume, in the order of echo, time and b-value, and what tells the parts apart."""
    keys = [frame.split for frame in frames]
    if len({_without_trigger(key) for key in keys}) < len(set(keys)) and not _repeats_positions(frames):
        keys = [_without_trigger(key) for key in keys]  # a trigger time of each slice's own makes no parts
    groups: dict[tuple[object, ...], list[list[Frame]]] = {}
    for key, frame in zip(keys, frames, strict=True):
        clusters = groups.setdefault(key, [])
        for cluster in clusters:
            if _agree(cluster[0], frame):
                cluster.append(frame)
                break
        else:
            clusters.append([frame])
    parts = [cluster for key in sorted(groups, key=_sortable) for cluster in groups[key]]
    reasons = []
    distinct = list(groups)
    for index, name in enumerate(SPLIT_NAMES):
        if len({key[index] for key in distinct}) > 1 and name not in reasons:
            reasons.append(name)
    if any(len(clusters) > 1 for clusters in groups.values()):
        reasons.append("orientation or pixel spacing")
    return parts, reasons


def _without_trigger(key: tuple[object, ...]) -> tuple[object, ...]:
    return (*key[:TRIGGER], "", *key[TRIGGER + 1 :])


def _repeats_positions(frames: Sequence[Frame]) -> bool:
    seen = [tuple(round(v, 2) for v in frame.position) for frame in frames if frame.position is not None]
    return len(set(seen)) < len(seen) or not seen


def _agree(a: Frame, b: Frame) -> bool:
    """Same orientation within 1e-3 and same spacing within 1e-4 relative."""
    if (a.orientation is None) != (b.orientation is None) or (a.spacing is None) != (b.spacing is None):
        return False
    if a.orientation is not None and b.orientation is not None and a.orientation != b.orientation:
        difference = np.abs(np.array(a.orientation) - np.array(b.orientation)).max()
        if not difference <= 1e-3:
            return bool(np.isnan(difference))
    if a.spacing is not None and b.spacing is not None and a.spacing != b.spacing:
        return all(abs(x - y) <= 1e-4 * max(x, y) for x, y in zip(a.spacing, b.spacing, strict=True))
    return True


def _part_volumes(part: list[Frame], modality: str, same_pixels: SAME_PIXELS) -> list[Volume]:
    first = part[0]
    if first.position is None or first.orientation is None:
        return _without_positions(part, modality)
    if not is_valid_orientation(first.orientation) or not np.isfinite([f.position or () for f in part]).all():
        part.sort(key=lambda frame: frame.order)
        note = (
            "The image orientation or position is not valid, so there is no geometry: slices in order, lengths in px."
        )
        return [Volume(part, "stack", None, None, [note])]
    _, _, n = directions(first.orientation)
    place = {id(frame): float(np.dot(frame.position, n)) for frame in part}  # type: ignore[arg-type]
    part.sort(key=lambda frame: (place[id(frame)], frame.order))
    notes: list[str] = []
    sets = _full_sets(part, [place[id(frame)] for frame in part], same_pixels, notes)
    volumes: list[Volume] = []
    for frames in sets:
        volumes.extend(_regular_volumes(frames, [place[id(frame)] for frame in frames], list(notes)))
    return volumes


def _without_positions(part: list[Frame], modality: str) -> list[Volume]:
    part.sort(key=lambda frame: frame.order)
    spacing = part[0].spacing
    if modality in FLAT_MODALITIES:
        files: dict[int, list[Frame]] = {}
        for frame in part:
            files.setdefault(id(frame.file), []).append(frame)
        return [
            Volume(frames, "image" if len(frames) == 1 else "stack", None, frames[0].spacing, [])
            for frames in files.values()
        ]
    if modality in ("CT", "MR", "PT"):
        note = "No slice has a position and orientation: slices in order of their instance numbers, no 3-D measures."
        return [Volume(part, "stack", None, spacing, [note])]
    if len(part) == 1:
        return [Volume(part, "image", None, spacing, [])]
    return [Volume(part, "stack", None, spacing, ["The slices have no positions: in order, no 3-D measures."])]


def _full_sets(
    frames: list[Frame], places: list[float], same_pixels: SAME_PIXELS, notes: list[str]
) -> list[list[Frame]]:
    """Resolve frames at one position: drop equal ones, tell full sets apart, refuse anything else."""
    gaps = [b - a for a, b in pairwise(places)]
    positive = [gap for gap in gaps if gap > 1e-3]
    limit = 0.1 * statistics.median_low(positive) if positive else 1e-3
    groups: list[list[Frame]] = [[frames[0]]]
    for gap, frame in zip(gaps, frames[1:], strict=True):
        if gap < limit:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    if len(groups) == len(frames):
        return [frames]
    dropped = 0
    for group in groups:
        kept = [group[0]]
        for frame in group[1:]:
            if any(same_pixels(frame, other) for other in kept):
                dropped += 1
            else:
                kept.append(frame)
        group[:] = kept
    if dropped:
        notes.append(f"{dropped} {_slices(dropped)} at the same position with equal pixels {_were(dropped)} dropped.")
    counts = {len(group) for group in groups}
    if counts == {1}:
        return [[group[0] for group in groups]]
    if len(counts) > 1:
        raise UnreadableFileError(
            f"{frames[0].file.name}: different slices of one part lie at the same position.", _EXPORT
        )
    count = counts.pop()
    notes.append(f"{count} full sets of slices lie at the same positions; each is a volume of its own.")
    for group in groups:
        group.sort(key=lambda frame: (_numeric(frame.acquisition[0]), frame.acquisition[1], frame.order))
    return [[group[index] for group in groups] for index in range(count)]


def _numeric(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return 0.0, text


def _regular_volumes(frames: list[Frame], places: list[float], notes: list[str]) -> list[Volume]:
    """Apply the regularity table of formats.md 2 to frames sorted by position."""
    first = frames[0]
    if first.spacing is None:
        note = "The pixel spacing is missing or not positive: slices in order, lengths in px."
        return [Volume(frames, "stack", None, None, [*notes, note])]
    if len(frames) == 1:
        return [_one_slice(first, notes)]
    gaps = [b - a for a, b in pairwise(places)]
    m = statistics.median_low(gaps)
    tolerance = max(0.01, 0.01 * m)
    steps = [max(1, round(gap / m)) if m > 0 else 1 for gap in gaps]
    is_regular = all(abs(gap - step * m) <= tolerance for gap, step in zip(gaps, steps, strict=True))
    runs: list[list[int]] = [[0]]
    missing: list[float] = []
    for index, step in enumerate(steps):
        if step > 1:
            missing.extend(places[index] + k * m for k in range(1, step))
            runs.append([])
        runs[-1].append(index + 1)
    is_straight = all(_is_straight([frames[i] for i in run], [places[i] for i in run]) for run in runs)
    if not is_regular or not is_straight:
        why = (
            f"The distances between slices vary from {min(gaps):.4g} to {max(gaps):.4g} mm"
            if not is_regular
            else "The slices are shifted against each other"
        )
        return [Volume(frames, "stack", None, first.spacing, [*notes, f"{why}: slices in order, no 3-D measures."])]
    if missing:
        shown = ", ".join(f"{place:.4g}" for place in missing[:8]) + (" …" if len(missing) > 8 else "")
        count = len(missing)
        notes = [*notes, f"{count} {_slices(count)} missing at {shown} mm; split there into {len(runs)} volumes."]
    volumes = []
    for run in runs:
        chosen = [frames[index] for index in run]
        volumes.append(_volume(chosen, list(notes)) if len(chosen) > 1 else _one_slice(chosen[0], list(notes), m))
    return volumes


def _is_straight(frames: list[Frame], places: list[float]) -> bool:
    """True when every position lies on the line from the first to the last within a tenth of a pixel."""
    if len(frames) < 3 or places[-1] == places[0]:
        return True
    positions = np.array([frame.position for frame in frames])
    share = (np.array(places) - places[0]) / (places[-1] - places[0])
    line = positions[0] + share[:, None] * (positions[-1] - positions[0])
    assert frames[0].spacing is not None
    allowed = max(0.01, 0.1 * min(frames[0].spacing))
    return bool(np.abs(positions - line).max() <= allowed)


def _volume(frames: list[Frame], notes: list[str]) -> Volume:
    first, last = frames[0], frames[-1]
    assert first.position is not None
    assert last.position is not None
    assert first.orientation is not None
    assert first.spacing is not None
    _, _, n = directions(first.orientation)
    whole = np.array(last.position) - np.array(first.position)
    across = float(np.linalg.norm(whole - (whole @ n) * n))
    if across > 0.1 * min(first.spacing):
        notes = [*notes, "The slices are sheared (gantry tilt); the affine keeps the tilt."]
    return Volume(frames, "scan", _geometry(first, whole / (len(frames) - 1)), None, notes)


def _one_slice(frame: Frame, notes: list[str], gap_mm: float | None = None) -> Volume:
    """A lone slice: as thick as Spacing Between Slices, else Slice Thickness, else the gap in its series, else 1 mm."""
    assert frame.orientation is not None
    thickness: float | None = None
    for value in (frame.between, frame.thickness, gap_mm):
        if thickness is None and value is not None and np.isfinite(value) and value != 0:
            thickness = abs(value)
    if thickness is None:
        thickness = 1.0
        notes = [*notes, "One slice without thickness: 1 mm is assumed."]
    _, _, n = directions(frame.orientation)
    return Volume([frame], "scan", _geometry(frame, n * thickness), None, notes)


def _geometry(first: Frame, step_lps: NDArray[np.float64]) -> Geometry:
    """The RAS+ affine of slices that begin at ``first`` and go on by ``step_lps`` mm."""
    assert first.orientation is not None
    assert first.spacing is not None
    r, c, _ = directions(first.orientation)
    affine = np.eye(4)
    affine[:3, 0] = step_lps
    affine[:3, 1] = c * first.spacing[0]
    affine[:3, 2] = r * first.spacing[1]
    affine[:3, 3] = first.position
    affine[:2] *= -1.0  # LPS to RAS+
    return Geometry(affine)


def _stable(split: tuple[object, ...]) -> str:
    return repr(split)


def _rounded(frame: Frame) -> str:
    numbers = (*(frame.orientation or ()), *(frame.spacing or ()))
    return " ".join(f"{value:.3f}" for value in numbers)


def _sortable(key: tuple[object, ...]) -> tuple[tuple[float, str], ...]:
    """Order of echo, b-value and time by number where they are numbers."""
    parts = []
    for value in key:
        try:
            parts.append((float(value), ""))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            parts.append((-1.0, str(value)))
    return tuple(parts)


def _slices(count: int) -> str:
    return "slice" if count == 1 else "slices"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words)) or "several things"
