"""Commands as a person or a script runs them: JSON on standard output, the log on standard error, exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medapp.cli.main import COMMANDS
from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import brain_mr, ct_torso

STEPS = [
    *("import", "restore", "propose", "matte", "stroke", "save", "reopen", "export", "verify"),
    *("patients", "retrain", "window"),
]


def medapp(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "medapp", *map(str, arguments)], capture_output=True, text=True, timeout=400, check=False
    )


@pytest.fixture
def ct_folder(tmp_path):
    write_series(tmp_path / "ct", ct_torso((4, 96, 96), (25.0, 4.0, 4.0)), "SECRET-PATIENT")
    return tmp_path / "ct"


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command):
    done = medapp(command, "--help")

    assert done.returncode == 0
    assert command in done.stdout


def test_wrong_usage_ends_with_2():
    assert medapp("verify").returncode == 2
    assert medapp("--no-such-option").returncode == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_a_mistyped_command_is_told_from_a_file():
    made = medapp("restoer")
    assert made.returncode == 2
    assert made.stderr.splitlines() == [
        "There is no file, folder or command 'restoer'.",
        "Did you mean: medapp restore",
    ]


def test_the_window_without_a_display_says_what_to_do():
    without = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")}
    done = subprocess.run(
        [sys.executable, "-m", "medapp", "--sample"],
        env=without,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "There is no display to show the window on.",
        "Without one: medapp demo --out DIR",
    ]


def test_the_demo_runs_the_whole_loop_on_the_series_of_two_patients(ct_folder, tmp_path):
    write_series(ct_folder / "mr", brain_mr((4, 96, 96), (20.0, 2.0, 2.0)), "SECOND-SECRET")
    done = medapp("demo", "--out", tmp_path / "out", "--input", ct_folder, "--minutes", 0.02)

    report = json.loads(done.stdout)
    assert report["ok"], report
    assert done.returncode == 0
    assert [step["name"] for step in report["steps"]] == STEPS
    assert all(step["status"] == "done" for step in report["steps"])
    assert (tmp_path / "out" / "window.png").stat().st_size > 10_000
    assert medapp("verify", tmp_path / "out" / "export").returncode == 0
    assert "SECRET" not in done.stdout + done.stderr

    retrained = report["steps"][STEPS.index("retrain")]
    assert (retrained["trained_on"], retrained["judged_by"]) == (1, 1)
    assert sum(retrained["verdict"].values()) > 0
    assert any("recommended" in note for note in retrained["notes"])
    assert not retrained["adopted"]
    assert Path(retrained["path"]).is_relative_to(tmp_path / "out")  # runs and models of the demo stay with it
    assert not list(Path(os.environ["MEDAPP_HOME"]).rglob("*.safetensors"))

    victim = next((tmp_path / "out" / "export").rglob("*.nii.gz"))
    victim.write_bytes(victim.read_bytes()[:-1])
    assert medapp("verify", tmp_path / "out" / "export").returncode == 1


def test_the_demo_skips_restoring_a_colour_picture_and_says_so(tmp_path):
    y, x = np.mgrid[:96, :96]
    picture = np.stack([120 + x, 90 + y, np.where((x - 50) ** 2 + (y - 40) ** 2 < 400, 220, 60)], axis=-1)
    Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "tile.png")
    report = json.loads(medapp("demo", "--out", tmp_path / "out", "--input", tmp_path / "tile.png").stdout)

    steps = {step["name"]: step for step in report["steps"]}
    assert report["ok"], report
    assert steps["restore"]["status"] == "skipped"
    assert "colour" in steps["restore"]["reason"]
    assert steps["retrain"]["status"] == "skipped"  # one patient cannot teach and judge
    assert "one patient" in steps["retrain"]["reason"]


def test_the_demo_refuses_what_is_not_an_image_in_one_line(tmp_path):
    (tmp_path / "notes.dcm").write_text("not an image")
    done = medapp("demo", "--out", tmp_path / "out", "--input", tmp_path / "notes.dcm")

    report = json.loads(done.stdout)
    assert done.returncode == 2
    assert not report["ok"]
    assert report["steps"][0]["status"] == "failed"
    assert "\n" not in report["steps"][0]["reason"]
    assert "Traceback" not in done.stdout
