"""A stained tile in the window: it is to be restored, not measured in depth, and its own colours are compared."""

import numpy as np
import pytest
from PIL import Image

from medapp import paths
from medapp.networks.card import Intake
from medapp.ui.canvas.view_text import identity_lines
from tests.networks.toys import TOYS, keep_toy


@pytest.fixture
def tile(window, qtbot, open_files, tmp_path):
    """A tile in the Restore workspace, a toy model that makes it twice as fine in the library."""
    config = {**TOYS["rat"], "img_channel": 3, "scale": 2}
    takes = (Intake("SM", "colour", (0.0, 255.0)),)
    keep_toy(paths.user_models_dir(), "rat", config, takes=takes, channels=3, scale=2)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "stained.png")
    window.set_workspace("restore")
    open_files(window, tmp_path / "stained.png", modality="SM")
    qtbot.waitUntil(lambda: "toy-rat" in {model["id"] for model in window.restoring.models}, timeout=30000)
    window.restoring.choose("toy-rat")
    return window.document


def test_a_tile_is_restored_compared_in_its_own_colours_and_named_by_its_source(window, qtbot, tile):
    assert not window.docks["restore"].visibleRegion().isEmpty()
    assert window.docks["depth_map"].visibleRegion().isEmpty()

    window.restoring.run()
    qtbot.waitUntil(lambda: bool(window.restoring.report) and not window.bridge.running(), timeout=60000)
    qtbot.waitUntil(lambda: tile.processed is not None and tile.processed.shape == (1, 48, 64, 3), timeout=30000)

    assert tile.compare_mode == "swipe"
    assert not tile.regions.is_visible  # tints would hide what is to be judged
    made = next(info for info in tile.series_list if info.kind == "restored")
    tile.open_series(made.series_id)
    qtbot.waitUntil(lambda: tile.series is not None and tile.series.series_id == made.series_id, timeout=30000)
    tile.set_compare("difference")
    view = window.grid.views[0]
    qtbot.waitUntil(lambda: bool(view.panes) and view.panes[0].side == "difference", timeout=30000)
    assert view.panes[0].picture is not None
    assert view.panes[0].chip.text.endswith("mean of the colours")
    assert identity_lines(view) == ["stained"]
