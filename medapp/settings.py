"""Typed settings of one user, kept as JSON; unknown keys survive, bad values fall back to the default."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from medapp import paths

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What one person prefers.

    Attributes:
        theme: Follow the system, or always light or dark.
        reader: The person annotating; goes into every revision.
        device: Where networks run.
        hide_identity: Names, ids and dates hidden on screen and in screenshots.
        reduced_motion: No flicker, no animation.
        undo_memory_mb: Memory for undo steps.
        hints_seen: First-run hints that were dismissed.
        recent_projects: Newest first.
        brush_radius_px, brush_hardness, brush_flow, brush_opacity: Last used brush.
        shortcuts: Changed keys by action name.
        sam_model: The SAM model for clicks, or empty for the region tree.
        matting_model: The matting model for clicks and boxes, before ``sam_model``; empty for none.
        matting_count: How many masks it draws.
        matting_mean_first: Its first mask is the most likely one.
    """

    theme: Literal["system", "light", "dark"] = "system"
    reader: str = ""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    hide_identity: bool = False
    reduced_motion: bool = False
    undo_memory_mb: int = 512
    hints_seen: tuple[str, ...] = ()
    recent_projects: tuple[str, ...] = ()
    brush_radius_px: float = 12.0
    brush_hardness: float = 0.5
    brush_flow: float = 1.0
    brush_opacity: float = 1.0
    shortcuts: dict[str, str] = field(default_factory=dict)
    sam_model: str = ""
    matting_model: str = ""
    matting_count: int = 8
    matting_mean_first: bool = False

    def with_recent(self, project: Path) -> Settings:
        """The same settings with a project at the head of the recent ones."""
        others = tuple(p for p in self.recent_projects if p != str(project))
        return replace(self, recent_projects=(str(project), *others)[:10])


def _file() -> Path:
    return paths.config_dir() / "settings.json"


def load() -> Settings:
    """Read the settings; a missing or damaged file gives the defaults."""
    try:
        raw: dict[str, Any] = json.loads(_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError):
        log.warning("the settings file is unreadable; using defaults")
        return Settings()
    defaults = Settings()
    known: dict[str, Any] = {}
    for item in fields(Settings):
        if item.name not in raw:
            continue
        value, default = raw[item.name], getattr(defaults, item.name)
        if isinstance(default, tuple) and isinstance(value, list):
            known[item.name] = tuple(str(v) for v in value)
        elif isinstance(default, float) and isinstance(value, int | float) and not isinstance(value, bool):
            known[item.name] = float(value)
        elif type(value) is type(default):
            known[item.name] = value
    return replace(defaults, **known)


def save(settings: Settings) -> None:
    """Write the settings whole or not at all."""
    target = _file()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".tmp")
    beside.write_text(json.dumps(asdict(settings), indent=2, ensure_ascii=False), encoding="utf-8")
    beside.replace(target)
