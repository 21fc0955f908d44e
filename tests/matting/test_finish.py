"""What an alpha goes through at the end of a proposal."""

import numpy as np
import pytest

from medapp.matting.finish import Colours, Finish, explained
from medapp.matting.rough import rough_picture

BOX = (20.0, 30.0, 80.0, 70.0)


def _any_grey(shape):
    return np.full((3, *shape), 0.5, np.float32)


def _never(rough):
    raise AssertionError("the card asks for one look only")


def _alpha(core, rim):
    """A sure core of 20 x 16 px in a rim of 60 x 40 px that fills the box."""
    alpha = np.full((100, 100), 0.01, np.float32)
    alpha[30:70, 20:80] = rim
    alpha[42:58, 40:60] = core
    return alpha


def test_an_alpha_that_falls_short_of_the_box_is_raised_until_it_spans_it():
    raised = Finish(is_reaching=True).of_box(_alpha(0.95, 0.2), BOX)
    assert (raised[30:70, 20:80] > 0.5).all()
    assert raised[:28].max() < 0.2  # what was surely outside stays so


@pytest.mark.parametrize("rim", [0.9, 0.001])
def test_an_alpha_that_spans_the_box_or_knows_nothing_of_the_rest_stays(rim):
    alpha = _alpha(0.95, rim)
    assert np.array_equal(Finish(is_reaching=True).of_box(alpha, BOX), alpha)


def test_specks_do_not_count_as_the_thing():
    alpha = _alpha(0.95, 0.2)
    for y, x in ((30, 20), (69, 79)):
        alpha[y, x] = 0.9
    assert (Finish(is_reaching=True).of_box(alpha, BOX)[30:70, 20:80] > 0.5).all()


def test_a_click_raises_nothing_and_contrast_cuts_the_haze():
    alpha = _alpha(0.95, 0.2)
    plain = Finish(is_reaching=True).of_box(alpha, None)
    assert np.array_equal(plain, alpha)
    clear = Finish(contrast=1.5).of_box(alpha, BOX)
    assert clear.min() == 0.0
    assert clear.max() == 1.0
    assert clear[35, 25] == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(
    "told",
    [
        None,
        3,
        {"contrast": "high"},
        {"contrast": 99, "reach": "yes"},
        {"colours": 0.02},
        {"colours": {"pull": -1, "fit": [0.3, 1.0]}},
        {"colours": {"pull": 0.02, "fit": [1.0, 0.3]}},
    ],
)
def test_a_card_that_says_nothing_sound_changes_nothing(told):
    assert Finish.of({"finish": told}) == Finish()


def test_a_card_says_how():
    assert Finish.of({"finish": {"contrast": 1.3, "reach": True}}) == Finish(1.3, True)
    told = {"hold": [2, 8], "colours": {"pull": 0.02, "fit": [0.3, 1.0]}, "again": True}
    assert Finish.of({"finish": told}) == Finish(
        hold=(2.0, 8.0), colours=Colours(0.02, (0.3, 1.0)), is_asked_again=True
    )


def test_far_from_the_border_of_a_rough_mask_the_alpha_is_the_mask_and_near_it_its_own():
    mask = np.zeros((40, 60), dtype=bool)
    mask[:, 30:] = True
    unsure = np.full(mask.shape, 0.4, np.float32)
    finish = Finish.of({"finish": {"hold": [2, 8]}})
    held = finish.of_mask(_any_grey(mask.shape), unsure, rough_picture(mask), _never)
    assert np.array_equal(held[0, :22], np.zeros(22))
    assert np.array_equal(held[0, 38:], np.ones(22))
    assert held[0, 29] == held[0, 30] == np.float32(0.4)
    assert np.all(np.diff(held[0]) >= 0)
    assert np.array_equal(finish.of_box(unsure, None), unsure)  # a box alone knows of no border
    for wrong in ([8, 2], [1], ["a", 3], [2, 99], 5):
        assert Finish.of({"finish": {"hold": wrong}}).hold is None


def _photograph():
    """A red disc before green, its true alpha, and a network's, 2 px too wide."""
    row, column = np.mgrid[:80, :80]
    distance = np.hypot(row - 40, column - 40)
    truth, wide = (np.clip((radius - distance) / 2 + 0.5, 0, 1).astype(np.float32) for radius in (20, 22))
    noise = 0.02 * np.random.default_rng(0).standard_normal((80, 80, 3))
    image = truth[..., None] * (0.8, 0.2, 0.2) + (1 - truth[..., None]) * (0.2, 0.6, 0.3) + noise
    return np.clip(image, 0, 1).astype(np.float32), truth, wide


FITTED = Finish(hold=(2.0, 8.0), colours=Colours(0.02, (0.3, 0.9)))


def test_where_colours_tell_two_things_apart_the_edge_moves_to_where_they_change():
    image, truth, wide = _photograph()
    fitted = FITTED.of_mask(image.transpose(2, 0, 1), wide, rough_picture(wide > 0.5), _never)
    assert np.abs(fitted - truth).sum() < 0.6 * np.abs(wide - truth).sum()
    assert 0 <= fitted.min() <= fitted.max() <= 1


def test_a_grey_picture_and_a_card_without_colours_leave_the_alpha_as_it_is():
    image, _, wide = _photograph()
    grey = np.repeat(image.mean(axis=2)[None], 3, axis=0)
    assert np.array_equal(FITTED.of_mask(grey, wide, rough_picture(wide > 0.5), _never), wide)
    told = Finish(hold=(2.0, 8.0)).of_mask(image.transpose(2, 0, 1), wide, rough_picture(wide > 0.5), _never)
    assert np.array_equal(told, wide)


def test_colours_that_say_nothing_of_the_alpha_change_little():
    _, _, wide = _photograph()
    image = np.random.default_rng(1).random((80, 80, 3)).astype(np.float32)
    assert explained(image, wide)[38:42, 58:64].mean() < 0.3
    fitted = FITTED.of_mask(image.transpose(2, 0, 1), wide, rough_picture(wide > 0.5), _never)
    held = np.abs(fitted - wide)
    assert held.mean() < 0.02


def test_the_second_look_is_told_the_first_answer_and_both_count_alike():
    mask = np.zeros((40, 60), dtype=bool)
    mask[:, 30:] = True
    first, second = (np.full(mask.shape, value, np.float32) for value in (0.4, 0.8))
    first[:, 27:] = 0.6  # the network says that the thing begins three pixels further left than the hurried mask
    asked = []

    def ask(rough):
        asked.append(rough)
        return second

    finish = Finish(hold=(2.0, 8.0), is_asked_again=True)
    found = finish.of_mask(_any_grey(mask.shape), first, rough_picture(mask), ask)
    assert len(asked) == 1
    assert np.array_equal(asked[0], rough_picture(first > 0.5))
    assert found[0, 28] == pytest.approx(0.7)  # near both borders: the mean of both answers
    assert found[0, 10] == 0.0
    assert found[0, 50] == 1.0


def test_an_answer_without_an_inside_is_not_asked_about_again():
    mask = np.zeros((40, 60), dtype=bool)
    mask[:, 58:] = True
    nothing = np.zeros(mask.shape, np.float32)
    finish = Finish(is_asked_again=True)
    assert np.array_equal(finish.of_mask(_any_grey(mask.shape), nothing, rough_picture(mask), _never), nothing)


def test_contrast_after_the_colours_cuts_the_haze_that_closed_form_leaves():
    image, _, wide = _photograph()
    told = {"hold": [2, 8], "colours": {"pull": 0.02, "fit": [0.3, 0.9], "contrast": 1.2}}
    hazy, clear = (
        finish.of_mask(image.transpose(2, 0, 1), wide, rough_picture(wide > 0.5), _never)
        for finish in (FITTED, Finish.of({"finish": told}))
    )
    haze = (hazy > 0.001) & (hazy < 0.08)
    assert haze.sum() > 50
    assert clear[haze].max() == 0.0
    assert np.abs(clear - hazy).max() < 0.11
