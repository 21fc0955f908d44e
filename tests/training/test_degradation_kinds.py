"""Every degradation is a seeded physical function: same seed, same slice; its parameters stand on a card."""

import json

import numpy as np
import pytest

from medapp.errors import TrainingError
from medapp.restoration.light import to_light, to_stored
from medapp.training.degradations import degrade
from medapp.training.degradations.mr import low_resolution
from medapp.training.degradations.pathology import blurred, enlarged, low_magnification
from medapp.training.degradations.pet import PetScanner, count_noise, low_counts
from tests.training.places import picture

SIDE = 40


def _disc(value=2.0, radius=14):
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return np.where(y**2 + x**2 < radius**2, value, 0.0).astype(np.float32)


def _slice_for(kind):
    if kind == "pathology-optics":
        return np.clip(np.stack([picture(n, SIDE)[:, :SIDE] / 4 for n in range(3)], axis=-1), 0, 255)
    return {"ct-dose": _disc(1040.0) - 1000.0, "mr-kspace": picture(1, SIDE), "pet-counts": _disc()}[kind]


DRAWN = [
    {"kind": "ct-dose", "doses": [0.05, 1.0], "kernels": ["hann", "ramp"], "views": 60},
    {"kind": "ct-dose", "dose": 0.25, "ramp_shares": [0.2, 0.6], "cutoff_per_mm": 0.2, "views": 60},
    {"kind": "mr-kspace", "factor": 2, "noise": 0.02},
    {"kind": "pet-counts", "fractions": [0.05, 0.5], "psf_mm": 6.0},
    {"kind": "pathology-optics", "factor": 2, "photons": 500.0},
]


@pytest.mark.parametrize("parameters", DRAWN, ids=lambda p: p["kind"])
def test_the_same_seed_gives_the_same_slice_and_another_one_another(parameters):
    from_card = json.loads(json.dumps(parameters))
    values = _slice_for(parameters["kind"])
    first, again, other = (degrade(from_card, values, 2.0, seed) for seed in (5, 5, 6))
    assert first.shape == values.shape
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert 0 < np.abs(first - values).mean() < np.abs(values).max()


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({}, "No degradation is called"),
        ({"kind": "magic"}, "'magic'"),
        ({"kind": "mr-kspace", "dose": 0.5}, "does not take dose"),
        ({"kind": "mr-kspace", "factor": 2.5}, "'factor'"),
        ({"kind": "mr-kspace", "factor": True}, "'factor'"),
        ({"kind": "ct-dose", "doses": [0.5, 0.1]}, "'doses'"),
        ({"kind": "ct-dose", "dose": 0}, "'dose'"),
        ({"kind": "ct-dose", "kernels": []}, "'kernels'"),
        ({"kind": "ct-dose", "ramp_shares": [0.2, 1.2]}, "'ramp_shares'"),
        ({"kind": "ct-dose", "ramp_share": "half"}, "'ramp_share'"),
        ({"kind": "ct-dose", "cutoffs_per_mm": [0.5]}, "'cutoffs_per_mm'"),
        ({"kind": "pet-counts", "fraction": float("nan")}, "'fraction'"),
        ({"kind": "pathology-optics", "cutoff": -1}, "'cutoff'"),
    ],
)
def test_parameters_that_cannot_work_are_refused(parameters, match):
    with pytest.raises(TrainingError, match=match) as caught:
        degrade(parameters, picture(1), 1.0, 0)
    assert caught.value.hint


@pytest.mark.parametrize("parameters", [{"kind": "mr-kspace", "factor": 4}, {"kind": "pathology-optics", "factor": 4}])
def test_a_slice_too_small_is_said(parameters):
    with pytest.raises(TrainingError, match="too small"):
        degrade(parameters, np.zeros((6, 6)), 1.0, 0)


def test_mr_noise_is_as_strong_as_asked_and_only_inside_of_what_was_measured():
    values = np.full((64, 64), 100.0) + picture(2, 64)[:, :64] * 0.01
    noise = low_resolution(values, 2, noise=0.05, seed=1) - low_resolution(values, 2)
    assert noise.std() == pytest.approx(0.05 * np.percentile(values, 99.5), rel=0.15)
    spectrum = np.abs(np.fft.fft2(noise))
    assert spectrum[20:44].max() < 0.05 * spectrum.max()  # rows beyond the measured ones


def test_pet_noise_grows_as_counts_are_taken_away_and_shifts_nothing():
    disc, inside = _disc(), _disc(radius=11) > 0
    spreads = []
    for fraction in (0.5, 0.2, 0.05):
        fields = np.stack([count_noise(disc, 4.0, fraction, seed) for seed in range(12)])
        spreads.append(fields[:, inside].std())
        assert abs(fields[:, inside].mean()) < 0.05 * disc.max()
    # binomial thinning: variance (1 - f) / f
    assert spreads[1] / spreads[0] == pytest.approx(2.0, rel=0.25)
    assert spreads[2] / spreads[0] == pytest.approx(np.sqrt(19), rel=0.3)


def test_pet_noise_is_larger_where_there_is_more_uptake():
    disc = _disc(1.0) + _disc(9.0, radius=5)
    fields = np.stack([count_noise(disc, 4.0, 0.2, seed) for seed in range(12)])
    hot, quiet = _disc(radius=4) > 0, (_disc(radius=13) > 0) & ~(_disc(radius=9) > 0)
    assert fields[:, hot].std() > 2 * fields[:, quiet].std()


def test_pet_with_all_counts_is_the_slice_itself_and_never_falls_below_zero():
    np.testing.assert_array_equal(low_counts(_disc(), 4.0, 1.0, 0), _disc())
    assert low_counts(_disc(), 4.0, 0.02, 0).min() == 0
    assert low_counts(_disc() - 0.5, 4.0, 0.02, 0).min() >= -0.5
    assert low_counts(np.zeros((20, 20)), 4.0, 0.5, 0).max() == 0
    calm = count_noise(_disc(), 4.0, 0.2, 0, PetScanner(counts_per_suv_ml=30_000))
    assert calm.std() < 0.3 * count_noise(_disc(), 4.0, 0.2, 0).std()
    with pytest.raises(ValueError, match="fraction"):
        low_counts(_disc(), 4.0, 0.0, 0)


def test_light_is_neither_lost_nor_shifted_by_the_optics():
    colours = _slice_for("pathology-optics")
    light = to_light(colours)
    np.testing.assert_allclose(to_stored(light), colours, atol=0.01)
    assert blurred(light, 4).mean() == pytest.approx(light.mean(), rel=0.03)
    spot = np.zeros((129, 129), np.float32)
    spot[64, 64] = 1.0
    spread = blurred(spot, 4)
    assert np.unravel_index(spread.argmax(), spread.shape) == (64, 64)
    np.testing.assert_allclose(spread, spread[::-1, ::-1], atol=1e-6)
    assert spread.sum() == pytest.approx(1.0, rel=0.02)
    assert spread.min() > -1e-4  # the spread of light is never negative


def test_a_smaller_aperture_passes_coarse_stripes_and_no_fine_ones():
    x = np.arange(96)

    def contrast(period):
        stripes = np.tile(0.5 + 0.4 * np.cos(2 * np.pi * x / period), (96, 1)).astype(np.float32)
        return np.ptp(blurred(stripes, 4)[48, 24:72]) / np.ptp(stripes)

    assert contrast(3) < 0.05  # finer than the cutoff of one cycle a coarse pixel
    assert 0.2 < contrast(8) < 0.6  # two coarse pixels
    assert contrast(32) > 0.8


@pytest.mark.parametrize("factor", [2, 4])
def test_the_coarse_picture_comes_back_in_its_place(factor):
    y, x = np.mgrid[:66, :71]
    spot = 200 * np.exp(-((y - 30.0) ** 2 + (x - 37.5) ** 2) / (2 * 6.0**2))
    coarse = low_magnification(np.stack([spot] * 3, axis=-1), factor)
    assert coarse.shape == (66 // factor, 71 // factor, 3)
    fine = enlarged(coarse, factor, (66, 71))[..., 1]
    assert fine.shape == spot.shape
    heavy = fine**4  # the middle alone
    centre = [(heavy * axis).sum() / heavy.sum() for axis in (y, x)]
    assert centre == pytest.approx([30.0, 37.5], abs=0.1)
    assert low_magnification(spot, factor).shape == coarse.shape[:2]
