"""Workspaces: which panels are visible, and where they stand; kept per workspace."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass
from typing import Any

from medapp import paths

log = logging.getLogger(__name__)

LAYOUT_VERSION = 4


@dataclass(frozen=True)
class Workspace:
    """Visible docks and the default tool; data, zoom, slice and selection stay.

    Attributes:
        docks: Names of docks that are shown at first.
        front: The dock that is in front of those tabbed with it.
    """

    name: str
    docks: tuple[str, ...]
    front: str
    tool: str


WORKSPACES = (
    Workspace("review", ("library", "info", "history"), "info", "navigate"),
    Workspace("restore", ("library", "restore", "model", "depth_map", "info"), "restore", "navigate"),
    Workspace("annotate", ("library", "layers", "proposals", "history"), "proposals", "prompt"),
    Workspace("curate", (), "", "navigate"),
    Workspace("train", (), "", "navigate"),
)


def by_name(name: str) -> Workspace:
    """A workspace; the first one when there is none of that name."""
    return next((workspace for workspace in WORKSPACES if workspace.name == name), WORKSPACES[0])


class LayoutKeeper:
    """Window layouts in the configuration folder; a damaged file counts as none."""

    def __init__(self) -> None:
        self._file = paths.config_dir() / "layout.json"
        self._kept: dict[str, Any] = {}
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
            if isinstance(kept, dict) and kept.get("version") == LAYOUT_VERSION:
                self._kept = kept
        except FileNotFoundError:
            pass
        except (OSError, ValueError):
            log.warning("the layout file is unreadable; using the first layout")

    def get(self, name: str) -> bytes | None:
        """What was kept under a name."""
        text = self._kept.get(name)
        try:
            return base64.b64decode(text) if isinstance(text, str) else None
        except ValueError:
            return None

    def text(self, name: str) -> str:
        """A plain value."""
        return str(self._kept.get(name, ""))

    def docks(self, workspace: str) -> dict[str, list[int]] | None:
        """Docks that were visible in a workspace: name to width, height, whether in front."""
        kept = self._kept.get(f"docks {workspace}")
        if not isinstance(kept, dict):
            return None
        sound = all(isinstance(v, list) and len(v) == 3 and all(isinstance(n, int) for n in v) for v in kept.values())
        return dict(kept) if sound else None

    def put_docks(self, workspace: str, kept: dict[str, list[int]] | None) -> None:
        """Keep or forget the docks of a workspace."""
        if kept is None:
            self._kept.pop(f"docks {workspace}", None)
        else:
            self._kept[f"docks {workspace}"] = kept

    def put(self, name: str, value: bytes | str | None) -> None:
        """Keep or forget something."""
        if value is None:
            self._kept.pop(name, None)
        else:
            self._kept[name] = base64.b64encode(value).decode() if isinstance(value, bytes) else value

    def save(self) -> None:
        """Write everything that is kept."""
        self._kept["version"] = LAYOUT_VERSION
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside = self._file.with_suffix(".tmp")
            beside.write_text(json.dumps(self._kept), encoding="utf-8")
            beside.replace(self._file)
        except OSError:
            log.warning("the layout could not be written")
