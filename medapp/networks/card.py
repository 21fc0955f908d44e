"""The card beside each weights file: what the model is, what it takes, what it was made of, how good it is.

A card is data, validated, never code. This module imports no torch, so that any process may read cards.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from medapp.errors import WeightsError
from medapp.naming import with_version

FORMAT = 2
ROUGH_MASK = "rough_mask"
INPUTS = ("region_map", "sparse_depth", ROUGH_MASK)
"""What a network may need beside the image: keyword arguments of its ``forward``; a rough mask is one more channel of
the image, after ``channels`` others (``medapp.matting.rough``)."""
SERVES = ("restoration", "regions", "matting", "depth")
"""What a person uses a model for."""
MR_SUPER_RESOLUTION = "mr-super-resolution"
"""The task whose networks keep the grid: slices are brought onto the finer one before, by zero-filling k-space."""
ALL_IN_ONE = "all-in-one"
"""The task of one network for several kinds of scans; of MR it does what ``MR_SUPER_RESOLUTION`` says."""
OF_AN_INTAKE = ("scale", "spacing_mm", "extent_mm", "min_side_px")
"""Entries of a card that one kind of scan may have of its own."""
FIRST_FILTERS = ("nlm", "tv")
"""Classical filters that may begin what a network for ``MR_SUPER_RESOLUTION`` goes on with."""
PET_SYNTHESIS = "pet-synthesis"
"""The task whose results are called Synthetic PET."""
MAX_BYTES = 1_000_000
MAX_SCALE = 8
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Intake:
    """One kind of scan that a model takes, and how its values become what the network sees.

    Attributes:
        modality: DICOM code.
        unit: ``HU``, ``SUV``, ``arbitrary``, ``intensity`` or ``colour``.
        value_range: Native values ``(low, high)`` it was made for; others pass unchanged.
        network_range: What the network sees for ``value_range``.
        curve: ``linear``, or ``log``: the values above ``low`` enter as ln(1 + value), scaled alike.
        limits: ``fixed``: ``value_range`` is in native values. ``percentiles``: it stands for the 0.5 and 99.5
            percentile of the finite values of each slice that is given; values beyond are extrapolated, so nothing is
            clipped or held back, and a slice without spread passes unchanged.
        scale, spacing_mm, extent_mm, min_side_px: Where this kind of scan differs from what the card says for all of
            them; None = it does not.
        first_filter: One of ``FIRST_FILTERS``: on the finer grid it takes turns with the measured k-space before the
            network sees the slice; None = the network sees the zero-filled slice.
    """

    modality: str
    unit: str
    value_range: tuple[float, float]
    network_range: tuple[float, float] = (0.0, 1.0)
    curve: str = "linear"
    limits: str = "fixed"
    scale: int | None = None
    spacing_mm: tuple[float, float] | None = None
    extent_mm: float | None = None
    min_side_px: int | None = None
    first_filter: str | None = None


@dataclass(frozen=True)
class Card:
    """Everything about a model except its weights.

    Attributes:
        id: Also the stem of its files.
        name: What people read.
        version: Text, such as ``1``.
        architecture: Name in the registry; ``config`` holds its constructor arguments.
        task: Such as ``ct-denoise``.
        takes: The kinds of scans it takes, one a modality; empty where any slice is taken as shown (regions,
            matting).
        sha256: Of the weights file.
        serves: What a person uses it for; one of ``SERVES``.
        inputs: What it needs beside the image; of ``INPUTS``.
        region_engine: Name of what found the regions in training, such as ``region tree``; empty where it needs none.
        channels: 1 for grey, 3 for colour.
        dims: 2 for slices, 3 for volumes.
        size_multiple: Each side is padded to multiples of it.
        spacing_mm: In-plane pixel sizes ``(low, high)`` of the results it was trained for; None when unknown.
        extent_mm: Largest in-plane side of what it was trained on, for models trained on crops; None = whole slices.
        min_side_px: Smaller slices are refused.
        scale: How many times finer the result's grid is in-plane.
        precision: ``float32`` where bf16 was measured to be unsafe; ``auto`` = measure before the first slice.
        data: What it was trained on, one entry a collection, with ``name``, ``licence``, ``patients``, ``slices``.
        figures: Measured results with their conditions.
        limits: Sentences a user should know.
        degradation: How its training pairs were made, with ``kind`` and the kind's parameters; retraining makes new
            pairs in the same way.
        training: How it was made: recipe, data hash, budget, machine.
        licence: Of the weights.
    """

    id: str
    name: str
    version: str
    architecture: str
    task: str
    takes: tuple[Intake, ...]
    sha256: str
    config: Mapping[str, Any] = field(default_factory=dict)
    serves: str = "restoration"
    inputs: tuple[str, ...] = ()
    region_engine: str = ""
    channels: int = 1
    dims: int = 2
    size_multiple: int = 8
    spacing_mm: tuple[float, float] | None = None
    extent_mm: float | None = None
    min_side_px: int = 32
    scale: int = 1
    precision: str = "auto"
    data: tuple[Mapping[str, Any], ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    degradation: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    format: int = FORMAT

    def summary(self) -> dict[str, Any]:
        """Plain data for lists, provenance and other processes."""
        return json.loads(self.to_json())

    def to_json(self) -> str:
        """Readable JSON text; ``parse_card`` reads it back."""
        entries = asdict(self)
        for intake in entries["takes"]:
            for key in [key for key in (*OF_AN_INTAKE, "first_filter") if intake[key] is None]:
                del intake[key]
        return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"

    @property
    def title(self) -> str:
        """Name and version, as chips show them."""
        return with_version(self.name, self.version)

    def intake(self, modality: str | None) -> Intake | None:
        """How scans of a modality enter; None when it does not take them."""
        return next((intake for intake in self.takes if intake.modality == modality), None)

    def narrowed(self, modality: str | None) -> Card:
        """The card of the same model for one kind of scan, with what differs for it; itself for kinds not taken."""
        intake = self.intake(modality)
        if intake is None:
            return self
        own = {key: value for key in OF_AN_INTAKE if (value := getattr(intake, key)) is not None}
        return replace(self, takes=(intake,), **own)

    @property
    def fills_kspace(self) -> bool:
        """Slices are brought onto the finer grid before the network sees them; asked of a card of one kind of scan."""
        is_mr = self.task == MR_SUPER_RESOLUTION or (self.task == ALL_IN_ONE and self.modalities == ("MR",))
        return is_mr and self.scale > 1 and int(self.config.get("scale", 1)) == 1

    @property
    def modalities(self) -> tuple[str, ...]:
        """DICOM codes of what it takes."""
        return tuple(intake.modality for intake in self.takes)


def read_card(path: Path) -> Card:
    """Read and check a card file.

    Raises:
        WeightsError: It cannot be read, or something in it is missing, surplus or of the wrong kind.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError("The card of this model is far too large", "A card is a short JSON file")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError("The card of this model cannot be read", "Keep the .json file beside the weights") from error
    return parse_card(text)


def parse_card(text: str) -> Card:
    """Check the JSON text of a card.

    Raises:
        WeightsError: Something is missing, surplus or of the wrong kind; the message names it.
    """
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError("The card of this model is not JSON", "Compare it with a card in models/") from error
    if not isinstance(entries, dict):
        raise WeightsError("The card of this model is not a JSON object", "Compare it with a card in models/")
    if entries.get("format", FORMAT) == 1:
        entries = _from_format_1(entries)
    if entries.get("format", FORMAT) != FORMAT:
        raise WeightsError("The card of this model was written for a newer medapp", "Update medapp")
    known = {entry.name for entry in fields(Card)}
    required = known & {entry.name for entry in fields(Card) if entry.default is entry.default_factory}
    missing, surplus = sorted(required - set(entries)), sorted(set(entries) - known)
    if missing or surplus:
        what = [
            f"{label} {', '.join(keys[:5])}" for label, keys in (("missing", missing), ("unknown", surplus)) if keys
        ]
        raise WeightsError(f"The card of this model has entries {'; '.join(what)}", "Compare it with a card in models/")
    problem = _problem(entries)
    if problem:
        raise WeightsError(f"The card of this model is not valid: {problem}", "Compare it with a card in models/")
    if entries.get("spacing_mm") is not None:
        entries["spacing_mm"] = _pair(entries["spacing_mm"])
    if entries.get("extent_mm") is not None:
        entries["extent_mm"] = float(entries["extent_mm"])
    entries["takes"] = tuple(_intake(intake) for intake in entries["takes"])
    for key in ("data", "limits", "inputs"):
        entries[key] = tuple(entries.get(key, ()))
    return Card(**entries)


def _intake(entries: Mapping[str, Any]) -> Intake:
    ranges = {
        key: _pair(value)
        for key, value in entries.items()
        if key.endswith("_range") or (key == "spacing_mm" and value is not None)
    }
    return Intake(**{**entries, **ranges})


def _pair(values: Any) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _from_format_1(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Cards of format 1 took one modality and stood for restorers, or for SAM."""
    moved = ("modality", "unit", "value_range", "network_range")
    kept = {key: value for key, value in entries.items() if key not in moved}
    serves = "regions" if entries.get("architecture") == "sam" else "restoration"
    intake = {key: entries[key] for key in moved if key in entries}
    return {**kept, "takes": [] if serves == "regions" else [intake], "serves": serves, "format": FORMAT}


def _problem(entries: Mapping[str, Any]) -> str:
    """The first thing wrong with a card's entries; empty when all is well."""
    texts = ("id", "name", "version", "architecture", "task", "serves", "region_engine", "sha256", "licence")
    for key in texts:
        if not isinstance(entries.get(key, ""), str):
            return f"'{key}' must be text"
    if not _ID.fullmatch(entries["id"]) or ".." in entries["id"]:
        return "'id' must be short lower-case letters, digits, dots and dashes"
    if not _SHA256.fullmatch(entries["sha256"]):
        return "'sha256' must be 64 hexadecimal digits"
    if entries.get("serves", "restoration") not in SERVES:
        return f"'serves' must be one of {', '.join(SERVES)}"
    if not all(entry in INPUTS for entry in _list_of(entries, "inputs")):
        return f"'inputs' must be a list out of {', '.join(INPUTS)}"
    problem = _intake_problem(entries["takes"], may_be_empty=entries.get("serves") in ("regions", "matting"))
    if problem:
        return problem
    if entries.get("precision", "auto") not in ("auto", "float32"):
        return "'precision' must be auto or float32"
    if entries.get("channels", 1) not in (1, 3):
        return "'channels' must be 1 or 3"
    if entries.get("dims", 2) not in (2, 3):
        return "'dims' must be 2 or 3"
    scales = [entries.get("scale", 1), *(intake.get("scale") for intake in entries["takes"])]
    for told in (entries, *entries["takes"]):
        problem = _size_problem(told)
        if problem:
            return problem
    if any(scale is not None and scale > 1 for scale in scales) and entries.get("dims", 2) != 2:
        return "'scale' is for models of slices"
    for key in ("config", "figures", "training", "degradation"):
        if not isinstance(entries.get(key, {}), dict):
            return f"'{key}' must be an object"
    if not all(isinstance(entry, dict) for entry in _list_of(entries, "data")):
        return "'data' must be a list of objects"
    if not all(isinstance(entry, str) for entry in _list_of(entries, "limits")):
        return "'limits' must be a list of sentences"
    return ""


def _size_problem(entries: Mapping[str, Any]) -> str:
    """The first thing wrong with sizes, of a card or of one kind of scan."""
    spacing, extent = entries.get("spacing_mm"), entries.get("extent_mm")
    if spacing is not None and not _is_range(spacing, may_be_one=True):
        return "'spacing_mm' must be two rising numbers"
    if extent is not None and not (_is_number(extent) and extent > 0):
        return "'extent_mm' must be a length"
    is_intake = "modality" in entries
    for key in ("size_multiple", "min_side_px", "scale"):
        value, most = entries.get(key, None if is_intake else 1), MAX_SCALE if key == "scale" else 4096
        if value is None and is_intake:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            return f"'{key}' must be a whole number from 1 to {most}"
    return ""


def _intake_problem(takes: Any, may_be_empty: bool) -> str:
    """The first thing wrong with the list of what a model takes."""
    if (
        not isinstance(takes, list)
        or not (takes or may_be_empty)
        or not all(isinstance(intake, dict) for intake in takes)
    ):
        return "'takes' must be a list of objects, one a modality"
    keys = {entry.name for entry in fields(Intake)}
    for intake in takes:
        missing, surplus = {"modality", "unit", "value_range"} - set(intake), set(intake) - keys
        if missing or surplus:
            return f"'takes' has entries {', '.join(sorted(missing | surplus))} missing or unknown"
        if not isinstance(intake["modality"], str) or not isinstance(intake["unit"], str):
            return "'modality' and 'unit' must be text"
        for key in ("value_range", "network_range"):
            if key in intake and not _is_range(intake[key]):
                return f"'{key}' must be two rising numbers"
        if intake.get("curve", "linear") not in ("linear", "log"):
            return "'curve' must be linear or log"
        if intake.get("limits", "fixed") not in ("fixed", "percentiles"):
            return "the 'limits' of what it takes must be fixed or percentiles"
        if intake.get("limits") == "percentiles" and intake.get("curve") == "log":
            return "'limits' in percentiles go with a linear 'curve' only"
        if intake.get("first_filter") not in (None, *FIRST_FILTERS):
            return f"'first_filter' must be one of {', '.join(FIRST_FILTERS)}"
    if len({intake["modality"] for intake in takes}) < len(takes):
        return "'takes' names a modality twice"
    return ""


def _list_of(entries: Mapping[str, Any], key: str) -> list[Any]:
    value = entries.get(key, [])
    return value if isinstance(value, list) else [None]


def _is_range(value: Any, may_be_one: bool = False) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(_is_number(v) for v in value)
        and (value[0] < value[1] or (may_be_one and value[0] == value[1]))
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
