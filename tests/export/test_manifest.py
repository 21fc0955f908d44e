from __future__ import annotations

import json

import pytest

from medapp.cli.main import main
from medapp.errors import ExportError, UnreadableFileError
from medapp.export.manifest import to_json, verify_folder, write_manifest
from tests.export.making import make_item, written


@pytest.fixture
def folder(tmp_path):
    return written(tmp_path, make_item("CT"), formats=("nifti",)).folder


def _result(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def test_an_untouched_folder_passes(folder, capsys):
    assert main(["verify", str(folder)]) == 0
    assert _result(capsys)["ok"] is True


def test_changed_missing_and_surplus_files_are_listed(folder, capsys):
    labels = next(folder.rglob("labels.json"))
    labels.write_bytes(labels.read_bytes().replace(b"Liver", b"Lever"))
    image = next(folder.rglob("image.nii.gz"))
    image.unlink()
    (folder / "extra.txt").write_text("new")

    assert main(["verify", str(folder)]) == 1
    result = _result(capsys)
    assert result["ok"] is False
    assert result["changed"] == [labels.relative_to(folder).as_posix()]
    assert result["missing"] == [image.relative_to(folder).as_posix()]
    assert result["surplus"] == ["extra.txt"]


def test_every_flipped_byte_is_noticed(folder):
    path = next(folder.rglob("image.nii.gz"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    assert verify_folder(folder).changed == (path.relative_to(folder).as_posix(),)


def test_a_folder_without_a_manifest_is_exit_2(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "No manifest.json" in output.err


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b", "C:\\x", ""])
def test_a_manifest_cannot_point_outside(tmp_path, path):
    write_manifest(tmp_path, {"files": [{"path": path, "bytes": 1, "sha256": "0" * 64}]})

    with pytest.raises(UnreadableFileError, match="outside the folder"):
        verify_folder(tmp_path)


def test_a_link_is_not_the_file_it_stands_for(folder, tmp_path):
    image = next(folder.rglob("image.nii.gz"))
    elsewhere = tmp_path / "elsewhere.nii.gz"
    image.rename(elsewhere)
    image.symlink_to(elsewhere)

    assert verify_folder(folder).missing == (image.relative_to(folder).as_posix(),)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"files": 3, "schema": 1}', b"[" * 100_000, b'{"files": [{"path": "a"}], "schema": 1}']
)
def test_a_damaged_manifest_is_refused_in_one_line(tmp_path, data):
    (tmp_path / "manifest.json").write_bytes(data)

    with pytest.raises(UnreadableFileError) as refused:
        verify_folder(tmp_path)
    assert "\n" not in refused.value.message


def test_a_newer_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text('{"schema": 99, "files": []}')

    with pytest.raises(UnreadableFileError, match="schema 99"):
        verify_folder(tmp_path)


def test_json_is_sorted_and_holds_no_nan():
    assert to_json({"b": 1, "a": "ö"}).decode() == '{\n "a": "ö",\n "b": 1\n}\n'
    with pytest.raises(ExportError, match="finite"):
        to_json({"a": float("nan")})
