"""What the window says: toasts, the list of messages, banners."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from PySide6.QtCore import QObject, Signal

from medapp.errors import MedappError
from medapp.requests import Crashed, Outcome, Refused, Stopped

_KEPT = 200


@dataclass
class Message:
    """One thing that was said.

    Attributes:
        kind: ``info``, ``warning`` or ``error``.
        actions: Buttons: text and what it does.
        details: Copyable, without identifiers.
        count: How often it happened in a row.
    """

    text: str
    kind: str = "info"
    hint: str = ""
    details: str = ""
    actions: tuple[tuple[str, Callable[[], object]], ...] = field(default=(), repr=False)
    count: int = 1
    at: str = ""


class Messages(QObject):
    """Collects messages; the newest is shown as a toast, all are listed in Tasks."""

    said = Signal(object)
    banner_changed = Signal(str, object)  # key, Message or None

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.all: list[Message] = []

    def say(
        self,
        text: str,
        *,
        kind: str = "info",
        hint: str = "",
        details: str = "",
        actions: tuple[tuple[str, Callable[[], object]], ...] = (),
    ) -> None:
        """Tell something; the same again only counts up."""
        last = self.all[-1] if self.all else None
        if last is not None and (last.text, last.kind, last.hint) == (text, kind, hint):
            last.count += 1
            last.at = time.strftime("%H:%M:%S")
            last.actions = actions
            self.said.emit(last)
            return
        message = Message(text, kind, hint, details, actions, at=time.strftime("%H:%M:%S"))
        self.all.append(message)
        del self.all[:-_KEPT]
        self.said.emit(message)

    def tell_error(self, error: MedappError) -> None:
        """What happened and what to do."""
        self.say(error.message, kind="error", hint=error.hint)

    def tell_outcome(self, outcome: Outcome, what: str) -> None:
        """Why a job did not finish; a cancelled one needs no words beyond its row."""
        if isinstance(outcome, Refused):
            self.say(outcome.message, kind="error", hint=outcome.hint)
        elif isinstance(outcome, Crashed):
            self.say(
                f"Something unexpected stopped: {what}. Your work is saved.",
                kind="error",
                hint="Copy the report to send it.",
                details=outcome.report,
            )
        elif isinstance(outcome, Stopped):
            return

    def show_banner(self, key: str, message: Message | None) -> None:
        """Show a state at the top of the window until it is over; None takes it away."""
        self.banner_changed.emit(key, message)
