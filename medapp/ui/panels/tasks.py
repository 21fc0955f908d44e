"""The tasks drawer: one row a job, collapsed to one line; and everything that was said."""

from __future__ import annotations

import time

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtWidgets import (
    QApplication,
    QFrame,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QProgressBar,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from medapp.requests import Crashed, Refused
from medapp.ui import theme
from medapp.ui.icons import icon
from medapp.ui.job_bridge import Job, JobBridge
from medapp.ui.messages import Message, Messages
from medapp.ui.widgets import EmptyState, button, icon_button, label, row, scrolling

_BAR_AFTER_S = 1.0
_LEFT_AFTER_S = 10.0
_OPEN_HEIGHT = 148
_KEPT_ENDED = 12


def shown_time(seconds: float) -> str:
    """A duration as a person says it."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def state_line(job: Job) -> str:
    """Units, time left, or how it ended."""
    if job.state == "waiting":
        return "Waiting"
    if job.state == "cancelling":
        return "Pausing…" if job.stopped_text else "Cancelling…"
    if job.state == "done":
        return f"Done in {shown_time(job.ended_at - job.started_at)}" if job.started_at else "Done"
    if job.state == "stopped":
        return job.stopped_text or "Cancelled"
    if job.state in ("refused", "crashed"):
        return job.outcome.message if isinstance(job.outcome, Refused) else "Stopped by something unexpected"
    parts = [
        f"{job.done} of {job.total} {job.unit}" if job.total else (f"{job.done} {job.unit}" if job.done else "Running")
    ]
    left = job.seconds_left
    if left is not None and (left > _LEFT_AFTER_S or time.monotonic() - job.started_at > _LEFT_AFTER_S):
        parts.append(f"about {shown_time(left)} left")
    if job.device:
        parts.append(job.device.upper())
    return " · ".join(parts)


class TaskRow(QWidget):
    """One job: what, on which data, how far, *Cancel*, *Details*."""

    def __init__(self, bridge: JobBridge, number: int) -> None:
        super().__init__()
        self._bridge, self.number = bridge, number
        self._title = label()
        self._state = label("", "secondary")
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedWidth(140)
        self.cancel = button("Cancel", "quiet")
        self.cancel.clicked.connect(self._on_cancel)
        self._details = button("Copy details", "quiet", "Copy the report; it holds no names")
        self._details.clicked.connect(self._on_details)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(theme.MARGIN, 1, theme.MARGIN, 1)
        layout.setSpacing(theme.MARGIN)
        for part in (self._title, self._bar, self._state):
            layout.addWidget(part)
        layout.addStretch(1)
        layout.addWidget(self._details)
        layout.addWidget(self.cancel)
        self.refresh()

    def refresh(self) -> None:
        """Show how far the job is."""
        job = self._bridge.job(self.number)
        if job is None:
            return
        self._title.setText(f"{job.request.title} · {job.subject}" if job.subject else job.request.title)
        self._state.setText(state_line(job))
        long_enough = bool(job.started_at) and time.monotonic() - job.started_at > _BAR_AFTER_S
        self._bar.setVisible(not job.is_over and (long_enough or job.state == "cancelling"))
        fraction = job.fraction
        self._bar.setRange(0, 0 if fraction is None else 1000)
        if fraction is not None:
            self._bar.setValue(round(1000 * fraction))
        self.cancel.setVisible(not job.is_over)
        self.cancel.setText("Stop now" if job.can_stop_now else "Cancel")
        self.cancel.setAccessibleName(f"{self.cancel.text()}: {job.request.title}")
        self.cancel.setEnabled(job.state != "cancelling" or job.can_stop_now)
        self._details.setVisible(isinstance(job.outcome, Refused | Crashed))
        self.setAccessibleName(f"{self._title.text()}, {self._state.text()}")

    def _on_cancel(self) -> None:
        job = self._bridge.job(self.number)
        if job is not None and job.can_stop_now:
            self._bridge.stop_now(self.number)
        else:
            self._bridge.cancel(self.number)

    def _on_details(self) -> None:
        job = self._bridge.job(self.number)
        if job is None:
            return
        outcome = job.outcome
        text = outcome.report if isinstance(outcome, Crashed) else ""
        if isinstance(outcome, Refused):
            text = f"{job.request.title}: {outcome.message} {outcome.hint}"
        QApplication.clipboard().setText(text)


class TasksDrawer(QFrame):
    """Collapsed it is one line; open it lists jobs and messages."""

    opened = Signal(bool)

    def __init__(self, bridge: JobBridge, messages: Messages) -> None:
        super().__init__()
        self._bridge, self._messages = bridge, messages
        self._rows: dict[int, TaskRow] = {}
        self.setAccessibleName("Tasks")
        self.toggle = icon_button("caret-up", "Tasks", "Tasks — show or hide jobs and messages")
        self.toggle.clicked.connect(lambda _c=False: self.set_open(not self.is_open))
        self._line = label("No tasks", "secondary")
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedWidth(140)
        self._cancel = button("Cancel", "quiet")
        self._cancel.clicked.connect(self._cancel_first)
        head = QWidget()
        head_row = row(self.toggle, label("Tasks"), self._bar, self._line, -1, self._cancel)
        head_row.setContentsMargins(theme.MARGIN, 0, theme.MARGIN, 0)
        head.setLayout(head_row)
        head.setFixedHeight(theme.CONTROL_HEIGHT)
        self._list = QVBoxLayout()
        self._list.setContentsMargins(0, 0, 0, 0)
        self._list.setSpacing(0)
        inner = QWidget()
        holder = QVBoxLayout(inner)
        holder.setContentsMargins(0, 0, 0, 0)
        self._empty = EmptyState("Opening, restoring and exporting show up here while they run.")
        holder.addWidget(self._empty)
        holder.addLayout(self._list)
        holder.addStretch(1)
        scroll = scrolling(inner)
        self._said = QListWidget()
        self._said.setAccessibleName("Messages, newest first")
        self._said.setWordWrap(True)
        self._tabs = QTabWidget()
        self._tabs.addTab(scroll, "Jobs")
        self._tabs.addTab(self._said, "Messages")
        self._tabs.setFixedHeight(_OPEN_HEIGHT)
        self._tabs.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._tabs)
        layout.addWidget(head)
        self._clock = QTimer(self, interval=500)
        self._clock.timeout.connect(self._refresh_all)
        bridge.job_added.connect(self._on_added)
        bridge.job_changed.connect(self._on_changed)
        bridge.job_ended.connect(self._on_changed)
        messages.said.connect(self._on_said)
        self._summarise()

    @property
    def is_open(self) -> bool:
        """Shows jobs and messages."""
        return not self._tabs.isHidden()

    def set_open(self, is_open: bool) -> None:
        """Open or collapse the drawer."""
        self._tabs.setVisible(is_open)
        self.toggle.setIcon(icon("caret-down" if is_open else "caret-up"))
        self.opened.emit(is_open)

    def show_messages(self) -> None:
        """Open the drawer at what was said."""
        self._tabs.setCurrentIndex(1)
        self.set_open(True)

    def row_of(self, number: int) -> TaskRow | None:
        """The row of a job."""
        return self._rows.get(number)

    def _on_added(self, number: int) -> None:
        job = self._bridge.job(number)
        if job is None or job.is_quiet:
            return
        made = TaskRow(self._bridge, number)
        self._rows[number] = made
        self._list.insertWidget(0, made)
        self._drop_old()
        self._clock.start()
        self._summarise()

    def _drop_old(self) -> None:
        ended = [n for n in self._rows if (job := self._bridge.job(n)) is None or job.is_over]
        for number in ended[: max(0, len(ended) - _KEPT_ENDED)]:
            old = self._rows.pop(number)
            self._list.removeWidget(old)
            old.hide()
            old.deleteLater()

    def _on_changed(self, number: int) -> None:
        if number in self._rows:
            self._rows[number].refresh()
            self._summarise()

    def _refresh_all(self) -> None:
        for number, made in self._rows.items():
            job = self._bridge.job(number)
            if job is not None and not job.is_over:
                made.refresh()
        if not self._bridge.running():
            self._clock.stop()
        self._summarise()

    def _summarise(self) -> None:
        self._empty.setVisible(not self._rows)
        running = self._bridge.running()
        first = running[0] if running else None
        self._cancel.setVisible(first is not None)
        self._cancel.setEnabled(first is not None and first.state != "cancelling")
        long_enough = (
            first is not None and bool(first.started_at) and time.monotonic() - first.started_at > _BAR_AFTER_S
        )
        self._bar.setVisible(long_enough)
        if first is None:
            last = self._bridge.jobs()[-1] if self._bridge.jobs() else None
            self._line.setText("No tasks running" if last is None else f"{last.request.title}: {state_line(last)}")
            return
        fraction = first.fraction
        self._bar.setRange(0, 0 if fraction is None else 1000)
        if fraction is not None:
            self._bar.setValue(round(1000 * fraction))
        more = f" · {len(running) - 1} more" if len(running) > 1 else ""
        subject = f" · {first.subject}" if first.subject else ""
        self._line.setText(f"{first.request.title}{subject} · {state_line(first)}{more}")

    def _cancel_first(self) -> None:
        running = self._bridge.running()
        if running:
            self._bridge.cancel(running[0].number)

    def _on_said(self, message: Message) -> None:
        self._said.clear()
        names = {"info": ("info", "text_2"), "warning": ("warning", "processed"), "error": ("warning-circle", "danger")}
        for said in reversed(self._messages.all):
            count = f" ({said.count} times)" if said.count > 1 else ""
            item = QListWidgetItem(icon(*names[said.kind]), f"{said.at}  {said.text}{count} {said.hint}".rstrip())
            item.setToolTip(said.details or said.text)
            item.setTextAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
            self._said.addItem(item)
