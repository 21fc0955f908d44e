"""What a run folder tells the window while another process writes it."""

from __future__ import annotations

import json

import pytest

from medapp.errors import TrainingError
from medapp.ui.training_state import RunReader, RunRecord, find_run, read_scorecard, with_record
from tests.ui.training_runs import plan, points, scorecard


def append(folder, text):
    with (folder / "curves.jsonl").open("a", encoding="utf-8") as file:
        file.write(text)


def test_curves_grow_with_the_file_and_a_half_written_line_waits(tmp_path):
    reader = RunReader(tmp_path)
    assert reader.read().iteration == 0

    append(tmp_path, '{"iteration": 25, "seconds": 4.0, "loss": 0.8}\n{"iteration": 50, "sec')
    assert reader.read().losses == ((25, 0.8),)

    append(tmp_path, 'onds": 8.0, "loss": 0.6}\n{"iteration": 50, "seconds": 8.5, "score": -0.2, "sad": 12.0}\n')
    seen = reader.read()
    assert seen.losses == ((25, 0.8), (50, 0.6))
    assert seen.scores == ((50, -0.2),)
    assert seen.figures == {"sad": 12.0}
    assert seen.seconds == 8.5


def test_a_resumed_run_drops_what_came_after_its_last_state(tmp_path):
    points(tmp_path, 5)
    reader = RunReader(tmp_path)
    assert reader.read().iteration == 125

    kept = (tmp_path / "curves.jsonl").read_text().splitlines(keepends=True)[:2]
    (tmp_path / "new").write_text("".join(kept))
    (tmp_path / "new").replace(tmp_path / "curves.jsonl")
    assert reader.read().iteration == 50


def test_figures_that_are_not_numbers_are_no_points(tmp_path):
    append(tmp_path, '{"iteration": 25, "loss": NaN}\n{"iteration": 50, "loss": 0.5}\nrubbish\n{"loss": 1}\n')

    assert RunReader(tmp_path).read().losses == ((50, 0.5),)


def test_a_record_survives_the_project_beside_other_jobs():
    record = RunRecord("/runs/a", "soft-matting", "Soft matting 1", 20.0, "v1", "kept")
    jobs = with_record(with_record([{"kind": "export"}], RunRecord("/runs/old", "m", "M", 5.0)), record)

    assert jobs[0] == {"kind": "export"}
    assert RunRecord.from_jobs(json.loads(json.dumps(jobs))) == record
    assert RunRecord.from_jobs([{"kind": "retrain", "run": "/x"}]) is None


def test_the_newest_run_of_this_project_is_found_whoever_started_it(tmp_path):
    plan(tmp_path / "a-1", "mine", at=100)
    plan(tmp_path / "a-2", "mine", at=200)
    plan(tmp_path / "b-1", "another", at=300)
    (tmp_path / "c-1").mkdir()
    (tmp_path / "c-1" / "retraining.json").write_text("{")

    found = find_run(tmp_path, "mine", [])
    assert found.run == str(tmp_path / "a-2")
    assert (found.minutes, found.data_set) == (3.0, "matting 1")

    dropped = RunRecord(str(tmp_path / "a-2"), "a", "A", 3.0, decision="dropped")
    assert find_run(tmp_path, "mine", [dropped.to_job()]).decision == "dropped"
    assert find_run(tmp_path, "nobody's", []) is None


def test_a_scorecard_of_a_newer_medapp_or_a_damaged_one_is_refused(tmp_path):
    path = scorecard(tmp_path)
    good = json.loads(path.read_text())
    read = read_scorecard(path)
    assert read.count("new hold-out") == {"better": 2, "same": 0, "worse": 1}
    assert read.row("sad", "old hold-out").verdict == "same"

    path.write_text(json.dumps({**good, "format": 2}))
    with pytest.raises(TrainingError, match="newer medapp"):
        read_scorecard(path)
    for damage in ({"metrics": [{}]}, {"cases": [{**good["cases"][0], "verdict": "splendid"}]}, {"groups": None}):
        path.write_text(json.dumps({**good, **damage}))
        with pytest.raises(TrainingError, match="damaged"):
            read_scorecard(path)
