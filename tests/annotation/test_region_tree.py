import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from medapp.annotation.region_tree import RegionTree
from medapp.errors import Cancelled, UnreadableFileError
from medapp.progress import Progress
from medapp.regions.region_tree_builder import build_region_tree
from medapp.scan.scan import Window

WINDOW = Window(40.0, 400.0)


def body_slice(side=160, noise=12.0, seed=0):
    """A body with two organs and a lesion in one: HU values and the masks by name."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    values = np.full((side, side), -1000.0)
    masks = {
        "body": np.hypot(x / 0.46, y / 0.38) < 1,
        "liver": np.hypot((x + 0.18) / 0.17, y / 0.22) < 1,
        "kidney": np.hypot((x - 0.22) / 0.1, (y - 0.05) / 0.13) < 1,
        "lesion": np.hypot((x + 0.2) / 0.05, (y - 0.03) / 0.05) < 1,
    }
    for name, level in (("body", -80.0), ("liver", 90.0), ("kidney", 180.0), ("lesion", 10.0)):
        values[masks[name]] = level
    return (values + rng.normal(0, noise, values.shape)).astype(np.float32), masks


@pytest.fixture(scope="module")
def scene():
    values, masks = body_slice()
    return build_region_tree(values, WINDOW, superpixels=900), masks


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def middle_of(mask):
    y, x = np.argwhere(mask).mean(0)
    return float(x), float(y)


CLICKS = {"liver": (40.0, 60.0), "kidney": (115.0, 88.0), "lesion": (48.0, 85.0)}


@pytest.mark.parametrize("name", CLICKS)
def test_a_click_picks_the_thing_under_it(scene, name):
    tree, masks = scene
    wanted = masks[name] & ~masks["lesion"] if name == "liver" else masks[name]
    assert overlap(tree.region_at(CLICKS[name]), wanted) > 0.8


def test_regions_grow_with_the_level_from_superpixel_to_whole_slice(scene):
    tree, _ = scene
    point = CLICKS["kidney"]
    levels = tree.levels_at(point)
    regions = [tree.region_at(point, level) for level in range(levels)]
    sizes = [int(region.sum()) for region in regions]
    assert levels > 4
    assert all((small & ~large).sum() == 0 for small, large in pairwise(regions))
    assert all(large > 1.05 * small for small, large in pairwise(sizes))  # each key press shows
    assert sizes[-1] == tree.leaf.size
    assert all(region[88, 115] for region in regions)


def test_levels_beyond_the_ends_are_the_ends(scene):
    tree, _ = scene
    point = CLICKS["kidney"]
    assert np.array_equal(tree.region_at(point, -5), tree.region_at(point, 0))
    assert tree.region_at(point, 999).all()
    assert np.array_equal(tree.region_at(point), tree.region_at(point, tree.best_level(point)))


def test_points_outside_count_as_the_nearest_pixel(scene):
    tree, _ = scene
    assert tree.region_at((-40.0, 9999.0), 0)[-1, 0]


@pytest.mark.parametrize("name", ["kidney", "lesion", "liver"])
def test_a_box_around_a_thing_finds_it_however_it_is_drawn(scene, name):
    tree, masks = scene
    rows, cols = np.nonzero(masks[name])
    corners = (cols.max() + 2, rows.min() - 2, cols.min() - 2, rows.max() + 2)
    assert overlap(tree.region_for_box(corners), masks[name]) > 0.75


def test_a_box_smaller_than_any_superpixel_finds_nothing_or_little(scene):
    tree, _ = scene
    assert tree.region_for_box((100, 100, 101, 101)).sum() < 200


def test_scribbles_join_and_leave_out(scene):
    tree, masks = scene
    include = [CLICKS["kidney"], CLICKS["liver"]]
    both = tree.region_for_scribble(include)
    assert overlap(both, masks["kidney"] | (masks["liver"] & ~masks["lesion"])) > 0.7
    without = tree.region_for_scribble(include, [CLICKS["lesion"]])
    assert not without[85, 48]
    assert without[88, 115]


def test_a_scribble_over_everything_but_an_excluded_part_leaves_that_part_out(scene):
    tree, masks = scene
    y, x = np.nonzero(masks["liver"] & ~masks["lesion"])
    inside = np.stack([x, y], axis=1)[::17]
    y, x = np.nonzero(masks["lesion"])
    found = tree.region_for_scribble(inside, np.stack([x, y], axis=1)[::5])
    assert overlap(found, masks["liver"] & ~masks["lesion"]) > 0.8


def test_a_scribble_that_is_wholly_excluded_is_empty(scene):
    tree, _ = scene
    assert not tree.region_for_scribble([(50, 50)], [(50, 50)]).any()
    assert not tree.region_for_scribble([]).any()


def test_the_tree_survives_the_trip_through_bytes(scene):
    tree, _ = scene
    again = RegionTree.from_bytes(tree.to_bytes())
    point = CLICKS["liver"]
    assert again.levels_at(point) == tree.levels_at(point)
    assert np.array_equal(again.region_at(point), tree.region_at(point))


@pytest.mark.parametrize("data", [b"", b"no tree", b"PK\x03\x04broken"])
def test_a_damaged_tree_says_so(data):
    with pytest.raises(UnreadableFileError):
        RegionTree.from_bytes(data)


def test_nodes_are_nested_runs_and_heights_never_fall(scene):
    tree, _ = scene
    nodes = np.arange(len(tree.parent) - 1)
    above = tree.parent[nodes]
    assert (above > nodes).all()
    assert (tree.first[above] <= tree.first[nodes]).all()
    assert (tree.last[above] >= tree.last[nodes]).all()
    assert (tree.altitude[above] >= tree.altitude[nodes]).all()
    assert np.array_equal(np.bincount(tree.leaf.ravel()), tree.area[: tree.leaf_count])
    assert tree.area[-1] == tree.leaf.size


def test_the_window_decides_what_can_be_told_apart():
    values, masks = body_slice()
    lung = build_region_tree(values, Window(-600.0, 1500.0), superpixels=900)
    soft = build_region_tree(values, WINDOW, superpixels=900)
    wanted = masks["liver"] & ~masks["lesion"]
    assert overlap(soft.region_at(CLICKS["lesion"]), masks["lesion"]) > 0.8
    assert overlap(lung.region_at(CLICKS["liver"]), wanted) < overlap(soft.region_at(CLICKS["liver"]), wanted) + 0.05


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((40, 30), dtype=np.float32),
        np.full((1, 1), 7.0, dtype=np.float32),
        np.zeros((3, 200), dtype=np.float32),
        np.full((20, 20), np.nan, dtype=np.float32),
        np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8),
        np.random.default_rng(0).integers(0, 65535, (20, 20, 3), dtype=np.uint16),
        np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32),
    ],
    ids=["even", "one pixel", "strip", "no number", "colour", "deep colour", "noise"],
)
def test_any_picture_has_a_tree(values):
    tree = build_region_tree(values, None)
    assert tree.shape == values.shape[:2]
    assert tree.region_at((0.0, 0.0), 999).all()
    assert tree.region_at((0.0, 0.0))[0, 0]


def test_large_pictures_are_cut_up_at_a_fraction_of_their_size():
    values = np.zeros((1500, 1301), dtype=np.float32)
    values[300:900, 200:700] = 1.0
    tree = build_region_tree(values, Window(0.5, 1.0), superpixels=300)
    assert tree.shape == (1500, 1301)
    assert overlap(tree.region_for_box((198, 298, 702, 902)), values > 0) > 0.97
    assert tree.area[-1] == values.size


def test_building_can_be_stopped():
    with pytest.raises(Cancelled):
        build_region_tree(body_slice()[0], WINDOW, Progress(is_stopped=lambda: True))


def test_neither_building_nor_looking_up_loads_torch():
    code = (
        "import sys, numpy as np;"
        "from medapp.regions.region_tree_builder import build_region_tree;"
        "from medapp.regions.segmenter import TreeEngine;"
        "build_region_tree(np.zeros((20, 20), np.float32), None).region_at((3, 3));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_looking_up_alone_loads_neither_scipy_nor_scikit_image():
    code = (
        "import sys, medapp.annotation.region_tree, medapp.annotation.trimap, medapp.annotation.interpolation;"
        "assert not {'scipy', 'skimage', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
