"""Does a model fit a scan? One line why; needs no torch, so that any process may ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medapp.networks.card import Card
from medapp.scan.scan import Scan

EXTENT_LIMIT = 1.5
"""Models trained on crops take scans up to so many times their size."""
SMALLEST_SIDE_PX = 16
"""Of slices that come onto a finer grid: below it there is hardly a frequency to go on from."""
LARGEST_SIDE_PX = 8192
"""Of slices on a finer grid."""
_KINDS = {"SM": "slides (SM)", "GM": "microscopy (GM)", "ES": "endoscopy (ES)"}
_SILENT = {"OT", "SC"}
"""Codes of colour pictures that say nothing about what they show."""

Level = Literal["green", "amber", "blocked"]


@dataclass(frozen=True)
class ScanFacts:
    """What decides about a fit.

    Attributes:
        modality: DICOM code or None.
        unit: ``HU``, ``SUV``, ``arbitrary``...
        shape: ``(Z, Y, X)`` or ``(Z, Y, X, 3)``.
        spacing_mm: In-plane ``(y, x)``, or None.
    """

    modality: str | None
    unit: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, float] | None = None

    @property
    def is_colour(self) -> bool:
        """True for RGB."""
        return len(self.shape) == 4

    @classmethod
    def of(cls, scan: Scan) -> ScanFacts:
        """The facts of a scan."""
        return cls(scan.modality, scan.unit, scan.shape, scan.in_plane_spacing_mm)


@dataclass(frozen=True)
class Fit:
    """The verdict: ``green`` = go, ``amber`` = go with care, ``blocked`` = no; and one line why."""

    level: Level
    reason: str


def fit_card(facts: ScanFacts, card: Card, region_engine: str | None = None) -> Fit:
    """How a network fits a scan.

    Args:
        region_engine: What finds the regions for models that need them; None = not chosen yet.
    """
    intake = card.intake(facts.modality)
    made_for, kinds = " or ".join(_KINDS.get(code, code) for code in card.modalities), len(card.takes)
    is_said = intake is not None
    card = card.narrowed(facts.modality)
    if facts.is_colour != (card.channels == 3):
        return Fit("blocked", "made for grey images" if facts.is_colour else "made for colour images")
    if facts.modality is None and not facts.is_colour:
        return Fit("blocked", f"made for {made_for}; this scan does not say what it is")
    if intake is None and facts.modality is not None and facts.modality not in _SILENT:
        return Fit("blocked", f"made for {made_for}; this is {facts.modality}")
    intake = intake or card.takes[0]  # colour pictures rarely say what they are
    if facts.unit != intake.unit and not facts.is_colour:  # colours have no unit
        why = "; weight, dose or times are missing" if intake.unit == "SUV" and facts.unit != "HU" else ""
        return Fit("blocked", f"needs values in {intake.unit}; these are {_worded(facts.unit)}{why}")
    sides = facts.shape[:3] if card.dims == 3 else facts.shape[1:3]
    least = card.min_side_px if card.scale == 1 else max(SMALLEST_SIDE_PX, -(-card.min_side_px // card.scale))
    if min(sides) < least:
        where = "px and slices" if card.dims == 3 else "px"
        return Fit("blocked", f"needs at least {least} {where} a side; this has {min(sides)}")
    if card.scale > 1 and max(sides) * card.scale > LARGEST_SIDE_PX:
        made = f"{max(sides) * card.scale} px"
        return Fit("blocked", f"its result would be {made} wide, and {LARGEST_SIDE_PX} px is the most")
    too_large = _too_large(facts, card)
    if too_large is not None:
        return too_large
    if card.spacing_mm is not None:
        low, high = card.spacing_mm
        if facts.spacing_mm is None:
            return Fit("amber", "pixel size is not known")
        spacing = sum(facts.spacing_mm) / 2 / card.scale
        if not 0.9 * low <= spacing <= 1.1 * high:
            has = f"this has {spacing:.2f} mm" if card.scale == 1 else f"its result here has {spacing:.2f} mm"
            return Fit("amber", f"trained on {low:g} to {high:g} mm pixels; {has}")
    if "region_map" in card.inputs and region_engine is not None and region_engine != card.region_engine:
        trained = card.region_engine or "regions of an unknown engine"
        return Fit("amber", f"trained with {trained}; these regions are from {region_engine}")
    if not is_said:
        return Fit("amber", f"made for {made_for}; this picture does not say what it is")
    unit = f" {_worded(intake.unit)}" if kinds == 1 else ""
    return Fit("green", f"made for {made_for}{unit}")


def _too_large(facts: ScanFacts, card: Card) -> Fit | None:
    """What a model trained on crops says of scans that are much larger, such as whole bodies."""
    if card.extent_mm is None:
        return None
    if facts.spacing_mm is None:
        return Fit("amber", f"trained on crops of {card.extent_mm:.0f} mm; the size of this scan is not known")
    extent = max(side * spacing for side, spacing in zip(facts.shape[1:3], facts.spacing_mm, strict=True))
    if extent > EXTENT_LIMIT * card.extent_mm:
        return Fit("blocked", f"trained on crops of {card.extent_mm:.0f} mm; this scan is {extent:.0f} mm wide")
    return None


def fit_filter(facts: ScanFacts) -> Fit:
    """How a classical filter fits a scan: any grey one."""
    if facts.is_colour:
        return Fit("blocked", "made for grey images")
    if min(facts.shape[1:3]) < 8:
        return Fit("blocked", "needs at least 8 px a side")
    return Fit("green", "a filter, not a network: any grey image")


def _worded(unit: str) -> str:
    return "in an arbitrary unit" if unit == "arbitrary" else f"in {unit}"
