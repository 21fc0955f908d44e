"""The prompt tool: click, box or scribble on what is meant; handles can be dragged and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen, QTransform

from medapp.ui import theme
from medapp.ui.canvas.prompt_marks import GRAB_PX, CandidateOverlay, distance, draw_prompt, handles
from medapp.ui.canvas.tools import Pointer, Tool
from medapp.ui.prompts import Prompt

if TYPE_CHECKING:
    from medapp.ui.canvas.viewport import Viewport

_ALT = Qt.KeyboardModifier.AltModifier
_SMALLEST_DRAG_PX = 4.0


class PromptTool(Tool):
    """Left click includes, right click or Alt+click excludes.

    Attributes:
        selected: Place of the selected prompt in the document's list, or None.
        keyboard_point: Widget point that the arrow keys have moved to; Enter places a prompt there.
    """

    name = "prompt"
    cursor = Qt.CursorShape.CrossCursor
    takes_double_click = True

    def __init__(self, view: Viewport) -> None:
        super().__init__(view)
        self.selected: int | None = None
        self.keyboard_point: QPointF | None = None
        self.candidates = CandidateOverlay()
        self._drag: tuple[int, int, QPointF] | None = None  # prompt, handle, where the pointer is
        self._drawn: list[QPointF] = []
        self._is_include = True

    @property
    def is_busy(self) -> bool:
        return self._drag is not None or bool(self._drawn)

    def press(self, pointer: Pointer) -> None:
        self.keyboard_point = None
        grabbed = self._handle_at(pointer.position)
        if grabbed is not None:
            self.selected = grabbed[0]
            self._drag = (*grabbed, pointer.position)
            self.view.update()
            return
        self.selected = None
        if self.view.annotation_xy(pointer.position) is None:
            return
        self._is_include = not pointer.has(_ALT)
        if self.document.prompt_kind == "point":
            self._add_point(pointer.position, self._is_include)
        else:
            self._drawn = [pointer.position]

    def move(self, pointer: Pointer) -> None:
        if self._drag is not None:
            self._drag = (self._drag[0], self._drag[1], pointer.position)
        elif self._drawn and self.document.prompt_kind == "box":
            self._drawn = [self._drawn[0], pointer.position]
        elif self._drawn:
            self._drawn.append(pointer.position)
        else:
            return
        self.view.update()

    def release(self, pointer: Pointer) -> None:
        drag, drawn = self._drag, self._drawn
        self._drag, self._drawn = None, []
        if drag is not None:
            self._drop(*drag)
        elif drawn:
            is_click = max(distance(drawn[0], point) for point in drawn) < _SMALLEST_DRAG_PX
            if is_click:
                self._add_point(drawn[0], self._is_include)
            else:
                points = [self.view.annotation_xy(point, is_clipped=False) for point in drawn]
                self._add(self.document.prompt_kind, [p for p in points if p is not None], self._is_include)
        self.view.update()

    def right_click(self, pointer: Pointer) -> bool:
        if self.view.annotation_xy(pointer.position) is None:
            return False
        self._add_point(pointer.position, False)
        return True

    def cancel(self) -> bool:
        if self._drag is not None or self._drawn:
            self._drag, self._drawn = None, []
            self.view.update()
            return True
        if self.keyboard_point is not None:
            self.keyboard_point = None
            self.view.update()
            return True
        return False

    def delete_selected(self) -> bool:
        """Remove the selected prompt; with none selected the newest one on this slice."""
        mine = [place for place, _ in self._prompts()]
        place = self.selected if self.selected in mine else (mine[-1] if mine else None)
        self.selected = None
        if place is None:
            return False
        self.document.remove_prompt(place)
        return True

    def nudge(self, dx: int, dy: int) -> None:
        """Move the selected handle, or the keyboard's own pointer, by screen points."""
        mine = dict(self._prompts())
        if self.selected in mine:
            prompt = mine[self.selected]
            self._drop(self.selected, 0, self.view.annotation_point(*prompt.points_xy[0]) + QPointF(dx, dy))
            return
        point = self.keyboard_point or QRectF(self.view.rect()).center()
        self.keyboard_point = point + QPointF(dx, dy)
        self.view.update()

    def place_at_keyboard(self) -> bool:
        """Enter: a prompt where the arrow keys have gone; False when they have not been used."""
        point, self.keyboard_point = self.keyboard_point, None
        if point is None or self.view.annotation_xy(point) is None:
            return False
        self._add_point(point, True)
        return True

    def draw(self, painter: QPainter, visible: QRectF) -> None:
        for place, prompt in self._prompts():
            points = [self.view.annotation_point(x, y) for x, y in prompt.points_xy]
            if self._drag is not None and self._drag[0] == place:
                points = self._moved(points, prompt)
            draw_prompt(painter, prompt, points, place == self.selected)
        if self._drawn and len(self._drawn) > 1:
            kind = self.document.prompt_kind
            draw_prompt(painter, Prompt(kind, (), self._is_include), self._drawn, False)
        if self.keyboard_point is not None:
            for pen in (QPen(QColor(0, 0, 0, 190), 3), QPen(QColor(theme.DARK.accent), 1.5)):
                painter.setPen(pen)
                for way in (QPointF(9, 0), QPointF(0, 9)):
                    painter.drawLine(self.keyboard_point - way, self.keyboard_point + way)

    def draw_candidate(self, painter: QPainter, visible: QRectF, to_widget: QTransform) -> None:
        """The region that is shown, if it lies on this slice."""
        at, candidate = self.view.annotation_at, self.document.shown_candidate
        if at is None or candidate is None:
            return
        if (candidate.axis, candidate.slice_index) != (at.plane.axis, at.index):
            return
        matte = self.document.active_matte
        self.candidates.show(candidate, at.plane, matte.colour if matte is not None else theme.LABEL_COLOURS[0])
        self.candidates.draw(painter, to_widget, visible)

    def _prompts(self) -> list[tuple[int, Prompt]]:
        at = self.view.annotation_at
        if at is None:
            return []
        return [
            (place, prompt)
            for place, prompt in enumerate(self.document.prompts)
            if (prompt.axis, prompt.slice_index) == (at.plane.axis, at.index)
        ]

    def _handle_at(self, position: QPointF) -> tuple[int, int] | None:
        for place, prompt in reversed(self._prompts()):
            for handle, (x, y) in enumerate(handles(prompt)):
                if distance(self.view.annotation_point(x, y), position) <= GRAB_PX:
                    return place, handle
        return None

    def _moved(self, points: list[QPointF], prompt: Prompt) -> list[QPointF]:
        assert self._drag is not None
        _, handle, position = self._drag
        if prompt.kind == "scribble":
            way = position - points[0]
            return [point + way for point in points]
        return [position if n == handle else point for n, point in enumerate(points)]

    def _drop(self, place: int, handle: int, position: QPointF) -> None:
        if place >= len(self.document.prompts):
            return
        prompt = self.document.prompts[place]
        points = [self.view.annotation_point(x, y) for x, y in prompt.points_xy]
        if distance(points[min(handle, len(points) - 1)], position) < 1.0:
            return
        self._drag = (place, handle, position)
        moved = [self.view.annotation_xy(point, is_clipped=False) for point in self._moved(points, prompt)]
        self._drag = None
        self.document.move_prompt(place, tuple(p for p in moved if p is not None))

    def _add_point(self, position: QPointF, is_include: bool) -> None:
        xy = self.view.annotation_xy(position)
        if xy is not None:
            self._add("point", [xy], is_include)

    def _add(self, kind: str, points: list[tuple[float, float]], is_include: bool) -> None:
        at = self.view.annotation_at
        if at is None or at.index is None:
            return
        self.document.add_prompt(Prompt(kind, tuple(points), is_include, at.plane.axis, at.index))  # type: ignore[arg-type]
        self.view.prompt_requested.emit(at.plane.axis, at.index)
