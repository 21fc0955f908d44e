from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medapp.errors import Cancelled, ExportError
from medapp.export import data_set
from medapp.export.data_set import plan, write
from medapp.export.manifest import verify_folder
from medapp.export.plan_types import ExportItem
from medapp.progress import Progress
from medapp.scan.scan import Scan, SourceInfo
from tests.export.making import (
    by_role,
    make_annotation,
    make_item,
    make_plain_scan,
    make_restored,
    manifest_of,
    options,
    written,
)

EVERYTHING = ("seg", "seg-binary", "derived", "nifti", "png", "png-cutout", "coco")


def _plain_item(**more) -> ExportItem:
    scan = make_plain_scan(**more)
    return ExportItem(scan, make_annotation(scan))


def test_the_dry_run_names_every_file_and_writes_none(tmp_path):
    items = [make_item("CT"), make_restored("MR")]
    planned = plan(items, options(tmp_path, *EVERYTHING))

    assert list(tmp_path.iterdir()) == []
    report = write(planned)
    assert sorted(name for name, _, _ in report.files) == sorted(file.path for file in planned.files)
    assert planned.size > 0
    assert "Patient's Name" in planned.identifiers
    assert not any("Quokkason" in line for line in (*planned.notes, *planned.problems, *planned.identifiers))


def test_a_written_export_is_whole_verified_and_alone(tmp_path):
    report = written(tmp_path, make_item("CT"), formats=EVERYTHING)

    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert verify_folder(report.folder).is_sound
    assert 0 < report.largest_alpha_error <= 1 / 510 + 1e-6
    manifest = manifest_of(report)
    assert {f["path"] for f in manifest["files"]} == {name for name, _, _ in report.files}
    assert manifest["items"][0]["reader"] == "Reader One"
    assert manifest["items"][0]["state"] == "done"
    assert manifest["deidentification"]["codes"][0] == "113100"
    assert manifest["schema"] == 1


def test_alpha_and_labels_are_where_the_mattes_were(tmp_path):
    item = make_item("CT")
    report = written(tmp_path, item, formats=("nifti", "png"))
    first, second = item.annotation.mattes

    alphas = [p for p in by_role(report, "alpha") if p.suffix == ".gz"]
    for matte, path in zip((first, second), alphas, strict=True):
        alpha = np.asarray(nib.load(path).dataobj).T
        assert np.abs(alpha - matte.volume() / 65535).max() < 1e-7
    labels = np.asarray(nib.load(next(p for p in by_role(report, "labels") if p.suffix == ".gz")).dataobj).T
    one, two = (m.volume().astype(int) for m in (first, second))
    assert np.array_equal(labels == 1, (one >= 32768) & (one >= two))
    assert np.array_equal(labels == 2, (two >= 32768) & (two > one))
    names = json.loads(next(p for p in by_role(report, "labels") if p.suffix == ".json").read_bytes())["labels"]
    assert [(n["number"], n["name"], n["code"]["value"]) for n in names] == [
        (1, "Liver", "10200004"),
        (2, "Hair", "386045008"),
    ]
    for entry in manifest_of(report)["files"]:
        if entry["role"] == "alpha" and entry["path"].endswith(".png"):
            matte = item.annotation.matte(entry["matte_id"])
            assert np.array_equal(
                np.asarray(Image.open(report.folder / entry["path"])), matte.slice_stored(entry["slice"])
            )
    assert report.largest_alpha_error < 1e-7


def test_images_come_back_in_their_unit(tmp_path):
    item = make_item("PT")
    report = written(tmp_path, item, formats=("nifti", "png"))

    for entry in manifest_of(report)["files"]:
        if entry["role"] != "image":
            continue
        if entry["path"].endswith(".png"):
            mapping = entry["value_map"]
            pixels = np.asarray(Image.open(report.folder / entry["path"]))
            values = pixels * mapping["slope"] + mapping["intercept"]
            assert mapping["unit"] == "SUV"
            assert np.allclose(values, item.scan.slice_values(entry["slice"]), rtol=1e-6, atol=1e-9)
        else:
            assert np.array_equal(np.asarray(nib.load(report.folder / entry["path"]).dataobj).T, item.scan.values())
            assert np.allclose(entry["affine"], item.scan.geometry.affine_xyz)


def test_other_sources_get_nifti_and_png_and_are_told_why(tmp_path):
    report = written(tmp_path, _plain_item(), formats=("seg", "seg-binary", "derived", "nifti", "png"))

    assert {role for _, _, role in report.files} == {"image", "alpha", "labels", "splits"}
    assert any("no DICOM SEG, because the source is not DICOM" in line for line in report.problems)


def test_stacks_get_no_nifti_and_are_told_why(tmp_path):
    item = make_item("CT")
    stack = replace(item, scan=replace(item.scan, geometry=None, kind="stack"))
    report = written(tmp_path, stack)

    assert any("no NIfTI" in line and "irregular" in line for line in report.problems)
    assert not [name for name, _, _ in report.files if name.endswith(".nii.gz")]
    assert by_role(report, "seg")
    assert by_role(report, "image")


def test_colour_images_become_png(tmp_path):
    scan = Scan(np.random.default_rng(0).integers(0, 256, (1, 8, 9, 3), dtype=np.uint8), kind="image")
    report = written(tmp_path, ExportItem(scan, make_annotation(scan)), formats=("png", "png-cutout", "nifti"))

    assert np.array_equal(np.asarray(Image.open(by_role(report, "image")[0])), scan.stored[0])
    assert any("in colour" in line for line in report.problems)


def test_series_of_one_patient_share_a_split(tmp_path):
    items = [
        replace(make_item(modality, seed=patient), group=f"group {patient}")
        for patient in range(6)
        for modality in ("CT", "MR")
    ]
    report = written(tmp_path, *items, formats=("nifti",), split_seed=4)

    manifest = manifest_of(report)
    splits = json.loads((report.folder / "splits.json").read_bytes())
    for entry in manifest["items"]:
        assert manifest["split"]["groups"][entry["group"]] == entry["split"]
        assert entry["folder"] in splits["series"][entry["split"]]
    assert len(manifest["split"]["groups"]) == 6
    assert {entry["split"] for entry in manifest["items"]} == {"train", "val", "test"}


def test_an_export_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")

    with pytest.raises(ExportError, match="not empty"):
        plan([_plain_item()], options(tmp_path))
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "out").mkdir()
    assert verify_folder(written(tmp_path, _plain_item()).folder).is_sound


@pytest.mark.parametrize("stop_after", [0, 1, 5])
def test_cancelling_leaves_nothing(tmp_path, stop_after):
    seen = []
    progress = Progress(report=seen.append, is_stopped=lambda: len(seen) > stop_after)

    with pytest.raises(Cancelled):
        write(plan([make_item("CT")], options(tmp_path)), progress)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_nothing(tmp_path, monkeypatch):
    def broken(*arguments):
        raise ExportError("The disk is full.", "")

    monkeypatch.setattr(data_set, "write_seg", broken)
    with pytest.raises(ExportError, match="disk is full"):
        written(tmp_path, make_item("CT"))
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_files(tmp_path):
    events = []
    planned = plan([make_item("CT")], options(tmp_path))
    write(planned, Progress(report=events.append))

    assert events[0].total == len(planned.files)
    assert max(event.done for event in events) == len(planned.files)


def test_mattes_of_another_grid_are_left_out_and_said(tmp_path):
    item = make_item("CT")
    other = replace(item, annotation=make_annotation(make_plain_scan()))
    report = written(tmp_path, other)

    assert any("another grid" in line for line in report.problems)
    assert {role for _, _, role in report.files} == {"image", "splits"}


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    monkeypatch.setattr("medapp.export.planning._free_bytes", lambda out: 1000)

    assert any("free space" in line for line in plan([make_item("CT")], options(tmp_path)).problems)


def test_nothing_chosen_is_refused(tmp_path):
    with pytest.raises(ExportError, match="Nothing was chosen"):
        plan([], options(tmp_path))
    with pytest.raises(ExportError, match="Unknown export format"):
        plan([_plain_item()], options(tmp_path, "analyze"))


def test_eight_bit_images_name_their_window(tmp_path):
    report = written(tmp_path, make_item("CT"), formats=("png",), png_bits=8)

    images = [f for f in manifest_of(report)["files"] if f["role"] == "image"]
    assert {f["value_map"]["window"]["name"] for f in images} == {"Soft tissue"}
    assert np.asarray(Image.open(report.folder / images[0]["path"])).dtype == np.uint8
    assert 0 < report.largest_alpha_error <= 1 / 510


def test_coco_points_at_the_images_and_their_alpha(tmp_path):
    report = written(tmp_path, make_item("CT"), formats=("coco",))

    coco = json.loads((report.folder / "coco.json").read_bytes())
    ids = {image["id"] for image in coco["images"]}
    assert len(ids) == 4
    assert coco["annotations"]
    for image in coco["images"]:
        assert np.asarray(Image.open(report.folder / image["file_name"])).shape == (image["height"], image["width"])
    for entry in coco["annotations"]:
        alpha = np.asarray(Image.open(report.folder / entry["alpha_file"]))
        assert entry["image_id"] in ids
        assert entry["area"] == (alpha >= 32768).sum()


def test_strange_label_names_become_clean_unique_files(tmp_path):
    scan = make_plain_scan()
    names = ("a/b", "a\\b", "Leber 🫀", "x" * 300, "con")
    report = written(tmp_path, ExportItem(scan, make_annotation(scan, names)), formats=("nifti",))

    files = [p.name for p in by_role(report, "alpha")]
    assert len({f.lower() for f in files}) == 5
    assert max(len(f.encode()) for f in files) <= 100


def test_a_scan_without_mattes_is_exported_too(tmp_path):
    scan = make_plain_scan()
    empty = make_annotation(scan, names=())
    report = written(tmp_path, ExportItem(scan, empty, source_scan=None), formats=("nifti", "png", "seg"))

    assert {role for _, _, role in report.files} == {"image", "splits"}
    assert report.largest_alpha_error == 0.0


def test_screen_like_images_are_held_back_until_cleared(tmp_path):
    item = make_item("US")
    held = written(tmp_path / "a", item)

    assert any("burned-in" in line for line in held.problems)
    assert not by_role(held, "image")
    assert by_role(held, "alpha")
    cleared = written(tmp_path / "b", item, cleared_series=frozenset({item.scan.series_key}))
    assert by_role(cleared, "image")


def test_the_sample_of_sources_keeps_its_name_when_asked_to(tmp_path):
    item = replace(make_item("CT"), title="Follow-up of the liver")
    report = written(tmp_path, item, formats=("nifti",), deidentify=False)

    assert manifest_of(report)["items"][0]["title"] == "Follow-up of the liver"
    assert manifest_of(report)["deidentification"] is None
    assert any("NOT removed" in note for note in report.notes)


def test_a_file_name_that_is_a_name_is_found(tmp_path):
    scan = make_plain_scan(path="/data/Quokkason_Zebulon.nii.gz")
    annotation = make_annotation(scan, names=("Quokkason_Zebulon left",))
    planned = plan([ExportItem(scan, annotation)], options(tmp_path, "nifti"))

    assert any("matte 1 holds an identifying value" in line for line in planned.problems)
    with pytest.raises(ExportError, match="identifying value"):
        write(planned)
    assert list(tmp_path.iterdir()) == []
    assert SourceInfo(path="x").headers == ()
