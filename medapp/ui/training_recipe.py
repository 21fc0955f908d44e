"""What a person chooses before a model is retrained, and what there is to retrain it from."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QObject, QTimer, Signal

from medapp.naming import with_version
from medapp.requests import ModelsRequest, Outcome, Refused, TrainingSetRequest, TrainingSetResult
from medapp.ui.document import Document
from medapp.ui.job_bridge import JobBridge
from medapp.ui.messages import Messages

_MINUTES = 20
_COUNT_MS = 300


class TrainingRecipe(QObject):
    """Three fields, and the count of what was accepted.

    Attributes:
        models: Models that can be retrained: dicts with ``id``, ``title``, ``version``, ``serves``, ``in_use``.
        model_id: The chosen one: the first of its line.
        data_set: The chosen version; empty = what is accepted now.
        minutes: Time budget.
        survey: What there is to train from, or None while it is not known.
        survey_problem: Why it could not be counted, or None.
        is_counting: The count is under way.
        is_listed: The models are known; before that nothing can be said of them.
    """

    changed = Signal()

    def __init__(
        self, document: Document, bridge: JobBridge, messages: Messages, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._document, self._bridge, self._messages = document, bridge, messages
        self.models: tuple[dict[str, Any], ...] = ()
        self.model_id = ""
        self.data_set = ""
        self.minutes = _MINUTES
        self.survey: TrainingSetResult | None = None
        self.survey_problem: Refused | None = None
        self.is_counting = False
        self.is_listed = False
        self._titles: dict[str, str] = {}
        self._ticket = 0
        self._soon = QTimer(self, singleShot=True, interval=_COUNT_MS)
        self._soon.timeout.connect(self.refresh)
        document.project_changed.connect(self._forget)

    @property
    def model(self) -> dict[str, Any] | None:
        """The chosen model."""
        return next((model for model in self.models if model["id"] == self.model_id), None)

    @property
    def adopted_id(self) -> str:
        """The successor that serves in place of the chosen model; empty = the chosen model itself serves."""
        model = self.model
        in_use = str(model.get("in_use", "")) if model is not None else ""
        return in_use if in_use and in_use != self.model_id else ""

    @property
    def has_cases(self) -> bool:
        """There is something to train from, or a frozen version of it."""
        return self.survey is not None and (self.survey.cases > 0 or bool(self.survey.versions))

    def title_of(self, model_id: str) -> str:
        """Name and version of a model."""
        return self._titles.get(model_id, model_id)

    def choose(self, model_id: str) -> None:
        """Begin from another model."""
        if model_id != self.model_id:
            self.model_id, self.data_set = model_id, ""
            self.count()

    def set_data_set(self, version: str) -> None:
        """Train from a frozen version; empty = from what is accepted now."""
        self.data_set = version
        self.changed.emit()

    def set_minutes(self, minutes: int) -> None:
        """Another time budget."""
        self.minutes = minutes
        self.changed.emit()

    def refresh_soon(self) -> None:
        """The project has changed: count again, once for many changes in a row."""
        self._soon.start()

    def refresh(self) -> None:
        """Ask which models can be retrained, and count what there is."""
        if self._document.project is None:
            self.changed.emit()
            return

        def found(rows: Any) -> None:
            self.models, self.is_listed = trainable(rows), True
            for row in rows:
                self._titles[str(row.get("in_use") or row["id"])] = title_with_version(row)
            if self.model is None:
                known = [str(model["id"]) for model in self.models]
                used = self._document.settings.matting_model  # it is what the corrections are made of
                self.model_id = used if used in known else (known or [""])[0]
            self.count()

        def failed(outcome: Outcome) -> None:
            self._messages.tell_outcome(outcome, "listing the models")

        self._bridge.submit(ModelsRequest(), is_quiet=True, on_done=found, on_failed=failed)

    def count(self) -> None:
        """Count what the chosen model can be retrained from."""
        project, model_id = self._document.project, self.model_id
        self._ticket += 1
        ticket = self._ticket
        if project is None or not model_id:
            self.survey, self.survey_problem, self.is_counting = None, None, False
            self.changed.emit()
            return
        self.is_counting = True

        def done(result: TrainingSetResult) -> None:
            if ticket == self._ticket:
                self.survey, self.survey_problem, self.is_counting = result, None, False
                if self.data_set and self.data_set not in result.versions:
                    self.data_set = ""
                self.changed.emit()

        def failed(outcome: Outcome) -> None:
            if ticket == self._ticket:
                self.survey, self.is_counting = None, False
                self.survey_problem = outcome if isinstance(outcome, Refused) else None
                if not isinstance(outcome, Refused):
                    self._messages.tell_outcome(outcome, "counting the corrections")
                self.changed.emit()

        request = TrainingSetRequest(str(project.path), model_id)
        self._bridge.submit(request, is_quiet=True, on_done=done, on_failed=failed)
        self.changed.emit()

    def _forget(self) -> None:
        """Another project: what is being counted is of the one before, so count this one."""
        was_counting = self.is_counting
        self._ticket += 1
        self.survey, self.survey_problem, self.data_set, self.is_counting = None, None, "", False
        if was_counting:
            self._soon.start()
        self.changed.emit()


def title_with_version(row: Any) -> str:
    """Name and version of a model as chips show them."""
    return with_version(str(row["title"]), str(row.get("version") or ""))


def trainable(rows: Any) -> tuple[dict[str, Any], ...]:
    """Models that corrections can improve: matting models, and restorers whose pairs can be made again."""
    found = [
        dict(row)
        for row in rows
        if row.get("serves") == "matting"
        or (row.get("serves") == "restoration" and (row.get("degradation") or {}).get("kind"))
    ]
    return tuple(sorted(found, key=lambda row: (row.get("serves") != "matting", str(row["title"]))))
