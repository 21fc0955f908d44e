"""``medapp inspect`` as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.builders import make_scan, write_dicom_series


def medapp(*arguments):
    return subprocess.run([sys.executable, "-m", "medapp", *arguments], capture_output=True, text=True, timeout=120)


def test_a_json_line_each_on_standard_output(tmp_path):
    write_dicom_series(tmp_path, make_scan())
    (tmp_path / "broken.dcm").write_bytes((tmp_path / "001.dcm").read_bytes()[:-9])
    (tmp_path / "text.txt").write_text("hello")
    done = medapp("inspect", str(tmp_path))
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 0
    assert sorted(line["kind"] for line in lines) == ["refused", "refused", "scan"]


def test_nothing_readable_is_exit_status_2(tmp_path):
    (tmp_path / "text.txt").write_text("hello")
    done = medapp("inspect", str(tmp_path / "text.txt"), str(tmp_path / "missing"))

    assert done.returncode == 2
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["refused", "refused"]
