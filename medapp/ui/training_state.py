"""What a training run has left on disk, read without torch: curves, sample pictures, the scorecard, and its record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from medapp.errors import TrainingError

CURVES, SAMPLES, SCORECARD, PLAN = "curves.jsonl", "samples", "scorecard.json", "retraining.json"
SCORECARD_FORMAT = 1
JOB_KIND = "retrain"
VERDICTS = ("better", "same", "worse")
MOST_SAMPLES = 5
_NOT_FIGURES = {"iteration", "seconds", "loss", "rate", "score", "step", "samples"}


@dataclass(frozen=True)
class RunRecord:
    """A run as the project remembers it, so that it is found again after the window was closed or killed.

    Attributes:
        run: Its folder.
        model_id: The model from which it began, as it was asked for.
        title: Of that model.
        minutes: Budget.
        data_set: Version that was chosen; empty = what was accepted at the start.
        decision: ``""``, ``adopted``, ``kept``, ``rolled back`` or ``dropped``.
    """

    run: str
    model_id: str
    title: str
    minutes: float
    data_set: str = ""
    decision: str = ""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run)

    @property
    def is_there(self) -> bool:
        """There is a run folder, and it was not deleted."""
        return bool(self.run) and self.folder.is_dir()

    @property
    def is_compared(self) -> bool:
        """Champion and challenger were compared."""
        return (self.folder / SCORECARD).is_file()

    @property
    def can_go_on(self) -> bool:
        """There is something to go on from."""
        return self.is_there and not self.is_compared and self.decision != "dropped"

    def decided(self, decision: str) -> RunRecord:
        """The same run after a decision."""
        return replace(self, decision=decision)

    def to_job(self) -> dict[str, Any]:
        """Plain data for ``Project.save_jobs``."""
        return {"kind": JOB_KIND, **asdict(self)}

    @classmethod
    def from_jobs(cls, jobs: list[dict[str, Any]]) -> RunRecord | None:
        """The newest run among saved jobs; None when there is none or it is not understood."""
        for job in reversed(jobs):
            if isinstance(job, dict) and job.get("kind") == JOB_KIND:
                try:
                    texts = {name: str(job.get(name, "")) for name in ("run", "model_id", "title", "data_set")}
                    return cls(**texts, minutes=float(job["minutes"]), decision=str(job.get("decision", "")))
                except (KeyError, TypeError, ValueError):
                    return None
        return None


def find_run(runs: Path, project_id: str, jobs: list[dict[str, Any]]) -> RunRecord | None:
    """The newest run of a project, whoever started it, with what was decided about it; None when there is none.

    Args:
        runs: The folder of all run folders.
        jobs: What the project remembers.
    """
    known = RunRecord.from_jobs(jobs)
    found: dict[str, tuple[float, RunRecord]] = {}
    for path in runs.glob(f"*/{PLAN}"):
        try:
            plan = json.loads(path.read_text(encoding="utf-8"))
            if plan["project_id"] != project_id:
                continue
            model_id, minutes = str(plan["line"]), float(plan["minutes"])
            record = RunRecord(str(path.parent), model_id, str(plan["model_id"]), minutes, str(plan["data_set"]))
            found[record.run] = (path.stat().st_mtime, record)
        except (OSError, ValueError, KeyError, TypeError):  # a run of another medapp, or one that is being written
            continue
    newest = max(found.values(), key=lambda entry: entry[0])[1] if found else None
    if known is not None and known.is_there and (known.run not in found or newest is None or newest.run == known.run):
        return known
    return newest


def with_record(jobs: list[dict[str, Any]], record: RunRecord) -> list[dict[str, Any]]:
    """Saved jobs with this run instead of the one before; jobs of other kinds stay."""
    return [*(job for job in jobs if job.get("kind") != JOB_KIND), record.to_job()]


@dataclass(frozen=True)
class Evidence:
    """What a run has shown so far.

    Attributes:
        losses: ``(iteration, loss)``, finite ones only.
        scores: ``(iteration, validation score)``.
        figures: Of the last check, by name.
        seconds: Trained so far.
        samples: Sample pictures, the same ones at every check.
    """

    losses: tuple[tuple[int, float], ...] = ()
    scores: tuple[tuple[int, float], ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    samples: tuple[Path, ...] = ()

    @property
    def iteration(self) -> int:
        """The last one that was noted."""
        return max((curve[-1][0] for curve in (self.losses, self.scores) if curve), default=0)

    @property
    def best(self) -> tuple[int, float] | None:
        """Iteration and score of the best check."""
        return max(self.scores, key=lambda point: point[1], default=None)


class RunReader:
    """Follows a run folder while another process writes it: reads only what is new."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = 0  # a file that was written anew (a run goes on from its last state) is another file
        self._offset = 0
        self._losses: list[tuple[int, float]] = []
        self._scores: list[tuple[int, float]] = []
        self._figures: dict[str, float] = {}
        self._seconds = 0.0

    def read(self) -> Evidence:
        """What is there now; a folder that is not there yet shows nothing."""
        try:
            self._read_curves()
        except OSError:  # between two writes, or not there yet: the next look sees it
            pass
        samples = sorted(self.folder.glob(f"{SAMPLES}/*.png"), key=_number)[:MOST_SAMPLES]
        return Evidence(tuple(self._losses), tuple(self._scores), dict(self._figures), self._seconds, tuple(samples))

    def _read_curves(self) -> None:
        with (self.folder / CURVES).open("rb") as file:
            about = (self.folder / CURVES).stat()
            if about.st_ino != self._file or about.st_size < self._offset:
                self._file, self._offset, self._seconds = about.st_ino, 0, 0.0
                self._losses, self._scores, self._figures = [], [], {}
            file.seek(self._offset)
            content = file.read()
        whole = content.rfind(b"\n") + 1  # a line that is being written is left for the next look
        self._offset += whole
        for line in content[:whole].splitlines():
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            point = json.loads(line)
            iteration = int(point["iteration"])
        except (ValueError, KeyError, TypeError):  # a line that a kill has cut short
            return
        loss, score = _finite(point.get("loss")), _finite(point.get("score"))
        if loss is not None:
            self._losses.append((iteration, loss))
        if score is not None:
            self._scores.append((iteration, score))
            named = {str(key): _finite(value) for key, value in point.items() if key not in _NOT_FIGURES}
            self._figures = {key: value for key, value in named.items() if value is not None}
        self._seconds = max(self._seconds, _finite(point.get("seconds")) or 0.0)


def _finite(value: Any) -> float | None:
    """A plain number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _number(path: Path) -> tuple[int, str]:
    digits = "".join(c for c in path.stem if c.isdigit())
    return (int(digits) if digits else 0, path.stem)


# ------------------------------------------------------------------------------------------------------------ scorecard


@dataclass(frozen=True)
class MetricRow:
    """One metric on one hold-out.

    Attributes:
        change_percent: Of the challenger against the champion; None where the champion is zero.
        interval: 95 % of the change over patients, in ``interval_unit``; None when it could not be told.
        verdict: ``better``, ``same`` or ``worse``.
    """

    key: str
    title: str
    unit: str
    better: str
    group: str
    champion: float | None
    challenger: float | None
    change_percent: float | None
    interval: tuple[float, float] | None
    interval_unit: str
    cases: int
    verdict: str


@dataclass(frozen=True)
class CaseRow:
    """One case under one metric."""

    group: str
    case: str
    patient_group: str
    metric: str
    champion: float | None
    challenger: float | None
    change_percent: float | None
    verdict: str


@dataclass(frozen=True)
class Scorecard:
    """Champion against challenger, as ``scorecard.json`` tells it.

    Attributes:
        groups: The hold-outs, the new one first.
        cases: Worst first.
        effort: Strokes and seconds per matte, by what they are of.
    """

    kind: str
    champion: str
    challenger: str
    challenger_id: str
    data_set: Mapping[str, Any]
    groups: tuple[str, ...]
    metrics: tuple[MetricRow, ...]
    cases: tuple[CaseRow, ...]
    effort: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...]

    def count(self, group: str) -> dict[str, int]:
        """How many metrics of a hold-out are better, the same, worse."""
        rows = [row.verdict for row in self.metrics if row.group == group]
        return {verdict: rows.count(verdict) for verdict in VERDICTS}

    @property
    def metric_titles(self) -> dict[str, str]:
        """Key to title, in order."""
        return {row.key: row.title for row in self.metrics}

    def row(self, key: str, group: str) -> MetricRow | None:
        """A metric on a hold-out."""
        return next((row for row in self.metrics if row.key == key and row.group == group), None)


def read_scorecard(path: Path) -> Scorecard:
    """Read ``scorecard.json``.

    Raises:
        TrainingError: It is not there, damaged, or of a newer medapp.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if int(content["format"]) > SCORECARD_FORMAT:
            raise TrainingError("This scorecard was written by a newer medapp.", "Open it with that version.")
        return Scorecard(
            kind=str(content["kind"]),
            champion=str(content["champion"]["title"]),
            challenger=str(content["challenger"]["title"]),
            challenger_id=str(content["challenger"]["id"]),
            data_set=dict(content.get("data_set") or {}),
            groups=tuple(str(group) for group in content["groups"]),
            metrics=tuple(_metric(row) for row in content["metrics"]),
            cases=tuple(_case(row) for row in content["cases"]),
            effort={str(k): dict(v) for k, v in (content.get("effort") or {}).items() if isinstance(v, dict)},
            notes=tuple(str(note) for note in content.get("notes") or ()),
        )
    except OSError as error:
        raise TrainingError(
            "The scorecard of this run cannot be read.", "Train again; the model is unchanged."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError("The scorecard of this run is damaged.", "Train again; the model is unchanged.") from error


def _metric(row: Mapping[str, Any]) -> MetricRow:
    of_percent = row.get("change_ci95_percent")
    interval = of_percent or row.get("ci95")
    limits = tuple(_finite(value) for value in interval) if isinstance(interval, list | tuple) else ()
    return MetricRow(
        key=str(row["key"]),
        title=str(row["title"]),
        unit=str(row.get("unit") or ""),
        better=str(row["better"]),
        group=str(row["group"]),
        champion=_finite(row["champion"]),
        challenger=_finite(row["challenger"]),
        change_percent=_finite(row.get("change_percent")),
        interval=(limits[0], limits[1]) if len(limits) == 2 and None not in limits else None,
        interval_unit="%" if of_percent else str(row.get("unit") or ""),
        cases=int(row.get("cases") or 0),
        verdict=_verdict(row),
    )


def _case(row: Mapping[str, Any]) -> CaseRow:
    return CaseRow(
        group=str(row["group"]),
        case=str(row["case"]),
        patient_group=str(row.get("patient_group") or ""),
        metric=str(row["metric"]),
        champion=_finite(row["champion"]),
        challenger=_finite(row["challenger"]),
        change_percent=_finite(row.get("change_percent")),
        verdict=_verdict(row),
    )


def _verdict(row: Mapping[str, Any]) -> str:
    verdict = str(row["verdict"])
    if verdict not in VERDICTS:
        raise ValueError(verdict)
    return verdict
