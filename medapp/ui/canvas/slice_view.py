"""One viewport: mouse, pen and keys go to the tools, changes of the document to the screen."""

from __future__ import annotations

from PySide6.QtCore import QElapsedTimer, QEvent, QPoint, QPointF, Qt, QTimer, Signal
from PySide6.QtGui import (
    QContextMenuEvent,
    QEnterEvent,
    QFocusEvent,
    QKeyEvent,
    QMouseEvent,
    QNativeGestureEvent,
    QPointingDevice,
    QResizeEvent,
    QTabletEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QWidget

from medapp.annotation.brush import PlaneBox
from medapp.ui.canvas import view_text
from medapp.ui.canvas.depth_tools import DepthPointTool
from medapp.ui.canvas.overlay import dirty_rect
from medapp.ui.canvas.paint_tools import PaintTool
from medapp.ui.canvas.prompt_tool import PromptTool
from medapp.ui.canvas.tools import PanTool, Pointer, Tool, ZoomTool
from medapp.ui.canvas.viewport import Viewport
from medapp.ui.document import Document

GRAB_PX = 12
RIGHT_DRAG_PX = 4.0
RIGHT_DRAG_MS = 250
_ZOOM_NOTCH = 1.2
_FLASH_MS = 400
_CTRL, _SHIFT, _ALT = (
    Qt.KeyboardModifier.ControlModifier,
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.AltModifier,
)


class SliceView(Viewport):
    """Slices of the document's series along one index axis.

    Args:
        document: What is on screen.
        axis: 0 = z, 1 = y, 2 = x.
    """

    maximise_requested = Signal()
    focused = Signal()

    def __init__(self, document: Document, axis: int, parent: QWidget | None = None) -> None:
        super().__init__(document, axis, parent)
        self._pressed: Tool | None = None
        self._pressed_button = Qt.MouseButton.LeftButton
        self._drags: str | None = None  # rail or divider
        self._right: tuple[QPointF, Tool | None] | None = None
        self._right_clock = QElapsedTimer()
        self._brush_from: tuple[QPointF, float, float] | None = None
        self._wheel_rest = 0.0
        self._flashes_next = False
        self.setMouseTracking(True)
        self.setTabletTracking(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._connect_signals()
        self._on_tool_changed()
        self._on_series()

    def _connect_signals(self) -> None:
        document = self.document
        document.series_opened.connect(self._on_series)
        document.project_changed.connect(self._on_series)
        document.position_changed.connect(self._on_position)
        for signal in (document.window_changed, document.compare_changed, document.overlays_changed):
            signal.connect(self.update)
        document.active_matte_changed.connect(self.update)
        document.proposals_changed.connect(self.update)
        document.uncertainty_changed.connect(self.update)
        document.regions.changed.connect(self.update)
        document.settings_changed.connect(self.update)
        document.annotation_changed.connect(self._on_annotation)
        document.matte_painted.connect(self._on_matte_painted)
        document.tool_changed.connect(self._on_tool_changed)
        document.brush_changed.connect(self._on_brush_changed)
        document.slice_arrived.connect(self._on_slice_arrived)
        document.flash_requested.connect(self._on_flash)

    # ------------------------------------------------------------------------------------------- the document changes

    def _on_series(self) -> None:
        self.content.forget_voxels()
        self.overlay.forget()
        self._cancel_pressed()
        self._update_camera()
        plane = self.content.plane
        self.setAccessibleName(f"{plane.name} image viewport" if plane is not None else "Image viewport")
        self.update()

    def _on_position(self) -> None:
        if (
            self.content.plane is not None
            and self.document.position_zyx[self.axis] == self.content.index
            and self.panes
        ):
            if self.shows_crosshair:  # the same slice: only the lines have moved
                self.update(self._crosshair + view_text.crosshair_region(self))
            return
        pressed = self._pressed
        if isinstance(pressed, PaintTool):  # a stroke belongs to its slice: it is kept, not dropped
            self._pressed = None
            pressed.finish()
        self.update()
        if isinstance(self._tool, PromptTool) and self.underMouse():
            self.prompt_requested.emit(self.axis, self.document.matte_position_zyx[self.axis])

    def _on_annotation(self) -> None:
        self.overlay.forget()
        self.update()

    def _on_matte_painted(self, matte_id: str, start: tuple[int, ...], shape: tuple[int, ...]) -> None:
        low, high = (a for a in range(3) if a != self.axis)
        if start[self.axis] <= self.overlay.index < start[self.axis] + shape[self.axis]:
            self.patch_overlay(PlaneBox(start[low], start[high], start[low] + shape[low], start[high] + shape[high]))
            self.update()  # letters may have moved
        if self.rail.is_shown:
            self.update(self.rail.area)
        at = self.annotation_at
        is_here = at is not None and at.index is not None and 0 <= at.index - start[self.axis] < shape[self.axis]
        if self._flashes_next and at is not None and is_here:
            self._flash = dirty_rect(at.plane.box_to_display(start, shape), self.annotation_transform)
            self.update()
            QTimer.singleShot(_FLASH_MS, self._end_flash)

    def _on_flash(self, matte_id: str, z: int) -> None:
        self._flashes_next = True
        QTimer.singleShot(0, self._forget_flash)

    def _forget_flash(self) -> None:
        self._flashes_next = False

    def _end_flash(self) -> None:
        self._flash = None
        self.update()

    def _on_tool_changed(self) -> None:
        tool = self.tools.get(self.document.tool, self.tools["navigate"])
        if tool is not self._tool:
            self._tool.leave()
            self._tool = tool
        self.hide_mouse(False)
        self.update()
        position = self.mapFromGlobal(self.cursor().pos())
        if self.underMouse() and self._pressed is None:
            tool.hover(Pointer(QPointF(position)))
        if isinstance(tool, PromptTool) and self.document.scan is not None and self.axis == 0:
            self.prompt_requested.emit(self.axis, self.document.matte_position_zyx[self.axis])

    def _on_brush_changed(self) -> None:
        if isinstance(self._tool, PaintTool):
            self._tool.follow_brush()

    def _on_slice_arrived(self, path: str, z: int) -> None:
        if self.axis != 0 or z == self.content.index:
            self.content.forget_voxels()
            self.update()
        elif self.rail.is_shown:
            self.update(self.rail.area)

    # ---------------------------------------------------------------------------------------------------------- mouse

    def _is_on_divider(self, position: QPointF) -> bool:
        return self.content.mode == "swipe" and abs(position.x() - self.divider_x) <= GRAB_PX / 2

    def _is_on_rail(self, position: QPointF) -> bool:
        return self.rail.is_shown and self.rail.area.contains(position.toPoint())

    def mousePressEvent(self, event: QMouseEvent) -> None:
        self._press(event.button(), Pointer(event.position(), event.modifiers()))
        event.accept()

    def _press(self, button: Qt.MouseButton, pointer: Pointer) -> None:
        if button == Qt.MouseButton.LeftButton:
            if self._is_on_rail(pointer.position):
                self._drags = "rail"
                self.document.go_to_slice(self.axis, self.rail.slice_at(pointer.position.y()))
            elif self._is_on_divider(pointer.position):
                self._drags = "divider"
            elif self.content.plane is not None and self._pressed is None:
                self._pressed, self._pressed_button = self._tool, button
                self._tool.press(pointer)
        elif button == Qt.MouseButton.MiddleButton and self._pressed is None:
            self._pressed, self._pressed_button = PanTool(self), button
            self._pressed.press(pointer)
        elif button == Qt.MouseButton.RightButton and self._pressed is None:
            self._right = (pointer.position, None)
            self._right_clock.start()
            brush = self.document.brush
            is_brush = pointer.has(_ALT) and self.document.is_painting_tool
            radius = brush.radius_mm if brush.radius_mm is not None else brush.radius_px
            self._brush_from = (pointer.position, radius, brush.hardness) if is_brush else None

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._move(Pointer(event.position(), event.modifiers()))
        event.accept()

    def _move(self, pointer: Pointer) -> None:
        if self._drags == "rail":
            self.document.go_to_slice(self.axis, self.rail.slice_at(pointer.position.y()))
        elif self._drags == "divider":
            area = self.image_area
            self.document.set_divider((pointer.position.x() - area.left()) / max(1, area.width()))
        elif self._right is not None:
            self._right_move(pointer)
        elif self._pressed is not None:
            self._pressed.move(pointer)
        else:
            self._hover(pointer)
        self.pointer_moved.emit(self.value_at(pointer.position))

    def _hover(self, pointer: Pointer) -> None:
        if self._is_on_divider(pointer.position):
            self._tool.leave()
            self.setCursor(Qt.CursorShape.SplitHCursor)
        elif self._is_on_rail(pointer.position):
            self._tool.leave()
            self.setCursor(Qt.CursorShape.PointingHandCursor)
        else:
            self.hide_mouse(self.cursor().shape() == Qt.CursorShape.BlankCursor)
            self._tool.hover(pointer)

    def _right_move(self, pointer: Pointer) -> None:
        assert self._right is not None
        start, drag = self._right
        way = pointer.position - start
        length = (way.x() ** 2 + way.y() ** 2) ** 0.5
        if drag is None and (length > RIGHT_DRAG_PX or (length >= 1 and self._right_clock.elapsed() > RIGHT_DRAG_MS)):
            drag = ZoomTool(self)
            drag.press(Pointer(start))
            self._right = (start, drag)
        if drag is None:
            return
        if self._brush_from is None:
            drag.move(pointer)
            return
        _, radius, hardness = self._brush_from
        changes: dict[str, float] = {"hardness": hardness - way.y() / 200.0}
        name = "radius_mm" if self.document.brush.radius_mm is not None else "radius_px"
        changes[name] = radius * 2.0 ** (way.x() / 100.0)
        self.document.set_brush(**changes)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        self._release(event.button(), Pointer(event.position(), event.modifiers()), event.globalPosition().toPoint())
        event.accept()

    def _release(self, button: Qt.MouseButton, pointer: Pointer, on_screen: QPoint) -> None:
        if button == Qt.MouseButton.RightButton:
            right, self._right, self._brush_from = self._right, None, None
            if right is not None and right[1] is None and not self._tool.right_click(pointer):
                self._offer_menu(pointer.position, on_screen)
            return
        if button == Qt.MouseButton.LeftButton and self._drags is not None:
            self._drags = None
            return
        if self._pressed is None or button != self._pressed_button:
            return
        pressed, self._pressed = self._pressed, None
        if pressed is not None:
            pressed.release(pointer)
            if pressed is not self._tool:
                self._tool.hover(pointer)

    def _offer_menu(self, position: QPointF, on_screen: QPoint) -> None:
        event = QContextMenuEvent(QContextMenuEvent.Reason.Mouse, position.toPoint(), on_screen)
        self.customContextMenuRequested.emit(event.pos())

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        if event.reason() == QContextMenuEvent.Reason.Mouse:
            event.accept()  # decided on release: a right drag zooms and must not end in a menu
        else:
            self.customContextMenuRequested.emit(event.pos())

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        pointer = Pointer(event.position(), event.modifiers())
        if event.button() != Qt.MouseButton.LeftButton:
            self.mousePressEvent(event)
        elif self._is_on_divider(pointer.position):
            self.document.set_divider(0.5)
        elif self._is_on_rail(pointer.position) or self._tool.takes_double_click:
            self.mousePressEvent(event)
        elif not self._tool.double_click(pointer):
            self.maximise_requested.emit()
        event.accept()

    def wheelEvent(self, event: QWheelEvent) -> None:
        delta = event.angleDelta()
        self._wheel_rest += (delta.y() or delta.x()) / 120.0  # with Shift or Alt the wheel may arrive sideways
        modifiers, position = event.modifiers(), event.position()
        event.accept()
        if modifiers & _CTRL:
            self.zoom_by(_ZOOM_NOTCH**self._wheel_rest, position)
            self._wheel_rest = 0.0
            return
        notches = int(self._wheel_rest)
        if notches == 0:
            return
        self._wheel_rest -= notches
        if modifiers & _ALT:
            self.document.step_candidate(notches)
        elif modifiers & _SHIFT and self._is_on_divider(position):
            self.document.set_divider(self.document.divider + 0.01 * notches)
        elif modifiers & _SHIFT and self.document.is_painting_tool:
            self.document.scale_brush(1.1**notches)
        elif self.rail.count == 1:
            self.zoom_by(_ZOOM_NOTCH**notches, position)
        else:
            self.document.step_slice(self.axis, notches * (5 if modifiers & _SHIFT else 1))
            self.pointer_moved.emit(self.value_at(position))

    def tabletEvent(self, event: QTabletEvent) -> None:
        is_eraser = event.pointerType() == QPointingDevice.PointerType.Eraser
        pointer = Pointer(event.position(), event.modifiers(), event.pressure(), is_eraser)
        kind = event.type()
        if kind == QEvent.Type.TabletPress:
            self._press(event.button(), pointer)
        elif kind == QEvent.Type.TabletMove:
            self._move(pointer)
        elif kind == QEvent.Type.TabletRelease:
            self._release(event.button(), pointer, event.globalPosition().toPoint())
        event.accept()  # or Qt would send the same again as mouse events, without pressure

    def event(self, event: QEvent) -> bool:
        if isinstance(event, QNativeGestureEvent) and event.gestureType() == Qt.NativeGestureType.ZoomNativeGesture:
            self.zoom_by(1.0 + event.value(), event.position())
            return True
        return super().event(event)

    def enterEvent(self, event: QEnterEvent) -> None:
        self._tool.hover(Pointer(event.position()))
        if isinstance(self._tool, PromptTool) and self.document.scan is not None:
            self.prompt_requested.emit(self.axis, self.document.matte_position_zyx[self.axis])

    def leaveEvent(self, event: QEvent) -> None:
        if self._pressed is None:
            self._tool.leave()
        self.pointer_moved.emit({})

    # ----------------------------------------------------------------------------------------------------------- keys

    def keyPressEvent(self, event: QKeyEvent) -> None:
        key, shift = Qt.Key(event.key()), bool(event.modifiers() & _SHIFT)
        prompts = self.tools["prompt"]
        arrows = {
            Qt.Key.Key_Left: (-1, 0),
            Qt.Key.Key_Right: (1, 0),
            Qt.Key.Key_Up: (0, -1),
            Qt.Key.Key_Down: (0, 1),
        }
        steps = {Qt.Key.Key_Up: 1, Qt.Key.Key_Down: -1, Qt.Key.Key_PageUp: 10, Qt.Key.Key_PageDown: -10}
        if key in arrows and self._tool is prompts and isinstance(prompts, PromptTool):
            far = 10 if shift else 1
            prompts.nudge(arrows[key][0] * far, arrows[key][1] * far)
        elif key in arrows and isinstance(self._tool, DepthPointTool):
            far = 10 if shift else 1
            self._tool.nudge(arrows[key][0] * far, arrows[key][1] * far)
        elif key in (Qt.Key.Key_Left, Qt.Key.Key_Right) and self.content.mode == "swipe":
            way = 0.01 if key == Qt.Key.Key_Right else -0.01
            self.document.set_divider(self.document.divider + way * (10 if shift else 1))
        elif key in steps:
            self.document.step_slice(self.axis, steps[key])
        elif key in (Qt.Key.Key_Home, Qt.Key.Key_End):
            self.document.go_to_slice(self.axis, 0 if key == Qt.Key.Key_Home else self.rail.count - 1)
        elif key == Qt.Key.Key_Escape:
            self.escape()
        elif key in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self.delete_selected()
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.accept()
        else:
            self._follow_modifiers(event.modifiers() | _modifier_of(key))
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        self._follow_modifiers(event.modifiers() & ~_modifier_of(event.key()))
        super().keyReleaseEvent(event)

    def _follow_modifiers(self, modifiers: Qt.KeyboardModifier) -> None:
        if isinstance(self._tool, PaintTool) and self._pressed is None and self.underMouse():
            self._tool.hover(Pointer(QPointF(self.mapFromGlobal(self.cursor().pos())), modifiers))

    def accept(self) -> bool:
        """Enter: place the keyboard's prompt, else take the candidate."""
        prompts = self.tools["prompt"]
        if isinstance(prompts, PromptTool) and self._tool is prompts and prompts.place_at_keyboard():
            return True
        if isinstance(self._tool, DepthPointTool):
            return self._tool.place_at_keyboard()
        if self.document.candidate is None:
            return False
        self.document.accept_candidate()
        return True

    def escape(self) -> bool:
        """Cancel the innermost thing: what is under way, then prompts, then the tool; False when there is nothing."""
        if self._cancel_pressed() or self._tool.cancel():
            return True
        if self.document.prompts or self.document.candidates:
            self.document.clear_prompts()
            return True
        if self.document.tool != "navigate":
            self.document.set_tool("navigate")
            return True
        return False

    def _cancel_pressed(self) -> bool:
        pressed, self._pressed = self._pressed, None
        return pressed.cancel() if pressed is not None else False

    def delete_selected(self) -> bool:
        """Remove the selected prompt or measured depth."""
        if self.document.tool == "depth":
            return self.document.depth.delete(self.document.depth.selected)
        prompts = self.tools["prompt"]
        return isinstance(prompts, PromptTool) and prompts.delete_selected()

    def focusInEvent(self, event: QFocusEvent) -> None:
        by_key = (Qt.FocusReason.TabFocusReason, Qt.FocusReason.BacktabFocusReason, Qt.FocusReason.ShortcutFocusReason)
        self._came_by_key = event.reason() in by_key
        self.focused.emit()
        self.update()
        super().focusInEvent(event)

    def focusOutEvent(self, event: QFocusEvent) -> None:
        self.update()
        super().focusOutEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._update_camera()
        super().resizeEvent(event)


def _modifier_of(key: int) -> Qt.KeyboardModifier:
    known = {Qt.Key.Key_Control: _CTRL, Qt.Key.Key_Shift: _SHIFT, Qt.Key.Key_Alt: _ALT}
    return known.get(Qt.Key(key), Qt.KeyboardModifier.NoModifier)
