"""Depth files: numbers of a stated scale in, float32 millimetres of z-depth with NaN for unknown out, and back."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from medapp.errors import DepthScaleError, ExportError, UnreadableFileError
from medapp.scan.camera import Camera
from medapp.scan.depth_scale import DepthScale, hint_of_presets, scale_of, side_car_of
from medapp.scan.lazy import check_memory
from medapp.scan.reading import read_scan, sniff

_COPY = "Copy the file again from its source."
_JSON_LIMIT = 1 << 20
_STEPS_PER_MM = (256, 100, 10, 1)
_MOST = 65535


@dataclass(frozen=True, eq=False)
class DepthFile:
    """A depth file that was read.

    Attributes:
        depth_mm: ``(H, W)`` float32 z-depth in millimetres, NaN = unknown; relative depths where ``is_relative``.
        scale: How its numbers were read.
        notes: What a person should know, one sentence each.
    """

    depth_mm: NDArray[np.float32]
    scale: DepthScale
    notes: tuple[str, ...] = ()

    @property
    def is_relative(self) -> bool:
        """No lengths can be had from it."""
        return self.scale.unit == "relative"

    @property
    def known(self) -> int:
        """Pixels that have a depth."""
        return int(np.isfinite(self.depth_mm).sum())

    def record(self) -> dict[str, Any]:
        """What provenance keeps: unit, scale, offset, kind, invalid values, camera, pixels known."""
        return {**self.scale.record(), "pixels_known": self.known, "notes": list(self.notes)}


def read_depth(
    path: Path | str, scale: DepthScale | None = None, camera: Camera | None = None, allow_relative: bool = False
) -> DepthFile:
    """Read a depth file by the scale that a person or its side-car states.

    Args:
        path: PNG, TIFF or NPY file.
        scale: As stated by a person; None = the side-car must say.
        camera: Needed for depths along the line of sight whose record has no intrinsics.
        allow_relative: Take depths without lengths, as 0..1; otherwise they are refused.

    Raises:
        DepthScaleError: Nobody stated the scale, two statements differ, or there are no lengths in it.
        UnreadableFileError: Damaged, or another kind of numbers than stated.
    """
    path = Path(path)
    stated = _from_side_car(path)
    if scale is None and stated is None:
        raise DepthScaleError(f"Nobody stated what the numbers of {path.name} mean.", hint_of_presets())
    if scale is not None and stated is not None and not scale.agrees_with(stated):
        raise DepthScaleError(
            f"{side_car_of(path).name} says {stated.words()}, but {scale.words()} was stated.",
            "Leave the scale out to take the file's own, or remove the .json file.",
        )
    chosen = stated if stated is not None else scale
    assert chosen is not None
    if chosen.unit == "relative" and not allow_relative:
        raise DepthScaleError(
            f"The depths of {path.name} are relative: no millimetres can be had from them.",
            "Use a data set with a published scale.",
        )
    stored, notes = _numbers(path, chosen)
    known = np.isfinite(stored)
    for value in chosen.invalid:
        known &= stored != value
    factor, offset = (1.0, 0.0) if chosen.unit == "relative" else (chosen.mm_per_step, chosen.offset_mm)
    if chosen.unit == "relative":
        factor = chosen.scale
    depth = stored.astype(np.float64) * factor + offset
    if chosen.range_mm is not None:
        known &= (depth >= chosen.range_mm[0]) & (depth <= chosen.range_mm[1])
    below = known & (depth <= 0)
    if below.any():
        notes.append(f"{int(below.sum())} depths at or below 0 mm count as unknown.")
        known &= ~below
    if chosen.kind == "ray":
        lens = chosen.camera or camera
        if lens is None:
            raise DepthScaleError(
                f"{path.name} holds lengths along the line of sight, which need the camera to become z-depth.",
                "State the focal length in pixels.",
            )
        depth = depth / lens.scaled_to(depth.shape[1], depth.shape[0]).ray_lengths()
        notes.append("Lengths along the line of sight were turned into z-depth.")
    if not known.any():
        notes.append("No pixel of the file has a depth: nothing was measured.")
    return DepthFile(np.where(known, depth, np.nan).astype(np.float32), chosen, tuple(notes))


def _from_side_car(path: Path) -> DepthScale | None:
    beside = side_car_of(path)
    if not beside.is_file():
        return None
    try:
        if beside.stat().st_size > _JSON_LIMIT:
            return None
        entries = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DepthScaleError(f"{beside.name} cannot be read as JSON.", "Repair or remove it.") from error
    record = entries.get("depth") if isinstance(entries, dict) else None
    if not isinstance(record, Mapping):
        return None
    known = ("preset", "unit", "scale", "offset", "kind", "invalid", "camera", "camera_model")
    return scale_of({key: record[key] for key in known if key in record}, "side-car")


def _numbers(path: Path, scale: DepthScale) -> tuple[NDArray, list[str]]:
    """The stored numbers ``(H, W)``; float with NaN where a float file has it."""
    stored, notes = _npy(path) if path.suffix.lower() == ".npy" else _image(path, scale)
    if scale.dtype == "uint16" and stored.dtype != np.uint16:
        raise UnreadableFileError(
            f"{path.name} holds {_words(stored.dtype)} numbers, but {scale.title} stores 16-bit ones.",
            "Choose the scale of the data set that it came from.",
        )
    if scale.dtype == "float32" and stored.dtype.kind != "f":
        raise UnreadableFileError(
            f"{path.name} holds {_words(stored.dtype)} numbers, but {scale.title} stores float ones.",
            "Choose the scale of the data set that it came from.",
        )
    return stored, notes


def _words(dtype: np.dtype) -> str:
    return "float" if dtype.kind == "f" else f"{8 * dtype.itemsize}-bit"


def _npy(path: Path) -> tuple[NDArray, list[str]]:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableFileError(f"{path.name} is not a sound NPY file.", _COPY) from error
    if mapped.ndim != 2 or mapped.dtype.kind not in "uif":
        raise UnreadableFileError(f"{path.name} is not a depth map of one number a pixel.", "Save it as (H, W).")
    check_memory(mapped.size * 8, path.name)
    return np.array(mapped), []


def _image(path: Path, scale: DepthScale) -> tuple[NDArray, list[str]]:
    if scale.channel is not None and sniff(path) == "tiff":
        return _tiff_channel(path, scale.channel), []
    scan = read_scan(path)
    if scan.shape[0] != 1:
        raise UnreadableFileError(f"{path.name} holds {scan.shape[0]} images, not one depth map.", "Save one alone.")
    stored = np.array(scan.stored[0])
    if scan.is_colour:
        if scale.channel is None:
            raise UnreadableFileError(
                f"{path.name} is a colour image, not a depth map of one number a pixel.",
                "A colour map of depths cannot be turned back; choose the 16-bit file.",
            )
        stored = stored[..., scale.channel]
    if scan.padding is not None:
        stored = np.where(scan.padding[0], np.nan, stored)
    return stored, [note for note in scan.notes if "pixel size" not in note and "not finite" not in note.lower()]


def _tiff_channel(path: Path, channel: int) -> NDArray:
    """One channel of a TIFF that the image library cannot open: several floats a pixel."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            shape, dtype = tuple(int(n) for n in page.shape), np.dtype(page.dtype)
            if len(shape) == 2:
                raise UnreadableFileError(
                    f"{path.name} has one number a pixel, not X, Y and Z.", "Choose the scale that fits the file."
                )
            if len(shape) != 3 or shape[2] <= channel or dtype.kind not in "uif":
                raise UnreadableFileError(f"{path.name} has no channel {channel + 1}.", "Choose another scale.")
            check_memory(int(np.prod(shape, dtype=object)) * dtype.itemsize, path.name)
            if shape[0] * shape[1] > 1 << 27:
                raise UnreadableFileError(f"{path.name} declares more pixels than the limit.", "Crop it first.")
            return np.array(page.asarray()[..., channel])
    except UnreadableFileError:
        raise
    except Exception as error:  # the library raises whatever the bytes provoke
        raise UnreadableFileError(f"{path.name} is truncated, damaged or of a rare kind.", _COPY) from error


def write_depth(
    folder: Path,
    stem: str,
    depth_mm: NDArray[np.float32],
    facts: Mapping[str, Any] | None = None,
    camera: Camera | None = None,
) -> tuple[Path, ...]:
    """Write a depth map as 16-bit PNG with its side-car, and as lossless float TIFF.

    Millimetres are value / 256 up to 255.99 mm, value / 100 up to 655 mm beyond, coarser after that; 0 = unknown.

    Args:
        folder: Made where it is not there.
        stem: Of the files ``stem.png``, ``stem.tiff`` and their side-cars.
        depth_mm: ``(H, W)``, NaN = unknown.
        facts: More entries of the side-car, plain data.
        camera: Intrinsics to keep with it.

    Returns:
        The files written.

    Raises:
        ExportError: The disk is full or read-only, or what was read back differs.
    """
    known = np.isfinite(depth_mm) & (depth_mm > 0)
    farthest = float(depth_mm[known].max()) if known.any() else 0.0
    steps = next((n for n in _STEPS_PER_MM if farthest * n <= _MOST), None)
    if steps is None:
        raise ExportError(f"Depths up to {farthest:.0f} mm do not fit into a 16-bit file.", "Check the unit.")
    stored = np.zeros(depth_mm.shape, dtype=np.uint16)
    stored[known] = np.clip(np.rint(depth_mm[known].astype(np.float64) * steps), 1, _MOST).astype(np.uint16)
    scale = DepthScale(
        "medapp", "medapp", "mm", 1 / steps, camera=camera, camera_model="pinhole" if camera is not None else ""
    )
    exact = np.where(known, depth_mm, np.nan).astype(np.float32)
    png, tiff = folder / f"{stem}.png", folder / f"{stem}.tiff"
    written = []
    for path, image, kept in ((png, stored, scale), (tiff, exact, replace(scale, scale=1.0))):
        record = {**kept.record(), "unknown_pixels": int(depth_mm.size - known.sum())}
        text = json.dumps({**(facts or {}), "depth": record}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        _write(side_car_of(path), text.encode())
        _write(path, _encoded(Image.fromarray(image), path.suffix[1:].upper()))
        written += [path, side_car_of(path)]
    again = read_depth(png).depth_mm
    if not np.array_equal(np.isfinite(again), known) or (
        known.any() and float(np.abs(again - exact)[known].max()) > 1.0 / steps
    ):
        raise ExportError("The depth file read back differently from what was written.", "Check the disk.")
    return tuple(written)


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: beside, fsync, read back, rename."""
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError("The folder could not be made.", "Choose another folder.") from error
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if beside.read_bytes() != data:
            raise ExportError(f"{path.name} read back differently from what was written.", "Check the disk.")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ExportError(
            f"{path.name} could not be written: {error.strerror or 'I/O error'}.", "Choose another folder."
        ) from error
