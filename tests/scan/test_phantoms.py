from __future__ import annotations

import numpy as np
import pydicom

from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import brain_mr, ct_torso, pet_torso


def test_the_ct_phantom_has_the_tissues_of_a_torso_in_hu():
    phantom = ct_torso(shape=(8, 128, 128), spacing_mm=(16.0, 3.0, 3.0))
    values = phantom.values

    assert (values < -950).mean() > 0.3  # air around
    for low, high in ((-140, -60), (20, 80), (90, 140), (200, 600)):  # fat, muscle, enhanced organ, bone
        assert ((values > low) & (values < high)).sum() > 50


def test_the_same_seed_gives_the_same_phantom_and_another_seed_another():
    size = {"shape": (4, 64, 64), "spacing_mm": (20.0, 4.0, 4.0)}

    assert np.array_equal(brain_mr(**size).values, brain_mr(**size).values)
    assert not np.array_equal(brain_mr(**size).values, brain_mr(**size, seed=5).values)


def test_a_phantom_on_disk_is_a_dicom_series_with_its_values_and_geometry(tmp_path):
    phantom = pet_torso(shape=(5, 48, 48), spacing_mm=(4.0, 5.0, 5.0))
    write_series(tmp_path, phantom, "P1")
    slices = [pydicom.dcmread(path) for path in sorted(tmp_path.iterdir())]

    values = np.stack([ds.pixel_array * float(ds.RescaleSlope) for ds in slices])
    assert np.abs(values - phantom.values).max() < phantom.values.max() / 32767
    gaps = np.diff([float(ds.ImagePositionPatient[2]) for ds in slices])
    assert np.allclose(gaps, 4.0)
    assert len({ds.SOPInstanceUID for ds in slices}) == 5
