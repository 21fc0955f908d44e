"""Every test gets its own home folder, an offscreen window system and one compute thread."""

from __future__ import annotations

import os

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QT_API", "pyside6")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    """Settings, projects, models and cache of a test never touch the person's."""
    monkeypatch.setenv("MEDAPP_HOME", str(tmp_path_factory.mktemp("home")))
