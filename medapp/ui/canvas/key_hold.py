"""Keys that act while they are held: any tool letter, Space, Z, and the key that shows the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from PySide6.QtCore import QElapsedTimer, QEvent, QObject, Qt
from PySide6.QtGui import QAction, QKeyEvent, QMouseEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QPlainTextEdit,
    QTextEdit,
    QWidget,
)

HELD_AFTER_MS = 300

TOOL_KEYS: dict[int, str] = {
    Qt.Key.Key_Q: "navigate",
    Qt.Key.Key_W: "window",
    Qt.Key.Key_Z: "zoom",
    Qt.Key.Key_Space: "pan",
    Qt.Key.Key_B: "brush",
    Qt.Key.Key_E: "eraser",
    Qt.Key.Key_U: "unknown",
    Qt.Key.Key_F: "fill",
    Qt.Key.Key_L: "lasso",
    Qt.Key.Key_P: "prompt",
}
HOLD_ONLY = frozenset({"zoom", "pan"})  # the previous tool returns however short the press was
ORIGINAL_KEYS = frozenset({Qt.Key.Key_O, Qt.Key.Key_Backslash})


class ToolHolder(Protocol):
    """What is needed of the document."""

    tool: str

    def set_tool(self, name: str) -> None: ...


class KeyHold(QObject):
    """Watches the application's keys; install it with ``QApplication.instance().installEventFilter``.

    A tool letter takes its tool when it goes down. When it comes up after having been held, or used for a drag, the
    tool from before returns. A short press keeps the tool, except for Space and Z.

    Args:
        document: Where the tool is kept.
        show_original: Called with True and False while the key for the original is held.
        window: Keys count only while this window is active; None = any.
        tool_keys: Key to tool name; the defaults are ``TOOL_KEYS``.
    """

    def __init__(
        self,
        document: ToolHolder,
        show_original: Callable[[bool], None],
        window: QWidget | None = None,
        tool_keys: dict[int, str] | None = None,
    ) -> None:
        super().__init__(window)
        self._document, self._show_original, self._window = document, show_original, window
        self.tool_keys = dict(TOOL_KEYS if tool_keys is None else tool_keys)
        self._held_key: int | None = None
        self._previous = ""
        self._was_used = False
        self._clock = QElapsedTimer()
        self._is_original = False

    def follow(self, actions: Mapping[str, QAction]) -> None:
        """Take the keys of the ``tool_…`` actions, after a person has changed them."""
        keys: dict[int, str] = {}
        for name, action in actions.items():
            for sequence in action.shortcuts() if name.startswith("tool_") else ():
                if sequence.count() != 1:
                    continue
                combination = sequence[0]  # type: ignore[index]  # PySide's stubs leave out __getitem__
                if combination.keyboardModifiers() == Qt.KeyboardModifier.NoModifier:
                    keys[combination.key()] = name.removeprefix("tool_")
        if "tool_lasso" not in actions:  # known to the canvas alone
            keys.setdefault(Qt.Key.Key_L, "lasso")
        self.tool_keys = keys

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        kind = event.type()
        if kind in (QEvent.Type.ShortcutOverride, QEvent.Type.KeyPress) and isinstance(event, QKeyEvent):
            return self._on_press(watched, event, is_override=kind == QEvent.Type.ShortcutOverride)
        if kind == QEvent.Type.KeyRelease and isinstance(event, QKeyEvent):
            return self._on_release(event)
        if kind == QEvent.Type.MouseButtonPress and isinstance(event, QMouseEvent) and self._held_key is not None:
            self._was_used = True
        elif kind == QEvent.Type.WindowDeactivate and watched is self._window:
            self.let_go()
        return False

    def let_go(self) -> None:
        """Forget held keys, as when the window loses the keyboard: their release will never be seen."""
        if self._held_key is not None:
            self._finish(is_held=True)
        if self._is_original:
            self._is_original = False
            self._show_original(False)

    def _on_press(self, watched: QObject, event: QKeyEvent, is_override: bool) -> bool:
        key = event.key()
        if not self._is_ours(watched, key, event.modifiers()):
            return False
        if key in ORIGINAL_KEYS:
            if is_override:
                event.accept()  # a key press follows instead of a shortcut
                return True
            if not event.isAutoRepeat() and not self._is_original:
                self._is_original = True
                self._show_original(True)
            return True
        if event.isAutoRepeat() or self._held_key == key:
            if is_override:
                event.accept()
            return True
        if self._held_key is not None:
            self._finish(is_held=True)
        if is_override:
            event.accept()
            return True
        self._held_key, self._previous, self._was_used = key, self._document.tool, False
        self._clock.start()
        self._document.set_tool(self.tool_keys[key])
        return True

    def _on_release(self, event: QKeyEvent) -> bool:
        if event.isAutoRepeat():
            return event.key() == self._held_key
        if event.key() in ORIGINAL_KEYS and self._is_original:
            self._is_original = False
            self._show_original(False)
            return True
        if event.key() != self._held_key:
            return False
        self._finish(
            self._was_used or self.tool_keys.get(event.key()) in HOLD_ONLY or self._clock.elapsed() >= HELD_AFTER_MS
        )
        return True

    def _finish(self, is_held: bool) -> None:
        self._held_key = None
        if is_held and self._previous:
            self._document.set_tool(self._previous)
        self._previous = ""

    def _is_ours(self, watched: QObject, key: int, modifiers: Qt.KeyboardModifier) -> bool:
        if key not in self.tool_keys and key not in ORIGINAL_KEYS:
            return False
        held = modifiers & ~Qt.KeyboardModifier.KeypadModifier
        if held != Qt.KeyboardModifier.NoModifier and not (self._held_key is not None):
            return False
        if QApplication.activeModalWidget() is not None or QApplication.activePopupWidget() is not None:
            return False
        if self._window is not None and QApplication.activeWindow() not in (None, self._window):
            return False
        focus = watched if isinstance(watched, QWidget) else QApplication.focusWidget()
        if isinstance(focus, QLineEdit | QTextEdit | QPlainTextEdit | QAbstractSpinBox):
            return False
        if isinstance(focus, QComboBox) and (focus.isEditable() or key == Qt.Key.Key_Space):
            return False
        return not (key == Qt.Key.Key_Space and isinstance(focus, QAbstractButton))
