"""The depth model that comes with medapp: there, sound, small, honest."""

import numpy as np
import pytest

from medapp.depth.estimator import DepthEstimator
from medapp.networks.library import ModelLibrary
from medapp.paths import shipped_models_dir

MODEL = "depth-pddm-style"


@pytest.fixture
def library(tmp_path):
    if not (shipped_models_dir() / f"{MODEL}.json").exists():
        pytest.skip("the shipped models are not here")
    return ModelLibrary(shipped_models_dir(), tmp_path)


def test_it_loads_runs_and_says_its_limits(library):
    model = library.load(MODEL, "cpu")
    assert model.card.serves == "depth"
    assert (shipped_models_dir() / f"{MODEL}.safetensors").stat().st_size <= 12_000_000
    assert any("no measurement for diagnosis" in limit for limit in model.card.limits)
    sparse = np.zeros((48, 64), dtype=np.float32)
    sparse[10, 10], sparse[30, 50] = 30, 60
    made = DepthEstimator(model).estimate(np.full((48, 64, 3), 120, dtype=np.uint8), sparse)
    assert np.isfinite(made.depth_mm).all()
    assert 10 < np.median(made.depth_mm) < 120


def test_its_card_holds_figures_against_the_fills(library):
    figures = library.card(MODEL).figures["rendered endoscopy"]
    assert all(figures[f"{count} points"]["gain_percent"] > 0 for count in (5, 20, 50, 100, 200, 500, 1000))
