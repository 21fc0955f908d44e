import hashlib
import shutil
from pathlib import Path

import pytest

from medapp.errors import ProjectDamagedError
from medapp.store import tables
from medapp.store.database import Database, driver
from medapp.store.opening import backups
from medapp.store.project import Project
from medapp.store.upgrading import run, upgrade

FORMAT_1 = Path(__file__).parent / "data" / "format-1"
ALPHA_SHA256 = "c9cf2a070d83c74e706115305797d54ab9920966ab65358f81c2082a33e54b8c"


@pytest.fixture
def old_project(tmp_path):
    path = tmp_path / "old.medapp"
    shutil.copytree(FORMAT_1, path)
    return path


def check_content(project):
    original, derived = project.series()
    assert (original.title, original.state, derived.source_id) == ("Phantom", "in work", original.series_id)
    (matte,) = project.annotation(original.series_id)
    assert hashlib.sha256(matte.volume().tobytes()).hexdigest() == ALPHA_SHA256
    assert next((r.name, r.note, r.thumbnail) for r in project.revisions(original.series_id)) == (
        "first look",
        "a note",
        None,
    )
    assert len(project.history()) == 5
    assert project.view_state() == {"slice": 2}
    assert project.load_jobs() == [{"id": 1}]


def test_the_last_format_is_upgraded_with_everything_in_it(old_project):
    with Project.open(old_project) as project:
        assert project._database.pragma("user_version") == tables.SCHEMA_VERSION
        assert project._database.pragma("foreign_keys") == 1
        check_content(project)
        assert project.check() == []
        assert project.recovered.count == 3
        number = project.save_revision(project.series()[0].series_id, "now", thumbnail=b"\x89PNG")
        assert project.revisions(project.series()[0].series_id)[-1].revision_id == number


def test_a_backup_is_made_before_the_upgrade(old_project):
    project = Project.open(old_project)
    connection = driver().connect(str(backups(old_project)[-1]))
    versions = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    project.close()
    assert versions == (1,)


def test_an_old_project_can_be_looked_at_without_being_changed(old_project):
    before = (old_project / "project.sqlite").read_bytes()
    with Project.open(old_project, mode="read") as project:
        check_content(project)
    assert (old_project / "project.sqlite").read_bytes() == before


def test_an_upgrade_that_would_break_a_reference_changes_nothing(old_project):
    connection = driver().connect(str(old_project / "project.sqlite"))
    connection.execute("INSERT INTO series_parts (series_id) VALUES ('nobody')")
    connection.commit()
    connection.close()
    database = Database(old_project / "project.sqlite")
    with pytest.raises(ProjectDamagedError, match="reference"):
        upgrade(database)
    assert database.pragma("user_version") == 1
    assert database.pragma("foreign_keys") == 1
    database.close()


def shape_of(connection):
    """Everything SQLite knows of the tables, without the spelling of their definitions."""
    found = {}
    names = [
        row[0]
        for row in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type='table'")
        if not row[0].startswith(("sqlite_", "alembic"))
    ]
    for name in names:
        run_ = connection.exec_driver_sql
        columns = {r[1]: (r[2], r[3], r[5]) for r in run_(f"PRAGMA table_info({name})")}
        keys = sorted(tuple(r[2:5]) for r in run_(f"PRAGMA foreign_key_list({name})"))
        indexes = sorted(
            (r[2], tuple(c[2] for c in run_(f"PRAGMA index_info({r[1]})")))
            for r in run_(f"PRAGMA index_list({name})").all()
        )
        autoincrement = "AUTOINCREMENT" in run_(f"SELECT sql FROM sqlite_master WHERE name='{name}'").scalar().upper()
        found[name] = (columns, keys, indexes, autoincrement)
    return found


def test_migrations_lead_to_the_same_tables_as_a_new_project(tmp_path):
    shapes = []
    for name in ("migrated", "made"):
        path = tmp_path / f"{name}.sqlite"
        driver().connect(str(path)).close()
        path.touch()
        database = Database(path)
        with database.write() as connection:
            if name == "migrated":
                run(connection)
                version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
                assert version == tables.HEAD_REVISION == tables.REVISIONS[-1]
            else:
                tables.metadata.create_all(connection)
            shapes.append(shape_of(connection))
        database.close()
    assert shapes[0] == shapes[1]


def test_alembic_sees_no_difference(tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    path = tmp_path / "migrated.sqlite"
    path.touch()
    database = Database(path)
    with database.write() as connection:
        run(connection)
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    database.close()
