"""Mattes over the image: premultiplied pixels that are patched where a stroke has been, and nowhere else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QPoint, QRect, QRectF, Qt
from PySide6.QtGui import QBrush, QColor, QImage, QPainter, QPen, QTransform

from medapp.annotation.annotation import Annotation
from medapp.annotation.brush import PlaneBox, StrokeBuilder
from medapp.annotation.labels import label_style
from medapp.annotation.matte import FULL, Matte
from medapp.annotation.sparse import TILE
from medapp.ui.canvas.contours import Contour, draw_segments, find_contour
from medapp.ui.canvas.plane import Box, Plane
from medapp.ui.canvas.tints import TINT, backdrop_table, grey_table, hatch, tint_table

MATTE_VIEWS = ("tint", "outline", "on black", "on white", "on checker", "grey", "unknown band")
_ALONE = MATTE_VIEWS[2:6]  # only the active layer, over a plain background
_LEVELS = (0.5, 0.1, 0.9)
_CHECKER_PX = 8
_CHECKER_GREYS = (102, 153)


class MatteOverlay:
    """The mattes of one slice in one plane.

    Attributes:
        image: Premultiplied ARGB32, one pixel a voxel, in display orientation; zero outside ``box``.
        box: What has to be drawn of it; None when there is nothing.
        revision: Grows with each change of the image.
        stroke: The stroke under way, whose preview stands in for the stored values.
    """

    def __init__(self) -> None:
        self._pixels: NDArray[np.uint32] = np.zeros((1, 1), dtype=np.uint32)
        self.image = QImage()
        self.box: Box | None = None
        self.revision = 0
        self.stroke: StrokeBuilder | None = None
        self._annotation: Annotation | None = None
        self._plane: Plane | None = None
        self._index = 0
        self._view = MATTE_VIEWS[0]
        self._active_id: str | None = None
        self._shows_band = False
        self._contours: dict[tuple[str, float], Contour] = {}
        self._boxes: dict[str, Box] = {}
        self._anchors: dict[str, tuple[int, int]] = {}
        self._fresh: dict[str, NDArray] = {}
        self._band: NDArray[np.uint32] | None = None
        self._band_box: Box | None = None
        self._keys: dict[tuple[str, str], tuple[Matte, int, NDArray[np.int64]]] = {}
        self._key: object = None

    # --------------------------------------------------------------------------------------------------- what to show

    def show(
        self,
        annotation: Annotation | None,
        plane: Plane,
        index: int,
        view: str,
        active_id: str | None,
        shows_band: bool = False,
    ) -> None:
        """Show a slice; the same one twice costs nothing. Changed voxels come in through ``patch`` or ``forget``."""
        mattes = annotation.mattes if annotation is not None else ()
        key = (
            id(annotation),
            plane,
            index,
            view,
            active_id,
            shows_band,
            tuple((m.matte_id, m.props) for m in mattes),
        )
        if key == self._key:
            return
        self._key = key
        self._annotation, self._plane, self._index = annotation, plane, index
        self._view, self._active_id = view, active_id
        self._shows_band = shows_band or view == "unknown band"
        self._rebuild()

    def forget(self) -> None:
        """Build anew next time."""
        self._key = None

    def _rebuild(self) -> None:
        plane = self._plane
        assert plane is not None
        self.revision += 1
        if self._pixels.shape != (plane.height, plane.width):
            self._pixels = np.zeros((plane.height, plane.width), dtype=np.uint32)
            self.image = QImage(
                self._pixels.data,
                plane.width,
                plane.height,
                4 * plane.width,
                QImage.Format.Format_ARGB32_Premultiplied,
            )
        elif self.box is not None:
            self._pixels[self.box[1] : self.box[3], self.box[0] : self.box[2]] = 0
        self.box, self._contours, self._boxes, self._band, self._band_box = None, {}, {}, None, None
        self._anchors, self._fresh = {}, {}
        for matte in self._mattes():
            occupied = self._occupied(matte)
            if occupied is not None:
                self._crop(matte, occupied)
        whole = (0, 0, plane.width, plane.height)
        if self._view in _ALONE:
            self.box = whole if self._active() is not None else None
        else:
            for box in self._boxes.values():
                self.box = _united(self.box, box)
        if self.box is not None and self._view != "outline":
            self._compose(self.box)
        self._fresh = {}
        if self._view == "outline":
            for matte in self._mattes():
                if matte.matte_id in self._boxes:
                    self._trace(matte, self._boxes[matte.matte_id])
        if self._shows_band:
            active = self._active()
            band_box = self._occupied(active, "unknown") if active is not None else None
            if band_box is not None:
                self._patch_band(band_box)

    def patch(self, plane_box: PlaneBox) -> Box | None:
        """Take over what has changed in a box of the raw slice; returns the display box to paint again."""
        if self._plane is None:
            return None
        box = self._from_raw(plane_box)
        if box[0] >= box[2] or box[1] >= box[3]:
            return None
        for matte in self._mattes():
            known = self._boxes.get(matte.matte_id)
            if self._is_painted(matte) and (known is None or not _holds(known, box)):
                self._boxes[matte.matte_id] = _united(known, box)
        if self._view in _ALONE:
            self.box = self.box or (0, 0, self._plane.width, self._plane.height)
        elif any(_touch(b, box) for b in self._boxes.values()):
            self.box = _united(self.box, box)
        if self._view == "outline":
            for matte in self._mattes():
                if self._is_painted(matte):
                    self._trace(matte, box)
        else:
            self._compose(box)
        if self._shows_band and (self.stroke is None or self.stroke.settings.mode == "unknown"):
            self._patch_band(box)
        self.revision += 1
        if self.stroke is None:
            self._place_letters()
        return box

    # ------------------------------------------------------------------------------------------------------- painting

    def draw_image(self, painter: QPainter, to_widget: QTransform) -> None:
        """The pixels, for a picture of another grid; where grids agree they are put into the picture itself."""
        if self.box is None or self._view == "outline":
            return
        area = QRectF(*self.box[:2], self.box[2] - self.box[0], self.box[3] - self.box[1])
        painter.save()
        painter.setTransform(to_widget)
        painter.drawImage(area, self.image, area)
        painter.restore()

    @property
    def index(self) -> int:
        """The slice that is shown."""
        return self._index

    @property
    def has_pixels(self) -> bool:
        """There is something in ``image`` to put over the picture."""
        return self.box is not None and self._view != "outline"

    def draw_lines(self, painter: QPainter, to_widget: QTransform, visible: QRectF) -> None:
        """Outlines and the hatched unknown band, at the resolution of the screen."""
        if self._band_box is not None and self._band is not None:
            self._draw_band(painter, to_widget, visible)
        if self._view != "outline":
            return
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
        for matte in self._mattes():
            outline = label_style(matte.label).outline
            for level in reversed(_LEVELS):
                contour = self._contours.get((matte.matte_id, level))
                if contour is None:
                    continue
                colour = QColor(matte.colour)
                colour.setAlphaF(1.0 if level == 0.5 else 0.55)
                painter.setPen(QPen(colour, 1.5 if level == 0.5 else 1.0))
                segments = contour.gapped(outline) if level == 0.5 else contour.segments
                draw_segments(painter, segments, to_widget, visible)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)

    def letters(self) -> list[tuple[str, str, tuple[int, int]]]:
        """Letter, colour and topmost display pixel of every matte on this slice, so that colour is never alone."""
        if self._view in _ALONE:
            return []
        return [(m.letter, m.colour, self._anchors[m.matte_id]) for m in self._mattes() if m.matte_id in self._anchors]

    def _draw_band(self, painter: QPainter, to_widget: QTransform, visible: QRectF) -> None:
        assert self._band is not None
        assert self._band_box is not None
        u0, v0, u1, v1 = self._band_box
        area = to_widget.mapRect(QRectF(u0, v0, u1 - u0, v1 - v0)).intersected(visible).toAlignedRect()
        if area.isEmpty():
            return
        picture = QImage(area.size(), QImage.Format.Format_ARGB32_Premultiplied)
        picture.fill(Qt.GlobalColor.transparent)
        brush = QPainter(picture)
        brush.setTransform(to_widget * QTransform.fromTranslate(-area.x(), -area.y()))
        height, width = self._band.shape
        brush.drawImage(0, 0, QImage(self._band.data, width, height, 4 * width, picture.format()))
        brush.resetTransform()
        brush.setCompositionMode(QPainter.CompositionMode.CompositionMode_SourceIn)
        brush.setBrushOrigin(QPoint(-area.x(), -area.y()))  # the pattern stays put while parts are painted again
        brush.fillRect(picture.rect(), QBrush(hatch()))
        brush.end()
        painter.drawImage(area.topLeft(), picture)

    # --------------------------------------------------------------------------------------------------------- inside

    def _mattes(self) -> tuple[Matte, ...]:
        if self._annotation is None:
            return ()
        return tuple(matte for matte in self._annotation.mattes if matte.is_visible)

    def _active(self) -> Matte | None:
        return next((m for m in self._mattes() if m.matte_id == self._active_id), None)

    def _is_painted(self, matte: Matte) -> bool:
        """False for layers that the stroke under way cannot change."""
        if self.stroke is None or matte is self.stroke.matte:
            return True
        return matte.group is not None and matte.group == self.stroke.matte.group

    def _occupied(self, matte: Matte, layer: str = "alpha") -> Box | None:
        """The display box of the tiles that cross this slice."""
        assert self._plane is not None
        keys = self._tile_keys(matte, layer)
        axis, shape = self._plane.axis, matte.shape_zyx
        found = keys[keys[:, axis] == (self._index if axis == 0 else self._index // TILE)]
        if len(found) == 0:
            return None
        low = found.min(axis=0) * (1, TILE, TILE)
        high = np.minimum((found.max(axis=0) + 1) * (1, TILE, TILE), shape)
        return self._plane.box_to_display(tuple(low.tolist()), tuple((high - low).tolist()))

    def _crop(self, matte: Matte, box: Box) -> None:
        """Note the part of a display box that is not all zero, its values and the place of the layer's letter."""
        stored = self._stored(matte, box)
        rows = np.flatnonzero(stored.any(axis=1))
        if len(rows) == 0:
            return
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        columns = np.flatnonzero(stored[top:bottom].any(axis=0))
        left, right = int(columns[0]), int(columns[-1]) + 1
        self._anchors[matte.matte_id] = (box[0] + int(np.argmax(stored[top])), box[1] + top)
        self._boxes[matte.matte_id] = (box[0] + left, box[1] + top, box[0] + right, box[1] + bottom)
        self._fresh[matte.matte_id] = stored[top:bottom, left:right]

    def _place_letters(self) -> None:
        """Find the topmost pixel of every layer again, after voxels have changed for good."""
        self._anchors = {}
        for matte in self._mattes():
            occupied = self._occupied(matte)
            if occupied is not None:
                self._crop(matte, occupied)
        self._fresh = {}

    def _tile_keys(self, matte: Matte, layer: str) -> NDArray[np.int64]:
        """``(N, 3)`` keys of the tiles of a layer, looked up once per version."""
        known = self._keys.get((matte.matte_id, layer))
        if known is None or known[0] is not matte or known[1] != matte.version:
            tiles = matte.tiles(layer).tiles  # type: ignore[arg-type]
            known = (matte, matte.version, np.array(list(tiles), dtype=np.int64).reshape(-1, 3))
            self._keys[matte.matte_id, layer] = known
        return known[2]

    def _from_raw(self, box: PlaneBox) -> Box:
        plane = self._plane
        assert plane is not None
        low, high = (a for a in range(3) if a != plane.axis)
        start, shape = [0, 0, 0], [1, 1, 1]
        start[low], start[high] = box.top, box.left
        shape[low], shape[high] = box.bottom - box.top, box.right - box.left
        return plane.box_to_display(tuple(start), tuple(shape))

    def _to_raw(self, box: Box) -> PlaneBox:
        plane = self._plane
        assert plane is not None
        start, shape = plane.box_to_voxels(box, self._index)
        low, high = (a for a in range(3) if a != plane.axis)
        return PlaneBox(start[low], start[high], start[low] + shape[low], start[high] + shape[high])

    def _stored(self, matte: Matte, box: Box, layer: str = "alpha") -> NDArray:
        """Stored values of a display box, in display orientation: as they are, or as the stroke will leave them."""
        plane, stroke = self._plane, self.stroke
        assert plane is not None
        if stroke is not None and stroke.axis == plane.axis:
            offset = self._index - stroke.z
            is_reached = offset == 0 or stroke.settings.depth_mm > 0
            if is_reached and matte is stroke.matte and stroke.settings.mode == layer:
                return plane.shown(stroke.preview(self._to_raw(box), offset))
            if is_reached and layer == "alpha" and matte is not stroke.matte:
                lowered = stroke.preview_others(self._to_raw(box), offset).get(matte.matte_id)
                if lowered is not None:
                    return plane.shown(lowered)
        start, shape = plane.box_to_voxels(box, self._index)
        return plane.shown(plane.raw(matte.read(start, shape, layer), 0))  # type: ignore[arg-type]

    def _compose(self, box: Box) -> None:
        """Pixels of a display box from all visible layers."""
        u0, v0, u1, v1 = box
        target = self._pixels[v0:v1, u0:u1]
        active = self._active()
        if self._view in _ALONE:
            if active is None:
                target[:] = 0
            else:
                target[:] = self._alone(self._stored(active, box), box)
            return
        is_first = True
        for matte in self._mattes():
            known = self._boxes.get(matte.matte_id)
            if known is None or not _touch(known, box):
                continue
            part, stored = box, self._fresh.get(matte.matte_id)
            if stored is None:
                stored = self._stored(matte, box)
            else:
                part = known  # while the whole is built: only where the layer is
            pixels = tint_table(matte.colour, TINT).take(stored, mode="wrap")
            if is_first:
                self._pixels[part[1] : part[3], part[0] : part[2]] = pixels
                is_first = False
                continue
            height, width = pixels.shape
            painter = QPainter(self.image)
            painter.drawImage(part[0], part[1], QImage(pixels.data, width, height, 4 * width, self.image.format()))
            painter.end()
        if is_first:
            target[:] = 0

    def _alone(self, stored: NDArray, box: Box) -> NDArray[np.uint32]:
        """Only the active layer, before a plain background."""
        if self._view == "grey":
            return grey_table().take(stored, mode="wrap")
        if self._view in ("on black", "on white"):
            return backdrop_table(0 if self._view == "on black" else 255).take(stored, mode="wrap")
        rows = np.arange(box[1], box[3])[:, None] // _CHECKER_PX
        columns = np.arange(box[0], box[2])[None, :] // _CHECKER_PX
        dark, light = (backdrop_table(grey).take(stored, mode="wrap") for grey in _CHECKER_GREYS)
        return np.where((rows + columns) % 2 == 0, dark, light)

    def _trace(self, matte: Matte, box: Box) -> None:
        """Contours of a display box, with the cells around it."""
        plane = self._plane
        assert plane is not None
        u0, v0, u1, v1 = box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1
        clipped = (max(u0, 0), max(v0, 0), min(u1, plane.width), min(v1, plane.height))
        values = self._stored(matte, clipped)
        # Outside the image alpha is zero, so that outlines close at its border.
        edges = ((clipped[1] - v0, v1 - clipped[3]), (clipped[0] - u0, u1 - clipped[2]))
        values = np.pad(values, edges)
        for level in _LEVELS:
            fresh = find_contour(values, level * FULL, (u0, v0))
            old = self._contours.get((matte.matte_id, level), Contour.empty())
            self._contours[matte.matte_id, level] = old.replaced(box, fresh)

    def _patch_band(self, box: Box) -> None:
        plane, active = self._plane, self._active()
        if plane is None or active is None:
            return
        if self._band is None:
            self._band = np.zeros((plane.height, plane.width), dtype=np.uint32)
        band = self._stored(active, box, "unknown")
        self._band[box[1] : box[3], box[0] : box[2]] = np.where(band > 0, np.uint32(0xFFFFFFFF), np.uint32(0))
        self._band_box = _united(self._band_box, box)


def _united(a: Box | None, b: Box) -> Box:
    return b if a is None else (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))


def _touch(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _holds(a: Box, b: Box) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a[2] >= b[2] and a[3] >= b[3]


def dirty_rect(box: Box | None, to_widget: QTransform, margin: int = 3) -> QRect:
    """The widget rectangle of a display box; empty for None."""
    if box is None:
        return QRect()
    u0, v0, u1, v1 = box
    grow_u, grow_v = margin + int(abs(to_widget.m11())), margin + int(abs(to_widget.m22()))
    area = to_widget.mapRect(QRectF(u0, v0, u1 - u0, v1 - v0)).toAlignedRect()
    return area.adjusted(-grow_u, -grow_v, grow_u, grow_v)
