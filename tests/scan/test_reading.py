"""Walking folders and archives: everything readable is found, nothing outside is touched."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medapp.errors import Cancelled
from medapp.progress import Progress
from medapp.scan.lazy import FoundScan, Refused, Skipped
from medapp.scan.reading import read_path, read_paths, read_scan, sniff
from tests.builders import make_dataset, make_scan, save_dataset, write_dicom_series


def findings(path, **more):
    return list(read_path(path, Progress(), **more))


def refused(path, **more):
    return {Path(found.path).name: found.message for found in findings(path, **more) if isinstance(found, Refused)}


@pytest.mark.parametrize("content", [b"", b"hello\n", bytes(4096), os.urandom(4096), b"PK\x03\x04", b"BM", b"\x1f\x8b"])
def test_what_is_no_image_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "scan.dcm"
    path.write_bytes(content)
    (found,) = findings(path)

    assert isinstance(found, Refused)
    assert "\n" not in found.message
    assert found.message.startswith("scan.dcm")


def test_a_preamble_that_looks_like_tiff_is_still_dicom(tmp_path):
    path = save_dataset(tmp_path / "a.tif", make_dataset(make_scan(), 0))
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])

    assert sniff(path) == "dicom"
    assert read_scan(path).modality == "CT"


def test_one_bad_file_never_stops_the_others(tmp_path):
    write_dicom_series(tmp_path / "series", make_scan())
    (tmp_path / "notes.txt").write_text("hello")
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "picture.png")
    save_dataset(
        tmp_path / "report.dcm",
        make_dataset(make_scan(), 0, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", SOPInstanceUID="2.25.5"),
    )
    found = findings(tmp_path)

    assert sorted(item.scan.kind for item in found if isinstance(item, FoundScan)) == ["image", "scan"]
    assert [item.kind for item in found if isinstance(item, Skipped)] == ["Comprehensive SR"]
    assert list(refused(tmp_path)) == ["notes.txt"]


def test_files_named_one_by_one_are_one_series(tmp_path):
    paths = write_dicom_series(tmp_path, make_scan())
    (found,) = read_paths(paths, Progress())

    assert found.scan.shape == (4, 12, 16)


def test_links_and_special_files_are_never_followed_out_of_the_folder(tmp_path):
    outside = tmp_path / "outside"
    write_dicom_series(outside, make_scan())
    folder = tmp_path / "chosen"
    folder.mkdir()
    (folder / "file").symlink_to(outside / "000.dcm")
    (folder / "folder").symlink_to(outside)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "up").symlink_to(folder)
    (folder / "gone").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe")
    said = refused(folder)

    assert set(said) == {"file", "folder", "loop", "gone", "pipe"}
    assert all("points outside the folder" in said[name] for name in ("file", "folder", "loop", "gone"))
    assert "not a regular file" in said["pipe"]


def test_a_device_or_pipe_that_is_named_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / "nothing"):
        (found,) = findings(path)
        assert isinstance(found, Refused)


@pytest.mark.parametrize(
    "name", ["😀 scan.dcm", "\u202egnp.mcd", "trailing. ", "a\tb\nc", "x" * 255, "-rf", "%s{0}", "naïve.dcm"]
)
def test_odd_names_load(tmp_path, name):
    save_dataset(tmp_path / "plain", make_dataset(make_scan(), 0)).rename(tmp_path / name)

    assert read_scan(tmp_path).shape == (1, 12, 16)


def test_a_path_longer_than_260_characters_loads(tmp_path):
    folder = tmp_path.joinpath(*["a" * 60] * 6)
    write_dicom_series(folder, make_scan())

    assert read_scan(tmp_path).shape == (4, 12, 16)


def test_files_that_killed_a_reader_are_refused_and_not_opened_again(tmp_path):
    paths = write_dicom_series(tmp_path, make_scan())
    parsed = []
    progress = Progress(lambda event: parsed.append(event.file) if event.file else None)
    found = list(read_paths([tmp_path], progress, {str(paths[3]): "The decoder crashed on this file."}))

    assert [item.message for item in found if isinstance(item, Refused)] == ["The decoder crashed on this file."]
    assert parsed == [str(path) for path in paths[:3]]


def test_the_user_can_stop_the_walk(tmp_path):
    write_dicom_series(tmp_path, make_scan())

    with pytest.raises(Cancelled):
        list(read_path(tmp_path, Progress(is_stopped=lambda: True)))


# ------------------------------------------------------------------------------------------------------------ archives


def zipped(tmp_path, scan=None) -> Path:
    write_dicom_series(tmp_path / "series", scan or make_scan())
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((tmp_path / "series").iterdir()):
            archive.write(file, f"DICOM/{file.name}")
    return path


def test_a_series_in_an_archive_is_read_even_when_decoded_later(tmp_path):
    path = zipped(tmp_path)
    (found,) = findings(path)

    assert found.scan.source.path == f"{path}/DICOM"
    assert np.array_equal(found.scan.decode().stored, make_scan().stored)


def test_the_unpacked_files_go_when_the_scans_go(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    found = findings(zipped(tmp_path))
    assert list((tmp_path / "temporary").iterdir())

    del found
    assert not list((tmp_path / "temporary").iterdir())


def test_what_a_killed_reader_unpacked_is_removed_by_the_next(tmp_path, monkeypatch):
    import subprocess

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    ended = subprocess.Popen(["true"])
    ended.wait()
    old = tmp_path / "temporary" / f"medapp-zip-{ended.pid}-abc"
    mine = tmp_path / "temporary" / f"medapp-zip-{os.getpid()}-abc"
    for folder in (old, mine):
        folder.mkdir(parents=True)
        (folder / "slice").write_bytes(b"x")
    findings(zipped(tmp_path))

    assert not old.exists()
    assert mine.exists()


def test_members_that_point_outside_are_refused_and_the_others_read(tmp_path):
    path = zipped(tmp_path)
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../outside.dcm", b"x")
        archive.writestr("/absolute.dcm", b"x")
        archive.writestr("C:\\windows.dcm", b"x")
        archive.writestr("..\\back.dcm", b"x")
        archive.writestr(link, "/etc/passwd")
    found = findings(path)

    said = [item.message for item in found if isinstance(item, Refused)]
    assert len(said) == 5
    assert all("outside the folder" in message for message in said)
    assert sum(isinstance(item, FoundScan) for item in found) == 1
    assert not list(tmp_path.parent.glob("outside.dcm"))


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number in range(4):
            archive.writestr(f"{number}", bytes(1 << 20))
    content = path.read_bytes()
    size = (1 << 20).to_bytes(4, "little")
    path.write_bytes(content.replace(size, (1 << 31).to_bytes(4, "little")))  # declares far more than it holds
    (found,) = findings(path)

    assert isinstance(found, Refused)
    assert "not safe" in found.message


def test_a_damaged_archive_or_member_is_refused(tmp_path):
    path = zipped(tmp_path)
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[:-60])
    assert len(refused(path)) == 1

    whole[200] ^= 0xFF
    path.write_bytes(whole)
    said = refused(path)
    assert len(said) == 1
    assert "unpack" in next(iter(said.values()))


def test_an_archive_in_an_archive_is_refused(tmp_path):
    inner = zipped(tmp_path)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(inner, "inner.zip")

    assert "archive inside an archive" in refused(tmp_path / "outer.zip")["inner.zip"]
