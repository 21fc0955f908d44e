"""The window's middle: one viewport, three planes, or one plane large with two beside it."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QColor, QImage, QPainter, QPaintEvent
from PySide6.QtWidgets import QGridLayout, QWidget

from medapp.ui import theme
from medapp.ui.canvas.slice_view import SliceView
from medapp.ui.document import Document

LAYOUTS = ("1", "2x2", "3+1")
_GAP = 2
_SLAB = 0.25  # thinner than this share of its longest side, a volume opens in one viewport


class ViewportGrid(QWidget):
    """Up to four linked viewports.

    A series that is no volume (one image, a stack without third dimension) always has one viewport.

    Attributes:
        chosen_layout: What the person chose, one of ``LAYOUTS``; None = by the shape of the volume.
        views: One viewport per index axis.
        second: The fourth one of ``2x2``: the other side of a pair, else the active matte alone.
        active: The viewport that had the focus last.
    """

    pointer_moved = Signal(dict)
    prompt_requested = Signal(int, int)
    message_requested = Signal(str)
    menu_requested = Signal(object)
    layout_changed = Signal(str)

    def __init__(self, document: Document, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.document = document
        self.chosen_layout: str | None = None
        self._maximised: SliceView | None = None
        self._shown: tuple[object, ...] = ()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(_GAP)
        self.setAccessibleName("Images")
        self.views = tuple(SliceView(document, axis, self) for axis in range(3))
        self.second = SliceView(document, 0, self)
        self.second.content.is_second = True
        self.second.focused.connect(self.views[0].focused)
        self.active = self.views[0]
        self.setFocusProxy(self.active)
        for view in self._all:
            view.pointer_moved.connect(self.pointer_moved)
            view.prompt_requested.connect(self.prompt_requested)
            view.message_requested.connect(self.message_requested)
            view.maximise_requested.connect(lambda v=view: self.toggle_maximised(v))
            view.focused.connect(lambda v=view: self._on_focused(v))  # after the line above: the second stays active
            view.customContextMenuRequested.connect(lambda at, v=view: self.menu_requested.emit(v.mapToGlobal(at)))
        document.series_opened.connect(self._on_series)
        document.project_changed.connect(self._on_series)
        self._arrange()

    @property
    def _all(self) -> tuple[SliceView, ...]:
        return (*self.views, self.second)

    @property
    def layout_name(self) -> str:
        """The layout in use: three planes for a volume that is not a mere slab, unless something else was chosen."""
        if self.chosen_layout is not None or not self._is_volume():
            return self.chosen_layout or "1"
        scan = self.document.scan
        assert scan is not None
        spacing = scan.spacing_mm or (1.0, 1.0, 1.0)
        extent = sorted(n * mm for n, mm in zip(scan.shape[:3], spacing, strict=True))
        return "3+1" if extent[0] >= _SLAB * extent[2] else "1"

    @property
    def visible_views(self) -> tuple[SliceView, ...]:
        """The viewports on screen, the large one first."""
        if self._maximised is not None:
            return (self._maximised,)
        if self.layout_name == "1" or not self._is_volume():
            return (self.views[0],)
        return self._all if self.layout_name == "2x2" else self.views

    def set_layout(self, name: str) -> None:
        """Choose a layout.

        Raises:
            ValueError: There is no such layout.
        """
        if name not in LAYOUTS:
            raise ValueError(f"no layout {name!r}")
        self._maximised = None
        if name != self.chosen_layout:
            self.chosen_layout = name
            self.layout_changed.emit(name)
        self._arrange()

    def toggle_maximised(self, view: SliceView | None = None) -> None:
        """One viewport alone, or all of the layout again; from a single viewport to three planes and back."""
        view = view or self.active
        if self._maximised is not None:
            self._maximised = None
        elif len(self.visible_views) > 1:
            self._maximised = view
        elif self._is_volume():
            self.set_layout("3+1")
            return
        self._arrange()

    def fit(self) -> None:
        """Fit every viewport."""
        for view in self.visible_views:
            view.fit()

    def zoom_by(self, factor: float) -> None:
        """Zoom the active viewport around its middle."""
        self.active.zoom_by(factor)

    def show_percent(self, percent: float) -> None:
        """An absolute zoom of the active viewport."""
        self.active.show_percent(percent)

    def step_slices(self, steps: int) -> None:
        """Go on or back in the active viewport."""
        self.document.step_slice(self.active.axis, steps)

    def go_to_end(self, is_last: bool) -> None:
        """The first or last slice of the active viewport."""
        self.document.go_to_slice(self.active.axis, self.active.rail.count - 1 if is_last else 0)

    def escape(self) -> bool:
        """Cancel the innermost thing in the active viewport; False when there was nothing."""
        return self.active.escape()

    def accept(self) -> bool:
        """Enter in the active viewport."""
        return self.active.accept()

    def delete_selected(self) -> bool:
        """Remove the selected prompt."""
        return self.active.delete_selected()

    def show_original(self, is_held: bool) -> None:
        """Show the original alone while its key is held."""
        for view in self._all:
            view.set_original_held(is_held)

    def grab_image(self) -> QImage:
        """A screenshot of the viewports; processed images carry "Not for diagnosis"."""
        ratio = self.devicePixelRatioF()
        picture = QImage(self.size() * ratio, QImage.Format.Format_RGB32)
        picture.setDevicePixelRatio(ratio)
        picture.fill(0)
        painter = QPainter(picture)
        for view in self.visible_views:
            painter.drawImage(view.pos(), view.grab_image())
        painter.end()
        return picture

    def _is_volume(self) -> bool:
        scan = self.document.scan
        return scan is not None and scan.kind == "scan" and min(scan.shape[:3]) > 1

    def _on_series(self) -> None:
        self._maximised = None
        self._arrange()

    def _on_focused(self, view: SliceView) -> None:
        self.active = view
        self.setFocusProxy(view)

    def _arrange(self) -> None:
        shown = self.visible_views
        wanted = (self.layout_name, shown)
        if wanted == self._shown:
            return
        self._shown = wanted
        for view in self._all:
            self._grid.removeWidget(view)
        for n in range(2):
            self._grid.setColumnStretch(n, 0)
            self._grid.setRowStretch(n, 0)
        is_even = len(shown) == 4
        self._grid.setColumnStretch(0, 2 if len(shown) == 3 else 1)
        self._grid.setRowStretch(0, 1)
        if len(shown) > 1:
            self._grid.setColumnStretch(1, 1)
            self._grid.setRowStretch(1, 1)
        self._grid.addWidget(shown[0], 0, 0, 2 if len(shown) == 3 else 1, 1)
        for view, row, column in zip(shown[1:], (0, 1, 1), (1, 0 if is_even else 1, 1), strict=False):
            self._grid.addWidget(view, row, column)
        for view in self._all:
            view.setVisible(view in shown)
            view.shows_crosshair = len(shown) > 1
        if self.active not in shown:
            self.active = shown[0]
            self.setFocusProxy(self.active)

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)  # what shows between the viewports
        painter.fillRect(event.rect(), QColor(theme.DARK.line))
        painter.end()
