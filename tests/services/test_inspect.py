"""The lines of ``medapp inspect``."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from medapp.progress import Progress
from medapp.requests import InspectRequest
from medapp.services.inspect import inspect
from tests.builders import NAME, PATIENT_ID, make_dataset, make_scan, save_dataset, write_dicom_series

SR = "1.2.840.10008.5.1.4.1.1.88.33"


def lines(*paths, **more):
    return inspect(InspectRequest(tuple(str(path) for path in paths), **more), None, Progress())


def test_a_series_is_described_as_nibabel_would(tmp_path):
    scan = make_scan()
    write_dicom_series(tmp_path, scan)
    (line,) = lines(tmp_path)

    assert {key: line[key] for key in ("kind", "path", "modality", "shape", "unit", "notes")} == {
        "kind": "scan",
        "path": str(tmp_path),
        "modality": "CT",
        "shape": [4, 12, 16],
        "unit": "HU",
        "notes": [],
    }
    assert line["spacing_mm"] == pytest.approx([2.5, 0.75, 0.5])
    assert np.allclose(line["affine"], scan.geometry.affine_xyz)
    assert line["value_range"] == [float(scan.stored.min()), float(scan.stored.max())]
    assert line["series_key"]
    json.dumps(line, allow_nan=False)


def test_a_nifti_gets_the_modality_that_was_said(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.diag([1, 2, 3, 1])), tmp_path / "a.nii")
    (line,) = lines(tmp_path / "a.nii", modality="CT")

    assert (line["modality"], line["unit"], line["shape"]) == ("CT", "HU", [5, 4, 3])


def test_a_report_is_skipped_among_images_and_refused_alone(tmp_path):
    write_dicom_series(tmp_path / "series", make_scan())
    report = save_dataset(tmp_path / "report.dcm", make_dataset(make_scan(), 0, SOPClassUID=SR))

    assert [line["kind"] for line in lines(tmp_path)] == ["skipped", "scan"]
    (alone,) = lines(report)
    assert (alone["kind"], alone["path"]) == ("refused", str(report))
    assert "holds no image" in alone["message"]
    assert alone["hint"]


def test_a_segmentation_says_how_to_use_it(tmp_path):
    path = save_dataset(tmp_path / "a.dcm", make_dataset(make_scan(), 0, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"))
    (line,) = lines(path)

    assert line["kind"] == "skipped"
    assert "import as masks" in line["message"]


def test_no_identifier_is_printed(tmp_path):
    write_dicom_series(tmp_path, make_scan(), RescaleType="OD", SeriesDescription=f"of {NAME}")
    text = json.dumps(lines(tmp_path))

    assert "OD" in text
    assert NAME not in text
    assert PATIENT_ID not in text
    assert "2.25.1002" not in text


def test_control_characters_in_names_are_not_printed(tmp_path):
    path = tmp_path / "a\x1b[31m\u202eb.dcm"
    save_dataset(tmp_path / "plain", make_dataset(make_scan(), 0)).rename(path)
    (tmp_path / "c\x07.txt").write_text("x")
    text = "".join(line["path"] + line.get("message", "") for line in lines(tmp_path))

    assert not {"\x1b", "\u202e", "\x07"} & set(text)


def test_a_file_that_killed_the_reader_is_refused_with_the_reason(tmp_path):
    path = save_dataset(tmp_path / "a.dcm", make_dataset(make_scan(), 0))
    (line,) = lines(path, refused=((str(path), "The decoder crashed on this file."),))

    assert (line["kind"], line["message"]) == ("refused", "The decoder crashed on this file.")
