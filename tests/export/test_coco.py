from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw

from medapp.export.coco import CocoDocument, decode_runs, encode_runs, run_lengths, segmentation_of


def _filled(segmentation, shape) -> np.ndarray:
    """The mask of a segmentation, by other means than the writer's."""
    if isinstance(segmentation, dict):
        runs = decode_runs(segmentation["counts"])
        flat = np.repeat(np.arange(len(runs)) % 2, runs)
        return flat.reshape(segmentation["size"], order="F").astype(bool)
    big = Image.new("1", (4 * shape[1], 4 * shape[0]))
    for polygon in segmentation:
        points = [(4 * x, 4 * y) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
        ImageDraw.Draw(big).polygon(points, fill=1)
    return np.asarray(big)[2::4, 2::4]


@settings(max_examples=150, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_any_mask_comes_back(mask):
    segmentation = segmentation_of(mask)

    assert np.array_equal(_filled(segmentation, mask.shape), mask)


def test_box_and_area_count_pixels():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 5:9] = True
    document = CocoDocument()
    image = document.add_image("key", "a.png", mask.shape, 0, (0.5, 0.5))
    document.add_mask(image, "m1", "Liver", mask, "alpha.png")

    entry = document.as_dict()["annotations"][0]
    assert entry["bbox"] == [5, 2, 4, 3]
    assert entry["area"] == 12
    assert entry["iscrowd"] == 0
    assert entry["segmentation"] == [[5.0, 2.0, 9.0, 2.0, 9.0, 5.0, 5.0, 5.0]]
    assert document.as_dict()["categories"] == [{"id": 1, "name": "Liver", "supercategory": ""}]


def test_holes_become_run_lengths_down_the_columns():
    mask = np.ones((3, 3), bool)
    mask[1, 1] = False

    assert run_lengths(mask) == [0, 4, 1, 4]
    assert segmentation_of(mask)["size"] == [3, 3]


@pytest.mark.parametrize("runs", [[0], [5, 3, 2], [0, 100_000, 7, 31, 32, 1, 1_000_000, 2]])
def test_run_lengths_survive_their_text(runs):
    assert decode_runs(encode_runs(runs)) == runs


def test_ids_stay_the_same_from_export_to_export():
    made = []
    for _ in range(2):
        document = CocoDocument()
        image = document.add_image("key", "a.png", (4, 4), 3, None)
        document.add_mask(image, "m1", "Liver", np.ones((4, 4), bool), "alpha.png")
        made.append(document.as_dict())
    assert made[0] == made[1]
    assert made[0]["images"][0]["id"] < 2**53
