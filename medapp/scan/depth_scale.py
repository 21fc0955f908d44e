"""What the numbers of a depth file mean: presets by name, or unit, scale and offset in so many words.

Wrong units dominate every other error of a depth map, so that a scale is stated by a person or a side-car, never
guessed from the numbers.

Reference:
    The published code and threads of each data set, collected in the specification of the depth files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medapp.errors import DepthScaleError
from medapp.scan.camera import Camera

UNITS_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001}
KINDS = ("z", "ray")


@dataclass(frozen=True)
class DepthScale:
    """How stored numbers become millimetres: ``mm = (stored * scale + offset) * millimetres of the unit``.

    Attributes:
        name: Preset, ``stated`` or ``side-car``.
        title: What a list says.
        unit: ``mm``, ``cm``, ``m``, ``um``, or ``relative``: no lengths can be had.
        scale, offset: In that unit.
        kind: ``z`` = along the axis of the camera, ``ray`` = along the line of sight.
        invalid: Stored numbers that mean unknown; NaN always does.
        range_mm: Depths outside are unknown; None = all count.
        channel: Of an image with several; None = it must have one.
        dtype: ``uint16`` or ``float32`` where the data set says so; empty = any.
        camera: Known intrinsics; None otherwise.
        camera_model: ``pinhole``, ``fisheye`` or empty.
    """

    name: str
    title: str
    unit: str
    scale: float = 1.0
    offset: float = 0.0
    kind: str = "z"
    invalid: tuple[float, ...] = (0.0,)
    range_mm: tuple[float, float] | None = None
    channel: int | None = None
    dtype: str = ""
    camera: Camera | None = None
    camera_model: str = ""

    @property
    def mm_per_step(self) -> float:
        """Millimetres that one stored step means."""
        return self.scale * UNITS_MM[self.unit]

    @property
    def offset_mm(self) -> float:
        """Millimetres that a stored 0 means."""
        return self.offset * UNITS_MM[self.unit]

    def agrees_with(self, other: DepthScale) -> bool:
        """The same millimetres for the same numbers."""
        return (
            math.isclose(self.mm_per_step, other.mm_per_step, rel_tol=1e-6)
            and math.isclose(self.offset_mm, other.offset_mm, abs_tol=1e-6)
            and self.kind == other.kind
        )

    def record(self) -> dict[str, Any]:
        """Plain data that travels with every depth map read by it."""
        return {
            "preset": self.name,
            "unit": self.unit,
            "scale": self.scale,
            "offset": self.offset,
            "kind": self.kind,
            "invalid": list(self.invalid),
            "camera_model": self.camera_model or ("pinhole" if self.camera else ""),
            "camera": self.camera.as_dict() if self.camera else None,
        }

    def words(self) -> str:
        """``mm = value x 0.003906``."""
        if self.unit == "relative":
            return "relative, no lengths"
        offset = f" + {self.offset_mm:.4g}" if self.offset else ""
        return f"mm = value × {self.mm_per_step:.4g}{offset}"


_SIMCOL_CAMERA = Camera(227.6, 237.5, 227.6, 237.5, 475, 475, "SimCol3D")

PRESETS: Mapping[str, DepthScale] = {
    scale.name: scale
    for scale in (
        DepthScale("mm", "Millimetres as they are (RealSense, ScanNet)", "mm"),
        DepthScale("c3vd", "C3VD", "mm", 100 / 65535, invalid=(0.0, 65535.0), dtype="uint16", camera_model="fisheye"),
        DepthScale("scared", "SCARED key frames (X, Y, Z)", "mm", channel=2, dtype="float32"),
        DepthScale("scared-toolkit", "SCARED toolkit, value / 256", "mm", 1 / 256, dtype="uint16"),
        DepthScale("scared-toolkit-128", "SCARED toolkit, value / 128", "mm", 1 / 128, dtype="uint16"),
        DepthScale("hamlyn", "Hamlyn, rectified", "mm", range_mm=(1.0, 300.0), dtype="uint16"),
        DepthScale(
            "simcol3d",
            "SimCol3D",
            "cm",
            20 / (255 * 256),
            dtype="uint16",
            camera=_SIMCOL_CAMERA,
            camera_model="pinhole",
        ),
        DepthScale("kitti", "KITTI, metres = value / 256", "m", 1 / 256, dtype="uint16"),
        DepthScale("endoslam", "EndoSLAM (relative, no lengths)", "relative", 1 / 255, channel=0),
    )
}


def side_car_of(path: Path) -> Path:
    """The JSON file that may lie beside a depth file and state its scale: ``depth.png.json``."""
    return path.with_name(f"{path.name}.json")


def hint_of_presets() -> str:
    """What to do when no scale was stated."""
    return f"State it: --preset {', '.join(PRESETS)}, or such as unit=mm,scale=0.02"


def parse_scale(text: str) -> DepthScale:
    """A preset by its name, or ``unit=mm,scale=0.02[,offset=0][,kind=z][,invalid=0;65535]``.

    Raises:
        DepthScaleError: Neither; or a unit, number or kind that cannot be.
    """
    text = text.strip()
    if not text:
        raise DepthScaleError("Nobody stated what the numbers of this depth file mean.", hint_of_presets())
    if text in PRESETS:
        return PRESETS[text]
    entries: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise DepthScaleError(f"There is no depth preset '{text[:40]}'.", hint_of_presets())
        entries[key.strip()] = value.strip()
    return scale_of({**entries, "invalid": [v for v in entries.get("invalid", "0").split(";") if v]}, "stated")


def scale_of(entries: Mapping[str, Any], name: str) -> DepthScale:
    """The scale that a record states in full.

    Raises:
        DepthScaleError: Unit or scale is missing, or something in it cannot be.
    """
    unit, kind = str(entries.get("unit", "")), str(entries.get("kind", "z"))
    surplus = set(entries) - {"unit", "scale", "offset", "kind", "invalid", "camera", "camera_model", "preset"}
    if surplus:
        raise DepthScaleError(f"'{min(surplus)[:20]}' says nothing about a depth scale.", hint_of_presets())
    if unit == "relative":
        return replace(PRESETS["endoslam"], name=name, channel=None)
    if unit not in UNITS_MM or "scale" not in entries:
        raise DepthScaleError(f"A depth scale needs a unit ({', '.join(UNITS_MM)}) and a scale.", hint_of_presets())
    try:
        scale, offset = float(entries["scale"]), float(entries.get("offset") or 0.0)
        invalid = tuple(float(value) for value in entries.get("invalid", (0.0,)))
    except (TypeError, ValueError) as error:
        raise DepthScaleError("The depth scale is not a number.", hint_of_presets()) from error
    if not math.isfinite(scale) or scale <= 0 or not math.isfinite(offset) or kind not in KINDS:
        raise DepthScaleError("The scale must be above 0, the offset a number, the kind z or ray.", hint_of_presets())
    camera = Camera.from_dict(entries["camera"]) if entries.get("camera") else None
    return DepthScale(
        name, "As stated", unit, scale, offset, kind, invalid, camera=camera,
        camera_model=str(entries.get("camera_model") or ""),
    )  # fmt: skip
