"""Projects in trouble, row by row of ``formats.md`` 8."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from medapp.errors import (
    ProjectDamagedError,
    ProjectError,
    ProjectLockedError,
    ProjectNewerError,
    SaveFailedError,
)
from medapp.store import database
from medapp.store.opening import BACKUPS, LOCK, backups
from medapp.store.project import Project
from tests.store.painting import SHAPE, add_matte, crash, make_project, make_scan, stroke


def painted(tmp_path):
    project, series_id = make_project(tmp_path)
    annotation = project.annotation(series_id)
    edit = add_matte(annotation)
    for _ in range(3):
        edit.apply(annotation)
        project.journal(series_id, edit)
        edit = stroke(annotation, annotation.mattes[0].matte_id, len(annotation.mattes[0].annotated_slices()))
    return project, series_id, annotation


def damage(path: Path, keep: int = 4096) -> None:
    """Overwrite every page after the first."""
    data = bytearray(path.read_bytes())
    data[keep:] = b"\x5a" * (len(data) - keep)
    path.write_bytes(bytes(data))


# ------------------------------------------------------------------------------------------------- two windows, locks


def test_a_second_window_is_told_and_may_read(tmp_path):
    project, series_id, annotation = painted(tmp_path)
    with pytest.raises(ProjectLockedError, match="another window") as refusal:
        Project.open(project.path)
    assert "read-only" in refusal.value.hint
    with Project.open(project.path, mode="read") as second:
        assert second.annotation(series_id).equals(annotation)
    project.close()
    Project.open(project.path).close()


def test_the_lock_of_a_dead_window_is_taken_over(tmp_path):
    project, _, _ = painted(tmp_path)
    crash(project)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    lock = {"pid": child.pid, "host": os.uname().nodename, "boot": _boot_id(), "started": "1", "token": "x"}
    (project.path / LOCK).write_text(json.dumps(lock))
    Project.open(project.path).close()
    assert not (project.path / LOCK).exists()


def test_a_lock_from_before_the_last_boot_is_taken_over(tmp_path):
    project, _, _ = painted(tmp_path)
    crash(project)
    lock = {"pid": os.getpid(), "host": os.uname().nodename, "boot": "another boot", "started": "1", "token": "x"}
    (project.path / LOCK).write_text(json.dumps(lock))
    Project.open(project.path).close()


def test_a_lock_of_another_computer_is_respected_until_told_otherwise(tmp_path):
    project, _, _ = painted(tmp_path)
    crash(project)
    (project.path / LOCK).write_text(json.dumps({"pid": 1, "host": "elsewhere", "boot": "b", "token": "x"}))
    with pytest.raises(ProjectLockedError, match="another computer"):
        Project.open(project.path)
    Project.open(project.path, take_over=True).close()


def test_a_torn_lock_file_is_taken_over(tmp_path):
    project, _, _ = painted(tmp_path)
    crash(project)
    (project.path / LOCK).write_bytes(b"\x00{")
    Project.open(project.path).close()


def _boot_id():
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


# ----------------------------------------------------------------------------------------------------- read-only, full

_READ = """
import mmap, os, shutil, sys, tempfile
from pathlib import Path
from medapp.store.project import Project
with tempfile.TemporaryDirectory() as folder:
    Project.create(Path(folder) / "warm").close()  # everything is imported before root lets go of its rights
if os.geteuid() == 0:
    os.setuid(65534)
with Project.open(Path(sys.argv[1])) as project:
    (info,) = project.series()
    (matte,) = project.annotation(info.series_id)
    print(project.mode, len(matte.annotated_slices()), project.scan(info.series_id).shape, project.warnings)
"""


@pytest.mark.skipif(os.name == "nt", reason="folder permissions work otherwise there")
@pytest.mark.parametrize("was_killed", [False, True])
def test_a_read_only_folder_opens_for_reading_and_says_so(was_killed):
    folder = Path(tempfile.mkdtemp(prefix="medapp-test-"))
    folder.chmod(0o755)
    try:
        project, _, _ = painted(folder)
        if was_killed:
            wal = (project.path / "project.sqlite-wal").read_bytes()
            frozen = (project.path / "project.sqlite").read_bytes()
            crash(project)
            (project.path / "project.sqlite").write_bytes(frozen)
            (project.path / "project.sqlite-wal").write_bytes(wal)
        else:
            project.close()
        for place, _, _ in os.walk(project.path):
            Path(place).chmod(0o555)
        said = subprocess.run(
            [sys.executable, "-c", _READ, str(project.path)],
            capture_output=True,
            text=True,
        )
    finally:
        for place, _, _ in os.walk(folder):
            Path(place).chmod(0o755)
        shutil.rmtree(folder)
    assert said.stdout.startswith(f"read 2 {SHAPE}"), said.stderr
    assert "can only be read" in said.stdout


def test_no_room_for_voxels_is_a_refusal_and_leaves_no_file(tmp_path, monkeypatch):
    project, _, _ = painted(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(SaveFailedError, match="disk is full"):
        project.add_series(make_scan(series_key="key-2"))
    assert len(project.series()) == 1
    assert not list((project.path / "voxels").glob("partial-*"))
    project.close()


def test_an_io_error_is_told_in_words(tmp_path):
    error = database.explained(OSError(5, "Input/output error"))
    assert isinstance(error, SaveFailedError)
    assert "drive" in error.message
    quota = database.explained(OSError(122, "Disk quota exceeded"))
    assert "full" in quota.message


# -------------------------------------------------------------------------------------------------------------- damage


def test_a_newer_project_is_refused_and_untouched(tmp_path):
    project, _, _ = painted(tmp_path)
    with project._database.write() as connection:
        connection.exec_driver_sql("PRAGMA user_version=9")
    crash(project)
    before = (project.path / "project.sqlite").read_bytes()
    for mode in ("write", "read", "worker"):
        with pytest.raises(ProjectNewerError, match="format 9") as refusal:
            Project.open(project.path, mode=mode)
        assert "9" in refusal.value.hint
    assert (project.path / "project.sqlite").read_bytes() == before
    assert not (project.path / LOCK).exists()


def test_an_unknown_migration_is_refused(tmp_path):
    project, _, _ = painted(tmp_path)
    with project._database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num='abcdef'")
    crash(project)
    with pytest.raises(ProjectNewerError, match="migration"):
        Project.open(project.path)


def test_damaged_pages_open_the_newest_good_backup_and_keep_the_file(tmp_path):
    project, series_id, annotation = painted(tmp_path)
    project.close()
    good = (project.path / "project.sqlite").read_bytes()
    damage(project.path / "project.sqlite")
    damaged = (project.path / "project.sqlite").read_bytes()

    with Project.open(project.path) as again:
        assert again.annotation(series_id).equals(annotation)
        assert np.array_equal(again.scan(series_id).stored, make_scan().stored)
        assert any("backup" in line for line in again.warnings)
        assert again.check() == []
    (aside,) = project.path.glob("damaged-*.sqlite")
    assert aside.read_bytes() == damaged != good


def test_a_bad_backup_is_passed_over(tmp_path):
    project, series_id, annotation = painted(tmp_path)
    project.close()
    Project.open(project.path).close()
    damage(project.path / "project.sqlite")
    damage(backups(project.path)[0])
    with Project.open(project.path) as again:
        assert again.annotation(series_id).equals(annotation)


def test_without_a_good_backup_the_damage_is_told_and_nothing_is_touched(tmp_path):
    project, _, _ = painted(tmp_path)
    project.close()
    shutil.rmtree(project.path / BACKUPS)
    damage(project.path / "project.sqlite")
    before = (project.path / "project.sqlite").read_bytes()
    with pytest.raises(ProjectDamagedError, match="no good backup"):
        Project.open(project.path)
    assert (project.path / "project.sqlite").read_bytes() == before


def test_strokes_after_the_backup_are_read_from_the_damaged_file(tmp_path):
    project, series_id, annotation = painted(tmp_path)
    project.close()
    project = Project.open(project.path)
    for z in (2, 3):
        edit = stroke(annotation, annotation.mattes[0].matte_id, z, x=20)
        edit.apply(annotation)
        project.journal(series_id, edit)
    late = project.add_series(make_scan(series_key="key-2"), title="Late")
    project._database.close()
    connection = database.driver().connect(str(project.path / "project.sqlite"))
    connection.execute("PRAGMA journal_mode=DELETE")
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name='ix_series_series_key'").fetchone()
    connection.close()
    crash(project)
    with (project.path / "project.sqlite").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\x5a" * 4096)

    with Project.open(project.path) as again:
        assert any("2 newer edits" in line for line in again.warnings)
        assert again.annotation(series_id).equals(annotation)
        assert again.series_info(late).title == "Late"
        assert again.check() == []


@pytest.mark.parametrize("content", [b"", b"not a database at all, only some text" * 200])
def test_a_file_that_is_no_database_opens_the_backup(tmp_path, content):
    project, series_id, annotation = painted(tmp_path)
    project.close()
    (project.path / "project.sqlite").write_bytes(content)
    with Project.open(project.path) as again:
        assert again.annotation(series_id).equals(annotation)


def test_a_lost_database_opens_the_backup(tmp_path):
    project, series_id, annotation = painted(tmp_path)
    project.close()
    (project.path / "project.sqlite").unlink()
    with Project.open(project.path) as again:
        assert again.annotation(series_id).equals(annotation)


def test_three_backups_are_kept(tmp_path):
    project, _, _ = painted(tmp_path)
    project.close()
    for _ in range(4):
        Project.open(project.path).close()
    assert [p.name for p in backups(project.path)] == ["000005.sqlite", "000004.sqlite", "000003.sqlite"]


def test_missing_and_changed_voxels_are_told(tmp_path):
    project, series_id, _ = painted(tmp_path)
    (voxels,) = (project.path / "voxels").iterdir()
    voxels.chmod(0o644)
    data = bytearray(voxels.read_bytes())
    data[100] ^= 1
    voxels.write_bytes(bytes(data))
    assert any("content has changed" in line for line in project.check())
    voxels.write_bytes(bytes(data[:-10]))
    with pytest.raises(ProjectDamagedError, match="expected"):
        project.scan(series_id)
    voxels.unlink()
    with pytest.raises(ProjectDamagedError, match="missing"):
        project.scan(series_id)
    assert any("missing" in line for line in project.check())
    project.close()


def test_partial_voxel_files_of_a_killed_worker_are_swept(tmp_path):
    project, _, _ = painted(tmp_path)
    crash(project)
    left = project.path / "voxels" / "partial-0123"
    left.write_bytes(b"half")
    again = Project.open(project.path)
    assert not left.exists()
    writer = again.new_voxel_file(SHAPE, np.int16)
    crash(again)
    third = Project.open(project.path)
    assert writer.path.exists()  # its writer is alive
    writer.discard()
    left.write_bytes(b"half")
    third.close()
    fourth = Project.open(project.path)  # closed in peace, yet a worker of it may have been killed
    assert not left.exists()
    fourth.close()


# ------------------------------------------------------------------------------------------------ drives and libraries


def test_a_network_drive_gets_a_rollback_journal_and_one_warning(tmp_path, monkeypatch):
    monkeypatch.setattr("medapp.store.opening.is_network_drive", lambda folder: True)
    project, series_id, annotation = painted(tmp_path)
    assert project._database.pragma("journal_mode") == "delete"
    assert project._database.pragma("synchronous") == 3
    assert sum("network drive" in line for line in project.warnings) == 1
    assert not (project.path / "project.sqlite-wal").exists()
    crash(project)
    with Project.open(project.path) as again:
        assert again.annotation(series_id).equals(annotation)


def test_an_old_sqlite_gets_a_rollback_journal(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "SAFE_WAL", (99, 0, 0))
    project, _, _ = painted(tmp_path)
    assert project._database.pragma("journal_mode") == "delete"
    assert project._database.pragma("synchronous") == 3
    project.close()


def test_network_drives_are_known_by_their_file_system(monkeypatch, tmp_path):
    real = Path.read_text
    mounts = f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n"
    monkeypatch.setattr(
        Path, "read_text", lambda self, **kw: mounts if str(self) == "/proc/mounts" else real(self, **kw)
    )
    assert database.is_network_drive(tmp_path / "p.medapp")
    assert not database.is_network_drive(Path("/usr"))


def test_a_folder_that_is_no_project_is_refused(tmp_path):
    (tmp_path / "x.medapp").mkdir()
    with pytest.raises(ProjectError, match="no medapp project"):
        Project.open(tmp_path / "x.medapp")
