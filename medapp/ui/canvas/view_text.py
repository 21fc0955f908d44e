"""What a viewport writes over its image: chip, corner text, letters, scale bar, crosshair, divider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QPointF, QRect, QRectF, Qt
from PySide6.QtGui import QColor, QPainter, QPen, QPolygonF, QRegion

from medapp.ui import theme
from medapp.ui.canvas.content import Pane
from medapp.ui.canvas.furniture import MARGIN, draw_scale_bar, plain_number
from medapp.ui.canvas.plane import Plane

if TYPE_CHECKING:
    from medapp.ui.canvas.viewport import Viewport

_LINE = 17
_CHIP_ROOM = 30
_AXIS_LETTERS = (("L", "R"), ("P", "A"), ("F", "H"))
_DIVIDER_GRIP = 6.0
_CROSS_GAP = 12.0


def draw_chip(painter: QPainter, view: Viewport, pane: Pane, exposed: QRect) -> None:
    """The header chip in the top left corner of a pane; no switch hides it."""
    strip = QRect(pane.clip.left(), pane.clip.top(), pane.clip.width(), _CHIP_ROOM + MARGIN)
    if not strip.intersects(exposed):
        return
    painter.save()
    painter.setClipRect(pane.clip.intersected(exposed))
    at = QPointF(pane.clip.left() + MARGIN, pane.clip.top() + MARGIN)
    view.texts.draw_chip(painter, pane.chip, at, max(pane.clip.width() - 2 * MARGIN, 24))
    painter.restore()


def draw_texts(painter: QPainter, view: Viewport, panes: list[Pane], exposed: QRect) -> None:
    """Corner texts, letters and scale bar, once for the viewport."""
    plane, area = view.content.plane, view.image_area
    if plane is None:
        return
    edge = 72
    middle = area.adjusted(edge * 2, edge, -edge * 2, -edge)
    if middle.contains(exposed):
        return
    _draw_corners(painter, view, plane, panes)
    for part in [p.area for p in panes] if view.content.mode == "side by side" else [area]:
        _draw_letters(painter, view, plane, part)
    su = view.camera.scale[0]
    per_unit, unit = (su / plane.pixel_mm[0], "mm") if plane.has_mm else (su, "px")
    draw_scale_bar(
        painter,
        view.texts,
        QPointF(area.left() + MARGIN, area.bottom() - MARGIN),
        per_unit,
        unit,
        min(140.0, area.width() / 4),
    )


def _draw_corners(painter: QPainter, view: Viewport, plane: Plane, panes: list[Pane]) -> None:
    document, texts, area = view.document, view.texts, view.image_area
    right = Qt.AlignmentFlag.AlignRight
    top = area.top() + MARGIN + _CHIP_ROOM
    if view.axis == 0 or not view.shows_crosshair:
        for line in identity_lines(view):
            texts.draw(
                painter, texts.elided(line, panes[0].area.width() // 2 - 3 * MARGIN), QPointF(area.left() + MARGIN, top)
            )
            top += _LINE
    has_room = texts.chip_width(panes[-1].chip) < area.width() - 90
    if len(panes) == 1 and has_room and (plane.letters is not None or plane.count > 1):
        head = area.top() + MARGIN
        texts.draw(painter, plane.name, QPointF(area.right() - MARGIN, head), right)
    bottom = area.bottom() - MARGIN - _LINE
    room = area.width() - int(min(140.0, area.width() / 4)) - 5 * MARGIN  # beside the scale bar
    full = slice_line(view, plane)
    shorter = (full, full.partition(" · ")[0], full.partition(" · ")[0].removeprefix("Slice "))
    line = next((words for words in shorter if texts.elided(words, room) == words), shorter[-1])
    texts.draw(painter, line, QPointF(area.right() - MARGIN, bottom), right)
    percent = view.camera.zoom * 100
    zoom = f"zoom {percent:.0f} %" if percent >= 10 else f"zoom {percent:.1f} %"
    texts.draw(painter, zoom, QPointF(area.right() - MARGIN, bottom - _LINE), right)
    is_grey = document.scan is not None and not document.scan.is_colour and view.content.mode != "difference"
    is_grey = is_grey and all(pane.depth_bar is None for pane in panes)
    if is_grey and (view.axis == 0 or not view.shows_crosshair):  # the same for all planes: said once
        line = window_line(view)
        texts.draw(painter, line, QPointF(area.right() - MARGIN, bottom - 2 * _LINE), right)
    candidate = document.shown_candidate
    at = view.annotation_at
    if candidate is not None and at is not None and (candidate.axis, candidate.slice_index) == (view.axis, at.index):
        number = f"Proposal {document.candidate_index + 1} of {len(document.candidates)}"
        score = f" · score {candidate.score:.2f}" if candidate.score is not None else ""
        what_now = "Enter accepts" if candidate is document.candidate else "click to choose"
        line = f"{candidate.name or number} · {candidate.origin}{score} · {what_now}"
        at_point = QPointF(area.center().x(), area.bottom() - MARGIN - 3 * _LINE)
        texts.draw(painter, line, at_point, Qt.AlignmentFlag.AlignHCenter)


def _draw_letters(painter: QPainter, view: Viewport, plane: Plane, area: QRect) -> None:
    texts, middle = view.texts, Qt.AlignmentFlag.AlignHCenter
    if plane.letters is None:
        at = QPointF(area.center().x(), area.bottom() - MARGIN - _LINE)
        words = "orientation unknown" if plane.has_mm else "orientation unknown · spacing unknown, lengths in px"
        texts.draw(painter, texts.elided(words, int(area.width() * 0.5)), at, middle, theme.DARK.text_2)
        return
    left, right, top, bottom = plane.letters
    cy = area.center().y() - 9
    texts.draw(painter, left, QPointF(area.left() + MARGIN, cy), px=14, is_bold=True)
    texts.draw(painter, right, QPointF(area.right() - MARGIN, cy), Qt.AlignmentFlag.AlignRight, px=14, is_bold=True)
    is_crowded = area.width() < 560
    is_under_chip = is_crowded or view.content.mode in ("swipe", "difference", "trust overlay")
    x = float(area.center().x())
    if view.content.mode == "swipe" and abs(x - view.divider_x) < 16:
        x = view.divider_x - 16.0
    head = area.top() + MARGIN + (_CHIP_ROOM if is_under_chip else 0)
    texts.draw(painter, top, QPointF(x, head), middle, px=14, is_bold=True)
    foot = area.bottom() - MARGIN - 19 - (3 * _LINE if is_crowded else 0)
    texts.draw(painter, bottom, QPointF(x, foot), middle, px=14, is_bold=True)


def identity_lines(view: Viewport) -> list[str]:
    """Patient or alias, and the series; ``hidden`` when the privacy switch is on."""
    document = view.document
    scan = document.original or document.scan
    if scan is None:
        return []
    if document.settings.hide_identity:
        return ["identity hidden"]
    name = scan.source.patient_name.replace("^", " ").strip() or scan.source.patient_id
    is_compared = view.content.mode != "single"  # then the original is named, whatever was opened
    series = document.info(document.annotated_series_id) if is_compared else document.series
    title = series.title if series is not None else scan.source.description
    return [line for line in (name, title) if line]


def slice_line(view: Viewport, plane: Plane) -> str:
    """``Slice 12/300 · 45.5 mm H``; the letter says in which direction the position counts."""
    line = f"Slice {view.content.index + 1}/{plane.count}"
    scan = view.document.scan
    if scan is None or scan.geometry is None or plane.letters is None:
        return line if plane.count > 1 else ""
    at = scan.geometry.to_mm(plane.to_index(plane.width / 2, plane.height / 2, view.content.index))  # type: ignore[arg-type]
    patient = {"Sagittal": 0, "Coronal": 1}.get(plane.name, 2)
    position = float(at[patient])
    letter = _AXIS_LETTERS[patient][1 if position >= 0 else 0]
    return f"{line} · {abs(position):.1f} mm {letter}"


def window_line(view: Viewport) -> str:
    """``W 400 · L 40 HU``."""
    window, unit = view.document.window, view.content.unit
    inverted = " · inverted" if view.document.is_inverted else ""
    return f"W {plain_number(window.width)} · L {plain_number(window.center)} {unit}".rstrip() + inverted


def draw_crosshair(painter: QPainter, view: Viewport) -> None:
    """Where the other planes are, with a gap so that the place itself stays visible."""
    plane = view.content.plane
    if not view.shows_crosshair or plane is None or view.document.scan is None:
        return
    colour = QColor(theme.DARK.text)
    colour.setAlphaF(0.55)
    painter.setPen(QPen(colour, 1))
    for area, at in _crossings(view, plane):
        x, y = round(at.x()) + 0.5, round(at.y()) + 0.5
        for low, high in ((area.left(), x - _CROSS_GAP), (x + _CROSS_GAP, area.right())):
            if high > low:
                painter.drawLine(QPointF(low, y), QPointF(high, y))
        for low, high in ((area.top(), y - _CROSS_GAP), (y + _CROSS_GAP, area.bottom())):
            if high > low:
                painter.drawLine(QPointF(x, low), QPointF(x, high))


def crosshair_region(view: Viewport) -> QRegion:
    """What the crosshair covers, for painting just that again."""
    plane, region = view.content.plane, QRegion()
    if plane is not None:
        for area, at in _crossings(view, plane):
            region += QRect(area.left(), round(at.y()) - 1, area.width(), 3)
            region += QRect(round(at.x()) - 1, area.top(), 3, area.height())
    return region


def _crossings(view: Viewport, plane: Plane) -> list[tuple[QRect, QPointF]]:
    """Where the lines cross, once for every distinct part of the viewport."""
    u, v = plane.to_display(view.document.position_zyx)
    areas = {(p.area.x(), p.area.width()): p.area for p in view.panes}
    return [(area, view.camera.to_widget(u, v, area)) for area in areas.values()]


def draw_divider(painter: QPainter, x: int, area: QRect) -> None:
    """The swipe line with its grip."""
    painter.fillRect(QRectF(x - 1.5, area.top(), 3, area.height()), QColor(0, 0, 0, 170))
    painter.fillRect(QRectF(x - 0.5, area.top(), 1, area.height()), QColor(theme.DARK.text))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, True)
    painter.setPen(QPen(QColor(0, 0, 0, 170), 1))
    painter.setBrush(QColor(theme.DARK.text))
    middle, grip = QPointF(x, area.center().y()), _DIVIDER_GRIP
    for way in (-1, 1):
        tip = middle + QPointF(way * (grip + 5), 0)
        base = middle + QPointF(way * 3, 0)
        painter.drawPolygon(QPolygonF([tip, base + QPointF(0, -grip), base + QPointF(0, grip)]))
    painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)


def draw_not_for_diagnosis(painter: QPainter, view: Viewport) -> None:
    """Burnt into screenshots of processed images."""
    area = view.image_area
    at = QPointF(area.center().x(), area.bottom() - MARGIN - 4 * _LINE)
    view.texts.draw(
        painter, "Not for diagnosis", at, Qt.AlignmentFlag.AlignHCenter, theme.DARK.processed, 16, is_bold=True
    )


def rail_marks(view: Viewport) -> dict[int, str]:
    """Marks of the rail: what the annotation says, and every other slice on which the active layer is not empty."""
    annotation = view.document.annotation
    if annotation is None or view.axis != 0 or view.document.scan is not view.document.original:
        is_same = (
            annotation is not None
            and view.axis == 0
            and view.document.scan is not None
            and view.document.scan.shape[0] == annotation.shape_zyx[0]
        )
        if not is_same or annotation is None:
            return {}
    marks = {z: "annotated" for matte in annotation.mattes for z in matte.annotated_slices()}
    return marks | dict(annotation.marks)


def rail_ready(view: Viewport) -> set[int] | None:
    """Slices that are there, of what is being read or restored; None when nothing is under way."""
    if view.axis != 0:
        return None
    if view.document.arrived_slices is not None:
        return view.document.arrived_slices
    return view.document.processed_slices
