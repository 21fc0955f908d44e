"""Masks of other software land on the voxels that they were drawn on."""

from __future__ import annotations

import json

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes

from medapp.errors import HoldsNoImageError, MaskMismatchError, UnreadableFileError
from medapp.progress import Progress
from medapp.scan.masks import read_masks
from medapp.scan.reading import read_paths, read_scan
from tests.builders import make_dataset, make_scan, save_dataset, shared_data, write_dicom_series

SHAPE = (4, 12, 16)


def masks(path, scan):
    return read_masks(path, scan, Progress())


def label_map() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:6, 3:9] = 1
    labels[2, 8:11, 10:15] = 7
    return labels


def save_nifti(path, values, affine):
    image = nib.Nifti1Image(values.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def test_each_label_of_a_label_map_is_a_mask(tmp_path):
    scan = make_scan(SHAPE)
    path = save_nifti(tmp_path / "labels.nii.gz", label_map(), scan.geometry.affine_xyz)
    (tmp_path / "labels.json").write_text(json.dumps({"labels": [{"number": 7, "name": "Liver", "colour": "#AA0000"}]}))
    found = masks(path, scan)

    assert [(mask.label_number, mask.name, mask.colour) for mask in found] == [
        (1, "labels 1", None),
        (7, "Liver", "#aa0000"),
    ]
    for mask in found:
        assert mask.alpha.dtype == bool
        assert np.array_equal(mask.alpha, label_map() == mask.label_number)


def test_fractions_are_a_soft_mask(tmp_path):
    scan = make_scan(SHAPE)
    alpha = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    (found,) = masks(save_nifti(tmp_path / "a.nii.gz", alpha, scan.geometry.affine_xyz), scan)

    assert found.is_soft
    assert found.alpha.dtype == np.uint16
    assert np.abs(found.alpha / 65535 - alpha).max() < 1 / 65535


def test_a_mask_with_turned_axes_lies_where_it_belongs(tmp_path):
    scan = make_scan(SHAPE)
    image = nib.Nifti1Image(label_map().transpose(2, 1, 0), scan.geometry.affine_xyz)
    image.header.set_xyzt_units("mm")
    for code in ("RAS", "LPS", "SRP", "PIR"):
        axes = nib.orientations.axcodes2ornt(code)
        turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), axes)
        nib.save(image.as_reoriented(turn), tmp_path / "turned.nii.gz")
        first, second = masks(tmp_path / "turned.nii.gz", scan)
        assert np.array_equal(first.alpha, label_map() == 1)
        assert np.array_equal(second.alpha, label_map() == 7)


@pytest.mark.parametrize("change", ["shape", "shift", "spacing", "turn"])
def test_a_mask_of_another_grid_is_refused_with_both_shapes(tmp_path, change):
    scan = make_scan(SHAPE)
    values, affine = label_map(), scan.geometry.affine_xyz.copy()
    if change == "shape":
        values = values[:3]
    elif change == "shift":
        affine[0, 3] += 0.3
    elif change == "spacing":
        affine[:3, 0] *= 1.1
    else:
        angle = np.radians(3)
        affine[:2, :3] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ affine[:2, :3]
    path = save_nifti(tmp_path / "labels.nii.gz", values, affine)

    with pytest.raises(MaskMismatchError) as caught:
        masks(path, scan)
    assert "4 × 12 × 16" in caught.value.message
    if change == "shape":
        assert "3 × 12 × 16" in caught.value.message
    assert caught.value.hint


def test_an_empty_mask_says_so(tmp_path):
    scan = make_scan(SHAPE)
    path = save_nifti(tmp_path / "a.nii.gz", np.zeros(SHAPE, np.uint8), scan.geometry.affine_xyz)

    with pytest.raises(UnreadableFileError, match="empty"):
        masks(path, scan)


def test_png_masks_alphas_and_colours(tmp_path):
    scan = make_scan((1, 12, 16))
    plane = label_map()[2]
    Image.fromarray(np.where(plane > 0, 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    Image.fromarray(plane.astype(np.uint16) * 9000).save(tmp_path / "labels.png")
    rgba = np.dstack([plane, plane, plane, plane * 30]).astype(np.uint8)
    Image.fromarray(rgba).save(tmp_path / "matte.png")
    colours = np.zeros((12, 16, 3), np.uint8)
    colours[plane == 1], colours[plane == 7] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(colours).save(tmp_path / "colours.png")

    (mask,) = masks(tmp_path / "mask.png", scan)
    assert np.array_equal(mask.alpha[0], plane > 0)
    assert [m.label_number for m in masks(tmp_path / "labels.png", scan)] == [9000, 63000]
    (matte,) = masks(tmp_path / "matte.png", scan)
    assert np.array_equal(matte.alpha[0], plane.astype(np.uint16) * 30 * 257)
    assert {m.colour for m in masks(tmp_path / "colours.png", scan)} == {"#ff0000", "#0000ff"}
    with pytest.raises(MaskMismatchError, match="1 × 12 × 16"):
        masks(tmp_path / "mask.png", make_scan(SHAPE))


def test_a_folder_of_png_files_is_one_mask_per_slice(tmp_path):
    for z, plane in enumerate(label_map()):
        Image.fromarray(np.where(plane > 0, 255, 0).astype(np.uint8)).save(tmp_path / f"{z:02d}.png")
    (found,) = masks(tmp_path, make_scan(SHAPE))
    assert np.array_equal(found.alpha, label_map() > 0)

    (tmp_path / "03.png").unlink()
    with pytest.raises(MaskMismatchError, match="3 images, the series has 4 slices"):
        masks(tmp_path, make_scan(SHAPE))


def write_seg(path, folder, pixels, kind):
    """A SEG by highdicom, an independent writer."""
    sources = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    for ds in sources:
        ds.PatientBirthDate = ds.PatientSex = ds.StudyTime = ds.AccessionNumber = ds.StudyID = ""
        ds.ReferringPhysicianName, ds.SliceThickness = "", 2.5
    segments = [
        hd.seg.SegmentDescription(
            number, f"part {number}", codes.SCT.Tissue, codes.SCT.Tissue, hd.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for number in range(1, pixels.shape[-1] + 1)
    ]
    hd.seg.Segmentation(
        sources,
        pixels,
        kind,
        segments,
        hd.UID(),
        9,
        hd.UID(),
        1,
        "medapp",
        "medapp",
        "1",
        "1",
        max_fractional_value=255,
    ).save_as(path)
    return path


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_a_seg_lands_on_its_slices_whatever_their_order(tmp_path, kind):
    write_dicom_series(tmp_path / "series", make_scan(SHAPE), lambda ds, z: setattr(ds, "InstanceNumber", 9 - z))
    scan = read_scan(tmp_path / "series")
    shares = np.stack([label_map() == 1, label_map() == 7], axis=-1).astype(np.float32)
    if kind == "FRACTIONAL":
        shares *= np.linspace(0.1, 1.0, 16, dtype=np.float32)[:, None]
    pixels = shares if kind == "FRACTIONAL" else shares.astype(np.uint8)
    found = masks(write_seg(tmp_path / "seg.dcm", tmp_path / "series", pixels, kind), scan)

    assert [(mask.name, mask.label_number, mask.is_soft) for mask in found] == [
        ("part 1", 1, kind == "FRACTIONAL"),
        ("part 2", 2, kind == "FRACTIONAL"),
    ]
    for index, mask in enumerate(found):
        full = 65535 if mask.is_soft else 1
        assert np.abs(mask.alpha / full - shares[..., index]).max() <= 1 / 510 + 1e-6


def test_a_seg_of_another_series_is_refused(tmp_path):
    write_dicom_series(tmp_path / "series", make_scan(SHAPE))
    pixels = (label_map() > 0)[..., None].astype(np.uint8)
    path = write_seg(tmp_path / "seg.dcm", tmp_path / "series", pixels, "BINARY")

    with pytest.raises(MaskMismatchError, match="4 × 10 × 10"):
        masks(path, make_scan((4, 10, 10)))
    with pytest.raises(MaskMismatchError, match="does not lie on the grid"):
        masks(path, make_scan(SHAPE, spacing_mm=(2.5, 0.7, 0.5)))


def test_contours_are_filled_and_overlaps_are_holes(tmp_path):
    scan = make_scan(SHAPE)

    def contour(z, x0, y0, x1, y1):
        corners = np.array([[z, y0, x0], [z, y0, x1], [z, y1, x1], [z, y1, x0]], dtype=float)
        item = Dataset()
        item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", 4
        item.ContourData = [f"{v:.6g}" for v in (scan.geometry.to_mm(corners) * (-1, -1, 1)).ravel()]
        return item

    region, name = Dataset(), Dataset()
    region.ReferencedROINumber, region.ROIDisplayColor = 3, [255, 128, 0]
    region.ContourSequence = Sequence([contour(1, 1.5, 1.5, 10.5, 9.5), contour(1, 3.5, 3.5, 6.5, 6.5)])
    name.ROINumber, name.ROIName = 3, "Tumour"
    ds = make_dataset(scan, 0, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", Modality="RTSTRUCT", PixelData=None)
    ds.StructureSetROISequence, ds.ROIContourSequence = Sequence([name]), Sequence([region])
    (found,) = masks(save_dataset(tmp_path / "rt.dcm", ds), scan)

    want = np.zeros(SHAPE, bool)
    want[1, 2:10, 2:11] = True
    want[1, 4:7, 4:7] = False
    assert (found.name, found.label_number, found.colour) == ("Tumour", 3, "#ff8000")
    assert np.array_equal(found.alpha, want)


def test_an_image_is_no_mask(tmp_path):
    path = save_dataset(tmp_path / "a.dcm", make_dataset(make_scan(), 0))

    with pytest.raises(HoldsNoImageError, match="neither"):
        masks(path, make_scan())


def test_the_shared_structure_set_marks_the_hot_tumour():
    folder = shared_data() / "dicom" / "series_sts_001"
    scan = read_scan(folder / "PET")
    (found,) = masks(folder / "PET_rtstruct.dcm", scan)

    assert scan.values()[found.alpha].mean() > 2 * scan.values()[~found.alpha].mean()


def test_the_shared_segmentation_covers_the_liver():
    folder = shared_data() / "dicom" / "seg_pair"
    (series,) = read_paths(sorted(folder.glob("ct_*.dcm")), Progress())
    scan = series.scan.decode()
    (found,) = masks(folder / "liver_seg.dcm", scan)

    assert found.name == "Liver"
    assert found.alpha.sum() == pydicom.dcmread(folder / "liver_seg.dcm").pixel_array.sum()
    assert 40 < np.median(scan.values()[found.alpha]) < 200  # HU of contrast-enhanced liver
