from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest

from medapp.export.seg import tracking_uid
from medapp.scan.geometry import Geometry
from medapp.scan.reading import read_all
from tests.builders import shared_data
from tests.export.making import (
    NAME,
    PATIENT_ID,
    ExportItem,
    by_role,
    make_annotation,
    make_item,
    make_restored,
    make_scan,
    written,
)

DICOM = ("seg", "seg-binary", "derived")


def complaints(report) -> list[str]:
    """Errors that dicom3tools finds in the DICOM objects of an export."""
    files = [report.folder / name for name, _, _ in report.files if name.endswith(".dcm")]
    assert files
    found = []
    for path in files:
        told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        found += [
            f"{path.name}: {line}" for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")
        ]
    told = subprocess.run(["dcentvfy", *map(str, files)], capture_output=True, text=True, check=False)
    return found + (told.stdout + told.stderr).splitlines()


needs_dicom3tools = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="Debian's dicom3tools is not installed")


@needs_dicom3tools
@pytest.mark.parametrize("deidentify", [True, False])
@pytest.mark.parametrize("modality", ["CT", "MR", "PT", "OT"])
def test_every_object_passes_dciodvfy(tmp_path, modality, deidentify):
    items = [make_item(modality), make_restored(modality)]
    cleared = frozenset(item.scan.series_key for item in items)
    report = written(tmp_path, *items, formats=DICOM, deidentify=deidentify, cleared_series=cleared)

    assert complaints(report) == []
    assert len(by_role(report, "derived")) == 4


@needs_dicom3tools
@pytest.mark.parametrize(
    "folder",
    [
        "series_sts_001/CT",
        "series_sts_001/MR_T1",
        "series_sts_001/PET",
        "series_mr_ge_4d",
        "series_mr_philips_implicit",
        "series_mr_rle",
        "multiframe/eCT_Supplemental.dcm",
        "multiframe/emri_small.dcm",
        "multiframe/siemens_xa10_6_1.dcm",
        "multiframe/parametric_map_float.dcm",
        "pet/fo_GH184.dcm",
        "transfer_syntax/MR_small.dcm",
        "transfer_syntax/JPEG-lossy.dcm",
        "color/SC_rgb_rle.dcm",
    ],
)
def test_real_series_pass_dciodvfy_and_leave_no_identifier(tmp_path, folder):
    scan = read_all(shared_data() / "dicom" / folder)[0]
    items = [ExportItem(scan, make_annotation(scan))]
    if not scan.is_colour:
        values = scan.values() * np.float32(1.01)
        restored = replace(scan, stored=values, slope=1.0, intercept=0.0, padding=None)
        items.append(ExportItem(restored, make_annotation(restored), kind="restored", source_scan=scan))
    cleared = frozenset({scan.series_key})
    report = written(tmp_path, *items, formats=(*DICOM, "png", "nifti"), cleared_series=cleared)

    assert complaints(report) == []
    everything = b"".join(p.read_bytes() for p in report.folder.rglob("*") if p.is_file())
    for part in scan.source.patient_name.replace("^", " ").split():
        if len(part) >= 5:
            assert part.encode() not in everything
    assert scan.source.series_uid.encode() not in everything or not scan.source.series_uid


def test_highdicom_reads_alpha_back_in_place(tmp_path):
    item = make_item("CT")
    report = written(tmp_path, item, formats=("seg",))

    seg = hd.seg.segread(by_role(report, "seg")[0])
    volume = seg.get_volume(rescale_fractional=True)
    alpha = np.stack([m.volume() / 65535 for m in item.annotation], axis=-1)
    # highdicom numbers slices from the other side when it likes to: compare voxel by voxel at their places in mm
    index = np.argwhere(volume.array > 0)
    places = volume.map_indices_to_reference(index[:, :3]) * (-1, -1, 1)
    ours = np.rint(item.scan.geometry.to_index(places)).astype(int)
    read = np.zeros_like(alpha)
    read[ours[:, 0], ours[:, 1], ours[:, 2], index[:, 3]] = volume.array[tuple(index.T)]
    assert np.abs(read - alpha).max() <= 1 / 510 + 1e-6
    assert seg.segmentation_fractional_type.value == "OCCUPANCY"
    assert seg.MaximumFractionalValue == 255
    assert report.largest_alpha_error == pytest.approx(np.abs(read - alpha).max(), abs=1e-6)


def test_segments_say_what_and_who(tmp_path):
    item = make_item("CT")
    seg = pydicom.dcmread(by_role(written(tmp_path, item, formats=("seg",)), "seg")[0])

    liver, hair = seg.SegmentSequence
    assert (liver.SegmentLabel, liver.SegmentAlgorithmType) == ("Liver", "MANUAL")
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    assert hair.SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert hair.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "1.0"
    assert liver.TrackingUID == tracking_uid("matte-1")
    assert seg.get("ContentCreatorName", "") in ("", None)


def test_tracking_stays_over_exports_while_objects_are_new(tmp_path):
    made = [
        pydicom.dcmread(by_role(written(tmp_path / name, make_item("CT"), formats=("seg",)), "seg")[0]) for name in "ab"
    ]

    assert made[0].SegmentSequence[0].TrackingUID == made[1].SegmentSequence[0].TrackingUID
    assert made[0].SOPInstanceUID != made[1].SOPInstanceUID
    assert made[0].StudyInstanceUID == made[1].StudyInstanceUID


def test_the_binary_twin_is_alpha_of_a_half_and_more(tmp_path):
    item = make_item("CT")
    seg = pydicom.dcmread(by_role(written(tmp_path, item, formats=("seg-binary",)), "seg-binary")[0])

    assert seg.SegmentationType == "BINARY"
    total = sum(int((m.volume() >= 32768).sum()) for m in item.annotation)
    assert int(seg.pixel_array.sum()) == total


def test_rle_is_smaller_and_equal(tmp_path):
    item = make_restored("CT")
    plain, packed = (written(tmp_path / n, item, formats=DICOM, rle=n == "b") for n in "ab")

    for role in ("seg", "derived"):
        one, two = (pydicom.dcmread(by_role(report, role)[0]) for report in (plain, packed))
        assert two.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.5"
        assert np.array_equal(one.pixel_array, two.pixel_array)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_derived_series_hold_the_restored_values_in_the_source_unit(tmp_path, modality):
    item = make_restored(modality)
    report = written(tmp_path, item, formats=("derived",))

    for z, path in enumerate(by_role(report, "derived")):
        ds = pydicom.dcmread(path)
        values = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        wanted = item.scan.slice_values(z).astype(float)
        if modality == "PT":  # in Bq/ml again: the check value of formats.md 2
            wanted = wanted * 5000 / 1.38168
            assert (ds.Units, ds.RescaleIntercept) == ("BQML", 0)
        half_step = float(ds.RescaleSlope) / 2
        assert np.abs(values - wanted).max() <= half_step + np.abs(wanted).max() * 1e-5
        assert ds.ImagePositionPatient == [-30.0, -20.0, 100.0 + 2.5 * z]
        assert ds.SeriesDescription.startswith("RESTORED - NOT FOR DIAGNOSTIC USE")
        assert ds.SeriesNumber == 1003
        assert ds.DerivationDescription == "denoised by Restore-RWKV 1.0 sha256:0123456789abcdef, medapp 0.1.0"
        assert ds.ImageType[:1] == ["DERIVED"]
        purpose = ds.SourceImageSequence[0].PurposeOfReferenceCodeSequence[0]
        assert purpose.CodeValue == "121322"
        assert ds.SourceImageSequence[0].SpatialLocationsPreserved == "YES"
        assert [i.PurposeOfReferenceCodeSequence[0].CodeValue for i in ds.ContributingEquipmentSequence] == [
            "109101",
            "109103",
        ]
        assert ds.ContributingEquipmentSequence[0].Manufacturer == "Scanner Works"
        assert ds.Manufacturer == "medapp"
        for element in ds.iterall():
            assert not element.tag.is_private
            if element.VR == "DS":
                many = element.value if element.VM > 1 else [element.value]
                assert all(len(str(v)) <= 16 for v in many if v is not None)
    assert {pydicom.dcmread(p).SeriesInstanceUID for p in by_role(report, "derived")}.__len__() == 1


def test_hu_below_the_usual_floor_is_not_clipped(tmp_path):
    item = make_restored("CT")
    values = item.scan.stored.copy()
    values[0, 0, 0], values[1, 1, 1] = -3000.4, 5000.0
    report = written(tmp_path, replace(item, scan=replace(item.scan, stored=values)), formats=("derived",))

    slices = [pydicom.dcmread(p) for p in by_role(report, "derived")]
    assert {ds.RescaleIntercept for ds in slices} == {-3001}
    assert int(slices[0].pixel_array[0, 0]) - 3001 == -3000
    assert int(slices[1].pixel_array[1, 1]) - 3001 == 5000


def test_segs_of_a_restored_series_refer_to_its_own_objects(tmp_path):
    report = written(tmp_path, make_restored("CT"), formats=DICOM)

    derived = {pydicom.dcmread(p).SOPInstanceUID for p in by_role(report, "derived")}
    seg = pydicom.dcmread(by_role(report, "seg")[0])
    referred = {i.ReferencedSOPInstanceUID for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referred <= derived
    assert referred
    assert seg.ContributingEquipmentSequence[0].Manufacturer == "Scanner Works"


def test_oblique_and_tilted_series_keep_their_place(tmp_path):
    orientation = [0.8, 0.6, 0.0, -0.48, 0.64, 0.6]
    source = make_scan("CT", orientation=orientation)
    affine = np.eye(4)
    steps = np.column_stack([0.5 * np.array(orientation[:3]), 0.75 * np.array(orientation[3:]), [0, 0, 2.5]])
    affine[:3, :3] = np.diag([-1, -1, 1]) @ steps  # the bed moves along z, the slices lean: sheared
    item = ExportItem(replace(source, geometry=Geometry.from_xyz(affine)), make_annotation(source), group="g")
    seg = pydicom.dcmread(by_role(written(tmp_path, item, formats=("seg",)), "seg")[0])

    shared = seg.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == orientation
    places = {tuple(g.PlanePositionSequence[0].ImagePositionPatient) for g in seg.PerFrameFunctionalGroupsSequence}
    assert places == {(-30.0, -20.0, 102.5), (-30.0, -20.0, 105.0)}


@needs_dicom3tools
def test_finer_pixels_get_their_own_place(tmp_path):
    source = make_scan("MR")
    fine = source.geometry.affine_zyx.copy()
    fine[:3, 1:3] /= 2
    fine[:3, 3] -= (fine[:3, 1] + fine[:3, 2]) / 2  # two by two new pixels share the old one's outline
    values = np.repeat(np.repeat(source.values(), 2, axis=1), 2, axis=2)
    scan = replace(source, stored=values, geometry=Geometry(fine))
    item = ExportItem(scan, make_annotation(scan), kind="restored", source_scan=source)
    report = written(tmp_path, item, formats=DICOM)

    assert complaints(report) == []
    ds = pydicom.dcmread(by_role(report, "derived")[1])
    assert (ds.Rows, ds.Columns, list(ds.PixelSpacing)) == (24, 40, [0.375, 0.25])
    assert list(ds.ImagePositionPatient) == [-30.125, -20.1875, 102.5]
    assert ds.SourceImageSequence[0].SpatialLocationsPreserved == "NO"


def test_any_label_name_becomes_a_segment(tmp_path):
    scan = make_scan("CT")
    names = ("left\\right", "Leber 🫀", "x" * 300, "line\nbreak", "肝臓")
    item = ExportItem(scan, make_annotation(scan, names))
    seg = pydicom.dcmread(by_role(written(tmp_path, item, formats=("seg",)), "seg")[0])

    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["left right", "Leber 🫀", "x" * 64, "line break", "肝臓"]


def test_broken_values_of_the_source_are_left_out_with_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    item = make_item("CT", PatientAge="old", SoftwareVersions="x" * 90, PatientSex="?", StudyDate="yesterday")
    monkeypatch.undo()
    report = written(tmp_path, item, formats=("seg",), deidentify=False)

    assert any("PatientAge of the source breaks the rules" in note for note in report.notes)
    assert any("SoftwareVersions of the source is longer" in note for note in report.notes)


def test_identities_stay_when_asked_for(tmp_path):
    report = written(tmp_path, make_restored("MR"), formats=("derived",), deidentify=False)

    ds = pydicom.dcmread(by_role(report, "derived")[0])
    assert (ds.PatientName, ds.PatientID, ds.StudyDate) == (NAME, PATIENT_ID, "20240229")
    assert "PatientIdentityRemoved" not in ds
