"""The scorecard: the new model against the one in use, per metric and per case, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFrame,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from medapp.ui import theme
from medapp.ui.icons import icon
from medapp.ui.training_state import VERDICTS, CaseRow, MetricRow, Scorecard
from medapp.ui.widgets import button, column, focus_first, label, row, scrolling, wrapped

_ROW = 40
_CASE_ROW = 30
_LEAST_CASES = 6
"""Rows of the cases that show in a small window, the head among them."""
_WIDEST_NAME = 170
_SIGNS = {"better": ("check-circle", "ok"), "same": ("equals", "text_2"), "worse": ("warning-circle", "danger")}
_EFFORTS = (("", "All"), ("with_alpha", "With alpha"), ("with_masks", "With masks"), ("by_hand", "By hand"))
_CASE_COLUMNS = ("Case", "Patient", "Hold-out", "Metric", "In use → new", "Change")
_DECIDED = {
    "adopted": "Adopted: the next proposals and restorations use the new model.",
    "kept": "Kept: the model in use is unchanged. The new one stays in its run.",
    "rolled back": "Rolled back: the model before is in use again. The new one stays in its run.",
}


def shown(value: float | None, unit: str = "") -> str:
    """A figure with its unit; a true minus sign."""
    if value is None:
        return "—"
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    text = f"{value:,.{digits}f}".replace("-", "−")
    return f"{text} {unit}".strip()


def pair_text(champion: float | None, challenger: float | None, unit: str) -> str:
    """In use → new."""
    return f"{shown(champion)} → {shown(challenger, unit)}"


def change_text(percent: float | None) -> str:
    """A change with its sign."""
    return "" if percent is None else f"{percent:+.1f} %".replace("-", "−")


def interval_text(metric: MetricRow) -> str:
    """Where the change lies, with 95 % confidence over patients."""
    if metric.interval is None:
        return "too few patients to tell"
    largest = max(abs(value) for value in metric.interval)
    digits = next((n for n, least in enumerate((100, 10, 1, 0.1)) if largest >= least), 4)
    if metric.interval_unit == "%":
        digits = min(digits, 1)
    low, high = (f"{value:+.{digits}f}".replace("-", "−") for value in metric.interval)
    return f"{low} to {high} {_shown_unit(metric.interval_unit)}".rstrip()


def title_lines(title: str, unit: str, better: str) -> str:
    """A metric's name with the way that is better, in two lines where it is long."""
    for word in (" against ", " of the ", ", "):
        head, found, tail = title.partition(word)
        if found:
            title = f"{head}\n{found.strip(', ')} {tail}".replace("\n ", "\n")
            break
    head, found, tail = title.partition("\n")
    if not found and unit.startswith("/"):
        found, tail = "\n", unit
    return f"{head} {'↑' if better == 'higher' else '↓'}{found}{tail}"


def effort_lines(scorecard: Scorecard) -> list[str]:
    """Strokes and seconds per accepted matte before and after the adoption of the model, by what was accepted."""
    lines = []
    for key, title in _EFFORTS:
        when = (f"{key}_before", f"{key}_after") if key else ("before", "after")
        before, after = (_effort_text(scorecard.effort.get(name)) for name in when)
        whole = _effort_text(scorecard.effort.get(key))
        if before and after:
            lines.append(f"{title}: {before} before, {after} after")
        elif before or after or whole:
            lines.append(f"{title}: {before or after or whole}")
    return lines


def _effort_text(found: Mapping[str, Any] | None) -> str:
    """``9 mattes with 14.0 strokes and 52 s each``; empty where there is none."""
    mattes = int((found or {}).get("mattes") or 0)
    if found is None or not mattes:
        return ""
    parts = []
    if found.get("strokes_per_matte") is not None:
        parts.append(f"{float(found['strokes_per_matte']):.1f} strokes")
    if found.get("seconds_per_matte") is not None:
        parts.append(f"{float(found['seconds_per_matte']):.0f} s")
    each = f" with {' and '.join(parts)} each" if parts else ""
    return f"{mattes} {'matte' if mattes == 1 else 'mattes'}{each}"


def summary_text(scorecard: Scorecard, group: str) -> str:
    """``2 better, 1 the same, 0 worse``."""
    counts = scorecard.count(group)
    return f"{_sentence(group)}: {counts['better']} better, {counts['same']} the same, {counts['worse']} worse"


class ScorecardView(QWidget):
    """What changed, where it got worse, and the decision."""

    adopt_requested = Signal()
    keep_requested = Signal()
    roll_back_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._scorecard: Scorecard | None = None
        self._hides_identity = False
        self.headline = wrapped("", "")
        self.summary = wrapped()
        self.metrics = _table("Metrics, one row each")
        self.metrics.verticalHeader().setDefaultSectionSize(_ROW)
        self.cases = _table("Cases, worst first")
        self.cases.verticalHeader().setDefaultSectionSize(_CASE_ROW)
        self.cases.setMinimumHeight(_LEAST_CASES * _CASE_ROW)
        self.metric_choice = QComboBox()
        self.metric_choice.setAccessibleName("Metric of the cases")
        self.metric_choice.activated.connect(lambda _i: self._fill_cases())
        self.case_count = label("", "secondary")
        self.effort = wrapped()
        self.notes = wrapped()
        self.adopt = button("Adopt", "primary", "Adopt — the next proposals and restorations use the new model")
        self.adopt.clicked.connect(lambda _c=False: self.adopt_requested.emit())
        self.keep = button("Keep current", "", "Keep current — the model in use stays; the new one is not deleted")
        self.keep.clicked.connect(lambda _c=False: self.keep_requested.emit())
        self.roll_back = button("Roll back", "", "Roll back — the model before serves again; nothing is deleted")
        self.roll_back.clicked.connect(lambda _c=False: self.roll_back_requested.emit())
        self.decision = wrapped()
        bar = QFrame()
        bar.setProperty("look", "card")
        decide = row(self.decision, self.keep, self.roll_back, self.adopt, margin=theme.MARGIN)
        decide.setStretch(0, 1)
        bar.setLayout(decide)
        cases_head = row(label("Cases, worst first"), self.metric_choice, self.case_count, -1)
        told = column(
            self.headline,
            self.summary,
            4,
            self.metrics,
            4,
            cases_head,
            self.cases,
            self.effort,
            self.notes,
            margin=0,
        )
        told.setStretchFactor(self.cases, 1)
        inner = QWidget()
        inner.setLayout(told)
        scroll = scrolling(inner, takes_focus=False)  # in a small window the decision stays in sight
        self.setLayout(column(scroll, 4, bar, margin=0))

    def show_scorecard(self, scorecard: Scorecard | None, *, hides_identity: bool = False) -> None:
        """Fill the tables."""
        self._scorecard, self._hides_identity = scorecard, hides_identity
        if scorecard is None:
            return
        self.headline.setText(f"<b>{scorecard.challenger}</b> against <b>{scorecard.champion}</b>, which is in use.")
        about = scorecard.data_set
        trained = f"Trained from {about.get('cases', '?')} cases of {about.get('patients', '?')} patients"
        version = f" (data set {about['version']})" if about.get("version") else ""
        self.summary.setText(
            f"{trained}{version}. " + ". ".join(summary_text(scorecard, group) for group in scorecard.groups) + "."
        )
        self._fill_metrics()
        before = self.metric_choice.currentData()
        self.metric_choice.clear()
        self.metric_choice.addItem("All metrics", "")
        for key, title in scorecard.metric_titles.items():
            self.metric_choice.addItem(title, key)
        self.metric_choice.setCurrentIndex(max(0, self.metric_choice.findData(before)))
        self._fill_cases()
        efforts = effort_lines(scorecard)
        self.effort.setText("Effort per accepted matte. " + ". ".join(efforts) + ".")
        self.effort.setVisible(bool(efforts))
        self.notes.setText("\n".join(scorecard.notes))
        self.notes.setVisible(bool(scorecard.notes))

    def show_decision(self, decision: str, *, can_decide: bool, is_switching: bool) -> None:
        """Which buttons are there."""
        self.decision.setText(
            "Switching the model…"
            if is_switching
            else _DECIDED.get(decision, "Nothing has changed yet: the model in use serves until you adopt the new one.")
        )
        buttons = (self.adopt, self.keep, self.roll_back)
        had_focus = any(made.hasFocus() for made in buttons)
        is_adopted = decision == "adopted"
        self.adopt.setVisible(not is_adopted)
        self.keep.setVisible(decision == "")
        self.roll_back.setVisible(is_adopted)
        for made in buttons:
            made.setEnabled(can_decide and not is_switching)
        if had_focus:
            focus_first(self.roll_back, self.adopt, self.keep)

    def _fill_metrics(self) -> None:
        scorecard, table = self._scorecard, self.metrics
        if scorecard is None:
            return
        groups = scorecard.groups
        table.clear()
        table.setColumnCount(1 + 2 * len(groups))
        names = ["Metric"]
        for group in groups:
            names += [_sentence(group), "Change, 95 %"]
        table.setHorizontalHeaderLabels(names)
        table.setRowCount(len(scorecard.metric_titles))
        for line, (key, title) in enumerate(scorecard.metric_titles.items()):
            first = next(metric for metric in scorecard.metrics if metric.key == key)
            name = _item(title_lines(title, first.unit, first.better))
            name.setToolTip(f"{title}: {first.better} is better")
            table.setItem(line, 0, name)
            for place, group in enumerate(groups):
                metric = scorecard.row(key, group)
                if metric is None:
                    table.setItem(line, 1 + 2 * place, _item("—"))
                    table.setItem(line, 2 + 2 * place, _item("not measured"))
                    continue
                cases = f"{metric.cases} {'case' if metric.cases == 1 else 'cases'}"
                pair = _item(f"{pair_text(metric.champion, metric.challenger, _shown_unit(metric.unit))}\n{cases}")
                table.setItem(line, 1 + 2 * place, pair)
                verdict = _verdict_item(metric.verdict, metric.change_percent)
                verdict.setText(f"{verdict.text()}\n{interval_text(metric)}")
                verdict.setToolTip(f"{verdict.text()}: the change of {title}, and its 95 % interval over patients")
                table.setItem(line, 2 + 2 * place, verdict)
        header = table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        for place in range(len(groups)):
            header.setSectionResizeMode(2 + 2 * place, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        table.setColumnWidth(0, min(_WIDEST_NAME, table.sizeHintForColumn(0) + 12))
        table.setFixedHeight(header.sizeHint().height() + _ROW * min(6, max(1, table.rowCount())) + 4)

    def _fill_cases(self) -> None:
        scorecard, table = self._scorecard, self.cases
        if scorecard is None:
            return
        wanted = self.metric_choice.currentData() or ""
        rows = [case for case in scorecard.cases if not wanted or case.metric == wanted]
        units = {metric.key: _shown_unit(metric.unit) for metric in scorecard.metrics}
        table.clear()
        table.setColumnCount(len(_CASE_COLUMNS))
        table.setHorizontalHeaderLabels(list(_CASE_COLUMNS))
        table.setRowCount(len(rows))
        for line, case in enumerate(rows):
            self._fill_case(
                line, case, units.get(case.metric, ""), scorecard.metric_titles.get(case.metric, case.metric)
            )
        header = table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        worse = sum(case.verdict == "worse" for case in rows)
        self.case_count.setText(f"{len(rows)} rows, {worse} worse")

    def _fill_case(self, line: int, case: CaseRow, unit: str, metric: str) -> None:
        patient = ("hidden" if case.patient_group else "") if self._hides_identity else case.patient_group
        texts = (
            case.case,
            patient,
            _sentence(case.group.removesuffix(" hold-out")),
            metric,
            pair_text(case.champion, case.challenger, unit),
        )
        for place, text in enumerate(texts):
            self.cases.setItem(line, place, _item(text))
        self.cases.setItem(line, len(texts), _verdict_item(case.verdict, case.change_percent))


def _table(name: str) -> QTableWidget:
    table = QTableWidget()
    table.setAccessibleName(name)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setShowGrid(False)
    table.setWordWrap(False)
    table.setTabKeyNavigation(False)  # Tab moves the focus on
    table.verticalHeader().hide()
    table.horizontalHeader().setHighlightSections(False)
    table.horizontalHeader().setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    return table


def _item(text: str) -> QTableWidgetItem:
    made = QTableWidgetItem(text)
    made.setToolTip(text)
    return made


def _verdict_item(verdict: str, change_percent: float | None) -> QTableWidgetItem:
    assert verdict in VERDICTS
    sign, role = _SIGNS[verdict]
    made = _item(f"{verdict} {change_text(change_percent)}".rstrip())
    made.setIcon(icon(sign, role))
    if verdict == "worse":
        made.setForeground(QColor(theme.current().danger))
    elif verdict == "better":
        made.setForeground(QColor(theme.current().ok))
    return made


def _shown_unit(unit: str) -> str:
    """A scale such as ``/ 1000`` stands with the metric's name."""
    return "" if unit.startswith("/") else unit


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
