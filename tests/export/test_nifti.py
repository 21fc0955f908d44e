from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from medapp.errors import ExportError
from medapp.export.nifti import SliceStream, nifti_header, write_nifti
from medapp.scan.geometry import Geometry
from tests.export.making import make_scan


def _oblique(shear: float = 0.0) -> Geometry:
    a, b = np.deg2rad(17), np.deg2rad(-31)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]) @ np.array(
        [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, 0.8, 3.0])
    affine[:3, 2] += shear * affine[:3, 1]
    affine[:3, 3] = (-101.5, 33.25, 812.75)
    return Geometry.from_xyz(affine)


@pytest.mark.parametrize("shear", [0.0, 0.4])
def test_nibabel_reads_the_voxels_where_they_were(tmp_path, shear):
    values = np.random.default_rng(0).normal(0, 300, (5, 6, 7)).astype(np.float32)
    path = tmp_path / "a.nii.gz"
    written = write_nifti(path, list(values), (5, 6, 7), np.dtype(np.float32), _oblique(shear))

    image = nib.load(path)
    assert np.array_equal(np.asarray(image.dataobj), values.transpose(2, 1, 0))
    assert written.largest_error == 0
    assert np.allclose(image.affine, _oblique(shear).affine_xyz, atol=1e-4)
    assert image.header["sform_code"] == 1
    assert image.header["qform_code"] == (0 if shear else 1)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert image.header.get_slope_inter() in ((None, None), (1.0, 0.0))
    if not shear:
        assert np.allclose(image.header.get_qform(), _oblique().affine_xyz, atol=1e-3)


def test_equal_voxels_give_equal_bytes(tmp_path):
    scan = make_scan()
    made = [
        write_nifti(
            tmp_path / name, SliceStream(4, scan.slice_values), (4, 12, 20), np.dtype(np.float32), scan.geometry
        )
        for name in ("a.nii.gz", "b.nii.gz")
    ]

    assert made[0].sha256 == made[1].sha256
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == bytes(4)


def test_a_voxel_that_is_no_number_stops_the_export(tmp_path):
    values = np.zeros((1, 2, 2), np.float32)
    values[0, 0, 0] = np.nan

    with pytest.raises(ExportError, match="finite"):
        write_nifti(tmp_path / "a.nii.gz", list(values), (1, 2, 2), np.dtype(np.float32), make_scan().geometry)

    assert list(tmp_path.iterdir()) == []


def test_very_long_axes_become_nifti_2(tmp_path):
    shape = (1, 1, 40_000)
    write_nifti(tmp_path / "a.nii.gz", [np.ones((1, 40_000))], shape, np.dtype(np.uint8), make_scan().geometry)

    image = nib.load(tmp_path / "a.nii.gz")
    assert isinstance(image, nib.Nifti2Image)
    assert image.shape == (40_000, 1, 1)
    assert int(np.asarray(image.dataobj).sum()) == 40_000
    assert isinstance(nifti_header((1, 1, 7), np.dtype(np.uint8), make_scan().geometry), nib.Nifti1Header)
