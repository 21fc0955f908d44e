import numpy as np
import pytest

from medapp.matting.metrics import best_dice, compare_mattes, energy_distance, evaluation_masks, mask_dice, soft_dice


@pytest.fixture(scope="module")
def golden():
    row, column = np.mgrid[:64, :64].astype(float)
    reference = np.clip((20 - np.hypot(row - 32, column - 32)) / 8 + 0.5, 0, 1)
    alpha = np.clip((18 - np.hypot(row - 33.5, column - 30)) / 10 + 0.5, 0, 1)
    return alpha, reference


def test_the_errors_equal_the_published_evaluators(golden):
    alpha, reference = golden
    errors = compare_mattes(alpha, reference)
    found = (errors.sad, errors.mse, errors.gradient, errors.connectivity)
    assert found == pytest.approx((0.258749, 0.019979, 0.325887, 0.266125), abs=1e-6)
    assert (errors.region, errors.pixels) == ("all", 4096)


def test_the_errors_on_the_unknown_band_equal_the_published_evaluators(golden):
    alpha, reference = golden
    errors = compare_mattes(alpha, reference, (reference > 0) & (reference < 1))
    found = (errors.sad, errors.mse, errors.gradient, errors.connectivity)
    assert found == pytest.approx((0.198533, 0.064561, 0.173659, 0.202425), abs=1e-6)
    assert (errors.region, errors.pixels) == ("unknown", 992)


def test_an_equal_matte_has_no_error(golden):
    errors = compare_mattes(golden[1], golden[1])
    assert (errors.sad, errors.mse, errors.gradient, errors.connectivity, errors.soft_dice) == (0, 0, 0, 0, 1)


def test_a_constant_matte_has_no_gradient_error_rather_than_a_wrong_one(golden):
    errors = compare_mattes(np.zeros((64, 64)), golden[1])
    assert np.isnan(errors.gradient)
    assert errors.sad == pytest.approx(np.floor(255 * golden[1]).sum() / 255000)


def test_sets_of_masks_equal_the_published_figures(golden):
    alpha, reference = golden
    masks = [alpha > t for t in (0.3, 0.5, 0.7)]
    levels = evaluation_masks(reference)
    assert energy_distance(masks, levels) == pytest.approx(0.256488, abs=1e-6)
    assert [best_dice([mask], levels) for mask in masks] == pytest.approx([0.920889, 0.906573, 0.834724], abs=1e-6)


def test_dice_counts_what_is_shared():
    a = np.zeros((4, 4))
    b = a.copy()
    a[:2], b[1:3] = 1, 1
    assert soft_dice(a, b) == pytest.approx(0.5)
    assert soft_dice(a * 0.5, a) == pytest.approx(2 / 3)
    assert soft_dice(a * 0, b * 0) == 1
    assert mask_dice(a > 0, b > 0) == pytest.approx(9 / 17)
