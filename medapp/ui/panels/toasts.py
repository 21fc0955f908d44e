"""Toasts over the window's lower right corner, and banners for states."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from PySide6.QtCore import QEvent, QObject, Qt, QTimer
from PySide6.QtWidgets import QApplication, QFrame, QVBoxLayout, QWidget

from medapp.ui import theme
from medapp.ui.icons import icon
from medapp.ui.messages import Message, Messages
from medapp.ui.widgets import button, column, icon_button, label, row, wrapped

_SHOWN_MS = 6000
_WIDTH = 380
_MOST = 3
_ICONS = {"info": ("info", "text_2"), "warning": ("warning", "processed"), "error": ("warning-circle", "danger")}


class Toast(QFrame):
    """One message; stays while the pointer is on it."""

    def __init__(self, message: Message, close: Callable[[Toast], None]) -> None:
        super().__init__()
        self.message = message
        self._close = close
        self.setProperty("look", "toast")
        self.setFixedWidth(_WIDTH)
        self.setAccessibleName(message.text)
        sign = label()
        sign.setPixmap(icon(*_ICONS[message.kind]).pixmap(theme.ICON, theme.ICON))
        count = f" ({message.count} times)" if message.count > 1 else ""
        text = wrapped(message.text + count, "")
        away = icon_button("x", "Close message")
        away.clicked.connect(lambda _c=False: close(self))
        head = row(sign, text, away, spacing=theme.MARGIN)
        head.setStretch(1, 1)
        head.setAlignment(sign, Qt.AlignmentFlag.AlignTop)
        head.setAlignment(away, Qt.AlignmentFlag.AlignTop)
        layout = column(head, spacing=2)
        if message.hint:
            layout.addWidget(wrapped(message.hint))
        buttons = list(message.actions)
        if message.details:
            details = message.details
            buttons.append(("Copy details", lambda: QApplication.clipboard().setText(details)))
        if buttons:
            made = []
            for text_, act in buttons:
                push = button(text_, "quiet")
                push.clicked.connect(partial(self._on_action, act))
                made.append(push)
            layout.addLayout(row(-1, *made))
        self.setLayout(layout)
        self._timer = QTimer(self, singleShot=True, interval=_SHOWN_MS)
        self._timer.timeout.connect(lambda: close(self))
        self._timer.start()

    def _on_action(self, act: Callable[[], object], _checked: bool = False) -> None:
        act()
        self._close(self)

    def enterEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        self._timer.stop()
        super().enterEvent(event)

    def leaveEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        self._timer.start()
        super().leaveEvent(event)


class ToastHost(QWidget):
    """Keeps toasts in the lower right corner of its parent, above the tasks drawer."""

    def __init__(self, parent: QWidget, messages: Messages) -> None:
        super().__init__(parent)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(theme.MARGIN)
        self._toasts: list[Toast] = []
        parent.installEventFilter(self)
        messages.said.connect(self.show_message)
        self.hide()

    @property
    def texts(self) -> list[str]:
        """What is on screen now."""
        return [toast.message.text for toast in self._toasts]

    def show_message(self, message: Message) -> None:
        """Show a message; the same again replaces its toast."""
        for old in [t for t in self._toasts if t.message is message]:
            self.close_toast(old)
        for old in self._toasts[: max(0, len(self._toasts) + 1 - _MOST)]:
            self.close_toast(old)
        toast = Toast(message, self.close_toast)
        self._toasts.append(toast)
        self._layout.addWidget(toast)
        self._place()

    def close_toast(self, toast: Toast) -> None:
        """Take a toast away; it stays listed in Tasks."""
        if toast in self._toasts:
            self._toasts.remove(toast)
            self._layout.removeWidget(toast)
            toast.hide()
            toast.deleteLater()
            self._place()

    def _place(self) -> None:
        parent = self.parentWidget()
        self.setVisible(bool(self._toasts))
        if parent is None or not self._toasts:
            return
        for toast in self._toasts:
            toast.ensurePolished()
            toast.layout().activate()
            toast.setFixedHeight(max(toast.heightForWidth(_WIDTH), toast.minimumSizeHint().height()))
        # summed here: the layout learns of new heights only with the next event, and would cut the toasts off
        height = sum(toast.minimumHeight() for toast in self._toasts) + theme.MARGIN * (len(self._toasts) - 1)
        self.resize(_WIDTH, height)
        self.move(parent.width() - _WIDTH - theme.GROUP_GAP, parent.height() - height - 72)
        self.raise_()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Resize:
            self._place()
        return False


class Banner(QFrame):
    """A state that lasts: what is wrong, and buttons."""

    def __init__(self, message: Message) -> None:
        super().__init__()
        self.message = message
        self.setProperty("look", "banner-danger" if message.kind == "error" else "banner")
        self.setAccessibleName(message.text)
        sign = label()
        sign.setPixmap(icon(*_ICONS[message.kind]).pixmap(theme.ICON, theme.ICON))
        text = wrapped(f"{message.text} {message.hint}".strip(), "")
        layout = row(sign, text, margin=6)
        layout.setStretch(1, 1)
        for name, act in message.actions:
            push = button(name)
            push.clicked.connect(lambda _c=False, act=act: act())
            layout.addWidget(push)
        self.setLayout(layout)


class BannerHost(QWidget):
    """Banners above the image, one per key."""

    def __init__(self, messages: Messages) -> None:
        super().__init__()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(0)
        self._banners: dict[str, Banner] = {}
        messages.banner_changed.connect(self.set_banner)
        self.hide()

    def set_banner(self, key: str, message: Message | None) -> None:
        """Show, replace or take away the banner of a key."""
        old = self._banners.pop(key, None)
        if old is not None:
            self._layout.removeWidget(old)
            old.hide()
            old.deleteLater()
        if message is not None:
            self._banners[key] = Banner(message)
            self._layout.addWidget(self._banners[key])
        self.setVisible(bool(self._banners))
