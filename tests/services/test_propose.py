"""A SAM checkpoint, from the file a person points to, to candidates for a click."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medapp.jobs.worker import run
from medapp.paths import cache_dir
from medapp.progress import Progress
from medapp.regions.small_sam import make_small_sam
from medapp.requests import Done, ImportModelRequest, ImportRequest, PromptRequest, Refused
from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import ct_torso
from medapp.services.workspace import Workspace
from medapp.store.project import Project
from tests.regions.toy_sam import make_toy_sam


@pytest.fixture
def workspace():
    made = Workspace()
    yield made
    made.close()


def small_sam():
    return make_small_sam(64, (8, 8, 8, 16, 16), (0, 1, 1, 1, 1), 32, decoder_mlp=32, iou_hidden=32)


@pytest.fixture(params=[make_toy_sam, small_sam], ids=["transformer", "small"])
def scene(request, workspace, tmp_path):
    """A project with one CT, and the id of an imported SAM: ``(project, series_id, model_id)``."""
    path = tmp_path / "p.medapp"
    Project.create(path).close()
    write_series(tmp_path / "ct", ct_torso((3, 64, 48), (20.0, 6.0, 6.0)), "P1")
    torch.save(request.param().state_dict(), tmp_path / "sam_toy.pth")
    series = done(run(ImportRequest(str(path), (str(tmp_path / "ct"),)), workspace, Progress())).series_ids[0]
    model = done(run(ImportModelRequest(str(tmp_path / "sam_toy.pth")), workspace, Progress()))
    return path, series, model


def done(outcome):
    assert isinstance(outcome, Done), outcome
    return outcome.result


def click(scene, workspace, **changes):
    project, series, model = scene
    asked = {"slice_index": 1, "axis": 0, "window_center": 40.0, "window_width": 400.0, "model_id": model}
    asked |= {"include_xy": ((20.0, 30.0),), "ticket": 7} | changes
    return run(PromptRequest(str(project), series, **asked), workspace, Progress())


@pytest.mark.parametrize(("axis", "shape"), [(0, (64, 48)), (1, (3, 48)), (2, (3, 64))])
def test_a_click_on_any_plane_gives_three_candidates_best_first(scene, workspace, axis, shape):
    result = done(click(scene, workspace, axis=axis, include_xy=((20.0, 1.0),)))
    with np.load(result.path) as arrays:
        masks = arrays["masks"]
    assert masks.shape == (3, *shape)
    assert masks.dtype == bool
    assert list(result.scores) == sorted(result.scores, reverse=True)
    assert (result.ticket, result.model[:3]) == (7, "SAM")


def test_the_embedding_outlives_the_worker(scene, workspace):
    first = done(click(scene, workspace))
    kept = list((cache_dir() / "embeddings").glob("*.npy"))
    assert len(kept) == 1
    other = Workspace()
    again = done(click(scene, other))
    other.close()
    assert again.scores == pytest.approx(first.scores, abs=0.01)
    assert list((cache_dir() / "embeddings").glob("*.npy")) == kept


def test_no_prompt_and_no_model_are_refused_in_one_line(scene, workspace):
    for changes in ({"include_xy": ()}, {"model_id": "sam-none"}, {"slice_index": 99}):
        outcome = click(scene, workspace, **changes)
        assert isinstance(outcome, Refused)
        assert outcome.message
        assert outcome.hint
        assert "P1" not in outcome.message


def test_a_checkpoint_that_is_no_sam_is_refused(workspace, tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pth")
    outcome = run(ImportModelRequest(str(tmp_path / "other.pth"), "sam"), workspace, Progress())
    assert isinstance(outcome, Refused)
    assert not list(Path(workspace.library.user_folder).glob("sam*"))
