"""Every place gives references of one kind with their patients; what is none is left out and said."""

import numpy as np
import pytest
from PIL import Image

from medapp.annotation.annotation import Annotation
from medapp.errors import Cancelled, TrainingError
from medapp.export.data_set import write
from medapp.export.plan_types import ExportItem, ExportOptions
from medapp.export.planning import plan
from medapp.progress import Progress
from medapp.scan.reading import read_scan
from medapp.store.project import Project
from medapp.training import leakage
from medapp.training.label_maps import looks_like_labels
from medapp.training.project_source import project_references
from medapp.training.references import References
from medapp.training.sources import find_references
from tests.builders import PATIENT_ID, make_scan, shared_data, write_dicom_series
from tests.training.places import mr_place, picture, save_manifest, save_nifti


def test_a_folder_with_a_manifest_gives_its_split_without_label_maps(tmp_path):
    place = mr_place(tmp_path)
    train, val = find_references(place, "MR", "train"), find_references(place, "MR", "val")

    assert (train.patients, val.patients) == (("a", "b", "c"), ("d",))
    assert (train.modality, train.unit, train.slices) == ("MR", "arbitrary", 6)
    assert train.spacing_range_mm == (1.0, 1.0)
    assert train.notes == ("1 file is labels, masks or mattes: left out.",)
    assert train.collections() == ({"name": "phantoms", "licence": "CC0", "patients": 3, "slices": 6},)
    first = train.entries[0]
    assert first.load().shape == first.shape == (2, 64, 72)
    assert find_references(place, "MR").slices == 8
    leakage.check(train, val)


def test_the_hash_tells_other_pixels_and_other_patients(tmp_path):
    first = find_references(mr_place(tmp_path / "one"), "MR", "train")
    again = find_references(mr_place(tmp_path / "two"), "MR", "train")
    assert first.sha256 == again.sha256
    assert first.of_patients(["a", "b"]).sha256 != first.sha256
    other = find_references(mr_place(tmp_path / "three", ("a", "b", "x", "d")), "MR", "train")
    assert other.sha256 != first.sha256


def test_training_files_of_patients_for_validation_stay_out(tmp_path):
    place = mr_place(tmp_path)
    save_nifti(place / "mri/d_flair.nii.gz", [picture(77)])
    rows = [(f"mri/{n}_t1.nii.gz", "MR T1", "val" if n == "d" else "train") for n in "abcd"]
    save_manifest(place, [*rows, ("mri/d_flair.nii.gz", "MR FLAIR", "train")])
    train = find_references(place, "MR", "train")
    assert "d" not in train.patients
    assert "1 file is for training but of patients who are for validation too: left out." in train.notes


def test_a_plain_folder_is_grouped_by_patient_and_knows_masks_by_their_content(tmp_path):
    for number, name in enumerate(("x_t1", "x_flair", "y_t1")):
        save_nifti(tmp_path / f"{name}.nii.gz", [picture(number)])
    save_nifti(tmp_path / "drawn.nii.gz", [(picture(0) > 100) * 1.0])
    Image.fromarray((picture(0) > 100).astype(np.uint8) * 255).save(tmp_path / "z_mask.png")
    (tmp_path / "notes.txt").write_text("nothing to see")

    found = find_references(tmp_path, "MR")
    assert found.patients == ("x", "y")
    assert len(found) == 3
    assert "2 files are labels, masks or mattes: left out." in found.notes
    assert found.entries[0].load().shape == (1, 64, 72)


def test_sub_folders_are_patients_unless_they_are_named_after_splits(tmp_path):
    for number, name in enumerate(("one/scan", "two/scan")):
        save_nifti(tmp_path / "by_patient" / f"{name}.nii.gz", [picture(number)])
        save_nifti(tmp_path / "by_split" / f"{name}.nii.gz".replace("one", "train").replace("two", "val"), [picture(3)])
    assert find_references(tmp_path / "by_patient", "MR").patients == ("one", "two")
    assert find_references(tmp_path / "by_split", "MR").patients == ("scan",)


def test_dicom_patients_are_grouped_without_their_id(tmp_path):
    write_dicom_series(tmp_path / "a", make_scan((2, 40, 48)))
    found = find_references(tmp_path, "CT")
    assert (found.unit, found.slices) == ("HU", 2)
    assert found.patients[0].startswith("patient-")
    assert PATIENT_ID not in repr(found.entries[0])


def _project(folder, names=("a", "b"), marked=("a", "b")):
    with Project.create(folder / "p.medapp") as project:
        for number, name in enumerate(names):
            path = save_nifti(folder / f"{name}_t1.nii.gz", [picture(number), picture(number + 9)])
            series_id = project.add_series(read_scan(path, "MR"))
            project.set_series(series_id, group=f"group {name}")
            if name in marked:
                project.set_reference(series_id, True)
        if marked:
            first = project.series()[0].series_id
            project.add_region_map(first, 1, (picture(9) > 100).astype(np.int32), engine="region tree")
    return folder / "p.medapp"


def test_a_project_gives_the_series_marked_as_reference_with_their_region_maps(tmp_path):
    place = _project(tmp_path, ("a", "b", "c"), marked=("a", "c"))
    found = find_references(place, "MR")
    assert found.patients == ("group a", "group c")
    first, last = found.entries
    assert first.region_map(0) is None
    assert first.region_map(1).max() == 1
    assert last.region_map is None
    np.testing.assert_allclose(first.load()[0], picture(0), atol=1e-3)
    with Project.open(place, mode="read") as project:
        assert project_references(project, "MR").sha256 == found.sha256


def test_a_project_without_marked_series_says_what_to_mark(tmp_path):
    with pytest.raises(TrainingError, match="none is marked as reference") as caught:
        find_references(_project(tmp_path, marked=()))
    assert "Reference" in caught.value.hint


@pytest.mark.parametrize("formats", [{"nifti"}, {"png"}])
def test_an_exported_data_set_gives_values_and_splits_back(tmp_path, formats):
    items = []
    for number, name in enumerate("abcd"):
        scan = read_scan(save_nifti(tmp_path / f"{name}.nii.gz", [picture(number)]), "MR")
        items.append(ExportItem(scan, Annotation(name, scan.shape[:3]), group=name))
    options = ExportOptions(out=tmp_path / "out", formats=frozenset(formats), png_bits=16, deidentify=True)
    write(plan(items, options))

    everything = find_references(tmp_path / "out", "MR")
    train = find_references(tmp_path / "out", "MR", "train")
    assert len(everything.patients) == 4
    assert 0 < len(train) < len(everything)
    spread = max(abs(entry.load()).max() for entry in everything)
    assert spread == pytest.approx(max(picture(n).max() for n in range(4)), rel=1e-3)


def test_bad_places_are_told_in_one_line_with_a_hint(tmp_path):
    def refused(place, match, *args):
        with pytest.raises(TrainingError, match=match) as caught:
            find_references(place, *args)
        assert caught.value.hint

    empty, only_masks, mixed = tmp_path / "empty", tmp_path / "masks", tmp_path / "mixed"
    empty.mkdir()
    refused(tmp_path / "nowhere", "no data folder")
    refused(empty, "folder holds no images")
    refused(empty, "does not say which scans are for training", None, "train")
    save_nifti(only_masks / "m.nii.gz", [(picture(0) > 100) * 1.0])
    refused(only_masks, "holds images, but no reference of MR: 1 file is labels", "MR")
    save_nifti(mixed / "a.nii.gz", [picture(0) - 500])
    Image.fromarray(np.clip(picture(1) / 4, 0, 255).astype(np.uint8)).save(mixed / "b.png")
    refused(mixed, "mixes units: 1 in (HU, 1 in arbitrary|arbitrary, 1 in HU)", "CT")
    save_manifest(empty, [("ct/gone.nii.gz", "CT", "train")])
    refused(empty, "1 file could not be read", "CT", "train")
    refused(empty, "holds no images of MR", "MR", "train")
    (empty / "MANIFEST.csv").write_text("a,b\n1,2\n")
    refused(empty, r"MANIFEST\.csv lacks")


def test_reading_can_be_stopped(tmp_path):
    with pytest.raises(Cancelled):
        find_references(mr_place(tmp_path), "MR", "train", Progress(is_stopped=lambda: True))


def test_a_patient_or_a_turned_picture_on_both_sides_is_found(tmp_path):
    train = find_references(mr_place(tmp_path / "one"), "MR", "train")
    with pytest.raises(TrainingError, match="2 patients are both"):
        leakage.check(train, train.of_patients(["a", "b"]))
    save_nifti(tmp_path / "two" / "z.nii.gz", [picture(10)[::-1].T, picture(99).T])
    other = find_references(tmp_path / "two", "MR")
    with pytest.raises(TrainingError, match="1 slice is equal") as caught:
        leakage.check(train, other)
    assert "patient group" in caught.value.hint
    kept, removed = leakage.without_copies(train, other)
    assert (removed, kept.patients) == (1, ("a", "c"))
    leakage.check(kept, other)


def test_slices_of_nothing_are_no_copies_of_each_other(tmp_path):
    for name, number in (("p", 1), ("q", 2)):
        save_nifti(tmp_path / f"{name}.nii.gz", [np.zeros((64, 72)), picture(number)])
    found = find_references(tmp_path, "MR")
    leakage.check(found.of_patients(["p"]), found.of_patients(["q"]))


def test_measurements_with_few_values_are_no_label_maps():
    noise = np.random.default_rng(0).integers(0, 9, (1, 40, 40)).astype(np.float32)
    assert not looks_like_labels(noise)
    assert not looks_like_labels(np.round(picture(0))[None])
    assert looks_like_labels((picture(0) > 100)[None] * 7.0)
    soft = np.clip((picture(0) - 390) / 3, 0, 1)
    soft[:, :20] = 0
    assert not looks_like_labels(soft[None] * 0.5)


def test_the_shared_data_divides_without_leakage_and_its_label_maps_are_known():
    place = shared_data()
    train, val = find_references(place, "PT", "train"), find_references(place, "PT", "val")
    assert isinstance(train, References)
    assert (train.unit, len(train.patients), len(val.patients)) == ("SUV", 30, 7)
    leakage.check(train, val)
    for reference in train.entries[:4]:
        name = reference.source.replace("_pet", "_gtv")
        assert looks_like_labels(read_scan(place / name).values())
