"""The shared files with known outcomes: what is malformed and what the stored pixels of real files are."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from medapp.errors import HoldsNoImageError, UnreadableFileError
from medapp.progress import Progress
from medapp.requests import InspectRequest
from medapp.scan.dicom import open_dicom
from medapp.scan.dicom_file import SEG_CLASSES
from medapp.scan.pixels import stored_frames
from medapp.services.inspect import inspect
from tests.builders import shared_data

LOSSY = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51)}  # decoders differ by one step of their cosine transforms


def rows(name: str) -> list[dict[str, str]]:
    """A table of the shared data, or one empty row whose test is skipped."""
    named = os.environ.get("MEDAPP_SHARED")
    root = Path(named) if named else Path(__file__).resolve().parents[3] / "shared"
    table = root / "data" / name
    if not table.is_file():
        return [{}]
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def describe(path: Path) -> list[dict]:
    return inspect(InspectRequest((str(path),)), None, Progress())


@pytest.mark.parametrize("row", rows("malformed/EXPECTED.csv"), ids=lambda row: row.get("input", "none"))
def test_a_malformed_file_is_refused_noted_or_read_as_expected(row, capfd):
    path = shared_data() / "malformed" / row["input"]
    lines = describe(path)
    images = [line for line in lines if line["kind"] in ("scan", "stack", "image")]
    others = [line for line in lines if line["kind"] not in ("scan", "stack", "image")]
    outcomes = set(row["outcome"].split("|"))

    if not images:
        happened = {"R"} if any(line["kind"] == "refused" for line in others) else {"S"}
    elif any(line["notes"] for line in images):
        happened = {"N"} | ({"S"} if others else set())
    else:
        happened = {"loads"}
    assert happened & outcomes, lines
    for line in others:
        assert line["message"]
        assert "\n" not in line["message"]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("row", rows("dicom/EXPECTED.csv"), ids=lambda row: row.get("path", "none"))
def test_stored_pixels_equal_the_reference(row):
    path = shared_data() / row["path"]
    if not row["stored_min"]:  # the reference has no pixels: refused, set aside, or read where it could not
        try:
            list(stored_frames(open_dicom(path)))
        except (UnreadableFileError, HoldsNoImageError) as error:
            assert error.message  # noqa: PT017 - either outcome is right
        return
    if row["modality"] in ("SEG", "RTDOSE"):
        with pytest.raises(HoldsNoImageError):
            open_dicom(path)
        if row["modality"] == "RTDOSE":
            return
    frames = np.stack(list(stored_frames(open_dicom(path, accept=SEG_CLASSES))))

    slack = 1 if row["transfer_syntax"] in LOSSY else 0
    assert abs(float(frames.min()) - float(row["stored_min"])) <= slack
    assert abs(float(frames.max()) - float(row["stored_max"])) <= slack
    assert abs(float(frames.mean(dtype=np.float64)) - float(row["stored_mean"])) <= (0.03 if slack else 1e-4)


@pytest.mark.parametrize(
    ("series", "shapes"),
    [
        ("series_bad_instance_numbers", [4]),
        ("series_duplicate_position", [3]),
        ("series_missing_slice", [3, 2]),
        ("series_mixed_orientation", [2, 1]),
        ("series_mixed_size", [2, 1]),
    ],
)
def test_a_broken_series_becomes_the_right_volumes(series, shapes):
    lines = describe(shared_data() / "malformed" / series)

    assert sorted((line["shape"][0] for line in lines), reverse=True) == shapes
    assert {line["kind"] for line in lines} == {"scan"}


def test_the_signed_lossless_jpeg_that_decoders_garble_is_decoded_right():
    lines = describe(shared_data() / "malformed" / "JPEGLossless_bad.dcm")

    frames = list(stored_frames(open_dicom(shared_data() / "malformed" / "JPEGLossless_bad.dcm")))
    assert (frames[0].min(), frames[0].max()) == (-2000, 4095)
    assert any("signed" in note for note in lines[0]["notes"])


def test_pet_in_grams_per_millilitre_is_suv():
    lines = describe(shared_data() / "dicom" / "series_sts_001" / "PET")

    assert [(line["modality"], line["unit"], line["shape"]) for line in lines] == [("PT", "SUV", [14, 43, 41])]


def test_no_name_of_a_patient_is_ever_shown():
    import pydicom

    folder = shared_data() / "dicom" / "charset"
    text = str(describe(folder))
    for path in sorted(folder.iterdir()):
        name = str(pydicom.dcmread(path, stop_before_pixels=True).PatientName)
        assert name
        assert all(part not in text for part in name.replace("=", "^").split("^") if len(part) >= 4)
