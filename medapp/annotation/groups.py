"""Exclusive groups: layers that always sum to at most 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.annotation import Annotation
from medapp.annotation.edits import Edit, Stroke, one_edit
from medapp.annotation.matte import FULL, Patch


def below_locked(after: NDArray, touched: NDArray[np.bool_], locked: Sequence[NDArray]) -> NDArray:
    """Painted stored alpha, cut where locked layers leave less room; untouched voxels stay."""
    if not locked:
        return after
    room = np.clip(FULL - _total(locked), 0, FULL).astype(np.uint16)
    return np.where(touched, np.minimum(after, room), after)


def lowered(
    after: NDArray, touched: NDArray[np.bool_], others: Sequence[NDArray], locked: Sequence[NDArray]
) -> list[NDArray[np.uint16]]:
    """The group's unlocked layers, scaled down together where the painted one leaves them too little room."""
    if not others:
        return []
    room = np.maximum(FULL - _total(locked) - after.astype(np.int64), 0)
    total = _total(others)
    too_much = (total > room) & touched
    share = room / np.maximum(total, 1)
    return [np.where(too_much, np.floor(values * share), values).astype(np.uint16) for values in others]


def grouped(annotation: Annotation, stroke: Stroke) -> Edit | None:
    """A stroke made without regard to groups (a fill, an accepted proposal, a refined band) as the edit to apply.

    Locked layers of the group are kept, the others make room; None when nothing is left to change.
    """
    others = annotation.others_in_group(stroke.matte_id)
    if not others:
        return stroke if stroke.patches else None
    matte = annotation.matte(stroke.matte_id)
    locked, unlocked = ([m for m in others if m.is_locked is state] for state in (True, False))
    own: list[Patch] = []
    theirs: dict[str, list[Patch]] = {m.matte_id: [] for m in unlocked}
    for patch in stroke.patches:
        if patch.layer != "alpha":
            own.append(patch)
            continue
        touched = patch.before != patch.after
        kept = [m.read(patch.start_zyx, patch.shape) for m in locked]
        after = below_locked(patch.after, touched, kept)
        changed = matte.make_patch("alpha", patch.start_zyx, after)
        own += [changed] if changed is not None else []
        stored = [m.read(patch.start_zyx, patch.shape) for m in unlocked]
        for other, values in zip(unlocked, lowered(after, touched, stored, kept), strict=True):
            made = other.make_patch("alpha", patch.start_zyx, values)
            theirs[other.matte_id] += [made] if made is not None else []
    strokes = [Stroke(stroke.matte_id, tuple(own), stroke.text)] if own else []
    strokes += [Stroke(name, tuple(patches), stroke.text) for name, patches in theirs.items() if patches]
    return one_edit(strokes, stroke.text)


def _total(layers: Sequence[NDArray]) -> NDArray[np.int64]:
    total: NDArray[np.int64] = np.zeros((), dtype=np.int64)
    for values in layers:
        total = total + values.astype(np.int64)
    return total
