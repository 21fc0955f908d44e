from __future__ import annotations

import numpy as np
import pytest

from medapp.scan.geometry import Geometry
from medapp.ui.canvas.plane import Plane
from tests.ui.canvas.conftest import make_scan


def ras_scan(shape=(6, 7, 8)):
    """NIfTI order: x to the right, y to the front, z to the head."""
    return make_scan(shape, geometry=Geometry(np.diag([1.0, 1.0, 1.0, 1.0])[:, [2, 1, 0, 3]]))


def sagittal_scan(shape=(6, 7, 8)):
    """An MR stacked from right to left, rows to the feet, columns to the back."""
    affine = np.eye(4)
    affine[:3, 0] = (-2, 0, 0)
    affine[:3, 1] = (0, 0, -1)
    affine[:3, 2] = (0, -1, 0)
    return make_scan(shape, geometry=Geometry(affine))


@pytest.mark.parametrize("scan", [make_scan((6, 7, 8)), ras_scan(), sagittal_scan()], ids=["lps", "ras", "sagittal"])
def test_every_plane_is_shown_the_radiological_way(scan):
    expected = {"Axial": ("R", "L", "A", "P"), "Coronal": ("R", "L", "H", "F"), "Sagittal": ("A", "P", "H", "F")}
    planes = [Plane.of(scan, axis) for axis in range(3)]

    assert {p.name for p in planes} == set(expected)
    assert {p.name: p.letters for p in planes} == expected


@pytest.mark.parametrize("scan", [make_scan((6, 7, 8)), ras_scan(), sagittal_scan()], ids=["lps", "ras", "sagittal"])
def test_letters_agree_with_the_millimetres_under_them(scan):
    ends = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "H": (2, 1), "F": (2, -1)}
    for axis in range(3):
        plane = Plane.of(scan, axis)
        middle = (plane.width / 2, plane.height / 2)
        points = ((0, middle[1]), (plane.width, middle[1]), (middle[0], 0), (middle[0], plane.height))
        centre = scan.geometry.to_mm(np.array(plane.to_index(*middle, 2)))
        for letter, point in zip(plane.letters, points, strict=True):
            way = scan.geometry.to_mm(np.array(plane.to_index(*point, 2))) - centre
            patient, sign = ends[letter]
            assert way[patient] * sign > 0


@pytest.mark.parametrize("scan", [make_scan((6, 7, 8)), ras_scan(), sagittal_scan()], ids=["lps", "ras", "sagittal"])
def test_what_is_shown_under_a_point_is_the_voxel_named_there(scan):
    for axis in range(3):
        plane = Plane.of(scan, axis)
        shown = plane.shown(plane.raw(scan.stored, 3))
        assert shown.shape == (plane.height, plane.width)
        for u, v in ((0, 0), (plane.width - 1, 1), (2, plane.height - 1)):
            voxel = plane.voxel_at(u + 0.3, v + 0.9, 3)
            assert shown[v, u] == scan.stored[voxel]
            assert plane.to_display(voxel) == (u + 0.5, v + 0.5)
            x, y = plane.to_raw_xy(u + 0.5, v + 0.5)
            assert plane.raw(scan.stored, 3)[round(y), round(x)] == shown[v, u]
            assert plane.from_raw_xy(x, y) == (u + 0.5, v + 0.5)


def test_boxes_find_their_way_to_the_screen_and_back():
    for scan in (make_scan((6, 7, 8)), ras_scan(), sagittal_scan()):
        for axis in range(3):
            plane = Plane.of(scan, axis)
            start, shape = plane.box_to_voxels((1, 2, 4, 6), 3)
            assert plane.box_to_display(start, shape) == (1, 2, 4, 6)
            marked = np.zeros(scan.shape, bool)
            marked[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))] = True
            shown = plane.shown(plane.raw(marked, 3))
            assert shown[2:6, 1:4].all()
            assert shown.sum() == 12


def test_unknown_orientation_has_no_letters_and_keeps_the_stored_order():
    scan = make_scan((1, 7, 8), geometry=None, pixel_spacing_mm=(2.0, 1.0), kind="image")
    plane = Plane.of(scan, 0)

    assert plane.letters is None
    assert plane.has_mm
    assert plane.aspect == (1.0, 2.0)
    assert np.array_equal(plane.shown(scan.stored[0]), scan.stored[0])


def test_oblique_volumes_never_claim_one_direction_twice():
    turn = np.radians(44.0)
    affine = np.eye(4)
    affine[:3, 0] = (0, np.sin(turn), np.cos(turn))
    affine[:3, 1] = (0, -np.cos(turn), np.sin(turn))
    affine[:3, 2] = (-1, 0, 0)
    names = {Plane.of(make_scan((6, 7, 8), geometry=Geometry(affine)), axis).name for axis in range(3)}

    assert names == {"Axial", "Coronal", "Sagittal"}
