"""Undo and redo: one stack for the whole project."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from medapp.annotation.edits import Edit

Kind = Literal["do", "undo", "redo"]
Step = tuple[str, Edit]  # series id, edit


class History:
    """What can be taken back, across all series of a project.

    Edits are kept as they were done; ``undo`` hands out the edit that takes the newest one back. Oldest steps are
    dropped when they need more memory than allowed, but the newest ``min_steps`` always stay.

    Attributes:
        limit_bytes: Memory for changed tiles.
        min_steps: Steps that are kept whatever they need.
    """

    def __init__(self, limit_bytes: int = 512 * 2**20, min_steps: int = 200) -> None:
        self.limit_bytes = limit_bytes
        self.min_steps = min_steps
        self._done: list[Step] = []
        self._undone: list[Step] = []
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
        self._nbytes -= sum(step[1].nbytes for step in self._undone)
        self._undone.clear()
        self._done.append((series_id, edit))
        self._nbytes += edit.nbytes
        self._trim()

    def undo(self) -> Step | None:
        """Series and the edit to apply (already turned around), or None when there is nothing to take back."""
        if not self._done:
            return None
        step = self._done.pop()
        self._undone.append(step)
        return step[0], step[1].reversed()

    def redo(self) -> Step | None:
        """Series and the edit to apply, or None when nothing was taken back."""
        if not self._undone:
            return None
        step = self._undone.pop()
        self._done.append(step)
        return step

    def replay(self, events: Iterable[tuple[Kind, str, Edit]]) -> None:
        """Rebuild the stacks from what was journalled, oldest first; does not touch any annotation.

        An undo whose step is no longer known is skipped: there is nothing to redo from it.
        """
        for kind, series_id, edit in events:
            if kind == "do":
                self.push(series_id, edit)
            elif kind == "undo":
                self.undo()
            elif self._undone:
                self.redo()

    def steps(self) -> tuple[Step, ...]:
        """What was done, oldest first."""
        return tuple(self._done)

    def undone_steps(self) -> tuple[Step, ...]:
        """What was taken back, in the order in which it was; redo starts at the end."""
        return tuple(self._undone)

    def peek_undo(self) -> Step | None:
        """What ``undo`` would hand out, without moving; for going to its slice first."""
        return (self._done[-1][0], self._done[-1][1].reversed()) if self._done else None

    def peek_redo(self) -> Step | None:
        """What ``redo`` would hand out, without moving."""
        return self._undone[-1] if self._undone else None

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
