import warnings

import numpy as np
import pytest
from scipy import ndimage

from medapp.annotation.trimap import TrimapBand, trimap_from_mask
from medapp.errors import Cancelled, ComputeError, UsageError
from medapp.matting import closed_form
from medapp.matting.closed_form import resolve_around, solve_closed_form
from medapp.matting.matter import make_matter
from medapp.progress import Progress
from medapp.scan.scan import Window


def soft_blob(side=96, radius=26.0, softness=6.0, channels=1, noise=0.01, seed=0):
    """A picture composed with a known alpha: ``(image, alpha)``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - side / 2
    angle = np.arctan2(y, x)
    alpha = np.clip((radius * (1 + 0.15 * np.sin(3 * angle + seed)) - np.hypot(y, x)) / softness + 0.5, 0, 1)
    inside, outside = rng.uniform(0.6, 0.9, channels), rng.uniform(0.1, 0.4, channels)
    texture = ndimage.gaussian_filter(rng.normal(0, 1, (side, side, channels)), (3, 3, 0)) * 0.1
    image = alpha[..., None] * inside + (1 - alpha[..., None]) * outside + texture
    image = np.clip(image + rng.normal(0, noise, image.shape), 0, 1)
    return (image if channels == 3 else image[..., 0]).astype(np.float32), alpha.astype(np.float32)


def trimap_of(alpha, reach=4):
    soft = ndimage.binary_dilation((alpha > 0.02) & (alpha < 0.98), iterations=reach)
    return np.where(soft, 0.5, (alpha > 0.5).astype(float)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_known_alpha_is_found_again(channels):
    image, alpha = soft_blob(channels=channels, noise=0.0)
    trimap = trimap_of(alpha)
    found = solve_closed_form(image, trimap)
    band = trimap == 0.5
    assert np.abs(found - alpha)[band].mean() < 0.04
    assert found.dtype == np.float32
    assert np.array_equal(found[~band], trimap[~band])


def test_ten_pictures_agree_with_pymatting():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's, on import
        pymatting = pytest.importorskip("pymatting")
        for seed in range(10):
            image, alpha = soft_blob(64, 18.0, channels=3 if seed % 2 else 1, seed=seed)
            trimap = trimap_of(alpha)
            colours = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
            expected = pymatting.estimate_alpha_cf(colours.astype(np.float64), trimap.astype(np.float64))
            found = solve_closed_form(image, trimap)
            assert np.abs(found - expected)[trimap == 0.5].mean() < 1e-3


def test_what_is_kept_comes_back_exactly_and_helps_the_rest():
    image, alpha = soft_blob()
    trimap = trimap_of(alpha)
    keep = np.zeros(alpha.shape, dtype=bool)
    keep[20:40, 60:80] = True
    current = np.full(alpha.shape, 0.3, dtype=np.float32)
    found = solve_closed_form(image, trimap, keep, current)
    assert np.array_equal(found[keep], current[keep])
    assert not np.array_equal(found, solve_closed_form(image, trimap))


def test_nothing_unknown_gives_the_mask_and_nothing_known_says_so():
    image, alpha = soft_blob()
    mask = (alpha > 0.5).astype(np.float32)
    assert np.array_equal(solve_closed_form(image, mask), mask)
    with pytest.raises(ComputeError) as caught:
        solve_closed_form(image, np.full(alpha.shape, 0.5, dtype=np.float32))
    assert caught.value.hint


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_an_even_picture_is_solved_smoothly(value):
    trimap = np.zeros((60, 60), dtype=np.float32)
    trimap[15:45, 15:45] = 0.5
    trimap[25:35, 25:35] = 1.0
    found = solve_closed_form(np.full((60, 60), value, dtype=np.float32), trimap)
    assert np.isfinite(found).all()
    assert found[20, 30] == pytest.approx(0.5, abs=0.1)  # half way between inside and outside


@pytest.mark.parametrize("shape", [(1, 9), (2, 2), (9, 2), (3, 3)])
def test_tiny_pictures_are_solved_too(shape):
    trimap = np.full(shape, 0.5, dtype=np.float32)
    trimap.flat[0], trimap.flat[-1] = 0.0, 1.0
    found = solve_closed_form(np.linspace(0, 1, int(np.prod(shape))).reshape(shape), trimap)
    assert found.shape == shape
    assert np.isfinite(found).all()
    assert (found.flat[0], found.flat[-1]) == (0, 1)


def test_a_large_band_is_solved_in_tiles_close_to_the_whole_solution(monkeypatch):
    image, alpha = soft_blob(192, 55.0, softness=12.0, channels=3)
    trimap = trimap_of(alpha, reach=8)
    whole = solve_closed_form(image, trimap)
    monkeypatch.setattr(closed_form, "_SMALL", 500)
    monkeypatch.setattr(closed_form, "_MOST_AT_ONCE", 3000)
    monkeypatch.setattr(closed_form, "_TILE", 48)
    sizes = []
    at_once = closed_form._solve_at_once
    monkeypatch.setattr(closed_form, "_solve_at_once", lambda *a: sizes.append(int(a[2].sum())) or at_once(*a))
    tiled = solve_closed_form(image, trimap)
    assert max(sizes) <= (48 + 2 * closed_form._OVERLAP) ** 2
    assert len(sizes) > 4
    assert np.abs(tiled - whole)[trimap == 0.5].mean() < 0.02
    assert np.array_equal(tiled[trimap != 0.5], trimap[trimap != 0.5])


def test_stop_is_noticed_between_tiles(monkeypatch):
    image, alpha = soft_blob(192, 55.0, softness=12.0)
    monkeypatch.setattr(closed_form, "_SMALL", 500)
    monkeypatch.setattr(closed_form, "_MOST_AT_ONCE", 1000)
    calls = []
    with pytest.raises(Cancelled):
        solve_closed_form(
            image, trimap_of(alpha), progress=Progress(is_stopped=lambda: len(calls) > 3 or bool(calls.append(1)))
        )


def test_out_of_time_a_large_band_keeps_the_reduced_solution(monkeypatch):
    image, alpha = soft_blob(192, 55.0, softness=12.0)
    monkeypatch.setattr(closed_form, "_SMALL", 500)
    monkeypatch.setattr(closed_form, "_MOST_AT_ONCE", 1000)
    found = solve_closed_form(image, trimap_of(alpha), time_limit_s=0.0)
    assert np.isfinite(found).all()
    assert np.abs(found - alpha).mean() < 0.1


def test_solving_around_a_stroke_changes_only_the_band_near_it():
    image, alpha = soft_blob(160, 50.0)
    trimap = trimap_of(alpha)
    full = solve_closed_form(image, trimap)
    keep = np.zeros(alpha.shape, dtype=bool)
    keep[28:31, 78:82] = True
    painted = full.copy()
    painted[24:36, 74:86] = 0.0
    crop, (x0, y0, x1, y1) = resolve_around(image, painted, trimap, (74, 24, 86, 36), margin=16, keep=keep)
    result = painted.copy()
    result[y0:y1, x0:x1] = crop
    assert (x0, y0, x1, y1) == (58, 8, 102, 52)
    fixed = (trimap != 0.5) | keep
    assert np.array_equal(result[fixed], painted[fixed])
    free = (trimap == 0.5) & ~ndimage.binary_dilation(keep, iterations=6)
    assert np.abs(result - full)[free].mean() < 0.01


def test_the_window_decides_what_is_matted():
    image, alpha = soft_blob()
    values = image * 1000 - 500
    trimap = trimap_of(alpha)
    matter = make_matter()
    same = matter.matte(values, Window(0.0, 1000.0), trimap)
    assert np.abs(same - solve_closed_form(image, trimap)).max() < 1e-2
    blind = matter.matte(values, Window(5000.0, 100.0), trimap)
    assert not np.allclose(blind, same, atol=0.1)


def test_values_that_are_not_finite_do_not_spread():
    image, alpha = soft_blob()
    values = image.copy()
    values[48, 20:24] = np.nan
    found = make_matter().matte(values, Window(0.5, 1.0), trimap_of(alpha))
    assert np.isfinite(found).all()


def test_colours_are_matted_as_stored():
    image, alpha = soft_blob(channels=3)
    stored = np.rint(image * 255).astype(np.uint8)
    found = make_matter().matte(stored, None, trimap_of(alpha))
    assert np.abs(found - alpha).mean() < 0.03


def test_an_unknown_engine_names_the_known_ones():
    with pytest.raises(UsageError, match="magic") as caught:
        make_matter("magic")
    assert "closed-form" in caught.value.hint


def test_a_click_sized_mask_becomes_a_soft_matte():
    image, alpha = soft_blob(softness=3.0)
    trimap = trimap_from_mask(alpha > 0.5, (0.8, 0.8), TrimapBand(3.0, 3.0))
    found = solve_closed_form(image, trimap)
    assert ((found > 0.05) & (found < 0.95)).sum() > 50
    assert np.abs(found - alpha).mean() < 0.01
