"""What the left button does: one small object per tool and viewport; the keys of a tool may be held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QPainter

if TYPE_CHECKING:
    from medapp.ui.canvas.viewport import Viewport

TOOL_NAMES = (
    "navigate",
    "window",
    "zoom",
    "pan",
    "brush",
    "eraser",
    "unknown",
    "fill",
    "lasso",
    "prompt",
    "depth",
    "ruler",
)
_WINDOW_TRAVEL_PX = 250.0  # this far to the right doubles the window's width
_ZOOM_TRAVEL_PX = 150.0


@dataclass(frozen=True)
class Pointer:
    """Mouse or pen.

    Attributes:
        position: Widget point.
        pressure: 0..1; 1 for a mouse.
        is_eraser: The pen's other end.
    """

    position: QPointF
    modifiers: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier
    pressure: float = 1.0
    is_eraser: bool = False

    def has(self, modifier: Qt.KeyboardModifier) -> bool:
        """A modifier key is held."""
        return bool(self.modifiers & modifier)


class Tool:
    """Base of all tools; does nothing.

    Attributes:
        name: One of ``TOOL_NAMES``.
        takes_double_click: The second click of a double click is a click like the first.
    """

    name = ""
    cursor = Qt.CursorShape.ArrowCursor
    takes_double_click = False

    def __init__(self, view: Viewport) -> None:
        self.view = view
        self.document = view.document

    @property
    def is_busy(self) -> bool:
        """The button is down and Esc would cancel something."""
        return False

    def press(self, pointer: Pointer) -> None:
        """The left button went down over the image."""

    def move(self, pointer: Pointer) -> None:
        """It moves, still down."""

    def release(self, pointer: Pointer) -> None:
        """It went up."""

    def hover(self, pointer: Pointer) -> None:
        """The pointer moves with no button down."""

    def leave(self) -> None:
        """The pointer left the viewport, or another tool is taken."""

    def right_click(self, pointer: Pointer) -> bool:
        """A right click that was no drag; False = offer the context menu."""
        return False

    def double_click(self, pointer: Pointer) -> bool:
        """False = the viewport is maximised."""
        return False

    def cancel(self) -> bool:
        """Drop what is under way; False when there was nothing."""
        return False

    def draw(self, painter: QPainter, visible: QRectF) -> None:
        """Draw over image and mattes, in widget points."""


class NavigateTool(Tool):
    """A click places the crosshair and the other planes follow; with Shift they follow the pointer."""

    name = "navigate"

    def press(self, pointer: Pointer) -> None:
        voxel = self.view.voxel_at(pointer.position)
        if voxel is not None:
            self.document.set_position(voxel)

    def move(self, pointer: Pointer) -> None:
        self.press(pointer)

    def hover(self, pointer: Pointer) -> None:
        if pointer.has(Qt.KeyboardModifier.ShiftModifier):
            self.press(pointer)


class WindowTool(Tool):
    """Dragging changes contrast: right = wider, up = brighter. A double click takes the default."""

    name = "window"
    cursor = Qt.CursorShape.SizeAllCursor

    def __init__(self, view: Viewport) -> None:
        super().__init__(view)
        self._from: tuple[QPointF, float, float] | None = None

    @property
    def is_busy(self) -> bool:
        return self._from is not None

    def press(self, pointer: Pointer) -> None:
        window = self.document.window
        self._from = (pointer.position, window.center, window.width)

    def move(self, pointer: Pointer) -> None:
        if self._from is None:
            return
        start, center, width = self._from
        way = pointer.position - start
        self.document.set_window(
            center + way.y() * width / _WINDOW_TRAVEL_PX, width * 2.0 ** (way.x() / _WINDOW_TRAVEL_PX)
        )

    def release(self, pointer: Pointer) -> None:
        self._from = None

    def double_click(self, pointer: Pointer) -> bool:
        self._from = None
        self.document.reset_window()
        return True

    def cancel(self) -> bool:
        if self._from is None:
            return False
        _, center, width = self._from
        self._from = None
        self.document.set_window(center, width)
        return True


class ZoomTool(Tool):
    """Dragging up enlarges around the point where the drag began."""

    name = "zoom"
    cursor = Qt.CursorShape.SizeVerCursor

    def __init__(self, view: Viewport) -> None:
        super().__init__(view)
        self._anchor: QPointF | None = None
        self._last = QPointF()

    def press(self, pointer: Pointer) -> None:
        self._anchor = self._last = pointer.position

    def move(self, pointer: Pointer) -> None:
        if self._anchor is not None:
            way = self._last.y() - pointer.position.y()
            self._last = pointer.position
            self.view.zoom_by(2.0 ** (way / _ZOOM_TRAVEL_PX), self._anchor)

    def release(self, pointer: Pointer) -> None:
        self._anchor = None


class PanTool(Tool):
    """The image follows the hand."""

    name = "pan"
    cursor = Qt.CursorShape.OpenHandCursor

    def __init__(self, view: Viewport) -> None:
        super().__init__(view)
        self._last: QPointF | None = None

    def press(self, pointer: Pointer) -> None:
        self._last = pointer.position

    def move(self, pointer: Pointer) -> None:
        if self._last is not None:
            way = pointer.position - self._last
            self._last = pointer.position
            self.view.pan_by(way.x(), way.y())

    def release(self, pointer: Pointer) -> None:
        self._last = None


def make_tools(view: Viewport) -> dict[str, Tool]:
    """Every tool for one viewport, by name."""
    from medapp.ui.canvas.depth_tools import DepthPointTool, RulerTool
    from medapp.ui.canvas.paint_tools import FillTool, LassoTool, PaintTool
    from medapp.ui.canvas.prompt_tool import PromptTool

    tools: list[Tool] = [NavigateTool(view), WindowTool(view), ZoomTool(view), PanTool(view)]
    tools += [PaintTool(view, name) for name in ("brush", "eraser", "unknown")]
    tools += [FillTool(view), LassoTool(view), PromptTool(view), DepthPointTool(view), RulerTool(view)]
    return {tool.name: tool for tool in tools}
