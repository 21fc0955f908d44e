import numpy as np
import pytest

from medapp.errors import MaskMismatchError, MedappError
from medapp.progress import Progress
from medapp.regions.region_map import (
    TREE_REGIONS,
    checked_labels,
    paint_mattes,
    region_count,
    region_map_from_masks,
    region_map_from_tree,
)
from medapp.regions.region_tree_builder import build_region_tree
from medapp.scan.phantoms import ct_torso
from medapp.scan.scan import Window

SHAPE = (12, 16)


def box(y0, y1, x0, x1, shape=SHAPE):
    mask = np.zeros(shape, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_each_pixel_goes_to_the_smallest_mask_that_holds_it():
    rng = np.random.default_rng(3)
    masks = [rng.random(SHAPE) < share for share in (0.2, 0.7, 0.4, 0.2)]
    labels = region_map_from_masks(masks, SHAPE)

    by_size = sorted(masks, key=lambda mask: -mask.sum())  # the equation of the spec, pixel by pixel
    for y in range(SHAPE[0]):
        for x in range(SHAPE[1]):
            inside = [i for i, mask in enumerate(by_size, start=1) if mask[y, x]]
            assert labels[y, x] == (max(inside) if inside else len(masks) + 1)
    assert labels.dtype == np.int32


def test_masks_of_equal_area_keep_their_order():
    first, second = box(0, 4, 0, 4), box(2, 6, 2, 6)
    assert region_map_from_masks([first, second], SHAPE)[3, 3] == 2
    assert region_map_from_masks([first, second], SHAPE)[0, 0] == 1
    assert region_map_from_masks([second, first], SHAPE)[0, 0] == 2


def test_without_masks_the_slice_is_one_region():
    assert (region_map_from_masks([], SHAPE) == 1).all()


def test_a_mask_of_another_size_is_refused_in_one_line():
    with pytest.raises(MaskMismatchError, match="is 12x15, the slice 12x16"):
        region_map_from_masks([np.ones((12, 15), dtype=bool)], SHAPE)
    with pytest.raises(MaskMismatchError):
        paint_mattes(np.ones(SHAPE, dtype=np.int32), [np.ones((16, 12), dtype=bool)])


def test_a_person_goes_over_the_engine_and_small_over_large():
    engine = region_map_from_masks([box(0, 12, 0, 8), box(2, 4, 2, 4)], SHAPE)
    small, large, nothing = box(3, 5, 3, 5), box(1, 9, 1, 12), box(0, 0, 0, 0)
    painted = paint_mattes(engine, [small, nothing, large])

    assert (painted[small] == 5).all()
    assert (painted[large & ~small] == 4).all()
    assert np.array_equal(painted[~large], engine[~large])
    assert engine.max() == 3  # the engine's own map is left alone


def test_a_torso_is_cut_into_a_comparable_number_of_regions():
    values = np.asarray(ct_torso((5, 192, 192), (4.0, 2.0, 2.0)).values[2], dtype=np.float32)
    tree = build_region_tree(values, Window(40, 400))
    labels = region_map_from_tree(tree)

    assert labels.shape == values.shape
    assert 20 <= region_count(labels) <= TREE_REGIONS
    sizes = np.bincount(labels.ravel())[1:]
    assert (np.diff(sizes) <= 0).all()  # larger regions have smaller numbers
    for number in range(1, int(labels.max()) + 1):  # each region is one node of the tree
        leaves = np.unique(tree.leaf[labels == number])
        assert (np.diff(leaves) == 1).all()
    assert (labels[values < -500] != labels[values > 300].max()).all()  # air and bone are never one region
    assert np.array_equal(region_map_from_tree(tree), labels)
    assert region_count(region_map_from_tree(tree, 3)) == 3


def test_a_slice_without_contrast_is_one_region():
    tree = build_region_tree(np.full((64, 80), 7.0, dtype=np.float32), None, Progress())
    assert (region_map_from_tree(tree) == 1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_whole_numbers_of_any_kind_are_taken(dtype):
    given = np.arange(12 * 16).reshape(SHAPE).astype(dtype)
    assert np.array_equal(checked_labels(given, SHAPE), given)
    assert checked_labels(given, SHAPE).dtype == np.int32


def test_no_region_at_all_means_one_region():
    assert (checked_labels(np.zeros(SHAPE), SHAPE) == 1).all()


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (np.full(SHAPE, -1), "negative"),
        (np.full(SHAPE, 0.5), "fractions"),
        (np.full(SHAPE, np.nan), "not finite"),
        (np.full(SHAPE, 2**40), "too large"),
        (np.ones((12, 15)), "12x15"),
        (np.ones((1, *SHAPE)), "1x12x16"),
        (np.full(SHAPE, "a"), "no numbers"),
    ],
)
def test_bad_labels_are_one_line_and_a_hint(labels, what):
    with pytest.raises(MedappError, match=what) as caught:
        checked_labels(labels, SHAPE)
    assert caught.value.hint
