"""Domain objects as bytes and back: a versioned JSON header and zstd-compressed arrays, nothing executable."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from medapp.annotation.annotation import DepthPoint
from medapp.annotation.edits import (
    AddMatte,
    ChangeDepthPoints,
    ChangeMarks,
    ChangeMatte,
    ChangeSeries,
    Compound,
    Edit,
    MoveMatte,
    RemoveMatte,
    Stroke,
)
from medapp.annotation.matte import DTYPES, FULL, LAYERS, Layer, Matte, MatteProps, Patch
from medapp.annotation.sparse import TILE
from medapp.errors import ProjectDamagedError, ProjectNewerError
from medapp.scan.scan import SourceInfo

MAGIC = b"MEDA"
VERSION = 1
_PREFIX = struct.Struct("<4sHIQ")  # magic, version, bytes of the header, bytes of the arrays
_LIMIT = 16 * 2**30

Packed = tuple[dict[str, Any], list[NDArray]]


def canonical(value: Any) -> bytes:
    """JSON with one spelling: the same value gives the same bytes, so its hash means something."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def pack(header: dict[str, Any], arrays: list[NDArray]) -> tuple[bytes, str]:
    """Header and arrays as bytes, and the SHA-256 of their content before compression."""
    little = [np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")) for a in arrays]
    text = canonical({**header, "arrays": [[a.dtype.str, list(a.shape)] for a in little]})
    body = b"".join(a.tobytes() for a in little)
    digest = hashlib.sha256(text)
    digest.update(body)
    packed = zstandard.ZstdCompressor(level=3).compress(body)
    return _PREFIX.pack(MAGIC, VERSION, len(text), len(body)) + text + packed, digest.hexdigest()


def unpack(data: bytes, sha256: str | None = None) -> Packed:
    """Header and arrays from bytes.

    Args:
        sha256: When given, the content must have this hash.

    Raises:
        ProjectDamagedError: The bytes are not what was written.
        ProjectNewerError: A newer medapp wrote them.
    """
    try:
        magic, version, n_text, n_body = _PREFIX.unpack_from(data)
    except struct.error as error:
        raise _damaged() from error
    if magic != MAGIC:
        raise _damaged()
    if version > VERSION:
        raise ProjectNewerError(
            "Part of the project was written by a newer medapp.", f"Open it with a medapp that knows format {version}."
        )
    text = bytes(data[_PREFIX.size : _PREFIX.size + n_text])
    try:
        header = json.loads(text)
        specs = [(np.dtype(kind), tuple(int(n) for n in shape)) for kind, shape in header.pop("arrays")]
        sizes = [kind.itemsize * _product(shape) for kind, shape in specs]
        if sum(sizes) != n_body or n_body > _LIMIT or any(kind.hasobject for kind, _ in specs):
            raise _damaged()
        compressed = data[_PREFIX.size + n_text :]
        body = zstandard.ZstdDecompressor().decompress(compressed, max_output_size=max(n_body, 1))
    except (ValueError, TypeError, KeyError, zstandard.ZstdError) as error:
        raise _damaged() from error
    if len(body) != n_body:
        raise _damaged()
    if sha256 is not None:
        digest = hashlib.sha256(text)
        digest.update(body)
        if digest.hexdigest() != sha256:
            raise _damaged()
    arrays, at = [], 0
    for (kind, shape), size in zip(specs, sizes, strict=True):
        arrays.append(np.frombuffer(body, dtype=kind, count=_product(shape), offset=at).reshape(shape))
        at += size
    return header, arrays


# ------------------------------------------------------------------------------------------------------------- edits


def encode_edit(edit: Edit) -> bytes:
    """An edit as bytes."""
    arrays: list[NDArray] = []
    return pack(_edit_header(edit, arrays), arrays)[0]


def decode_edit(data: bytes) -> Edit:
    """An edit from bytes.

    Raises:
        ProjectDamagedError: They hold no edit.
    """
    header, arrays = unpack(data)
    try:
        return _edit_from(header, arrays)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _damaged() from error


def edited_place(data: bytes) -> tuple[str, int | None]:
    """The matte and the first slice along z whose voxels an encoded edit changes, without inflating them.

    Returns:
        Its id and slice; empty and None for an edit of anything but voxels.

    Raises:
        ProjectDamagedError: The bytes hold no edit.
    """
    try:
        magic, _, n_text, _ = _PREFIX.unpack_from(data)
        if magic != MAGIC:
            raise _damaged()
        return _place_in(json.loads(data[_PREFIX.size : _PREFIX.size + n_text]))
    except (struct.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise _damaged() from error


def _place_in(header: dict[str, Any]) -> tuple[str, int | None]:
    if header["edit"] == "stroke":
        return str(header["matte"]), min((int(start[0]) for _, start, _ in header["patches"]), default=None)
    if header["edit"] == "compound":
        places = [_place_in(part) for part in header["edits"]]
        return next((place for place in places if place[1] is not None), ("", None))
    return "", None


def _edit_header(edit: Edit, arrays: list[NDArray]) -> dict[str, Any]:
    match edit:
        case Stroke():
            patches = []
            for patch in edit.patches:
                patches.append([patch.layer, list(patch.start_zyx), len(arrays)])
                arrays += [patch.before, patch.after]
            return {"edit": "stroke", "text": edit.text, "matte": edit.matte_id, "patches": patches}
        case AddMatte() | RemoveMatte():
            kind = "add" if isinstance(edit, AddMatte) else "remove"
            matte = _matte_header(edit.snapshot, arrays)
            return {"edit": kind, "text": edit.text, "matte": matte, "index": edit.index}
        case ChangeMatte():
            props = {"before": asdict(edit.before), "after": asdict(edit.after)}
            return {"edit": "change", "text": edit.text, "matte": edit.matte_id, **props}
        case MoveMatte():
            places = {"before": edit.before, "after": edit.after}
            return {"edit": "move", "text": edit.text, "matte": edit.matte_id, **places}
        case ChangeMarks():
            marks = {"before": list(edit.before.items()), "after": list(edit.after.items())}
            return {"edit": "marks", "text": edit.text, **marks}
        case ChangeDepthPoints():
            points = {"before": list(edit.before), "after": list(edit.after)}
            return {"edit": "depths", "text": edit.text, "z": edit.z, **points}
        case ChangeSeries():
            return {"edit": "series", "text": edit.text, "before": edit.before, "after": edit.after}
        case Compound():
            parts = [_edit_header(part, arrays) for part in edit.edits]
            return {"edit": "compound", "text": edit.text, "edits": parts}


def _edit_from(header: dict[str, Any], arrays: list[NDArray]) -> Edit:
    kind, text = header["edit"], header["text"]
    if kind == "stroke":
        patches = tuple(
            Patch(layer, _index(start), arrays[place], arrays[place + 1]) for layer, start, place in header["patches"]
        )
        return Stroke(header["matte"], patches, text)
    if kind in ("add", "remove"):
        matte = _matte_from(header["matte"], arrays)
        return (AddMatte if kind == "add" else RemoveMatte)(matte, header["index"], text)
    if kind == "change":
        return ChangeMatte(header["matte"], props_from(header["before"]), props_from(header["after"]), text)
    if kind == "move":
        return MoveMatte(header["matte"], int(header["before"]), int(header["after"]), text)
    if kind == "marks":
        before, after = ({int(z): mark for z, mark in header[side]} for side in ("before", "after"))
        return ChangeMarks(before, after, text)
    if kind == "depths":
        return ChangeDepthPoints(int(header["z"]), points_from(header["before"]), points_from(header["after"]), text)
    if kind == "series":
        return ChangeSeries(header["before"], header["after"], text)
    if kind == "compound":
        return Compound(tuple(_edit_from(part, arrays) for part in header["edits"]), text)
    raise ValueError(f"unknown edit {kind}")


def points_from(rows: list[list[float]]) -> tuple[DepthPoint, ...]:
    """Measured depths from JSON."""
    return tuple((float(x), float(y), float(depth)) for x, y, depth in rows)


# ------------------------------------------------------------------------------------------------------------ mattes


def props_from(values: dict[str, Any]) -> MatteProps:
    """Properties of a matte from JSON; unknown ones are dropped."""
    known = {field.name for field in fields(MatteProps)}
    return MatteProps(**{name: value for name, value in values.items() if name in known})


def _matte_header(matte: Matte, arrays: list[NDArray]) -> dict[str, Any]:
    layers: dict[str, list[Any]] = {}
    for layer in LAYERS:
        for key, tile in sorted(matte.tiles(layer).tiles.items()):
            layers.setdefault(layer, []).append([*key, _add_tile(layer, tile, arrays)])
    return {"id": matte.matte_id, "shape": list(matte.shape_zyx), "props": asdict(matte.props), "layers": layers}


def _matte_from(header: dict[str, Any], arrays: list[NDArray]) -> Matte:
    matte = Matte.with_props(header["id"], _index(header["shape"]), props_from(header["props"]))
    for layer, tiles in header["layers"].items():
        for z, row, column, place in tiles:
            matte.tiles(layer).put((int(z), int(row), int(column)), _get_tile(layer, place, arrays))
    return matte


def encode_plane(layer: Layer, tiles: list[tuple[int, int, NDArray]]) -> tuple[bytes, str]:
    """The tiles of one layer on one slice, and the hash of their content."""
    arrays: list[NDArray] = []
    placed = [[row, column, _add_tile(layer, tile, arrays)] for row, column, tile in sorted(tiles, key=lambda t: t[:2])]
    return pack({"plane": layer, "tiles": placed}, arrays)


def decode_plane(data: bytes, sha256: str) -> list[tuple[int, int, NDArray]]:
    """Tiles of one slice: row, column, values.

    Raises:
        ProjectDamagedError: The content does not have that hash.
    """
    header, arrays = unpack(data, sha256)
    return [(int(r), int(c), _get_tile(header["plane"], place, arrays)) for r, c, place in header["tiles"]]


def _add_tile(layer: Layer, tile: NDArray, arrays: list[NDArray]) -> int:
    """Place of the tile among the arrays; -1 for one that is wholly at the top value."""
    top = FULL if layer == "alpha" else 1
    if tile[0, 0] == top and bool((tile == top).all()):
        return -1
    arrays.append(tile)
    return len(arrays) - 1


def _get_tile(layer: Layer, place: int, arrays: list[NDArray]) -> NDArray:
    if place < 0:
        return np.full((TILE, TILE), FULL if layer == "alpha" else 1, dtype=DTYPES[layer])
    tile = arrays[place]
    if tile.shape != (TILE, TILE):
        raise ValueError("a tile has another shape")
    return tile.astype(DTYPES[layer])


# ------------------------------------------------------------------------------------------------------ sources, PNG


def encode_source(source: SourceInfo) -> bytes:
    """Where a scan came from, with its headers."""
    facts = {f.name: getattr(source, f.name) for f in fields(SourceInfo) if f.name != "headers"}
    return pack({"source": facts}, [np.frombuffer(header, dtype=np.uint8) for header in source.headers])[0]


def decode_source(data: bytes) -> SourceInfo:
    """The same from bytes."""
    header, arrays = unpack(data)
    facts = dict(header["source"])
    facts["frames"] = tuple((str(uid), int(number)) for uid, number in facts.get("frames", ()))
    known = {f.name for f in fields(SourceInfo)}
    facts = {name: value for name, value in facts.items() if name in known}
    return SourceInfo(**facts, headers=tuple(a.tobytes() for a in arrays))


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """A thumbnail ``(H, W)`` or ``(H, W, 3)`` uint8 as PNG.

    Reference:
        Portable Network Graphics, RFC 2083.
    """
    pixels = np.ascontiguousarray(pixels, dtype=np.uint8)
    height, width = pixels.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # filter 0

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _index(values: Any) -> tuple[int, int, int]:
    z, y, x = (int(v) for v in values)
    return z, y, x


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for n in shape:
        if n < 0:
            raise ValueError("negative size")
        product *= n
    return product


def _damaged() -> ProjectDamagedError:
    return ProjectDamagedError(
        "A stored part of the project is damaged.", "Run a check of the project; earlier revisions and backups remain."
    )
