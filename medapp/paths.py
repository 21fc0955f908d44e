"""Where things are: shipped resources and models, user data, cache, logs, shared test data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from platformdirs import PlatformDirs

_DIRS = PlatformDirs("medapp", appauthor=False)


def _shipped(name: str) -> Path:
    """Inside the wheel (or the frozen build) first, then at the root of the checkout."""
    bundle = getattr(sys, "_MEIPASS", None)
    roots = [Path(bundle) / "medapp" / "shipped"] if bundle else []
    package = Path(__file__).resolve().parent
    roots += [package / "shipped", package.parent]
    for root in roots:
        if (root / name).is_dir():
            return root / name
    return package.parent / name


def resources_dir() -> Path:
    """Style sheet, label sets, glyphs."""
    return _shipped("resources")


def shipped_models_dir() -> Path:
    """The weights and cards that come with medapp; read-only."""
    return _shipped("models")


def user_data_dir() -> Path:
    """Everything of this user; ``MEDAPP_HOME`` moves it (tests, portable installs)."""
    home = os.environ.get("MEDAPP_HOME")
    return Path(home) / "data" if home else Path(_DIRS.user_data_dir)


def user_models_dir() -> Path:
    """Imported and retrained models."""
    return user_data_dir() / "models"


def projects_dir() -> Path:
    """Where new projects go unless the user chooses otherwise."""
    return user_data_dir() / "projects"


def cache_dir() -> Path:
    """What can be made again: embeddings, thumbnails."""
    home = os.environ.get("MEDAPP_HOME")
    return Path(home) / "cache" if home else Path(_DIRS.user_cache_dir)


def config_dir() -> Path:
    """Settings of this user."""
    home = os.environ.get("MEDAPP_HOME")
    return Path(home) / "config" if home else Path(_DIRS.user_config_dir)


def log_file() -> Path:
    """The log; holds no patient's name or id."""
    home = os.environ.get("MEDAPP_HOME")
    return (Path(home) / "log" if home else Path(_DIRS.user_log_dir)) / "medapp.log"


def shared_data_dir() -> Path:
    """Training and evaluation data beside the checkout: ``$MEDAPP_SHARED/data``, default ``../shared/data``."""
    shared = os.environ.get("MEDAPP_SHARED")
    root = Path(shared) if shared else Path(__file__).resolve().parent.parent.parent / "shared"
    return root / "data"
