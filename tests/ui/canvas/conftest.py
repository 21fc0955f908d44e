from __future__ import annotations

import os
from types import SimpleNamespace

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import numpy as np
import pytest

from medapp.annotation.annotation import Annotation
from medapp.scan.geometry import Geometry
from medapp.scan.scan import Scan, Window
from medapp.ui.canvas.viewport_grid import ViewportGrid
from medapp.ui.document import Document


def make_scan(shape=(12, 60, 80), spacing_mm=(3.0, 1.0, 1.0), **changes) -> Scan:
    """A CT whose voxels tell their own index: value = 100 z + y + x / 100 in HU, rounded."""
    z, y, x = np.indices(shape)
    fields = {
        "stored": (100 * z + 10 * (y // 6) + x // 10).astype(np.int16),
        "geometry": Geometry.from_spacing(spacing_mm),
        "modality": "CT",
        "unit": "HU",
    }
    return Scan(**(fields | changes))


def open_scan(document: Document, scan: Scan, processed: Scan | None = None, kind: str = "restored", **changes) -> None:
    """Put a scan on screen as the window does."""
    info = SimpleNamespace(series_id="s1", source_id=None, kind="original", title="Abdomen", provenance={})
    processed_info = SimpleNamespace(
        series_id="s2", source_id="s1", kind=kind, title="R", provenance={"model": "Restore-RWKV", "version": "1"}
    )
    document.show_series(
        info,
        scan,
        scan,
        Annotation("s1", scan.shape[:3]),
        processed=processed,
        processed_info=processed_info if processed is not None else None,
        window=changes.get("window", Window(600.0, 1300.0)),
        value_range=(0.0, 1300.0),
    )


@pytest.fixture
def document(qapp) -> Document:
    return Document()


@pytest.fixture
def grid(qtbot, document) -> ViewportGrid:
    """A shown grid of 620 x 480 points with one viewport over a small CT."""
    grid = ViewportGrid(document)
    qtbot.addWidget(grid)
    grid.resize(620, 480)
    grid.set_layout("1")
    grid.show()
    open_scan(document, make_scan())
    qtbot.waitExposed(grid)
    paint(grid)
    return grid


@pytest.fixture
def view(grid):
    return grid.views[0]


def paint(grid) -> np.ndarray:
    """Paint everything and give the pixels back, ``(H, W, 3)`` uint8."""
    picture = grid.grab().toImage().convertToFormat(grid.grab().toImage().Format.Format_RGB32)
    lines = np.frombuffer(picture.constBits(), np.uint8).reshape(picture.height(), picture.bytesPerLine() // 4, 4)
    return lines[:, : picture.width(), 2::-1].copy()
