from __future__ import annotations

import json
from dataclasses import replace

import pydicom
import pytest

from medapp.errors import ExportError
from medapp.export.data_set import plan, write
from medapp.export.deidentify import Privacy
from medapp.export.identifiers import Identifiers, identifiers_of, search_folder
from medapp.scan.scan import SourceInfo
from tests.export.making import (
    INSTITUTION,
    NAME,
    PATIENT_ID,
    PHYSICIAN,
    by_role,
    make_annotation,
    make_item,
    make_restored,
    make_scan,
    options,
    written,
)

PLANTED = ["Quokkason", "Zebulon", PATIENT_ID, "Wombatova", "Numbat General", "ACC-998877", "STUDY-5544", "ROOM-KANGA"]
DATES = ["20240229", "19310405"]


def test_no_planted_value_is_in_any_exported_byte(tmp_path):
    formats = ("seg", "seg-binary", "derived", "nifti", "png", "png-cutout", "coco")
    items = [make_item("CT"), make_restored("MR"), make_restored("PT")]
    report = written(tmp_path, *items, formats=formats)

    uids = {i.scan.source.study_uid for i in items} | {u for i in items for u, _ in i.header_scan.source.frames}
    for path in report.folder.rglob("*"):
        data = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        for value in (*PLANTED, *DATES, *uids):
            for encoding in ("utf-8", "utf-16-le"):
                assert value.encode(encoding).lower() not in data.lower()


def test_the_planted_values_are_known_to_the_check():
    found = identifiers_of(make_scan("CT").source)

    assert {"Quokkason", "Zebulon", NAME, PATIENT_ID, PHYSICIAN, INSTITUTION} <= found.values
    assert set(DATES) <= found.dates
    assert "Quokkason" not in repr(found)


def test_objects_say_that_identities_were_removed(tmp_path):
    report = written(tmp_path, make_restored("CT"), formats=("derived", "seg"))

    for role in ("derived", "seg"):
        ds = pydicom.dcmread(by_role(report, role)[0])
        assert ds.PatientIdentityRemoved == "YES"
        codes = [item.CodeValue for item in ds.DeidentificationMethodCodeSequence]
        assert codes == ["113100", "113107", "113108"]
        assert ds.PatientBirthDate in ("", None)
        assert str(ds.PatientID).startswith("P-")
    assert pydicom.dcmread(by_role(report, "derived")[0]).PatientAge == "090Y"


def test_uids_map_alike_within_a_project_and_differently_between_projects():
    one, other = Privacy(b"a"), Privacy(b"b")

    assert one.uid("1.2.3") == one.uid("1.2.3") != other.uid("1.2.3")
    assert one.uid("1.2.3").startswith("2.25.")
    assert len(one.uid("1.2.3")) <= 64
    assert one.alias("p") == one.alias("p") != one.alias("q")


def test_dates_of_one_patient_move_together_and_never_onto_a_real_one():
    privacy = Privacy(b"k")
    days = privacy.shift_days("p")
    assert 1 <= days <= 3650
    moved = privacy.date("20240229", "p")
    assert privacy.date("20240301", "p") > moved
    careful = Privacy(b"k", busy_dates=frozenset({"20240229", moved}))
    assert careful.date("20240229", "p") not in ("20240229", moved)
    assert privacy.date("no date", "p") == ""
    assert privacy.date_time("20240229101530.5+0100", "p") == moved + "101530.5"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.bin", "a.json", "a.dcm"])
def test_a_hidden_name_is_found_in_any_encoding(tmp_path, encoding, name):
    (tmp_path / name).write_bytes(b"{}" * 50 + "xxMÜLLER-LÜDENscheidtxx".replace("Ü", "ü").encode(encoding) + b"{}")

    with pytest.raises(ExportError, match=r"found in a\.") as stopped:
        search_folder(tmp_path, Identifiers(frozenset({"Müller-Lüdenscheidt"}), (), frozenset(), frozenset()))
    assert "denscheidt" not in stopped.value.message


def test_a_name_in_a_file_name_is_found(tmp_path):
    (tmp_path / "scan_of_quokkason.png").write_bytes(b"")

    with pytest.raises(ExportError, match="name of a file"):
        search_folder(tmp_path, Identifiers(frozenset({"Quokkason"}), (), frozenset(), frozenset()))


@pytest.mark.parametrize(
    ("stem", "text"),
    [("mean", '{"mean_shift": "by any means"}'), ("shifted", '{"note": "dates_were", "unshifted": "x"}')],
)
def test_a_file_called_like_a_part_of_our_own_words_is_no_leak(tmp_path, stem, text):
    (tmp_path / "manifest.json").write_text(text)

    search_folder(tmp_path, identifiers_of(SourceInfo(format="raster", path=f"/data/{stem}.png")))


@pytest.mark.parametrize("text", ["Meier", "meier_alpha.png", "MEIER-2 left", "of meier2"])
@pytest.mark.parametrize("where", ["key", "value", "name"])
def test_a_file_name_is_found_where_it_stands_whole(tmp_path, text, where):
    if where == "name":
        (tmp_path / text).write_bytes(b"")
    else:
        document = {"meier": 1} if where == "key" else {"files": [text]}
        (tmp_path / "manifest.json").write_text(json.dumps(document))

    with pytest.raises(ExportError, match="nothing was exported"):
        search_folder(tmp_path, identifiers_of(SourceInfo(format="raster", path="/data/Meier.png")))


def test_a_file_name_among_other_bytes_is_found_wherever_it_stands(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"xxquokkaxx")

    with pytest.raises(ExportError, match="nothing was exported"):
        search_folder(tmp_path, identifiers_of(SourceInfo(format="raster", path="/data/Quokka.png")))


def test_a_leak_stops_the_export_and_leaves_nothing(tmp_path):
    scan = make_scan("CT")
    item = replace(make_item("CT"), annotation=make_annotation(scan, names=("Zebulon's liver",)))
    planned = plan([item], options(tmp_path, "seg"))

    assert any("holds an identifying value" in line for line in planned.problems)
    with pytest.raises(ExportError, match="nothing was exported") as stopped:
        write(planned)
    assert "Zebulon" not in stopped.value.message + stopped.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("patient_id", ["0001", "1000", "7", "0010", "2024", "FACE", "abcd"])
def test_short_ids_do_not_stop_an_honest_export(tmp_path, patient_id):
    item = make_item("CT", PatientID=patient_id)
    source = replace(item.scan.source, patient_id=patient_id)
    item = replace(item, scan=replace(item.scan, source=source), group=patient_id)

    assert written(tmp_path, item, formats=("seg", "seg-binary", "nifti", "png", "coco")).files


def test_private_and_free_text_elements_stay_behind(tmp_path):
    report = written(tmp_path, make_restored("CT"), formats=("derived",), deidentify=False)

    ds = pydicom.dcmread(by_role(report, "derived")[0])
    assert not [e for e in ds.iterall() if e.tag.is_private]


def test_scanner_names_that_are_hospital_names_are_left_out(tmp_path):
    item = make_restored("CT")
    headers = make_scan("CT", InstitutionName="Scanner").source.headers
    source = replace(item.source_scan, source=replace(item.source_scan.source, headers=headers))
    report = written(tmp_path, replace(item, source_scan=source), formats=("derived",))

    assert any("Manufacturer of the source holds an identifying value" in note for note in report.notes)
    ds = pydicom.dcmread(by_role(report, "derived")[0])
    assert ds.ContributingEquipmentSequence[0].Manufacturer == "unknown"


@pytest.mark.parametrize(
    ("path", "is_known"), [("/a/ct_liver.nii.gz", False), ("/a/Kowalska_T1.nii", True), ("/a/20871.png", True)]
)
def test_file_names_count_unless_they_are_plain_words(path, is_known):
    assert bool(identifiers_of(SourceInfo(path=path, format="nifti")).values) is is_known
