from __future__ import annotations

import hashlib

import pytest

from medapp.errors import ExportError
from medapp.export import files


def test_a_written_file_is_whole_and_leaves_nothing_beside_it(tmp_path):
    size, sha256 = files.write_bytes(tmp_path / "deep" / "a.bin", b"abc" * 1000)

    assert (size, sha256) == (3000, hashlib.sha256(b"abc" * 1000).hexdigest())
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.bin"]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(stream):
        stream.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(ExportError, match="No space left"):
        files.write_stream(path, full)

    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_bytes_that_read_back_differently_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "hash_file", lambda path: (3, "0" * 64))

    with pytest.raises(ExportError, match="read back differently"):
        files.write_bytes(tmp_path / "a.bin", b"abc")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "...",
        "con",
        "NUL",
        "a/b\\c",
        "x" * 500,
        "Leber 🫀 \u202eevil",
        "trailing. ",
        "tab\tnew\nline",
        "肝臓" * 60,
        "../up",
    ],
)
def test_any_name_becomes_one_that_every_system_takes(name, tmp_path):
    clean = files.clean_name(name)

    assert 0 < len(clean.encode("utf-8")) <= 100
    assert not set(clean) & set('/\\:*?"<>|.\n\t ')
    assert clean.lower() not in ("con", "nul")
    (tmp_path / clean).write_bytes(b"")
    assert [p.name for p in tmp_path.iterdir()] == [clean]
