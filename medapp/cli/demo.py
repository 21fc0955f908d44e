"""``medapp demo``: the whole loop without a window, in the same workers, and a picture of the window at the end."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.annotation import Annotation
from medapp.annotation.brush import BrushSettings, StrokeBuilder
from medapp.annotation.edits import Stroke
from medapp.annotation.matte import Matte
from medapp.cli.demo_mattes import Place, accepted_matte, clicked_region
from medapp.errors import MedappError
from medapp.jobs.queue import JobQueue
from medapp.requests import (
    Crashed,
    Done,
    ExportRequest,
    ExportResult,
    ImportRequest,
    ImportResult,
    ModelsRequest,
    Refused,
    Request,
    RestoreRequest,
    RetrainRequest,
    RetrainResult,
    SampleRequest,
    TrainingSetRequest,
    TrainingSetResult,
    VerifyRequest,
)
from medapp.scan.scan import Scan
from medapp.services.gather import group_of
from medapp.store.project import Project
from medapp.store.series import SeriesInfo

log = logging.getLogger(__name__)

STEPS = (
    *("import", "restore", "propose", "matte", "stroke", "save", "reopen", "export", "verify"),
    *("patients", "retrain", "window"),
)
FILTER = "filter-nlm"
RETRAINED = ("guided-matting", "soft-matting")
"""The first that is installed is retrained."""
MINUTES = 0.25
OTHER_PATIENTS = 2
"""At most so many get a matte too."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``demo`` to the command line."""
    parser = subparsers.add_parser("demo", help="run the whole loop without a window")
    parser.add_argument("--out", type=Path, required=True, help="folder for the project, the export and the picture")
    parser.add_argument("--input", type=Path, help="a file, folder or ZIP; the built-in sample when missing")
    parser.add_argument("--modality", help="answers for NIfTI and rasters, such as CT or MR")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"of retraining, to show that it works; default {MINUTES}"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the loop and print what each step did; 0 when every step is done or skipped with a reason."""
    demo = _Demo(arguments.out, arguments.input, arguments.modality, arguments.minutes)
    try:
        demo.play()
    finally:
        demo.close()
    print(json.dumps({"ok": demo.ok, "steps": [step.line() for step in demo.steps]}, indent=1))
    if demo.ok:
        return 0
    return 2 if demo.steps[0].status == "failed" else 1


class _Skip(Exception):  # noqa: N818 - a step that does not apply is not an error
    """A step that does not apply to this scan, with the reason."""


@dataclass
class _Step:
    name: str
    status: str = "skipped"
    seconds: float = 0.0
    path: str | None = None
    reason: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "path": self.path,
            "reason": self.reason,
            **self.facts,
        }


class _Demo:
    def __init__(self, out: Path, source: Path | None, modality: str | None, minutes: float = MINUTES) -> None:
        self.out, self.source, self.modality, self.minutes = out.resolve(), source, modality, minutes
        self.project_path = self.out / "demo.medapp"
        self.home = self.out / "demo-user"
        self.steps: list[_Step] = []
        # runs and models of the demo never mix with the person's; reading what a model was first taught takes minutes
        self.environment = {"MEDAPP_HOME": str(self.home), "MEDAPP_SHARED": str(self.home / "none")}
        self.queue = JobQueue(environment=self.environment)
        self.project: Project | None = None
        self.series: SeriesInfo | None = None
        self.scan: Scan | None = None
        self.annotation: Annotation | None = None
        self.matte: Matte | None = None
        self.mask: NDArray[np.bool_] | None = None
        self.slice_index = 0

    @property
    def ok(self) -> bool:
        return len(self.steps) == len(STEPS) and all(step.status != "failed" for step in self.steps)

    def play(self) -> None:
        """Run every step; after a failure the rest is skipped with that reason."""
        failed = ""
        for name in STEPS:
            step = _Step(name)
            self.steps.append(step)
            if failed:
                step.reason = f"not reached, because {failed} failed"
                continue
            with _timed(step):
                getattr(self, f"_{name}")(step)
            if step.status == "failed":
                failed = name
            log.info("%s: %s in %.2f s %s", name, step.status, step.seconds, step.reason or "")

    def close(self) -> None:
        self.queue.close()
        if self.project is not None:
            self.project.close()

    # -------------------------------------------------------------------------------------------------------- steps

    def _import(self, step: _Step) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        for old in (self.project_path, self.out / "export", self.home):
            if old.exists():
                shutil.rmtree(old)
        self.project = Project.create(self.project_path, reader="demo")
        where = str(self.project_path)
        request: Request = SampleRequest(where)
        if self.source is not None:
            request = ImportRequest(where, (str(self.source),), self.modality)
        result: ImportResult = self._ask(request)
        if not result.series_ids:
            message, hint = result.refused[0][1:] if result.refused else ("No images were found.", "Name other files.")
            raise MedappError(message, hint)
        series = [info for info in self.project.series() if info.series_id in result.series_ids]
        self.series = max(series, key=lambda info: (self.source is None and info.modality == "CT", np.prod(info.shape)))
        self.scan = self.project.scan(self.series.series_id)
        self.slice_index = self.scan.shape[0] // 2
        step.path = where
        step.facts = {
            "series": len(result.series_ids),
            "refused": len(result.refused),
            "modality": self.series.modality,
            "shape": list(self.scan.shape),
        }

    def _restore(self, step: _Step) -> None:
        series, scan = self._chosen()
        models = self._ask(ModelsRequest(str(self.project_path), series.series_id))
        fitting = [model["id"] for model in models if model["fit"] == "green" and not model["id"].startswith("filter-")]
        if scan.is_colour and not fitting:
            raise _Skip("no restorer for colour images says that this one fits")
        model = fitting[0] if fitting else FILTER
        if not fitting:
            reasons = [m["reason"] for m in models if not m["id"].startswith("filter-")]
            step.reason = f"no network fits, non-local means instead: {reasons[0] if reasons else 'none is installed'}"
        result = self._ask(RestoreRequest(str(self.project_path), series.series_id, model, self.slice_index))
        step.path = str(self.project_path)
        step.facts = {"model": model, "report": result.report}

    def _propose(self, step: _Step) -> None:
        point, self.mask = clicked_region(self._place(), self._ask)
        step.facts = {"point_xy": list(point), "pixels": int(self.mask.sum()), "engine": "region tree"}

    def _matte(self, step: _Step) -> None:
        series, _ = self._chosen()
        assert self.mask is not None
        assert self.project is not None
        self.annotation = self.project.annotation(series.series_id)
        self.matte, soft, seconds = accepted_matte(self._place(), self.mask, self.annotation, self._ask, self._do)
        step.facts = {"soft_pixels": soft, "solve_seconds": round(seconds, 3)}

    def _stroke(self, step: _Step) -> None:
        _, scan = self._chosen()
        assert self.matte is not None
        assert self.mask is not None
        ys, xs = np.nonzero(self.mask)
        radius = max(3.0, min(12.0, np.sqrt(len(ys)) / 4))
        builder = StrokeBuilder(
            self.matte,
            BrushSettings(radius_px=radius, hardness=0.4, flow=0.8),
            self.slice_index,
            0,
            scan.spacing_mm,
        )
        for t in np.linspace(0, 1, 8):
            builder.add_point((float(xs.max()) - radius * t, float(ys.mean())))
        patches = builder.finish()
        if not patches:
            raise MedappError("The stroke changed nothing.", "Try another image.")
        self._do(Stroke(self.matte.matte_id, tuple(patches), "Brush stroke"))
        step.facts = {"radius_px": round(float(radius), 1)}

    def _save(self, step: _Step) -> None:
        series, _ = self._chosen()
        assert self.project is not None
        assert self.annotation is not None
        revision = self.project.save_revision(series.series_id, name="Demo", note="made by medapp demo")
        step.path = str(self.project_path / "project.sqlite")
        step.facts = {"revision": str(revision)}

    def _reopen(self, step: _Step) -> None:
        series, _ = self._chosen()
        assert self.project is not None
        assert self.annotation is not None
        self.project.close()
        self.project = Project.open(self.project_path, reader="demo")
        again = self.project.annotation(series.series_id)
        if not again.equals(self.annotation):
            raise MedappError("The reopened project differs from what was saved.", "Please report this.")
        self.scan = self.project.scan(series.series_id)
        step.path = str(self.project_path)
        step.facts = {"mattes": len(again)}

    def _export(self, step: _Step) -> None:
        series, _ = self._chosen()
        assert self.project is not None
        ids = [info.series_id for info in self.project.series() if series.series_id in (info.series_id, info.source_id)]
        out = str(self.out / "export")
        plan: ExportResult = self._ask(ExportRequest(str(self.project_path), tuple(ids), out, dry_run=True))
        report: ExportResult = self._ask(ExportRequest(str(self.project_path), tuple(ids), out))
        step.path = report.folder
        step.facts = {
            "planned_files": len(plan.files),
            "files": len(report.files),
            "largest_alpha_error": report.largest_alpha_error,
            "notes": list(report.notes),
        }

    def _verify(self, step: _Step) -> None:
        step.path = str(self.out / "export")
        result = self._ask(VerifyRequest(step.path))
        if not result["ok"]:
            raise MedappError("The exported folder differs from its manifest.", "See medapp verify.")

    def _patients(self, step: _Step) -> None:
        """A model is judged by patients it did not learn from, so others get a matte too, as a person would do."""
        series, _ = self._chosen()
        assert self.project is not None
        others: dict[str, SeriesInfo] = {}
        for info in sorted(self.project.series(), key=lambda info: not info.group):  # known patients first
            if info.kind == "original" and group_of(info) != group_of(series):
                others.setdefault(group_of(info), info)
        if not others:
            raise _Skip("the images are all of one patient; a folder with scans of several goes on to retraining")
        mattes, empty = 0, 0
        for info in list(others.values())[:OTHER_PATIENTS]:
            place = Place.middle(self.project_path, info.series_id, self.project.scan(info.series_id))
            annotation = self.project.annotation(info.series_id)

            def do(edit: Any, info: SeriesInfo = info, annotation: Annotation = annotation) -> None:
                assert self.project is not None
                edit.apply(annotation)
                self.project.journal(info.series_id, edit)

            try:
                accepted_matte(place, clicked_region(place, self._ask)[1], annotation, self._ask, do)
                mattes += 1
            except MedappError as error:
                log.info("no matte on another patient: %s", error.message)
                empty += 1
        step.facts = {"mattes": mattes, "empty": empty}

    def _retrain(self, step: _Step) -> None:
        """Freeze a data set version, train for seconds, compare; adopting is left to the person."""
        models = {model["id"] for model in self._ask(ModelsRequest())}
        model_id = next((one for one in RETRAINED if one in models), "")
        if not model_id:
            raise _Skip("no matting model is installed")
        survey: TrainingSetResult = self._ask(TrainingSetRequest(str(self.project_path), model_id))
        step.facts = {"model": model_id, "cases": survey.cases, "patients": survey.patients}
        if survey.patients < 2:
            raise _Skip("the mattes are all of one patient, so nobody is left to judge a new model by")
        result: RetrainResult = self._ask(RetrainRequest(str(self.project_path), model_id, self.minutes))
        content = json.loads(Path(result.scorecard).read_text(encoding="utf-8"))
        rows = content["metrics"]
        step.path = result.scorecard
        step.facts |= {
            "data_set": content["data_set"]["version"],
            "trained_on": content["data_set"]["cases"],
            "judged_by": content["data_set"]["hold_out_cases"],
            "batches": result.iteration,
            "train_seconds": result.seconds,
            "new_model": result.challenger_id,
            "verdict": {name: sum(row["verdict"] == name for row in rows) for name in ("better", "same", "worse")},
            rows[0]["key"]: [rows[0]["champion"], rows[0]["challenger"]],
            "notes": content["notes"],
            "adopted": False,
            "adopt": f"medapp retrain --adopt {result.run}",
        }

    def _window(self, step: _Step) -> None:
        assert self.project is not None
        self.project.close()
        self.project = None
        picture = self.out / "window.png"
        picture.unlink(missing_ok=True)
        environment = {**os.environ, **self.environment}
        if not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
            environment["QT_QPA_PLATFORM"] = "offscreen"
        command = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "medapp"]
        done = subprocess.run(
            [*command, "--project", str(self.project_path), "--grab", str(picture)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0 or not picture.is_file():
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise MedappError(f"The window did not open: {last[0]}", "Run make setup to install what Qt needs.")
        step.path = str(picture)

    # ------------------------------------------------------------------------------------------------------ helpers

    def _chosen(self) -> tuple[SeriesInfo, Scan]:
        assert self.series is not None
        assert self.scan is not None
        return self.series, self.scan

    def _place(self) -> Place:
        series, scan = self._chosen()
        return Place(self.project_path, series.series_id, scan, self.slice_index)

    def _do(self, edit: Any) -> None:
        series, _ = self._chosen()
        assert self.project is not None
        assert self.annotation is not None
        edit.apply(self.annotation)
        self.project.journal(series.series_id, edit)

    def _ask(self, request: Request) -> Any:
        outcome = self.queue.run(request)
        if isinstance(outcome, Done):
            return outcome.result
        if isinstance(outcome, Refused):
            raise MedappError(outcome.message, outcome.hint)
        raise RuntimeError(outcome.report if isinstance(outcome, Crashed) else "stopped")


@contextmanager
def _timed(step: _Step) -> Iterator[None]:
    since = time.perf_counter()
    try:
        yield
        step.status = "done"
    except _Skip as skip:
        step.status, step.reason = "skipped", str(skip)
    except MedappError as error:
        step.status, step.reason = "failed", f"{error.message} {error.hint}".strip()
    except Exception as error:
        log.exception("the demo met a bug")
        step.status, step.reason = "failed", f"{type(error).__name__}: {error}"
    finally:
        step.seconds = time.perf_counter() - since
