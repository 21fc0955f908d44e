"""A volume that is mostly zero, kept as small tiles that are never changed in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE = 128

TileKey = tuple[int, int, int]
Index = tuple[int, int, int]


class SparseVolume:
    """``(Z, Y, X)`` unsigned integers in 128 x 128 tiles of one slice each; absent tiles are zero.

    A tile is replaced, never written to, so a copy of the volume is a copy of the dictionary: snapshots for undo and
    for the saving thread cost nothing. Tiles that become zero are dropped, and all tiles that are wholly at the top
    value share one array.

    Attributes:
        shape: ``(Z, Y, X)``.
        dtype: Of the voxels.
        tiles: ``(z, tile row, tile column)`` to ``(128, 128)`` read-only arrays; edge tiles are padded with zero.
    """

    def __init__(self, shape: Index, dtype: Any, top: int) -> None:
        self.shape: Index = (int(shape[0]), int(shape[1]), int(shape[2]))
        self.dtype = np.dtype(dtype)
        self.tiles: dict[TileKey, NDArray] = {}
        self._top = top
        full = np.full((TILE, TILE), top, dtype=self.dtype)
        full.setflags(write=False)
        self._full = full

    def copy(self) -> SparseVolume:
        """A snapshot; shares the tiles, which never change."""
        twin = SparseVolume.__new__(SparseVolume)
        twin.shape, twin.dtype, twin._top, twin._full = self.shape, self.dtype, self._top, self._full
        twin.tiles = dict(self.tiles)
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes held by tiles of its own."""
        return sum(tile.nbytes for tile in self.tiles.values() if tile is not self._full)

    def read(self, start_zyx: Index, shape: Index) -> NDArray:
        """A copy of the box ``(d, h, w)`` that starts at ``start_zyx``.

        Raises:
            ValueError: The box leaves the volume.
        """
        self._check(start_zyx, shape)
        out = np.zeros(shape, dtype=self.dtype)
        if not self.tiles:
            return out
        get = self.tiles.get
        for rows, row_part, tile_row in _spans(start_zyx[1], shape[1]):
            for columns, column_part, tile_column in _spans(start_zyx[2], shape[2]):
                for depth in range(shape[0]):
                    tile = get((start_zyx[0] + depth, tile_row, tile_column))
                    if tile is not None:
                        out[depth, rows, columns] = tile[row_part, column_part]
        return out

    def write(self, start_zyx: Index, values: NDArray) -> None:
        """Set the box that starts at ``start_zyx``.

        Raises:
            ValueError: The box leaves the volume.
        """
        shape: Index = (values.shape[0], values.shape[1], values.shape[2])
        self._check(start_zyx, shape)
        for rows, row_part, tile_row in _spans(start_zyx[1], shape[1]):
            for columns, column_part, tile_column in _spans(start_zyx[2], shape[2]):
                for depth in range(shape[0]):
                    key = (start_zyx[0] + depth, tile_row, tile_column)
                    old = self.tiles.get(key)
                    new = np.zeros((TILE, TILE), dtype=self.dtype) if old is None else old.copy()
                    new[row_part, column_part] = values[depth, rows, columns]
                    self.put(key, new)

    def put(self, key: TileKey, tile: NDArray) -> None:
        """Set one whole tile, which then belongs to the volume."""
        if tile[0, 0] == self._top and bool((tile == self._top).all()):
            self.tiles[key] = self._full
        elif tile.any():
            tile.setflags(write=False)
            self.tiles[key] = tile
        else:
            self.tiles.pop(key, None)

    def dense(self) -> NDArray:
        """The whole volume as one array."""
        return self.read((0, 0, 0), self.shape)

    def occupied(self, axis: int) -> tuple[int, ...]:
        """Indices along an axis on which some voxel is not zero, in order."""
        if axis == 0:
            return tuple(sorted({key[0] for key in self.tiles}))
        found: set[int] = set()
        for key, tile in self.tiles.items():
            lines = np.flatnonzero(tile.any(axis=1 if axis == 1 else 0)) + key[axis] * TILE
            found.update(int(i) for i in lines if i < self.shape[axis])
        return tuple(sorted(found))

    def _check(self, start: Index, shape: Index) -> None:
        if any(s < 0 or n < 0 or s + n > size for s, n, size in zip(start, shape, self.shape, strict=True)):
            raise ValueError(f"box {start} + {shape} leaves the volume {self.shape}")


def _spans(start: int, length: int) -> Iterator[tuple[slice, slice, int]]:
    """Cut ``start .. start + length`` at tile edges: place in the box, place in the tile, tile number."""
    position, end = start, start + length
    while position < end:
        number = position // TILE
        stop = min(end, (number + 1) * TILE)
        yield (
            slice(position - start, stop - start),
            slice(position - number * TILE, stop - number * TILE),
            number,
        )
        position = stop
