import numpy as np
import pytest

from medapp.errors import UsageError
from medapp.regions.prompts import Prompts
from medapp.regions.segmenter import TreeEngine
from medapp.scan.scan import Window


def two_squares():
    values = np.random.default_rng(0).normal(0, 0.02, (90, 90)).astype(np.float32)
    values[20:50, 20:50] += 0.6
    values[60:80, 60:80] += 0.9
    return values


@pytest.fixture(scope="module")
def engine():
    return TreeEngine()


WINDOW = Window(0.5, 1.0)


def test_a_click_gives_three_candidates_best_first(engine):
    found = engine.propose(two_squares(), WINDOW, Prompts(include_xy=((35.0, 35.0),)))
    scores = [p.score for p in found]
    assert len(found) == 3
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    wanted = np.zeros((90, 90), dtype=bool)
    wanted[20:50, 20:50] = True
    assert (found[0].mask & wanted).sum() / (found[0].mask | wanted).sum() > 0.9


def test_its_regions_are_never_called_sam(engine):
    found = engine.propose(two_squares(), WINDOW, Prompts(include_xy=((35.0, 35.0),)))
    assert {p.origin for p in found} == {"region tree"}


def test_box_and_points_and_mask_are_answered(engine):
    values = two_squares()
    box = engine.propose(values, WINDOW, Prompts(box_xyxy=(58, 58, 82, 82)))[0].mask
    assert box[70, 70]
    assert not box[30, 30]
    both = engine.propose(values, WINDOW, Prompts(include_xy=((35, 35), (70, 70)), exclude_xy=((5, 5),)))[0].mask
    assert both[35, 35]
    assert both[70, 70]
    assert not both[5, 5]
    start = np.zeros((90, 90), dtype=bool)
    start[65:75, 65:75] = True
    assert engine.propose(values, WINDOW, Prompts(mask=start))[0].mask[62, 62]


def test_no_prompt_is_refused(engine):
    with pytest.raises(UsageError, match="nothing"):
        engine.propose(two_squares(), WINDOW, Prompts())
