"""What an alpha goes through at the end of a proposal."""

import numpy as np
import pytest

from medapp.matting.finish import Finish
from medapp.matting.rough import rough_picture

BOX = (20.0, 30.0, 80.0, 70.0)


def _alpha(core, rim):
    """A sure core of 20 x 16 px in a rim of 60 x 40 px that fills the box."""
    alpha = np.full((100, 100), 0.01, np.float32)
    alpha[30:70, 20:80] = rim
    alpha[42:58, 40:60] = core
    return alpha


def test_an_alpha_that_falls_short_of_the_box_is_raised_until_it_spans_it():
    raised = Finish(is_reaching=True).apply(_alpha(0.95, 0.2), BOX)
    assert (raised[30:70, 20:80] > 0.5).all()
    assert raised[:28].max() < 0.2  # what was surely outside stays so


@pytest.mark.parametrize("rim", [0.9, 0.001])
def test_an_alpha_that_spans_the_box_or_knows_nothing_of_the_rest_stays(rim):
    alpha = _alpha(0.95, rim)
    assert np.array_equal(Finish(is_reaching=True).apply(alpha, BOX), alpha)


def test_specks_do_not_count_as_the_thing():
    alpha = _alpha(0.95, 0.2)
    for y, x in ((30, 20), (69, 79)):
        alpha[y, x] = 0.9
    assert (Finish(is_reaching=True).apply(alpha, BOX)[30:70, 20:80] > 0.5).all()


def test_a_click_raises_nothing_and_contrast_cuts_the_haze():
    alpha = _alpha(0.95, 0.2)
    plain = Finish(is_reaching=True).apply(alpha, None)
    assert np.array_equal(plain, alpha)
    clear = Finish(contrast=1.5).apply(alpha, BOX)
    assert clear.min() == 0.0
    assert clear.max() == 1.0
    assert clear[35, 25] == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("told", [None, 3, {"contrast": "high"}, {"contrast": 99, "reach": "yes"}])
def test_a_card_that_says_nothing_sound_changes_nothing(told):
    assert Finish.of({"finish": told}) == Finish()


def test_a_card_says_how():
    assert Finish.of({"finish": {"contrast": 1.3, "reach": True}}) == Finish(1.3, True)


def test_far_from_the_border_of_a_rough_mask_the_alpha_is_the_mask_and_near_it_its_own():
    mask = np.zeros((40, 60), dtype=bool)
    mask[:, 30:] = True
    unsure = np.full(mask.shape, 0.4, np.float32)
    finish = Finish.of({"finish": {"hold": [2, 8]}})
    held = finish.apply(unsure, None, rough_picture(mask))
    assert np.array_equal(held[0, :22], np.zeros(22))
    assert np.array_equal(held[0, 38:], np.ones(22))
    assert held[0, 29] == held[0, 30] == np.float32(0.4)
    assert np.all(np.diff(held[0]) >= 0)
    assert np.array_equal(finish.apply(unsure, None), unsure)  # a box alone knows of no border
    for wrong in ([8, 2], [1], ["a", 3], [2, 99], 5):
        assert Finish.of({"finish": {"hold": wrong}}).hold is None
