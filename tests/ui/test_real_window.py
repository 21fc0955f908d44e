"""One person's work in a real window: an X server, a window on it, worker processes, and two starts of the program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import ct_torso

SCREEN = (1440, 900)
PROCESSED = (0xE3, 0xA3, 0x3B)  # the chip's own colour


@pytest.fixture
def display():
    """An X server of our own; gives its name."""
    server = shutil.which("Xvfb")
    if server is None:
        pytest.skip("Xvfb is not installed")
    reading, writing = os.pipe()
    command = [server, "-displayfd", str(writing), "-screen", "0", f"{SCREEN[0]}x{SCREEN[1]}x24", "-nolisten", "tcp"]
    process = subprocess.Popen(command, pass_fds=(writing,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writing)
    with os.fdopen(reading) as said:
        number = said.readline().strip()
    try:
        assert number, "Xvfb did not start"
        yield f":{number}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def act(display, tmp_path):
    """Starts the program in its own process, lets the person of ``real_window_story`` work, and says what is seen."""
    root = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "DISPLAY": display,
        "QT_QPA_PLATFORM": "xcb",
        "MEDAPP_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(root),
    }
    environment.pop("WAYLAND_DISPLAY", None)

    def start(story, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "tests.ui.real_window_story", story, str(tmp_path), *arguments],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        assert "Traceback" not in done.stderr, done.stderr[-4000:]
        return json.loads((tmp_path / f"{story}.json").read_text())

    return start


def pixels(path):
    """A picture as ``(height, width, 3)``."""
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def crop(picture, area):
    """The part of a picture in ``(left, top, width, height)``."""
    left, top, width, height = area
    return picture[top : top + height, left : left + width]


def is_like(picture, colour):
    """Which pixels are about that colour."""
    return np.abs(picture - np.array(colour)).max(axis=2) < 30


@pytest.mark.timeout(300)
def test_from_a_folder_to_a_matte_and_a_filtered_series_and_all_of_it_after_a_restart(act, tmp_path):
    folder = tmp_path / "ct"
    write_series(folder, ct_torso((6, 128, 128), (16.0, 3.0, 3.0)), "STORY")

    first = act("work", str(folder))

    # opening and looking
    assert first["platform"] == "xcb"
    assert first["described"] == "CT · 128×128×6"
    assert first["slices_wheeled"] == [3, 2, 1, 2]
    # the click found the liver, not the body and not a speck
    assert 300 < first["clicked_px"] < 2500
    assert first["alpha_in_liver"] == 1.0
    assert first["alpha_in_air"] == 0.0
    # brush, undo, redo
    assert first["alpha_under_brush"]["before"] == 0.0
    assert first["alpha_under_brush"]["painted"] == 1.0
    assert first["alpha_under_brush"]["undone"] == 0.0
    assert first["alpha_under_brush"]["redone"] == 1.0
    assert first["saved_text"].startswith("✓ saved")
    # filtering
    assert first["series"] == ["original", "filtered"]
    assert first["compare"] == "swipe"
    assert first["chips"][0] == "ORIGINAL"
    assert first["chips"][1].startswith("FILTERED")
    assert first["divider"][0] - 0.2 == pytest.approx(first["divider"][1], abs=0.02)
    assert first["noise_sd_hu"][1] < 0.7 * first["noise_sd_hu"][0]
    assert first["messages_of_trouble"] == []

    # what is on the screen
    screen = pixels(tmp_path / "screen.png")
    assert screen.shape == (SCREEN[1], SCREEN[0], 3)
    assert len(np.unique(screen.reshape(-1, 3), axis=0)) > 200
    original_chip, filtered_chip = (crop(screen, area) for area in first["chip_areas"])
    assert is_like(filtered_chip, PROCESSED).mean() > 0.4
    assert not is_like(original_chip, PROCESSED).any()
    assert original_chip.max() > 180  # its words can be read
    image = crop(screen, first["image_area"])
    assert image.std() > 25
    liver_x, liver_y = first["liver_on_screen"]
    red, _green, blue = screen[liver_y - 3 : liver_y + 4, liver_x - 3 : liver_x + 4].mean(axis=(0, 1))
    assert red > blue + 30  # tinted with the first label's orange

    # nothing was saved by hand; the next start has it all
    again = act("look_again")

    assert again["pid"] != first["pid"]
    assert again["series"] == first["series"]
    assert again["strokes"] == first["strokes"]
    assert again["matte_names"] == first["matte_names"]
    assert again["compare"] == "swipe"
    assert again["position"] == first["position"]
    assert again["alpha_under_brush"] == {"reopened": 1.0, "undone": 0.0, "redone": 1.0}
    assert again["messages_of_trouble"] == []
    assert len(np.unique(pixels(tmp_path / "screen again.png").reshape(-1, 3), axis=0)) > 200
