"""Edits as reversible data: undo, the journal, crash recovery and the tests all use the same thing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from medapp.annotation.annotation import Annotation, DepthPoint
from medapp.annotation.matte import Matte, MatteProps, Patch

Where = tuple[str | None, int | None]  # matte id, slice along z


@dataclass(frozen=True)
class Stroke:
    """Changed boxes of one matte: from pen down to pen up, a fill, a refinement, an interpolation.

    Attributes:
        patches: Applied in order; they do not overlap within a layer.
        text: What the undo menu says.
    """

    matte_id: str
    patches: tuple[Patch, ...]
    text: str = "Brush stroke"

    @property
    def where(self) -> Where:
        """The matte and the first slice that it changes."""
        return self.matte_id, min((patch.start_zyx[0] for patch in self.patches), default=None)

    @property
    def nbytes(self) -> int:
        """Bytes held for undo."""
        return sum(patch.nbytes for patch in self.patches)

    def apply(self, annotation: Annotation) -> None:
        """Paint the state after."""
        matte = annotation.matte(self.matte_id)
        for patch in self.patches:
            matte.paste(patch)

    def reversed(self) -> Stroke:
        """The stroke that takes this one back."""
        return replace(self, patches=tuple(patch.reversed() for patch in reversed(self.patches)))


@dataclass(frozen=True, eq=False)
class AddMatte:
    """A new layer.

    Attributes:
        snapshot: The layer as it comes in, voxels included; it is copied, never used itself.
        index: Its place in the layer list; None = at the end.
    """

    snapshot: Matte
    index: int | None = None
    text: str = "Add matte"

    @property
    def where(self) -> Where:
        """The matte and its first slice."""
        return self.snapshot.matte_id, next(iter(self.snapshot.annotated_slices()), None)

    @property
    def nbytes(self) -> int:
        """Bytes held for undo."""
        return self.snapshot.nbytes

    def apply(self, annotation: Annotation) -> None:
        """Put a copy of the snapshot into the list."""
        annotation.add(self.snapshot.copy(), self.index)

    def reversed(self) -> RemoveMatte:
        """Take it out again."""
        return RemoveMatte(self.snapshot, self.index, self.text)


@dataclass(frozen=True, eq=False)
class RemoveMatte:
    """A layer goes; everything on it comes back with undo.

    Attributes:
        snapshot: The layer as it was when it went; take ``annotation.matte(id).copy()``.
        index: Where it stood in the layer list.
    """

    snapshot: Matte
    index: int | None = None
    text: str = "Delete matte"

    @property
    def where(self) -> Where:
        """The matte that went."""
        return self.snapshot.matte_id, next(iter(self.snapshot.annotated_slices()), None)

    @property
    def nbytes(self) -> int:
        """Bytes held for undo."""
        return self.snapshot.nbytes

    def apply(self, annotation: Annotation) -> None:
        """Take the layer out of the list."""
        annotation.remove(self.snapshot.matte_id)

    def reversed(self) -> AddMatte:
        """Put it back where it was."""
        return AddMatte(self.snapshot, self.index, self.text)


@dataclass(frozen=True)
class ChangeMatte:
    """Name, label, colour, group or a switch of a layer."""

    matte_id: str
    before: MatteProps
    after: MatteProps
    text: str = "Change matte"

    @property
    def where(self) -> Where:
        """The matte, on no slice in particular."""
        return self.matte_id, None

    @property
    def nbytes(self) -> int:
        """A few strings."""
        return 512

    def apply(self, annotation: Annotation) -> None:
        """Give the layer its new properties."""
        annotation.matte(self.matte_id).props = self.after

    def reversed(self) -> ChangeMatte:
        """Back to the old properties."""
        return replace(self, before=self.after, after=self.before)


@dataclass(frozen=True)
class MoveMatte:
    """Another place in the layer list."""

    matte_id: str
    before: int
    after: int
    text: str = "Move matte"

    @property
    def where(self) -> Where:
        """The matte, on no slice in particular."""
        return self.matte_id, None

    @property
    def nbytes(self) -> int:
        """Two numbers."""
        return 128

    def apply(self, annotation: Annotation) -> None:
        """Move it."""
        annotation.move(self.matte_id, self.after)

    def reversed(self) -> MoveMatte:
        """Back to its old place."""
        return replace(self, before=self.after, after=self.before)


@dataclass(frozen=True)
class ChangeMarks:
    """Marks of the slice rail.

    Attributes:
        before, after: Slice along z to its mark; None = no mark. Both name the same slices.
    """

    before: dict[int, str | None]
    after: dict[int, str | None]
    text: str = "Mark slices"

    @property
    def where(self) -> Where:
        """The first slice whose mark changes."""
        return None, min(self.after, default=None)

    @property
    def nbytes(self) -> int:
        """A few words a slice."""
        return 64 * len(self.after)

    def apply(self, annotation: Annotation) -> None:
        """Set the marks."""
        for z, mark in self.after.items():
            if mark is None:
                annotation.marks.pop(z, None)
            else:
                annotation.marks[z] = mark

    def reversed(self) -> ChangeMarks:
        """Back to the old marks."""
        return replace(self, before=self.after, after=self.before)


@dataclass(frozen=True)
class ChangeDepthPoints:
    """Depths that a person measured on one slice.

    Attributes:
        z: The slice.
        before, after: ``(x, y, depth in mm)``, in the order in which they were placed.
    """

    z: int
    before: tuple[DepthPoint, ...]
    after: tuple[DepthPoint, ...]
    text: str = "Change measured depths"

    @property
    def where(self) -> Where:
        """The slice."""
        return None, self.z

    @property
    def nbytes(self) -> int:
        """Three numbers a point, twice."""
        return 96 * (len(self.before) + len(self.after)) + 64

    def apply(self, annotation: Annotation) -> None:
        """Set the points of the slice."""
        if self.after:
            annotation.depth_points[self.z] = self.after
        else:
            annotation.depth_points.pop(self.z, None)

    def reversed(self) -> ChangeDepthPoints:
        """Back to the old points."""
        return replace(self, before=self.after, after=self.before)


@dataclass(frozen=True)
class ChangeSeries:
    """State, title, group, inclusion or trash of a series; the store carries it out when it is journalled.

    Attributes:
        before, after: The changed fields of ``Project.set_series`` (``is_trashed`` too).
    """

    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    text: str = "Change series"

    @property
    def where(self) -> Where:
        """No matte, no slice."""
        return None, None

    @property
    def nbytes(self) -> int:
        """A few words."""
        return 256

    def apply(self, annotation: Annotation) -> None:
        """Nothing to do on the mattes."""

    def reversed(self) -> ChangeSeries:
        """Back to the old fields."""
        return replace(self, before=self.after, after=self.before)


@dataclass(frozen=True)
class Compound:
    """Several edits that are one step for the user."""

    edits: tuple[Edit, ...]
    text: str = "Edit"

    @property
    def where(self) -> Where:
        """Of the first edit that names a layer, else of the first that names a slice."""
        places = [edit.where for edit in self.edits]
        places.sort(key=lambda place: (place[0] is None, place[1] is None))
        return places[0] if places else (None, None)

    @property
    def nbytes(self) -> int:
        """Bytes held for undo."""
        return sum(edit.nbytes for edit in self.edits)

    def apply(self, annotation: Annotation) -> None:
        """All of them, in order."""
        for edit in self.edits:
            edit.apply(annotation)

    def reversed(self) -> Compound:
        """All of them turned around, last first."""
        return replace(self, edits=tuple(edit.reversed() for edit in reversed(self.edits)))


Edit = (
    Stroke
    | AddMatte
    | RemoveMatte
    | ChangeMatte
    | MoveMatte
    | ChangeMarks
    | ChangeDepthPoints
    | ChangeSeries
    | Compound
)


def one_edit(edits: Iterable[Edit], text: str) -> Edit | None:
    """One step out of several edits: None of none, the edit itself of one, a ``Compound`` of more."""
    several = tuple(edits)
    if not several:
        return None
    return several[0] if len(several) == 1 else Compound(several, text)
