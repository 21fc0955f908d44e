"""The picture of one viewport: where things lie, what is under a point, pan and zoom, painting."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QPointF, QRect, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QImage, QPainter, QPaintEvent, QPen, QRegion, QTransform
from PySide6.QtWidgets import QWidget

from medapp.annotation.brush import PlaneBox
from medapp.annotation.matte import FULL
from medapp.ui import theme
from medapp.ui.canvas import view_text
from medapp.ui.canvas.camera import Camera
from medapp.ui.canvas.compare import Alignment
from medapp.ui.canvas.content import Content, Pane
from medapp.ui.canvas.depth_picture import draw_depth_bar
from medapp.ui.canvas.depth_tools import draw_depth_marks
from medapp.ui.canvas.furniture import TextPainter, draw_colour_bar
from medapp.ui.canvas.overlay import MatteOverlay, dirty_rect
from medapp.ui.canvas.paint_tools import PaintTool
from medapp.ui.canvas.prompt_tool import PromptTool
from medapp.ui.canvas.rail import WIDTH as RAIL_WIDTH
from medapp.ui.canvas.rail import SliceRail
from medapp.ui.canvas.region_overlay import RegionOverlay
from medapp.ui.canvas.tools import make_tools
from medapp.ui.canvas.trust_overlay import draw_trust_bar
from medapp.ui.canvas.uncertainty import UncertaintyOverlay, draw_bits_bar
from medapp.ui.document import Document

_NEAREST_FROM = 8.0  # screen pixels a voxel: from here on voxels are shown as squares


class Viewport(QWidget):
    """Draws slices of the document's series along one index axis; ``SliceView`` adds mouse, pen and keys.

    Attributes:
        axis: 0 = z, 1 = y, 2 = x.
        content: The pictures, kept up to date with the document.
        camera: Pan and zoom.
        rail: The slice rail on the right edge.
        panes: What was painted last.
        tools: Every tool by name.
        shows_crosshair: Other planes are on screen too.
    """

    pointer_moved = Signal(dict)
    prompt_requested = Signal(int, int)
    message_requested = Signal(str)

    def __init__(self, document: Document, axis: int, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.document, self.axis = document, axis
        self.content = Content(document, axis)
        self.camera = Camera()
        self.rail = SliceRail()
        self.texts = TextPainter()
        self.panes: list[Pane] = []
        self.shows_crosshair = False
        self.tools = make_tools(self)
        self._tool = self.tools["navigate"]
        self.uncertainty = UncertaintyOverlay()
        self.regions = RegionOverlay()
        self._flash: QRect | None = None
        self._came_by_key = False
        self._crosshair = QRegion()
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setMinimumSize(120, 120)

    def sizeHint(self) -> QSize:
        return QSize(512, 512)

    # ---------------------------------------------------------------------------------------------- places and values

    @property
    def overlay(self) -> MatteOverlay:
        """The mattes of this slice."""
        return self.content.overlay

    @property
    def annotation_at(self) -> Alignment | None:
        """Plane and slice of the original series, on whose grid mattes live."""
        return self.content.overlay_at if self.document.annotation is not None else None

    @property
    def image_area(self) -> QRect:
        """The widget without the rail."""
        return self.rect().adjusted(0, 0, -RAIL_WIDTH if self.rail.is_shown else 0, 0)

    def pane_at(self, position: QPointF) -> Pane | None:
        """The pane under a widget point."""
        panes = self.panes
        return next((p for p in panes if p.clip.contains(position.toPoint())), panes[0] if panes else None)

    def _area_at(self, position: QPointF) -> QRect:
        pane = self.pane_at(position)
        return pane.area if pane is not None else self.image_area

    @property
    def annotation_transform(self) -> QTransform:
        """Display pixels of the mattes' grid to widget points of the first pane."""
        area = self.panes[0].area if self.panes else self.image_area
        return self._annotation_to_widget(area)

    def _annotation_to_widget(self, area: QRect) -> QTransform:
        at, through = self.content.overlay_at, self.camera.transform(area)
        return at.to_frame * through if at is not None else through

    def annotation_scale(self, position: QPointF) -> tuple[float, float]:
        """Widget points per display pixel of the mattes' grid."""
        through = self._annotation_to_widget(self._area_at(position))
        return abs(through.m11()), abs(through.m22())

    def annotation_xy(self, position: QPointF, is_clipped: bool = True) -> tuple[float, float] | None:
        """A widget point in the raw slice of the mattes' grid: ``(x, y)``, pixel centres at whole numbers.

        Args:
            is_clipped: None outside the image then.
        """
        at = self.annotation_at
        if at is None or at.index is None:
            return None
        point = self._annotation_to_widget(self._area_at(position)).inverted()[0].map(position)
        if is_clipped and not (0 <= point.x() < at.plane.width and 0 <= point.y() < at.plane.height):
            return None
        return at.plane.to_raw_xy(point.x(), point.y())

    def annotation_point(self, x: float, y: float) -> QPointF:
        """The widget point of a point of the raw slice; the inverse of ``annotation_xy`` in the first pane."""
        at = self.annotation_at
        return self.annotation_transform.map(QPointF(*at.plane.from_raw_xy(x, y))) if at is not None else QPointF()

    def annotation_place(self, x: float, y: float, area: QRect) -> QPointF:
        """The widget point of a point of the raw slice in the pane that fills ``area``."""
        at = self.annotation_at
        return (
            self._annotation_to_widget(area).map(QPointF(*at.plane.from_raw_xy(x, y))) if at is not None else QPointF()
        )

    def voxel_at(self, position: QPointF) -> tuple[int, int, int] | None:
        """The voxel of the series on screen under a widget point."""
        plane = self.content.plane
        if plane is None:
            return None
        return plane.voxel_at(*self.camera.to_display(position, self._area_at(position)), self.content.index)

    def value_at(self, position: QPointF) -> dict[str, Any]:
        """What lies under a widget point: ``zyx``, ``xy_px``, ``value``, ``alpha``, ``unit``, perhaps ``spread``."""
        pane, voxel = self.pane_at(position), self.voxel_at(position)
        if pane is None or voxel is None:
            return {}
        found: dict[str, Any] = {"zyx": voxel, "xy_px": None, "value": None, "alpha": None, "unit": self.content.unit}
        if self.content.plane is not None:
            x, y = self.content.plane.to_raw_xy(*self.camera.to_display(position, pane.area))
            found["xy_px"] = (round(x), round(y))
        scan, at = pane.scan, pane.alignment
        if pane.depth_bar is not None:
            found["unit"] = "mm"
        if scan is not None and at is not None and at.index is not None and pane.picture is not None:
            point = (at.to_frame * self.camera.transform(pane.area)).inverted()[0].map(position)
            there = at.plane.voxel_at(point.x(), point.y(), at.index)
            if there is not None:
                stored = scan.stored[there]
                if scan.is_colour:
                    found["value"] = tuple(int(c) for c in stored)
                else:
                    found["value"] = float(stored) * scan.slope + scan.intercept
                if pane.trust_bar is not None and self.document.trust is not None:
                    found["spread"] = float(self.document.trust.stored[there])
        matte, xy = self.document.active_matte, self.annotation_xy(position)
        mattes_at = self.annotation_at
        if matte is not None and xy is not None and mattes_at is not None and mattes_at.index is not None:
            index = mattes_at.plane.to_index(0.5, 0.5, mattes_at.index)
            low, high = (a for a in range(3) if a != self.axis)
            place = [round(v) for v in index]
            place[high], place[low] = round(xy[0]), round(xy[1])
            if all(0 <= p < n for p, n in zip(place, matte.shape_zyx, strict=True)):
                found["alpha"] = float(matte.read((place[0], place[1], place[2]), (1, 1, 1))[0, 0, 0]) / FULL
        return found

    # ------------------------------------------------------------------------------------------------- pan, zoom, fit

    def fit(self) -> None:
        """The whole image, centred."""
        self._update_camera()
        self.camera.fit(self._area_at(QPointF(self.image_area.center())))
        self._camera_moved()

    def zoom_by(self, factor: float, at: QPointF | None = None) -> None:
        """Zoom around a widget point; None = the middle."""
        point = at if at is not None else QPointF(self.image_area.center())
        self.camera.zoom_by(factor, point, self._area_at(point))
        self._camera_moved()

    def show_percent(self, percent: float) -> None:
        """An absolute zoom."""
        area = self._area_at(QPointF(self.image_area.center()))
        self.camera.show_percent(percent, area)
        self._camera_moved()

    def pan_by(self, dx: float, dy: float) -> None:
        """Move the image by widget points."""
        self.camera.pan(dx, dy)
        self._camera_moved()

    def _camera_moved(self) -> None:
        if isinstance(self._tool, PaintTool):
            self._tool.follow_brush()
        self.update()

    def _update_camera(self) -> None:
        plane = self.content.follow()
        if plane is not None:
            self.camera.look_at((plane.width, plane.height), plane.aspect)
            self.rail.count, self.rail.index = plane.count, self.content.index
        else:
            self.rail.count = 1
        self.rail.place(self.rect())

    def patch_overlay(self, box: PlaneBox) -> None:
        """Voxels or the stroke under way have changed in a box of the raw slice: paint just that again."""
        display = self.overlay.patch(box)
        if display is None:
            return
        self.content.patch(display)
        for pane in self.panes or ():
            self.update(dirty_rect(display, self._annotation_to_widget(pane.area)).intersected(pane.clip))
        if not self.panes:
            self.update()

    def set_original_held(self, is_held: bool) -> None:
        """Show the original alone while the key is held."""
        if self.content.shows_original != is_held:
            self.content.shows_original = is_held
            self.update()

    def hide_mouse(self, is_hidden: bool) -> None:
        """The brush rings stand in for the mouse pointer."""
        shape = Qt.CursorShape.BlankCursor if is_hidden else self._tool.cursor
        if self.cursor().shape() != shape:
            self.setCursor(shape)

    # ------------------------------------------------------------------------------------------------------- painting

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        self._paint(painter, event.rect())
        painter.end()

    def _paint(self, painter: QPainter, exposed: QRect) -> None:
        self._update_camera()
        area = self.image_area
        self.panes = self.content.panes(area)
        if self.panes and self.camera.is_fitted:
            self.camera.fit(self.panes[0].area)
        around = QRegion(exposed)
        for pane in self.panes:
            if pane.picture is not None:
                covered = pane.picture.area(self.camera.transform(pane.area)).toRect().adjusted(1, 1, -1, -1)
                around -= QRegion(covered.intersected(pane.clip))
        for part in around:  # type: ignore[attr-defined]  # PySide's stubs forget that regions can be walked
            painter.fillRect(part, QColor(theme.DARK.surround))
        if not self.panes:
            return
        for pane in self.panes:
            part = pane.clip.intersected(exposed)
            if not part.isEmpty():
                painter.setClipRect(part)
                self._paint_pane(painter, pane, QRectF(part))
        painter.setClipRect(exposed)
        self._paint_over(painter, exposed)

    def _paint_pane(self, painter: QPainter, pane: Pane, visible: QRectF) -> None:
        through = self.camera.transform(pane.area)
        if pane.picture is None:
            self.texts.draw(
                painter,
                pane.note,
                QPointF(pane.area.center().x(), pane.area.center().y()),
                Qt.AlignmentFlag.AlignHCenter,
                theme.DARK.text_2,
            )
            return
        is_smooth = self.camera.zoom * self.devicePixelRatioF() < _NEAREST_FROM
        pane.picture.draw(painter, through, is_smooth)
        if pane.trust_bar is not None:
            self.content.trust.draw(painter, pane.picture.to_frame * through, is_smooth)
        if pane.side != "difference" and self.document.overlays_visible:
            to_widget = self._annotation_to_widget(pane.area)
            self.regions.draw(painter, self.document, self.annotation_at, to_widget)
            if not pane.picture.holds(self.overlay):
                self.overlay.draw_image(painter, to_widget)
            self.overlay.draw_lines(painter, to_widget, visible)
            for letter, colour, (u, v) in self.overlay.letters():
                at = to_widget.map(QPointF(u + 0.5, v))
                if visible.adjusted(-20, -20, 20, 20).contains(at):
                    place = QPointF(at.x(), at.y() - 17)
                    self.texts.draw(painter, letter, place, Qt.AlignmentFlag.AlignHCenter, colour, is_bold=True)
            prompts = self.tools["prompt"]
            assert isinstance(prompts, PromptTool)
            self.uncertainty.draw(painter, self.document, self.annotation_at, to_widget)
            prompts.draw_candidate(painter, visible, to_widget)

    def _paint_over(self, painter: QPainter, exposed: QRect) -> None:
        visible = QRectF(exposed)
        if self.document.overlays_visible:
            view_text.draw_crosshair(painter, self)
            self._crosshair = view_text.crosshair_region(self) if self.shows_crosshair else QRegion()
            if self._flash is not None:
                painter.setPen(QPen(QColor(theme.DARK.accent), 2))
                painter.drawRect(self._flash)
            prompts = self.tools["prompt"]
            if self._tool is prompts or self.document.prompts:
                prompts.draw(painter, visible)
        is_depth_tool = self._tool.name in ("depth", "ruler")
        if is_depth_tool or (self.document.depth.is_shown and self.document.overlays_visible):
            draw_depth_marks(painter, self, exposed)
        if self._tool is not self.tools["prompt"]:
            self._tool.draw(painter, visible)
        if self.content.mode == "swipe":
            view_text.draw_divider(painter, self.divider_x, self.image_area)
        if self.content.mode == "side by side":
            x = self.panes[0].clip.right() + 1
            painter.fillRect(QRect(x, 0, 2, self.height()), QColor(theme.DARK.line))
        for pane in self.panes:
            view_text.draw_chip(painter, self, pane, exposed)
        if self.document.overlays_visible:
            view_text.draw_texts(painter, self, self.panes, exposed)
        for pane in self.panes:
            if pane.depth_bar is not None:
                draw_depth_bar(painter, self.texts, pane.clip, pane.depth_bar)
            if pane.trust_bar is not None:
                draw_trust_bar(painter, self.texts, pane.clip, pane.trust_bar)
        if self.content.mode == "difference" and self.panes[0].picture is not None:
            area = self.image_area
            height = min(160, max(40, area.height() // 2 - 90))
            bar = QRect(area.right() - 20, area.top() + 44, 10, height)
            scan = self.document.scan
            unit = "levels" if scan is not None and scan.is_colour else self.content.unit or "a.u."
            draw_colour_bar(painter, self.texts, bar, self.content.limit, unit)
        elif self.document.overlays_visible and self.uncertainty.is_shown(self.document, self.annotation_at):
            area = self.image_area
            draw_bits_bar(painter, self.texts, QRect(area.right() - 20, area.top() + 44, 10, 96))
        if self.rail.area.intersects(exposed):
            self.rail.marks = view_text.rail_marks(self)
            self.rail.ready = view_text.rail_ready(self)
            self.rail.draw(painter)
        if self.hasFocus() and (self.shows_crosshair or self._came_by_key):
            painter.setPen(QPen(QColor(theme.DARK.accent), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(self.rect().adjusted(1, 1, -1, -1))

    @property
    def shows_keyboard_place(self) -> bool:
        """The keyboard came here and holds the tool that places measured depths."""
        return self._came_by_key and self.hasFocus() and self._tool.name == "depth"

    @property
    def divider_x(self) -> int:
        """Where the swipe line is."""
        return self.content.divider_x(self.image_area)

    def grab_image(self) -> QImage:
        """A screenshot of the viewport; of a processed image with "Not for diagnosis" burnt in."""
        ratio = self.devicePixelRatioF()
        picture = QImage(self.size() * ratio, QImage.Format.Format_RGB32)
        picture.setDevicePixelRatio(ratio)
        painter = QPainter(picture)
        self._paint(painter, self.rect())
        painter.setClipRect(self.rect())
        if any(pane.chip.is_processed and pane.picture is not None for pane in self.panes):
            view_text.draw_not_for_diagnosis(painter, self)
        painter.end()
        return picture
