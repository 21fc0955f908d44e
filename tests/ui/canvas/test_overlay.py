from __future__ import annotations

import numpy as np
import pytest

from medapp.annotation.annotation import Annotation
from medapp.annotation.brush import BrushSettings, PlaneBox, StrokeBuilder
from medapp.ui.canvas.contours import find_contour
from medapp.ui.canvas.overlay import MATTE_VIEWS, MatteOverlay
from medapp.ui.canvas.plane import Plane
from medapp.ui.document import MATTE_VIEWS as DOCUMENT_VIEWS
from tests.ui.canvas.conftest import make_scan
from tests.ui.canvas.test_plane import ras_scan, sagittal_scan

SHAPE = (5, 150, 170)


def annotation_with_mattes(count=2):
    annotation = Annotation("s1", SHAPE)
    rng = np.random.default_rng(3)
    for n in range(count):
        matte = annotation.new_matte()
        annotation.add(matte)
        alpha = np.clip(rng.normal(0.4, 0.5, (3, 60, 70)), 0, 1).astype(np.float32)
        matte.paste(matte.make_patch("alpha", (1, 20 + 30 * n, 25 + 40 * n), alpha))
    return annotation


def pixels(overlay):
    image = overlay.image
    return np.frombuffer(image.constBits(), np.uint32).reshape(image.height(), image.width()).copy()


def test_the_views_are_those_of_the_document():
    assert MATTE_VIEWS == DOCUMENT_VIEWS


@pytest.mark.parametrize("view", MATTE_VIEWS)
@pytest.mark.parametrize("make", [make_scan, ras_scan, sagittal_scan])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_patched_overlay_equals_one_built_anew(view, make, axis):
    scan = make(SHAPE)
    annotation = annotation_with_mattes()
    matte = annotation.mattes[0]
    plane = Plane.of(scan, axis)
    index = (2, 60, 70)[axis]
    patched = MatteOverlay()
    patched.show(annotation, plane, index, view, matte.matte_id)
    stroke = StrokeBuilder(matte, BrushSettings(radius_px=9.0), index, axis, scan.spacing_mm)
    patched.stroke = stroke
    for xy in ((60.0, 2.0), (64.0, 3.0), (90.0, 4.0)):
        box = stroke.add_point(xy)
        patched.patch(box)
    for patch in stroke.finish():
        matte.paste(patch)

    fresh = MatteOverlay()
    fresh.show(annotation, plane, index, view, matte.matte_id)

    assert np.array_equal(pixels(patched), pixels(fresh))
    for key, contour in fresh._contours.items():
        ours = {tuple(s) for s in np.round(patched._contours[key].segments, 3)}
        assert ours == {tuple(s) for s in np.round(contour.segments, 3)}


def test_preview_is_what_is_there_after_the_stroke():
    annotation = annotation_with_mattes(1)
    matte = annotation.mattes[0]
    overlay = MatteOverlay()
    plane = Plane.of(make_scan(SHAPE), 0)
    overlay.show(annotation, plane, 2, "grey", matte.matte_id)
    stroke = StrokeBuilder(matte, BrushSettings(radius_px=15.0, flow=0.4, hardness=0.2, opacity=0.7), 2)
    overlay.stroke = stroke
    for x in range(30, 90, 7):
        overlay.patch(stroke.add_point((float(x), 50.0)) or PlaneBox(0, 0, 1, 1))
    previewed = pixels(overlay)

    overlay.stroke = None
    for patch in stroke.finish():
        matte.paste(patch)
    overlay.patch(stroke.box)

    assert np.array_equal(pixels(overlay), previewed)
    assert (previewed & 255)[50, 40:80].min() > 150


def test_the_letter_follows_the_matte_and_goes_with_it():
    annotation = Annotation("s1", SHAPE)
    matte = annotation.new_matte()
    annotation.add(matte)
    overlay = MatteOverlay()
    overlay.show(annotation, Plane.of(make_scan(SHAPE), 0), 2, "tint", matte.matte_id)
    assert overlay.letters() == []
    places = []
    for row in (70, 30):
        patch = matte.make_patch("alpha", (2, row, 40), np.ones((1, 5, 5), np.float32))
        matte.paste(patch)
        overlay.patch(PlaneBox(row, 40, row + 5, 45))
        places.append(overlay.letters()[0][2])
    assert places == [(40, 70), (40, 30)]
    matte.paste(patch.reversed())
    overlay.patch(PlaneBox(30, 40, 35, 45))
    assert overlay.letters()[0][2] == (40, 70)


def test_hidden_mattes_are_not_drawn_and_others_still_are():
    annotation = annotation_with_mattes(2)
    first, second = annotation.mattes
    overlay = MatteOverlay()
    plane = Plane.of(make_scan(SHAPE), 0)
    overlay.show(annotation, plane, 2, "tint", first.matte_id)
    both = pixels(overlay)
    first.props = type(first.props)(**{**first.props.__dict__, "is_visible": False})
    overlay.show(annotation, plane, 2, "tint", first.matte_id)
    one = pixels(overlay)

    assert (one[25:45, 30:60] == 0).all()
    assert (both[25:45, 30:60] != 0).any()
    assert (one[60:100, 80:120] != 0).any()
    assert [letter for letter, _, _ in overlay.letters()] == [second.letter]


def test_tint_is_forty_percent_of_the_colour():
    annotation = Annotation("s1", SHAPE)
    matte = annotation.new_matte()
    annotation.add(matte)
    matte.paste(matte.make_patch("alpha", (0, 0, 0), np.ones((1, 10, 10), np.float32)))
    overlay = MatteOverlay()
    overlay.show(annotation, Plane.of(make_scan(SHAPE), 0), 0, "tint", matte.matte_id)

    packed = int(pixels(overlay)[5, 5])
    assert packed >> 24 == 102
    assert (packed >> 16) & 255 == round(0.4 * 0xE6)


def test_contours_lie_where_alpha_crosses_the_level():
    y, x = np.mgrid[0:40, 0:50].astype(np.float32)
    radius = np.hypot(x - 24, y - 19)
    contour = find_contour(np.clip((12 - radius) / 4 + 0.5, 0, 1), 0.5, (0, 0))
    ends = contour.segments.reshape(-1, 2) - 0.5  # pixel centres

    assert np.abs(np.hypot(ends[:, 0] - 24, ends[:, 1] - 19) - 12).max() < 0.1
    _, counts = np.unique(np.round(contour.segments.reshape(-1, 2), 3), axis=0, return_counts=True)
    assert (counts % 2 == 0).all()  # closed


def test_the_unknown_band_is_hatched():
    annotation = annotation_with_mattes(1)
    matte = annotation.mattes[0]
    matte.paste(matte.make_patch("unknown", (2, 90, 90), np.ones((1, 30, 40), np.uint8)))
    overlay = MatteOverlay()
    overlay.show(annotation, Plane.of(make_scan(SHAPE), 0), 2, "unknown band", matte.matte_id)

    from PySide6.QtCore import QRectF
    from PySide6.QtGui import QImage, QPainter, QTransform

    picture = QImage(170, 150, QImage.Format.Format_RGB32)
    picture.fill(0xFF808080)
    painter = QPainter(picture)
    overlay.draw_lines(painter, QTransform(), QRectF(picture.rect()))
    painter.end()
    shown = np.frombuffer(picture.constBits(), np.uint8).reshape(150, 170, 4)[..., 0]

    assert len(np.unique(shown[95:115, 95:125])) > 2  # lines, not a flat tint
    assert (shown[10:80, 120:160] == 0x80).all()
