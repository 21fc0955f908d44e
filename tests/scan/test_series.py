"""Grouping, order, geometry and regularity of DICOM series."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from medapp.errors import MedappError
from medapp.progress import Progress
from medapp.scan.geometry import Geometry
from medapp.scan.lazy import FoundScan, Refused, Skipped
from medapp.scan.reading import read_all, read_path, read_scan
from medapp.scan.scan import Scan
from tests.builders import make_dataset, make_scan, make_values, save_dataset, write_dicom_series

OBLIQUE = np.linalg.qr(np.array([[1.0, 0.3, -0.2], [-0.25, 1.0, 0.4], [0.3, -0.35, 1.0]]))[0]
PLANES = {  # columns: steps along z, y, x in RAS+
    "axial": np.array([[0, 0, -1], [0, -1, 0], [1, 0, 0]], dtype=float),
    "coronal": np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], dtype=float),
    "sagittal": np.array([[1, 0, 0], [0, 0, -1], [0, -1, 0]], dtype=float),
    "oblique": OBLIQUE * np.sign(np.linalg.det(OBLIQUE)),
}


def placed_scan(plane: str, shape=(5, 12, 16), spacing=(2.5, 0.75, 0.5)) -> Scan:
    """A volume whose slices follow the cross product of rows and columns, as sorting gives them."""
    affine = np.eye(4)
    affine[:3, :3] = PLANES[plane] * np.array(spacing)
    lps = affine[:3, :3] * np.array([[-1], [-1], [1]])
    if np.dot(np.cross(lps[:, 2], lps[:, 1]), lps[:, 0]) < 0:
        affine[:3, 0] *= -1
    affine[:3, 3] = (11.0, -7.5, 301.25)
    return Scan(make_values(shape), Geometry(affine), "CT", "HU")


@pytest.mark.parametrize("plane", PLANES)
def test_slices_are_sorted_by_position_and_keep_their_place(tmp_path, plane):
    scan = placed_scan(plane)

    def shuffle(ds, z):  # nothing but the position says the order
        ds.InstanceNumber, ds.SliceLocation = (7 * z) % 5, -z

    paths = write_dicom_series(tmp_path, scan, shuffle)
    for path, name in zip(paths, "dbeac", strict=True):
        path.rename(tmp_path / name)
    found = read_scan(tmp_path)

    assert found.kind == "scan"
    assert found.geometry.is_close(scan.geometry)
    assert np.array_equal(found.stored, scan.stored)
    assert found.notes == ()


def test_the_affine_is_the_one_nibabel_reads_back(tmp_path):
    scan = placed_scan("oblique")
    write_dicom_series(tmp_path / "series", scan)
    found = read_scan(tmp_path / "series")
    nib.save(nib.Nifti1Image(found.stored.transpose(2, 1, 0), found.geometry.affine_xyz), tmp_path / "scan.nii.gz")

    image = nib.load(tmp_path / "scan.nii.gz")
    again = read_scan(tmp_path / "scan.nii.gz")
    corner = np.array([4, 11, 15])
    assert np.allclose(again.geometry.to_mm(corner), nib.affines.apply_affine(image.affine, corner[::-1]), atol=1e-3)
    assert np.array_equal(again.stored, scan.stored)
    assert again.geometry.is_close(scan.geometry)


def test_rows_and_columns_of_pixel_spacing_are_not_swapped(tmp_path):
    write_dicom_series(tmp_path, make_scan(spacing_mm=(3.0, 2.0, 0.5)))

    assert read_scan(tmp_path).spacing_mm == pytest.approx((3.0, 2.0, 0.5))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ds, z: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER" if z == 0 else "AXIAL"]), "type"),
        (lambda ds, z: setattr(ds, "FrameOfReferenceUID", f"2.25.{z // 3}"), "frame of reference"),
        (lambda ds, z: setattr(ds, "EchoTime", 10 if z % 2 else 80), "echo time"),
        (lambda ds, z: setattr(ds, "DiffusionBValue", 1000.0 if z % 2 else 0.0), "b-value"),
        (lambda ds, z: setattr(ds, "TemporalPositionIdentifier", 1 + z % 2), "temporal position"),
        (lambda ds, z: setattr(ds, "PixelSpacing", [0.75, 0.5 if z else 0.6]), "spacing"),
        (lambda ds, z: setattr(ds, "ImageOrientationPatient", [1, 0, 0, 0, 1 if z else 0, 0 if z else 1]), "orient"),
    ],
)
def test_a_series_is_split_where_slices_differ(tmp_path, change, reason):
    write_dicom_series(tmp_path, make_scan((6, 12, 16), modality="MR"), change)
    parts = read_all(tmp_path)

    assert len(parts) == 2
    assert sum(part.shape[0] for part in parts) == 6
    assert all(any(reason in note for note in part.notes) for part in parts)
    assert len({part.series_key for part in parts}) == 2
    assert parts[0].shape[0] >= parts[1].shape[0]  # a part of one slice comes last


def test_trigger_times_of_each_slice_do_not_tear_a_volume_apart(tmp_path):
    write_dicom_series(tmp_path, make_scan(), lambda ds, z: setattr(ds, "TriggerTime", 13.5 * z))

    assert read_scan(tmp_path).shape[0] == 4


def test_missing_slices_split_the_volume_and_are_named(tmp_path):
    write_dicom_series(tmp_path, make_scan((8, 12, 16)), lambda ds, z: z not in (3, 4))
    upper, lower = sorted(read_all(tmp_path), key=lambda scan: scan.shape[0])

    assert (upper.shape[0], lower.shape[0]) == (3, 3)
    assert upper.spacing_mm[0] == lower.spacing_mm[0] == pytest.approx(2.5)
    assert any("2 slices missing at -32.5, -30 mm" in note for note in upper.notes)


def test_equal_slices_at_one_position_are_dropped(tmp_path):
    scan = make_scan()
    write_dicom_series(tmp_path, scan)
    save_dataset(tmp_path / "extra.dcm", make_dataset(scan, 2, SOPInstanceUID="2.25.77"))
    found = read_scan(tmp_path)

    assert np.array_equal(found.stored, scan.stored)
    assert any("dropped" in note for note in found.notes)


def test_two_full_sets_are_two_volumes_by_acquisition(tmp_path):
    first, second = make_scan(), Scan(make_scan().stored + 1, make_scan().geometry, "CT", "HU")
    write_dicom_series(tmp_path / "b", first, AcquisitionNumber=1)
    write_dicom_series(
        tmp_path / "a", second, lambda ds, z: setattr(ds, "SOPInstanceUID", f"2.25.5{z}"), AcquisitionNumber=2
    )
    found = read_all(tmp_path)

    assert [np.array_equal(scan.stored, want.stored) for scan, want in zip(found, (first, second), strict=True)] == [
        True,
        True,
    ]


def test_one_other_slice_at_a_position_is_refused(tmp_path):
    scan = make_scan()
    write_dicom_series(tmp_path, scan)
    other = Scan(scan.stored + 1, scan.geometry, "CT", "HU")
    save_dataset(tmp_path / "extra.dcm", make_dataset(other, 2, SOPInstanceUID="2.25.77"))

    (refused,) = list(read_path(tmp_path, Progress()))
    assert isinstance(refused, Refused)
    assert "same position" in refused.message


@pytest.mark.parametrize("missing", [0.03, 0.4])
def test_uneven_gaps_make_a_stack_without_geometry(tmp_path, missing):
    def move(ds, z):
        ds.ImagePositionPatient[2] = -40 + 2.5 * z + (missing if z == 2 else 0)

    write_dicom_series(tmp_path, make_scan(), move)
    found = read_scan(tmp_path)

    assert (found.kind, found.geometry) == ("stack", None)
    assert found.in_plane_spacing_mm == pytest.approx((0.75, 0.5))
    assert any("distances between slices vary" in note for note in found.notes)


def test_a_gap_within_one_percent_is_regular(tmp_path):
    def move(ds, z):
        ds.ImagePositionPatient[2] = -40 + 2.5 * z + (0.02 if z == 2 else 0)

    write_dicom_series(tmp_path, make_scan(), move)

    assert read_scan(tmp_path).kind == "scan"


def test_gantry_tilt_is_kept_in_the_affine_and_flagged(tmp_path):
    def tilt(ds, z):
        ds.ImagePositionPatient[1] = float(ds.ImagePositionPatient[1]) + 0.6 * z

    write_dicom_series(tmp_path, make_scan(), tilt)
    found = read_scan(tmp_path)

    assert found.kind == "scan"
    assert found.geometry.is_sheared
    assert any("tilt" in note for note in found.notes)
    step = found.geometry.to_mm(np.array([1, 0, 0])) - found.geometry.to_mm(np.array([0, 0, 0]))
    assert step == pytest.approx((0, -0.6, 2.5))


def test_slices_shifted_sideways_one_by_one_are_no_volume(tmp_path):
    def shift(ds, z):
        ds.ImagePositionPatient[0] = float(ds.ImagePositionPatient[0]) + (1.0 if z == 1 else 0.0)

    write_dicom_series(tmp_path, make_scan(), shift)

    assert read_scan(tmp_path).kind == "stack"


def test_one_slice_is_as_thick_as_it_says(tmp_path):
    ds = make_dataset(make_scan(), 0, SpacingBetweenSlices=4.0, SliceThickness=3.0)
    save_dataset(tmp_path / "both.dcm", ds)
    save_dataset(tmp_path / "thick.dcm", make_dataset(make_scan(), 0, SliceThickness=3.0))
    save_dataset(tmp_path / "none.dcm", make_dataset(make_scan(), 0))

    assert read_scan(tmp_path / "both.dcm").spacing_mm[0] == pytest.approx(4.0)
    assert read_scan(tmp_path / "thick.dcm").spacing_mm[0] == pytest.approx(3.0)
    assumed = read_scan(tmp_path / "none.dcm")
    assert assumed.spacing_mm[0] == pytest.approx(1.0)
    assert any("1 mm" in note for note in assumed.notes)


def test_slices_without_position_are_set_aside(tmp_path):
    def forget(ds, z):
        if z == 3:
            del ds.ImagePositionPatient

    write_dicom_series(tmp_path, make_scan(), forget)
    findings = list(read_path(tmp_path, Progress()))

    assert [type(finding) for finding in findings] == [Skipped, FoundScan]
    assert findings[1].scan.shape[0] == 3
    assert any("set aside" in note for note in findings[1].scan.notes)


def test_a_series_without_any_position_is_a_stack_in_the_order_of_instance_numbers(tmp_path):
    def forget(ds, z):
        ds.InstanceNumber = 4 - z

    scan = make_scan()
    write_dicom_series(tmp_path, scan, forget, ImagePositionPatient=None)
    found = read_scan(tmp_path)

    assert (found.kind, found.geometry, found.spacing_mm) == ("stack", None, None)
    assert np.array_equal(found.stored, scan.stored[::-1])


@pytest.mark.parametrize(
    "orientation", [[1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1.02, 0], [1, 0, 0, 0.01, 1, 0], [1, 0, 0, 0, 0, 0]]
)
def test_an_impossible_orientation_leaves_a_stack_in_px(tmp_path, orientation):
    write_dicom_series(tmp_path, make_scan(), ImageOrientationPatient=orientation)
    found = read_scan(tmp_path)

    assert (found.kind, found.geometry, found.in_plane_spacing_mm) == ("stack", None, None)
    assert found.notes


@pytest.mark.parametrize("spacing", [None, [0, 0.5], [-1, 0.5], ["nan", "nan"]])
def test_an_impossible_spacing_leaves_a_stack_in_px(tmp_path, spacing):
    write_dicom_series(tmp_path, make_scan(), PixelSpacing=spacing)
    found = read_scan(tmp_path)

    assert (found.kind, found.geometry, found.in_plane_spacing_mm) == ("stack", None, None)


def test_a_projection_image_knows_its_spacing_at_the_detector(tmp_path):
    scan = make_scan((1, 12, 16), modality="CR")
    ds = make_dataset(scan, 0, PixelSpacing=None, ImagerPixelSpacing=[0.2, 0.1])
    found = read_scan(save_dataset(tmp_path / "chest.dcm", ds))

    assert (found.kind, found.pixel_spacing_mm) == ("image", (0.2, 0.1))
    assert any("detector" in note for note in found.notes)


def test_copies_of_a_file_are_dropped_and_other_files_of_its_name_refused(tmp_path):
    scan = make_scan()
    paths = write_dicom_series(tmp_path / "a", scan)
    (tmp_path / "copy.dcm").write_bytes(paths[1].read_bytes())
    found = read_scan(tmp_path)
    assert found.shape == scan.shape
    assert any("copies were dropped" in note for note in found.notes)

    save_dataset(tmp_path / "other.dcm", make_dataset(Scan(scan.stored + 5, scan.geometry, "CT", "HU"), 1))
    refused = [finding for finding in read_path(tmp_path, Progress()) if isinstance(finding, Refused)]
    assert len(refused) == 3  # the slice, its copy, and the one that claims to be it
    assert all("same SOP Instance UID" in finding.message for finding in refused)


def test_a_damaged_slice_does_not_take_the_series_with_it(tmp_path):
    scan = make_scan((5, 12, 16))
    paths = write_dicom_series(tmp_path, scan)
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[:-40])
    findings = list(read_path(tmp_path, Progress()))

    refused = [finding for finding in findings if isinstance(finding, Refused)]
    assert [finding.path for finding in refused] == [str(paths[2])]
    assert "344 of 384" in refused[0].message
    assert sorted(finding.scan.shape[0] for finding in findings if isinstance(finding, FoundScan)) == [2, 2]


def test_a_slice_that_fails_while_decoding_leaves_the_others_readable(tmp_path):
    scan = make_scan((5, 12, 16))
    write_dicom_series(tmp_path, scan, lambda ds, z: setattr(ds, "RescaleSlope", 0 if z == 4 else 1))
    shapes, refused = [], []
    for finding in read_path(tmp_path, Progress()):
        try:
            shapes.append(finding.scan.decode().shape[0])
        except MedappError as error:
            refused.append(error.message)

    assert shapes == [4]
    assert len(refused) == 1
    assert "slope is 0" in refused[0]


def test_reading_one_scan_where_there_are_two_says_how_many(tmp_path):
    write_dicom_series(tmp_path, make_scan(), lambda ds, z: z != 1)

    with pytest.raises(MedappError, match="2 scans"):
        read_scan(tmp_path)


def test_decoding_begins_at_the_slice_on_screen_and_moves_outward(tmp_path):
    write_dicom_series(tmp_path, make_scan((6, 12, 16)))
    (finding,) = read_path(tmp_path, Progress())
    told = []
    finding.scan.decode(on_slice=lambda z, values: told.append((z, int(values.max()))), first=4)

    assert [z for z, _ in told] == [4, 3, 5, 2, 1, 0]
    assert all(top > -1000 for _, top in told)


def test_decoding_fills_the_array_that_it_is_given(tmp_path):
    scan = make_scan()
    write_dicom_series(tmp_path, scan)
    (finding,) = read_path(tmp_path, Progress())
    out = np.memmap(tmp_path / "voxels", dtype=finding.scan.dtype, mode="w+", shape=finding.scan.shape)
    found = finding.scan.decode(out=out)

    assert np.array_equal(out, scan.stored)
    assert np.shares_memory(found.stored, out)
    assert not found.stored.flags.writeable


def test_every_slice_keeps_its_header_for_export(tmp_path):
    from io import BytesIO

    from pydicom.filereader import read_dataset

    for syntax in ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"):
        folder = tmp_path / syntax
        write_dicom_series(folder, make_scan(), transfer_syntax=syntax)
        source = read_scan(folder).source
        datasets = [read_dataset(BytesIO(header), False, True) for header in source.headers]

        assert [ds.InstanceNumber for ds in datasets] == [1, 2, 3, 4]
        assert source.frames == tuple((ds.SOPInstanceUID, 1) for ds in datasets)
        assert all("PixelData" not in ds and ds.PixelSpacing == [0.75, 0.5] for ds in datasets)
