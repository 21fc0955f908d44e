"""Undo and redo: one stack for the whole project."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.edits import Compound, Edit, Stroke, Where
from medapp.annotation.matte import Patch

Kind = Literal["do", "undo", "redo"]
Step = tuple[str, Edit]  # series id, edit


class History:
    """What can be taken back, across all series of a project.

    Edits are kept as they were done; ``undo`` hands out the edit that takes the newest one back. When they need more
    memory than allowed, the oldest are dropped down to ``min_steps``, then the oldest are compressed.

    Attributes:
        limit_bytes: Memory for changed tiles.
        min_steps: Steps that are kept whatever they need.
    """

    def __init__(self, limit_bytes: int = 512 * 2**20, min_steps: int = 200) -> None:
        self.limit_bytes = limit_bytes
        self.min_steps = min_steps
        self._done: list[tuple[str, Kept]] = []
        self._undone: list[tuple[str, Kept]] = []
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._done)

    @property
    def nbytes(self) -> int:
        """Bytes held by all steps."""
        return self._nbytes

    @property
    def can_undo(self) -> bool:
        """There is a step to take back."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """There is a step that was taken back."""
        return bool(self._undone)

    @property
    def undo_text(self) -> str:
        """What would be taken back, or empty."""
        return self._done[-1][1].text if self._done else ""

    @property
    def redo_text(self) -> str:
        """What would be done again, or empty."""
        return self._undone[-1][1].text if self._undone else ""

    def push(self, series_id: str, edit: Edit) -> None:
        """Remember an edit that was just done; what had been undone cannot be redone any more."""
        self._push(series_id, edit)

    def _push(self, series_id: str, edit: Kept) -> None:
        self._nbytes -= sum(step[1].nbytes for step in self._undone)
        self._undone.clear()
        self._done.append((series_id, edit))
        self._nbytes += edit.nbytes
        self._trim()

    def undo(self) -> Step | None:
        """Series and the edit to apply (already turned around), or None when there is nothing to take back."""
        if not self._done:
            return None
        series_id, kept = self._done.pop()
        self._undone.append((series_id, kept))
        return series_id, _unpacked(kept).reversed()

    def redo(self) -> Step | None:
        """Series and the edit to apply, or None when nothing was taken back."""
        if not self._undone:
            return None
        series_id, kept = self._undone.pop()
        self._done.append((series_id, kept))
        return series_id, _unpacked(kept)

    def replay(self, events: Iterable[tuple[Kind, str, Kept | None]]) -> None:
        """Rebuild the stacks from what was journalled, oldest first; does not touch any annotation.

        Only a ``do`` needs its edit, which may be a ``StoredStep``; undo and redo say no more than their order.
        An undo whose step is no longer known is skipped: there is nothing to redo from it.
        """
        unknown = 0  # steps that were taken back and are no longer known
        for kind, series_id, edit in events:
            if kind == "do" and edit is not None:
                unknown = 0
                self._push(series_id, edit)
            elif kind == "undo":
                unknown += self.undo() is None
            elif unknown:
                unknown -= 1
            else:
                self.redo()

    def steps(self) -> tuple[tuple[str, Edit | StoredStep], ...]:
        """What was done, oldest first; for showing (``text``, ``where``): old steps come without their voxels."""
        return tuple((series_id, _shown(kept)) for series_id, kept in self._done)

    def undone_steps(self) -> tuple[tuple[str, Edit | StoredStep], ...]:
        """What was taken back, in the order in which it was; redo starts at the end."""
        return tuple((series_id, _shown(kept)) for series_id, kept in self._undone)

    def peek_undo(self) -> Step | None:
        """What ``undo`` would hand out, without moving; for going to its slice first."""
        return (self._done[-1][0], _unpacked(self._done[-1][1]).reversed()) if self._done else None

    def peek_redo(self) -> Step | None:
        """What ``redo`` would hand out, without moving."""
        return (self._undone[-1][0], _unpacked(self._undone[-1][1])) if self._undone else None

    def clear(self) -> None:
        """Forget everything."""
        self._done.clear()
        self._undone.clear()
        self._nbytes = 0

    def _trim(self) -> None:
        surplus = 0
        while self._nbytes > self.limit_bytes and len(self._done) - surplus > self.min_steps:
            self._nbytes -= self._done[surplus][1].nbytes
            surplus += 1
        if surplus:
            del self._done[:surplus]
        for place, (series_id, kept) in enumerate(self._done):
            if self._nbytes <= self.limit_bytes:
                break
            if not isinstance(kept, _Packed | StoredStep):
                packed = _packed(kept)
                self._nbytes += packed.nbytes - kept.nbytes
                self._done[place] = (series_id, packed)


@dataclass(frozen=True, eq=False)
class StoredStep:
    """A step from an earlier session, read when it is needed.

    Attributes:
        text: What the undo menu says.
        nbytes: Bytes held.
        load: Reads the edit.
    """

    text: str
    nbytes: int
    load: Callable[[], Edit]

    @cached_property
    def where(self) -> Where:
        """Matte and slice; reads the edit the first time."""
        return self.load().where


@dataclass(frozen=True, eq=False)
class _Packed:
    """An edit whose voxels are compressed.

    Attributes:
        shell: The edit with empty arrays in its patches.
        arrays: Of all patches in order: dtype, shape, compressed bytes.
    """

    shell: Edit
    arrays: tuple[tuple[np.dtype, tuple[int, ...], bytes], ...]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.shell.nbytes + sum(len(data) + 64 for _, _, data in self.arrays)

    @property
    def text(self) -> str:
        """What the undo menu says."""
        return self.shell.text


Kept = Edit | StoredStep | _Packed


def _packed(edit: Edit) -> _Packed:
    arrays: list[tuple[np.dtype, tuple[int, ...], bytes]] = []

    def emptied(patch: Patch) -> Patch:
        arrays.extend(
            (values.dtype, values.shape, zlib.compress(np.ascontiguousarray(values).tobytes(), 1))
            for values in (patch.before, patch.after)
        )
        nothing = np.zeros((0, 0, 0), dtype=patch.after.dtype)  # a view would keep the whole array
        return replace(patch, before=nothing, after=nothing)

    return _Packed(_with_patches(edit, emptied), tuple(arrays))


def _shown(kept: Kept) -> Edit | StoredStep:
    return kept.shell if isinstance(kept, _Packed) else kept


def _unpacked(kept: Kept) -> Edit:
    if isinstance(kept, StoredStep):
        return kept.load()
    if not isinstance(kept, _Packed):
        return kept
    arrays = iter(kept.arrays)

    def next_array() -> NDArray:
        dtype, shape, data = next(arrays)
        return np.frombuffer(zlib.decompress(data), dtype=dtype).reshape(shape)

    return _with_patches(kept.shell, lambda patch: replace(patch, before=next_array(), after=next_array()))


def _with_patches(edit: Edit, change: Callable[[Patch], Patch]) -> Edit:
    if isinstance(edit, Stroke):
        return replace(edit, patches=tuple(change(patch) for patch in edit.patches))
    if isinstance(edit, Compound):
        return replace(edit, edits=tuple(_with_patches(part, change) for part in edit.edits))
    return edit
