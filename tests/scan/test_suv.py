"""SUV by body weight: the check value, every time and dose rule, and when there is none."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medapp.scan.reading import read_scan
from medapp.scan.scan import Scan
from tests.builders import make_dataset, make_scan, save_dataset, write_dicom_series

HALF_LIFE = 6586.2
CHECK_VALUE = 1.38168


def pet(tmp_path, drug: dict | None = None, **overrides) -> Scan:
    """5 000 Bq/ml, 70 kg, 370 MBq, one hour between injection and scan, unless said otherwise."""
    item = Dataset()
    values = {
        "RadionuclideTotalDose": 370e6,
        "RadionuclideHalfLife": HALF_LIFE,
        "RadiopharmaceuticalStartTime": "091530",
        **(drug or {}),
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(item, keyword, value)
    elements = {
        "Units": "BQML",
        "PatientWeight": 70,
        "CorrectedImage": ["ATTN", "DECAY"],
        "DecayCorrection": "START",
        "RadiopharmaceuticalInformationSequence": Sequence([item]),
        "RescaleSlope": 5,
        "RescaleIntercept": 0,
        **overrides,
    }
    scan = Scan(np.full((1, 4, 4), 1000, np.int16), make_scan().geometry, "PT", "BQML")
    return read_scan(save_dataset(tmp_path / "pet.dcm", make_dataset(scan, 0, **elements)))


def test_the_check_value(tmp_path):
    found = pet(tmp_path)

    assert found.unit == "SUV"
    assert found.values().max() == pytest.approx(CHECK_VALUE, abs=5e-6)
    assert found.stored.dtype == np.int16  # one slope for all: the integers stay


def test_decay_to_the_time_of_injection_uses_the_whole_dose(tmp_path):
    assert pet(tmp_path, DecayCorrection="ADMIN").values().max() == pytest.approx(5000 * 70_000 / 370e6)


def test_over_midnight_the_injection_was_the_day_before(tmp_path):
    found = pet(tmp_path, {"RadiopharmaceuticalStartTime": "233000"}, SeriesTime="003000", AcquisitionTime="003000")

    assert found.values().max() == pytest.approx(CHECK_VALUE, abs=5e-6)


def test_the_start_date_and_time_of_the_injection_wins(tmp_path):
    drug = {"RadiopharmaceuticalStartDateTime": "20240229091530.00", "RadiopharmaceuticalStartTime": "010000"}

    assert pet(tmp_path, drug).values().max() == pytest.approx(CHECK_VALUE, abs=5e-6)


def test_a_series_time_after_the_acquisition_is_not_the_scan_time(tmp_path):
    assert pet(tmp_path, SeriesTime="181500").values().max() == pytest.approx(CHECK_VALUE, abs=5e-6)


def test_decy_is_understood_as_decay(tmp_path):
    assert pet(tmp_path, CorrectedImage=["DECY", "ATTN", "SCAT"]).unit == "SUV"


def test_grams_per_millilitre_are_suv_already(tmp_path):
    found = pet(tmp_path, {"RadionuclideTotalDose": None}, Units="GML", PatientWeight=None)

    assert (found.unit, found.values().max()) == ("SUV", 5000)


def test_counts_of_philips_become_suv_by_its_factor(tmp_path):
    scan = Scan(np.full((1, 4, 4), 1000, np.int16), make_scan().geometry, "PT", "CNTS")
    ds = make_dataset(scan, 0, Units="CNTS", RescaleSlope=1, RescaleIntercept=0)
    ds.add_new(0x70530010, "LO", "Philips PET Private Group")
    ds.add_new(0x70531000, "DS", "0.0005")

    found = read_scan(save_dataset(tmp_path / "pet.dcm", ds))
    assert (found.unit, found.values().max()) == ("SUV", pytest.approx(0.5))


@pytest.mark.parametrize(
    ("drug", "overrides"),
    [
        ({}, {"PatientWeight": None}),
        ({}, {"PatientWeight": 0}),
        ({}, {"PatientWeight": 501}),
        ({"RadionuclideTotalDose": 0}, {}),
        ({"RadionuclideTotalDose": None}, {}),
        ({"RadionuclideHalfLife": 0}, {}),
        ({"RadiopharmaceuticalStartTime": None}, {}),
        ({"RadiopharmaceuticalStartDateTime": "20240229111530"}, {}),  # after the scan
        ({"RadiopharmaceuticalStartDateTime": "20240227101530"}, {}),  # more than ten half-lives before
        ({}, {"DecayCorrection": "NONE"}),
        ({}, {"DecayCorrection": None}),
        ({}, {"CorrectedImage": ["ATTN"]}),
        ({}, {"CorrectedImage": ["DECAY"]}),
        ({}, {"Units": "CNTS"}),
        ({}, {"RadiopharmaceuticalInformationSequence": None}),
        ({}, {"SeriesTime": None, "AcquisitionTime": None}),
    ],
)
def test_without_every_item_the_units_of_the_file_stay_and_a_note_says_why(tmp_path, drug, overrides):
    found = pet(tmp_path, drug, **overrides)

    assert found.unit == overrides.get("Units", "BQML")
    assert found.values().max() == 5000
    assert any("not SUV" in note for note in found.notes)


def test_slopes_of_each_slice_end_in_suv_too(tmp_path):
    scan = make_scan(modality="PT")
    item = Dataset()
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = 370e6, HALF_LIFE
    item.RadiopharmaceuticalStartTime = "091530"
    write_dicom_series(
        tmp_path,
        scan,
        lambda ds, z: setattr(ds, "RescaleSlope", 1 + z),
        Units="BQML",
        PatientWeight=70,
        CorrectedImage=["ATTN", "DECAY"],
        DecayCorrection="START",
        RescaleIntercept=0,
        RadiopharmaceuticalInformationSequence=Sequence([item]),
    )
    found = read_scan(tmp_path)

    assert found.unit == "SUV"
    for z in range(4):
        assert np.allclose(found.values()[z], scan.stored[z] * (1 + z) * CHECK_VALUE / 5000, rtol=1e-5)
