"""Does a model fit a scan? One line why; needs no torch, so that any process may ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medapp.networks.card import Card
from medapp.scan.scan import Scan

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


def fit_card(facts: ScanFacts, card: Card) -> Fit:
    """How a network fits a scan."""
    if facts.is_colour != (card.channels == 3):
        return Fit("blocked", "made for grey images" if facts.is_colour else "made for colour images")
    if facts.modality is None:
        return Fit("blocked", f"made for {card.modality}; this scan does not say what it is")
    if facts.modality != card.modality:
        return Fit("blocked", f"made for {card.modality}; this is {facts.modality}")
    if facts.unit != card.unit:
        return Fit("blocked", f"needs values in {card.unit}; these are {_worded(facts.unit)}")
    side = min(facts.shape[1:3])
    if side < card.min_side_px:
        return Fit("blocked", f"needs at least {card.min_side_px} px a side; this has {side}")
    if card.spacing_mm is not None:
        low, high = card.spacing_mm
        if facts.spacing_mm is None:
            return Fit("amber", "pixel size is not known")
        spacing = sum(facts.spacing_mm) / 2
        if not 0.9 * low <= spacing <= 1.1 * high:
            return Fit("amber", f"trained on {low:g} to {high:g} mm pixels; this has {spacing:.2f} mm")
    return Fit("green", f"made for {card.modality} in {card.unit}")


def fit_filter(facts: ScanFacts) -> Fit:
    """How a classical filter fits a scan: any grey one."""
    if facts.is_colour:
        return Fit("blocked", "made for grey images")
    if min(facts.shape[1:3]) < 8:
        return Fit("blocked", "needs at least 8 px a side")
    return Fit("green", "a filter, not a network: any grey image")


def _worded(unit: str) -> str:
    return "in an arbitrary unit" if unit == "arbitrary" else f"in {unit}"
