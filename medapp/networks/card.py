"""The card beside each weights file: what the model is, what it takes, what it was made of, how good it is.

A card is data, validated, never code. This module imports no torch, so that any process may read cards.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from medapp.errors import WeightsError

FORMAT = 1
MAX_BYTES = 1_000_000
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Card:
    """Everything about a model except its weights.

    Attributes:
        id: Also the stem of its files.
        name: What people read.
        version: Text, such as ``1``.
        architecture: Name in the registry; ``config`` holds its constructor arguments.
        task: Such as ``ct-denoise``.
        modality: DICOM code of the scans it takes.
        unit: Of the scans it takes: ``HU``, ``SUV``, ``arbitrary``.
        value_range: Native values ``(low, high)`` it was made for; others pass unchanged.
        network_range: What the network sees for ``value_range``; the map is linear.
        sha256: Of the weights file.
        channels: 1 for grey, 3 for colour.
        size_multiple: Height and width are padded to multiples of it.
        spacing_mm: In-plane pixel sizes ``(low, high)`` it was trained on; None when unknown.
        min_side_px: Smaller slices are refused.
        precision: ``float32`` where bf16 was measured to be unsafe; ``auto`` = measure before the first slice.
        data: What it was trained on, one entry a collection, with ``name``, ``licence``, ``patients``, ``slices``.
        figures: Measured results with their conditions.
        limits: Sentences a user should know.
        training: How it was made: recipe, data hash, budget, machine.
        licence: Of the weights.
    """

    id: str
    name: str
    version: str
    architecture: str
    task: str
    modality: str
    unit: str
    value_range: tuple[float, float]
    network_range: tuple[float, float]
    sha256: str
    config: Mapping[str, Any] = field(default_factory=dict)
    channels: int = 1
    size_multiple: int = 8
    spacing_mm: tuple[float, float] | None = None
    min_side_px: int = 32
    precision: str = "auto"
    data: tuple[Mapping[str, Any], ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    format: int = FORMAT

    def summary(self) -> dict[str, Any]:
        """Plain data for lists, provenance and other processes."""
        return json.loads(self.to_json())

    def to_json(self) -> str:
        """Readable JSON text; ``parse_card`` reads it back."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @property
    def title(self) -> str:
        """Name and version, as chips show them."""
        return f"{self.name} {self.version}"


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
    for key in ("value_range", "network_range", "spacing_mm"):
        if entries.get(key) is not None:
            entries[key] = (float(entries[key][0]), float(entries[key][1]))
    for key in ("data", "limits"):
        entries[key] = tuple(entries.get(key, ()))
    return Card(**entries)


def _problem(entries: Mapping[str, Any]) -> str:
    """The first thing wrong with a card's entries; empty when all is well."""
    texts = ("id", "name", "version", "architecture", "task", "modality", "unit", "sha256", "licence")
    for key in texts:
        if not isinstance(entries.get(key, ""), str):
            return f"'{key}' must be text"
    if not _ID.fullmatch(entries["id"]) or ".." in entries["id"]:
        return "'id' must be short lower-case letters, digits, dots and dashes"
    if not _SHA256.fullmatch(entries["sha256"]):
        return "'sha256' must be 64 hexadecimal digits"
    for key in ("value_range", "network_range", "spacing_mm"):
        value = entries.get(key)
        if value is None and key == "spacing_mm":
            continue
        if not _is_range(value, may_be_one=key == "spacing_mm"):
            return f"'{key}' must be two rising numbers"
    if entries.get("precision", "auto") not in ("auto", "float32"):
        return "'precision' must be auto or float32"
    if entries.get("channels", 1) not in (1, 3):
        return "'channels' must be 1 or 3"
    for key in ("size_multiple", "min_side_px"):
        value = entries.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
            return f"'{key}' must be a number of pixels"
    for key in ("config", "figures", "training"):
        if not isinstance(entries.get(key, {}), dict):
            return f"'{key}' must be an object"
    if not all(isinstance(entry, dict) for entry in _list_of(entries, "data")):
        return "'data' must be a list of objects"
    if not all(isinstance(entry, str) for entry in _list_of(entries, "limits")):
        return "'limits' must be a list of sentences"
    return ""


def _list_of(entries: Mapping[str, Any], key: str) -> list[Any]:
    value = entries.get(key, [])
    return value if isinstance(value, list) else [None]


def _is_range(value: Any, may_be_one: bool) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
        and (value[0] < value[1] or (may_be_one and value[0] == value[1]))
    )
