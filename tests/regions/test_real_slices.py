"""Clicks into real organs and blood cells; skipped where the shared data are absent."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medapp.annotation.trimap import trimap_from_mask
from medapp.matting.matter import make_matter
from medapp.regions.region_tree_builder import build_region_tree
from medapp.scan.scan import Window
from tests.builders import shared_data

SOFT_TISSUE = Window(40.0, 400.0)


def parts(mask, least):
    labels, count = ndimage.label(mask)
    return [labels == n for n in range(1, count + 1) if (labels == n).sum() >= least]


def deepest(mask):
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), mask.shape)
    return float(x), float(y)


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def agreement(values, window, masks):
    """Mean overlap of the default region, of the best level, and of the answer to a box."""
    tree = build_region_tree(values, window)
    found = []
    for mask in masks:
        point = deepest(mask)
        rows, cols = np.nonzero(mask)
        levels = [overlap(tree.region_at(point, level), mask) for level in range(tree.levels_at(point))]
        boxed = overlap(tree.region_for_box((cols.min(), rows.min(), cols.max(), rows.max())), mask)
        found.append((levels[tree.best_level(point)], max(levels), boxed))
    return np.mean(found, axis=0)


@pytest.fixture(scope="module")
def abdomen():
    data = shared_data()
    values = np.asarray(nib.load(data / "ct/tseg/abdomen_ct.nii.gz").dataobj, dtype=np.float32)[:, :, 4].T
    labels = np.asarray(nib.load(data / "ct/tseg/abdomen_organs.nii.gz").dataobj)[:, :, 4].T
    return np.ascontiguousarray(values), labels


def test_clicks_and_boxes_find_abdominal_organs(abdomen):
    values, labels = abdomen
    organs = [part for label in np.unique(labels)[1:] for part in parts(labels == label, 300)]
    default, best, boxed = agreement(values, SOFT_TISSUE, organs)
    assert default > 0.4
    assert best > 0.6
    assert boxed > 0.6


def test_clicks_and_boxes_find_blood_cells_and_nuclei():
    files = sorted((shared_data() / "pathology/wbc").glob("*_mask.png"))[:6]
    results = []
    for file in files:
        mask = np.asarray(Image.open(file))
        mask = mask if mask.ndim == 2 else mask[..., 0]
        colours = np.asarray(Image.open(str(file).replace("_mask", "")).convert("RGB"))
        cells = [part for label in np.unique(mask)[1:] for part in parts(mask == label, 100)]
        results.append(agreement(colours, None, cells))
    default, best, boxed = np.mean(results, axis=0)
    assert default > 0.4
    assert best > 0.75
    assert boxed > 0.7


def test_a_clicked_organ_becomes_a_matte_that_keeps_its_core(abdomen):
    values, labels = abdomen
    tree = build_region_tree(values, SOFT_TISSUE)
    organ = max((part for label in np.unique(labels)[1:] for part in parts(labels == label, 300)), key=np.sum)
    mask = tree.region_at(deepest(organ))
    trimap = trimap_from_mask(mask, (0.8, 0.8))
    alpha = make_matter().matte(values, SOFT_TISSUE, trimap)
    assert np.array_equal(alpha[trimap != 0.5], trimap[trimap != 0.5])
    assert ((alpha > 0.05) & (alpha < 0.95)).sum() > 100
    assert overlap(alpha >= 0.5, mask) > 0.8
