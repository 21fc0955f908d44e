"""From a click or a box to masks, uncertainty and alpha."""

import numpy as np
import pytest
import torch

from medapp.errors import Cancelled, ComputeError, UnsuitableModelError, UsageError
from medapp.matting.proposer import CropRule, MattingProposer
from medapp.networks.card import Intake
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.scan.scan import Window
from tests.matting.toy_matting import keep_toy_matting

BOX = (20.0, 30.0, 44.0, 46.0)


@pytest.fixture(scope="module")
def slice_values():
    row, column = np.mgrid[:96, :80].astype(np.float32)
    values = 100 * np.clip(12 - np.hypot(row - 38, column - 32), 0, 8) + 5 * np.sin(row / 3) * np.cos(column / 5)
    return values.astype(np.float32)


@pytest.fixture
def proposer_of(tmp_path):
    def make(**changes):
        keep_toy_matting(tmp_path, **changes)
        return MattingProposer(ModelLibrary(tmp_path, tmp_path).load("toy-matting", "cpu"))

    return make


@pytest.fixture
def proposer(proposer_of):
    return proposer_of()


def test_a_box_gives_masks_a_map_and_an_alpha_of_a_crop_around_it(proposer, slice_values):
    found = proposer.propose(slice_values, box_xyxy=BOX, count=5)
    left, top, right, bottom = found.box_xyxy
    assert left <= 20
    assert top <= 30
    assert right >= 44
    assert bottom >= 46
    assert right - left == bottom - top == 36  # one and a half times the longer side
    assert found.masks.shape == (5, 36, 36)
    assert found.uncertainty.shape == found.alpha.shape == (36, 36)
    assert all(part.dtype == np.float32 for part in (found.masks, found.uncertainty, found.alpha))
    assert 0 <= found.alpha.min() <= found.alpha.max() <= 1
    assert found.network_px == (32, 32)


def test_the_same_click_gives_the_same_alpha_bit_for_bit_and_a_new_draw_another(proposer, slice_values):
    first, second = (proposer.propose(slice_values, box_xyxy=BOX) for _ in range(2))
    assert np.array_equal(first.alpha, second.alpha)
    assert np.array_equal(first.masks, second.masks)
    again = proposer.propose(slice_values, box_xyxy=BOX, seed=first.seed)
    assert np.array_equal(first.alpha, again.alpha)
    other = proposer.propose(slice_values, box_xyxy=BOX, seed=first.seed + 1)
    assert not np.array_equal(first.alpha, other.alpha)


def test_more_masks_keep_the_ones_that_were_there(proposer, slice_values):
    few, many = (proposer.propose(slice_values, box_xyxy=BOX, count=k, seed=3) for k in (2, 7))
    np.testing.assert_allclose(few.masks, many.masks[:2], atol=1e-6)
    assert len(many.masks) == 7
    assert len(proposer.propose(slice_values, box_xyxy=BOX, count=1).masks) == 1


def test_with_the_mean_first_the_first_mask_is_the_same_in_every_draw(proposer, slice_values):
    masks = [proposer.propose(slice_values, box_xyxy=BOX, seed=s, mean_first=True).masks for s in (1, 2)]
    assert np.array_equal(masks[0][0], masks[1][0])
    assert not np.array_equal(masks[0][1], masks[1][1])


@pytest.mark.parametrize("point", [(0.0, 0.0), (79.0, 95.0), (40.0, 50.0)])
def test_a_click_anywhere_gives_a_crop_inside_the_slice(proposer, slice_values, point):
    found = proposer.propose(slice_values, point_xy=point)
    left, top, right, bottom = found.box_xyxy
    assert 0 <= left <= point[0] <= right <= 80
    assert 0 <= top <= point[1] <= bottom <= 96
    assert found.alpha.shape == (bottom - top, right - left)


def test_a_box_without_size_and_one_beyond_the_border_are_fine(proposer, slice_values):
    assert proposer.propose(slice_values, box_xyxy=(30.0, 30.0, 30.0, 30.0)).alpha.size
    assert proposer.propose(slice_values, box_xyxy=(-50.0, -50.0, 400.0, 400.0)).box_xyxy == (0, 0, 80, 96)
    assert proposer.propose(slice_values[:5, :3], box_xyxy=(0.0, 0.0, 3.0, 5.0)).alpha.shape == (5, 3)


def test_a_large_crop_in_tiles_equals_the_whole_one(proposer, slice_values, monkeypatch):
    large = np.kron(slice_values, np.ones((2, 2), dtype=np.float32))
    whole = proposer.propose(large, box_xyxy=(0, 0, 160, 192), seed=1)
    monkeypatch.setattr("medapp.matting.proposer._MOST_BYTES", 1)
    monkeypatch.setattr("medapp.matting.proposer._LEAST_TILE_PX", 16)
    tiled = proposer.propose(large, box_xyxy=(0, 0, 160, 192), seed=1)
    np.testing.assert_allclose(tiled.alpha, whole.alpha, atol=1e-5)


def test_the_window_decides_what_the_network_sees(proposer, slice_values):
    dark = proposer.propose(slice_values, Window(400, 800), box_xyxy=BOX, seed=1)
    bright = proposer.propose(slice_values, Window(50, 100), box_xyxy=BOX, seed=1)
    assert not np.allclose(dark.alpha, bright.alpha)


def test_a_range_on_the_card_goes_before_the_window(proposer_of, slice_values):
    proposer = proposer_of(takes=(Intake("CT", "HU", (0.0, 800.0)),))
    dark, bright = (
        proposer.propose(slice_values, w, box_xyxy=BOX, seed=1, modality="CT")
        for w in (Window(400, 800), Window(50, 100))
    )
    assert np.array_equal(dark.alpha, bright.alpha)
    with pytest.raises(UnsuitableModelError, match="CT, not MR"):
        proposer.propose(slice_values, box_xyxy=BOX, modality="MR")


def test_pixels_come_to_the_size_the_model_knows():
    rule = CropRule(128, 1.5, spacing_mm=(0.5, 1.0))
    assert rule.scale(30.0, 2.0) == 2.0  # coarse pixels are refined to 1 mm
    assert rule.scale(30.0, 0.25) == 0.5
    assert rule.scale(30.0, 0.7) == rule.scale(30.0, None) == 1.0
    assert rule.box((100, 100, 110, 110), 2.0) == (
        73,
        73,
        137,
        137,
    )  # 64 coarse pixels = 128 of the model's
    assert rule.box((0, 0, 300, 100), 1.0) == (-75, -175, 375, 275)  # beyond the slice the border goes on


def test_a_crop_that_ends_with_the_slice_shows_the_network_nothing_else_and_the_thing_larger(proposer_of, slice_values):
    views = {"crop_px": 32, "crop_scale": "box", "crop_of_box": 1.5}
    beyond, within = (proposer_of(training=views | more) for more in ({}, {"crop_within": True}))
    height, width = slice_values.shape
    filling = (0.0, 0.0, float(width), float(height))
    padded, ending = (one.propose(slice_values, box_xyxy=filling, seed=1) for one in (beyond, within))
    assert padded.box_xyxy == ending.box_xyxy == (0, 0, width, height)
    assert padded.alpha.shape == ending.alpha.shape == (height, width)
    assert padded.network_px == (32, 32)
    assert ending.network_px == (round(32 * (height / width) ** 0.5), round(32 * (width / height) ** 0.5))
    middle = [one.propose(slice_values, box_xyxy=BOX, seed=1).alpha for one in (beyond, within)]
    assert np.array_equal(*middle)  # nothing changes where the slice has room
    rule = CropRule(128, 1.5, is_box_scaled=True, is_within=True)
    assert rule.scale_within((0, 0, 64, 64)) == 2.0
    assert rule.scale_within((0, 0, 512, 1)) == 0.5  # a strip is no longer than twice the side


def test_colours_become_grey_for_a_grey_model_and_grey_all_colours_alike_for_a_colour_one(proposer_of, slice_values):
    colours = np.stack([slice_values.clip(0, 255), 0 * slice_values, 0 * slice_values], axis=2).astype(np.uint8)
    assert proposer_of().propose(colours, box_xyxy=BOX).alpha.shape == (36, 36)
    in_colour = proposer_of(channels=3, config={"input_channels": 3})
    assert in_colour.propose(colours, box_xyxy=BOX).alpha.shape == (36, 36)
    grey = np.rint(255 * (slice_values - slice_values.min()) / np.ptp(slice_values)).astype(np.uint8)
    of_slice = in_colour.propose(grey, Window(127.5, 255), box_xyxy=BOX)
    of_colours = in_colour.propose(np.dstack([grey] * 3), box_xyxy=BOX)
    np.testing.assert_allclose(of_slice.alpha, of_colours.alpha, atol=1e-5)


def test_mirrored_views_give_a_mirrored_slice_the_mirrored_alpha(proposer_of, slice_values):
    mirrored, mirrored_box = slice_values[:, ::-1], (80 - 44.0, 30.0, 80 - 20.0, 46.0)
    one_view = proposer_of()
    plain = one_view.propose(slice_values, box_xyxy=BOX, mean_first=True, seed=1)
    other = one_view.propose(mirrored, box_xyxy=mirrored_box, mean_first=True, seed=1)
    assert np.abs(plain.alpha - other.alpha[:, ::-1]).max() > 1e-3
    views = {"crop_px": 32, "crop_scale": "box", "crop_of_box": 1.5, "views": 4}
    four_views = proposer_of(training=views)
    plain = four_views.propose(slice_values, box_xyxy=BOX, mean_first=True, seed=1)
    other = four_views.propose(mirrored, box_xyxy=mirrored_box, mean_first=True, seed=1)
    np.testing.assert_allclose(plain.alpha, other.alpha[:, ::-1], atol=1e-5)
    np.testing.assert_allclose(plain.uncertainty, other.uncertainty[:, ::-1], atol=1e-4)


def test_eight_views_give_a_slice_on_its_side_the_alpha_on_its_side(proposer_of, slice_values):
    on_its_side, box = slice_values.T, (BOX[1], BOX[0], BOX[3], BOX[2])
    for count, is_same in ((4, False), (8, True)):
        views = {"crop_px": 32, "crop_scale": "box", "crop_of_box": 1.5, "views": count}
        proposer = proposer_of(training=views)
        upright = proposer.propose(slice_values, box_xyxy=BOX, mean_first=True, seed=1)
        turned = proposer.propose(on_its_side, box_xyxy=box, mean_first=True, seed=1)
        assert np.allclose(upright.alpha, turned.alpha.T, atol=1e-4) is is_same


def test_pixels_that_are_not_finite_pass(proposer, slice_values):
    holes = slice_values.copy()
    holes[35:40, 30:34] = np.nan
    assert np.isfinite(proposer.propose(holes, Window(400, 800), box_xyxy=BOX).alpha).all()


def test_numbers_that_are_not_finite_never_leave(proposer, slice_values):
    with torch.no_grad():
        proposer.model.network.matting_net.out_layer[3].bias.fill_(float("nan"))
    with pytest.raises(ComputeError, match="not finite"):
        proposer.propose(slice_values, box_xyxy=BOX)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ({}, "rough mask is needed"),
        ({"point_xy": (200.0, 10.0)}, "outside the slice"),
        ({"box_xyxy": (-9.0, -9.0, -1.0, -1.0)}, "outside the slice"),
        ({"box_xyxy": (0.0, 0.0, float("nan"), 4.0)}, "no numbers"),
        ({"box_xyxy": BOX, "count": 0}, "Between 1 and 32"),
        ({"box_xyxy": BOX, "count": 33}, "Between 1 and 32"),
    ],
)
def test_prompts_that_point_at_nothing_are_said(proposer, slice_values, prompt, said):
    with pytest.raises(UsageError, match=said):
        proposer.propose(slice_values, **prompt)


def test_a_model_without_alpha_is_refused(proposer_of, slice_values):
    with pytest.raises(UnsuitableModelError, match="no masks and alpha"):
        proposer_of(config={"use_matting": False}).propose(slice_values, box_xyxy=BOX)


def test_stop_is_noticed(proposer, slice_values):
    with pytest.raises(Cancelled):
        proposer.propose(slice_values, box_xyxy=BOX, progress=Progress(is_stopped=lambda: True))


GUIDED = {"config": {"input_channels": 2}, "inputs": ("rough_mask",)}


@pytest.fixture
def disc():
    row, column = np.mgrid[:96, :80]
    return np.hypot(row - 38, column - 32) < 8


def test_a_rough_mask_is_looked_at_and_says_where_to_look(proposer_of, slice_values, disc):
    proposer = proposer_of(**GUIDED)
    alone = proposer.propose(slice_values, rough=disc)
    left, top, right, bottom = alone.box_xyxy
    assert (left + right) / 2 == pytest.approx(32.5, abs=1)
    assert (top + bottom) / 2 == pytest.approx(38.5, abs=1)
    assert right - left == pytest.approx(1.5 * 15, abs=1)
    boxed = proposer.propose(slice_values, box_xyxy=BOX, seed=1)
    told = proposer.propose(slice_values, box_xyxy=BOX, seed=1, rough=disc)
    assert boxed.box_xyxy == told.box_xyxy  # the box chooses the crop
    assert not np.array_equal(boxed.alpha, told.alpha)


def test_shares_of_pixels_tell_the_same_as_a_mask(proposer_of, slice_values, disc):
    proposer = proposer_of(**GUIDED)
    hard, soft = (proposer.propose(slice_values, box_xyxy=BOX, seed=1, rough=r) for r in (disc, disc * np.float32(1)))
    assert np.array_equal(hard.alpha, soft.alpha)


def test_a_model_without_rough_masks_takes_where_one_lies(proposer, slice_values, disc):
    rows, columns = np.flatnonzero(disc.any(axis=1)), np.flatnonzero(disc.any(axis=0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    told, boxed = proposer.propose(slice_values, rough=disc), proposer.propose(slice_values, box_xyxy=box)
    assert np.array_equal(told.masks, boxed.masks)


def test_a_click_without_a_region_still_answers(proposer_of, slice_values):
    found = proposer_of(**GUIDED).propose(slice_values, point_xy=(32.0, 38.0))
    assert np.isfinite(found.alpha).all()


@pytest.mark.parametrize(("rough", "text"), [(np.zeros((96, 80)), "empty"), (np.ones((80, 96)), "another size")])
def test_a_rough_mask_that_cannot_be_used_is_refused(proposer_of, slice_values, rough, text):
    with pytest.raises(UsageError, match=text):
        proposer_of(**GUIDED).propose(slice_values, rough=rough)


def test_a_card_that_asks_again_gives_another_alpha_and_the_same_masks(proposer_of, slice_values, disc):
    once, twice = (
        proposer_of(**GUIDED, training={"finish": {"again": again}}).propose(slice_values, rough=disc, seed=1)
        for again in (False, True)
    )
    assert np.array_equal(once.masks, twice.masks)
    assert not np.array_equal(once.alpha, twice.alpha)
    assert 0 <= twice.alpha.min() <= twice.alpha.max() <= 1
