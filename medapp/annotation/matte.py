"""A soft layer over one series, and the Patch that changes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.sparse import Index, SparseVolume

FULL = 65535  # stored alpha of 1.0
Layer = Literal["alpha", "unknown", "keep"]
LAYERS: tuple[Layer, ...] = ("alpha", "unknown", "keep")
DTYPES: dict[Layer, np.dtype] = {
    "alpha": np.dtype(np.uint16),
    "unknown": np.dtype(np.uint8),
    "keep": np.dtype(np.uint8),
}


@dataclass(frozen=True, eq=False)
class Patch:
    """The changed box of one layer of a matte.

    Attributes:
        layer: Which layer of the matte.
        start_zyx: First voxel of the box.
        before, after: ``(d, h, w)`` stored values: uint16 for alpha, uint8 0/1 for the others.
    """

    layer: Layer
    start_zyx: Index
    before: NDArray
    after: NDArray

    @property
    def shape(self) -> Index:
        """``(d, h, w)``."""
        d, h, w = self.after.shape
        return d, h, w

    @property
    def nbytes(self) -> int:
        """Bytes of both states."""
        return int(self.before.nbytes + self.after.nbytes)

    def reversed(self) -> Patch:
        """The patch that takes this one back."""
        return replace(self, before=self.after, after=self.before)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Patch)
            and (self.layer, self.start_zyx, self.shape) == (other.layer, other.start_zyx, other.shape)
            and np.array_equal(self.before, other.before)
            and np.array_equal(self.after, other.after)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class MatteProps:
    """What a matte is called and how it is shown; everything but its voxels.

    Attributes:
        name: Shown in the layer list.
        label: Number in a label map, from 1.
        colour: ``#rrggbb``.
        letter: Drawn beside the outline, so that colour is never alone.
        is_visible, is_locked: Switches of the layer list.
        group: Layers of one exclusive group sum to at most 1; None = in no group.
        origin: ``person``, or model + version + weights hash.
        reader: The person whose layer it is.
    """

    name: str = "Matte"
    label: int = 1
    colour: str = "#e69f00"
    letter: str = "A"
    is_visible: bool = True
    is_locked: bool = False
    group: str | None = None
    origin: str = "person"
    reader: str = ""


class Matte:
    """A soft layer with alpha from 0 to 1 over the voxels of one series.

    Alpha is kept as uint16 (65535 = 1) in sparse tiles; two more layers say where alpha is still unknown and which
    voxels refining must not touch. Planes are numbered by the axis they are perpendicular to: 0 = ``(y, x)``,
    1 = ``(z, x)``, 2 = ``(z, y)``.

    Attributes:
        matte_id: Unique in the project.
        shape_zyx: ``(Z, Y, X)`` of the series.
        props: Name, label, colour and switches.
        version: Grows with each change of a voxel; for caches.
    """

    def __init__(
        self,
        matte_id: str,
        shape_zyx: Index,
        name: str = "Matte",
        label: int = 1,
        colour: str = "#e69f00",
        letter: str = "A",
        is_visible: bool = True,
        is_locked: bool = False,
        group: str | None = None,
        origin: str = "person",
        reader: str = "",
    ) -> None:
        self.matte_id = matte_id
        self.shape_zyx: Index = (int(shape_zyx[0]), int(shape_zyx[1]), int(shape_zyx[2]))
        self.props = MatteProps(name, label, colour, letter, is_visible, is_locked, group, origin, reader)
        self.version = 0
        self._layers: dict[Layer, SparseVolume] = {
            layer: SparseVolume(self.shape_zyx, DTYPES[layer], FULL if layer == "alpha" else 1) for layer in LAYERS
        }
        self._occupied: dict[int, tuple[int, tuple[int, ...]]] = {}

    @classmethod
    def with_props(cls, matte_id: str, shape_zyx: Index, props: MatteProps) -> Matte:
        """An empty matte with all its properties at once."""
        matte = cls(matte_id, shape_zyx)
        matte.props = props
        return matte

    @property
    def name(self) -> str:
        """Shown in the layer list."""
        return self.props.name

    @property
    def label(self) -> int:
        """Number in a label map."""
        return self.props.label

    @property
    def colour(self) -> str:
        """``#rrggbb``."""
        return self.props.colour

    @property
    def letter(self) -> str:
        """Drawn beside the outline."""
        return self.props.letter

    @property
    def is_visible(self) -> bool:
        """Shown over the image."""
        return self.props.is_visible

    @property
    def is_locked(self) -> bool:
        """Protected from painting."""
        return self.props.is_locked

    @property
    def group(self) -> str | None:
        """Exclusive group, or None."""
        return self.props.group

    @property
    def origin(self) -> str:
        """Who made it: a person or a model."""
        return self.props.origin

    @property
    def reader(self) -> str:
        """The person whose layer it is."""
        return self.props.reader

    @property
    def nbytes(self) -> int:
        """Bytes of voxels held in memory."""
        return sum(volume.nbytes for volume in self._layers.values())

    def tiles(self, layer: Layer = "alpha") -> SparseVolume:
        """The sparse volume of one layer; for the codec, which stores tiles as they are."""
        return self._layers[layer]

    def read(self, start_zyx: Index, shape: Index, layer: Layer = "alpha") -> NDArray:
        """A copy of a box of stored values, ``(d, h, w)``."""
        return self._layers[layer].read(start_zyx, shape)

    def slice_stored(self, z: int, axis: int = 0, layer: Layer = "alpha") -> NDArray:
        """One plane of stored values, 2-D: uint16 alpha or uint8 0/1."""
        start, shape = plane_box(self.shape_zyx, z, axis)
        stored: NDArray = np.squeeze(self._layers[layer].read(start, shape), axis=axis)
        return stored

    def slice_alpha(self, z: int, axis: int = 0) -> NDArray[np.float32]:
        """One plane of alpha, 2-D float32 0..1."""
        return to_alpha(self.slice_stored(z, axis))

    def volume(self, layer: Layer = "alpha") -> NDArray:
        """All stored values as one ``(Z, Y, X)`` array."""
        return self._layers[layer].dense()

    def annotated_slices(self, axis: int = 0) -> tuple[int, ...]:
        """Slices along an axis on which alpha is above zero anywhere, in order."""
        known = self._occupied.get(axis)
        if known is None or known[0] != self.version:
            known = (self.version, self._layers["alpha"].occupied(axis))
            self._occupied[axis] = known
        return known[1]

    def make_patch(self, layer: Layer, start_zyx: Index, after: NDArray) -> Patch | None:
        """The patch that sets a box to ``after`` ``(d, h, w)``, cropped to what changes; None if nothing does.

        ``after`` is stored values, or float 0..1 for alpha.
        """
        after = to_stored(after) if layer == "alpha" and after.dtype.kind == "f" else after
        after = after.astype(DTYPES[layer], copy=False)
        before = self.read(start_zyx, (after.shape[0], after.shape[1], after.shape[2]), layer)
        changed = before != after
        if not changed.any():
            return None
        box = tuple(_span(changed, axis) for axis in range(3))
        start = (start_zyx[0] + box[0].start, start_zyx[1] + box[1].start, start_zyx[2] + box[2].start)
        return Patch(layer, start, np.ascontiguousarray(before[box]), np.ascontiguousarray(after[box]))

    def paste(self, patch: Patch) -> None:
        """Set the box of a patch to its state after."""
        self._layers[patch.layer].write(patch.start_zyx, patch.after)
        self.version += 1

    def copy(self) -> Matte:
        """A snapshot with the same id; costs no voxels."""
        twin = Matte.with_props(self.matte_id, self.shape_zyx, self.props)
        twin._layers = {layer: volume.copy() for layer, volume in self._layers.items()}
        return twin

    def equals(self, other: Matte) -> bool:
        """True when properties and every voxel of every layer agree."""
        if (self.matte_id, self.shape_zyx, self.props) != (other.matte_id, other.shape_zyx, other.props):
            return False
        for layer in LAYERS:
            mine, theirs = self._layers[layer].tiles, other._layers[layer].tiles
            if mine.keys() != theirs.keys() or not all(np.array_equal(mine[key], theirs[key]) for key in mine):
                return False
        return True


def to_alpha(stored: NDArray) -> NDArray[np.float32]:
    """Stored uint16 to float32 0..1."""
    return stored.astype(np.float32) * np.float32(1 / FULL)


def to_stored(alpha: NDArray) -> NDArray[np.uint16]:
    """Float 0..1 to stored uint16; values outside are clipped, NaN becomes 0."""
    scaled = np.clip(np.nan_to_num(np.asarray(alpha, dtype=np.float64)), 0.0, 1.0) * FULL
    return np.rint(scaled).astype(np.uint16)


def plane_box(shape_zyx: Index, index: int, axis: int) -> tuple[Index, Index]:
    """Start and shape of the one-voxel-thick box that holds a plane."""
    start, shape = [0, 0, 0], list(shape_zyx)
    start[axis], shape[axis] = index, 1
    return (start[0], start[1], start[2]), (shape[0], shape[1], shape[2])


def _span(changed: NDArray[np.bool_], axis: int) -> slice:
    others = tuple(a for a in range(3) if a != axis)
    lines = np.flatnonzero(changed.any(axis=others))
    return slice(int(lines[0]), int(lines[-1]) + 1)
