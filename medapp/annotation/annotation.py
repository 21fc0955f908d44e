"""All mattes of one series."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from medapp.annotation.labels import label_style
from medapp.annotation.matte import Matte
from medapp.annotation.sparse import Index

DepthPoint = tuple[float, float, float]


class Annotation:
    """The mattes of one series, in the order of the layer list, and marks on its slices.

    Attributes:
        series_id: The series in the project.
        shape_zyx: ``(Z, Y, X)``.
        marks: Slice along z to ``annotated``, ``propagated`` or ``doubtful``; what the slice rail shows.
        depth_points: Slice along z to the depths that a person measured on it: ``(x, y, depth in mm)`` in pixels.
    """

    def __init__(self, series_id: str, shape_zyx: Index) -> None:
        self.series_id = series_id
        self.shape_zyx: Index = (int(shape_zyx[0]), int(shape_zyx[1]), int(shape_zyx[2]))
        self.marks: dict[int, str] = {}
        self.depth_points: dict[int, tuple[DepthPoint, ...]] = {}
        self._mattes: list[Matte] = []

    def __iter__(self) -> Iterator[Matte]:
        return iter(tuple(self._mattes))

    def __len__(self) -> int:
        return len(self._mattes)

    def __contains__(self, matte_id: object) -> bool:
        return any(matte.matte_id == matte_id for matte in self._mattes)

    @property
    def mattes(self) -> tuple[Matte, ...]:
        """In the order of the layer list."""
        return tuple(self._mattes)

    def matte(self, matte_id: str) -> Matte:
        """The matte with that id.

        Raises:
            KeyError: There is none.
        """
        return self._mattes[self.index(matte_id)]

    def index(self, matte_id: str) -> int:
        """Place in the layer list.

        Raises:
            KeyError: There is no such matte.
        """
        for place, matte in enumerate(self._mattes):
            if matte.matte_id == matte_id:
                return place
        raise KeyError(f"no matte {matte_id}")

    def add(self, matte: Matte, index: int | None = None) -> None:
        """Put a matte into the list, at the end unless told otherwise.

        Raises:
            ValueError: Its shape is not the series', or its id is there already.
        """
        if matte.shape_zyx != self.shape_zyx:
            raise ValueError(f"matte {matte.shape_zyx} does not fit the series {self.shape_zyx}")
        if matte.matte_id in self:
            raise ValueError(f"matte {matte.matte_id} is there already")
        self._mattes.insert(len(self._mattes) if index is None else index, matte)

    def remove(self, matte_id: str) -> Matte:
        """Take a matte out of the list and return it."""
        return self._mattes.pop(self.index(matte_id))

    def move(self, matte_id: str, index: int) -> None:
        """Give a matte another place in the list."""
        self._mattes.insert(index, self.remove(matte_id))

    def new_matte(self, name: str = "", reader: str = "", origin: str = "person") -> Matte:
        """A matte with the next free label, its colour and letter; not yet added: that is an ``AddMatte`` edit."""
        taken = {matte.label for matte in self._mattes}
        label = next(number for number in range(1, len(taken) + 2) if number not in taken)
        style = label_style(label)
        return Matte(
            uuid.uuid4().hex,
            self.shape_zyx,
            name or f"Matte {style.letter}",
            label,
            style.colour,
            style.letter,
            origin=origin,
            reader=reader,
        )

    def others_in_group(self, matte_id: str) -> tuple[Matte, ...]:
        """The other layers of the matte's exclusive group; empty when it is in none."""
        group = self.matte(matte_id).group
        if group is None:
            return ()
        return tuple(matte for matte in self._mattes if matte.group == group and matte.matte_id != matte_id)

    def copy(self) -> Annotation:
        """A snapshot; costs no voxels."""
        twin = Annotation(self.series_id, self.shape_zyx)
        twin.marks, twin.depth_points = dict(self.marks), dict(self.depth_points)
        twin._mattes = [matte.copy() for matte in self._mattes]
        return twin

    def equals(self, other: Annotation) -> bool:
        """True when marks, measured depths, order, properties and every voxel agree."""
        return (
            (self.series_id, self.shape_zyx, self.marks) == (other.series_id, other.shape_zyx, other.marks)
            and self.depth_points == other.depth_points
            and len(self) == len(other)
            and all(mine.equals(theirs) for mine, theirs in zip(self, other, strict=True))
        )
