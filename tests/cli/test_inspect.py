"""``medapp inspect`` as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel as nib
import numpy as np

from tests.builders import make_scan, write_dicom_series


def medapp(*arguments):
    return subprocess.run([sys.executable, "-m", "medapp", *arguments], capture_output=True, text=True, timeout=120)


def test_a_json_line_each_on_standard_output(tmp_path):
    write_dicom_series(tmp_path, make_scan())
    (tmp_path / "broken.dcm").write_bytes((tmp_path / "001.dcm").read_bytes()[:-9])
    (tmp_path / "text.txt").write_text("hello")
    done = medapp("inspect", str(tmp_path))
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 0
    assert sorted(line["kind"] for line in lines) == ["refused", "refused", "scan"]


def test_nothing_readable_is_exit_status_2(tmp_path):
    (tmp_path / "text.txt").write_text("hello")
    done = medapp("inspect", str(tmp_path / "text.txt"), str(tmp_path / "missing"))

    assert done.returncode == 2
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["refused", "refused"]


def test_a_file_without_modality_says_how_to_give_it(tmp_path):
    values = np.full((6, 6, 3), 40, np.int16)
    values[0] = -1000
    nib.Nifti1Image(values, np.diag([2.0, 2.0, 3.0, 1.0])).to_filename(tmp_path / "ct.nii")
    (silent,) = (json.loads(line) for line in medapp("inspect", str(tmp_path / "ct.nii")).stdout.splitlines())
    (told,) = (
        json.loads(line) for line in medapp("inspect", "--modality", "CT", str(tmp_path / "ct.nii")).stdout.splitlines()
    )

    assert (silent["modality"], silent["unit"]) == (None, "arbitrary")
    assert "look like CT" in silent["modality_note"]
    assert (told["modality"], told["unit"]) == ("CT", "HU")
    assert "modality_note" not in told
