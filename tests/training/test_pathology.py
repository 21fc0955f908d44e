"""Pathology super-resolution: what a batch holds, and a run that leaves a model which enlarges a picture."""

import numpy as np
import pytest
import torch

from medapp.errors import TrainingError
from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.restoration.enlarging import KERNELS, enlarged_picture
from medapp.restoration.restorer import NetworkRestorer
from medapp.services.train import train
from medapp.training.degradations.pathology import low_picture
from medapp.training.recipe import read_recipe, recipe_of
from medapp.training.tasks import task_of
from medapp.training.tasks.pathology import regions_of, to_tensor
from tests.training.pathology_places import NAMES, make_pathology_recipe, make_slides, stained


@pytest.fixture
def data(tmp_path):
    return make_slides(tmp_path / "data")


def _task(tmp_path, data, factor=2, **changes):
    recipe = read_recipe(make_pathology_recipe(tmp_path / "r.json", factor, **changes))
    return task_of(recipe, data, tmp_path / "cache", Progress())


@pytest.mark.parametrize(("factor", "side"), [(2, 32), (4, 96)])
def test_a_batch_holds_coarse_crops_under_their_references_also_of_pictures_smaller_than_a_crop(
    tmp_path, data, factor, side
):
    batch = _task(tmp_path, data, factor, crops=[[side, 3]], photons=0).batch(1, 0, 1, 0.0)

    assert batch["degraded"].shape == (3, 3, side // factor, side // factor)
    assert batch["reference"].shape == (3, 3, side, side)
    assert batch["region_map"].shape == (3, side, side)
    assert int(batch["region_map"].max()) > 0
    means = torch.nn.functional.avg_pool2d(batch["reference"], factor)
    assert float((batch["degraded"] - means).abs().mean()) < 0.05  # turned and mirrored alike
    edges = batch["region_map"][:, :, factor - 1 : -1 : factor] == batch["region_map"][:, :, factor::factor]
    inside = batch["region_map"][:, :, ::factor] == batch["region_map"][:, :, 1::factor]
    assert bool(inside.all())  # regions are those of coarse pixels
    assert not bool(edges.all())


def test_other_contrasts_and_magnifications_keep_references_above_their_coarse_pictures(tmp_path, data):
    make_slides(data, NAMES, size=(144, 160))
    task = _task(tmp_path, data, crops=[[32, 12]], contrasts=[1.4, 1.6], halves=True, photons=0)
    batch = task.batch(0, 0, 1, 0.0)
    means = torch.nn.functional.avg_pool2d(batch["reference"], 2)
    assert float((batch["degraded"] - means).abs().mean()) < 0.05
    plain = _task(tmp_path, data, crops=[[32, 12]], photons=0).batch(0, 0, 1, 0.0)
    assert float(batch["reference"].std()) > 1.15 * float(plain["reference"].std())
    assert task.data.collections[0]["slices"] == 2  # halves are no pictures of their own


def test_batches_follow_from_the_step_and_are_shared_among_processes(tmp_path, data):
    task = _task(tmp_path, data, crops=[[32, 3]])
    whole, again = task.batch(5, 0, 1, 0.0), task.batch(5, 0, 1, 0.5)
    assert torch.equal(whole["degraded"], again["degraded"])
    halves = [task.batch(5, rank, 2, 0.0)["reference"] for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), whole["reference"][[0, 2, 1]])


def test_a_moved_colour_costs_something_beside_the_error_of_the_pixels(tmp_path, data):
    plain, coloured = (_task(tmp_path, data, colour_weight=weight) for weight in (0.0, 2.0))
    batch = dict(plain.batch(0, 0, 1, 0.0))
    flat = batch["reference"].mean(dim=(2, 3), keepdim=True).expand_as(batch["reference"])
    for task, moved in ((plain, 0.0), (coloured, 0.1)):
        task.network = torch.nn.Module()
        task.network.forward = lambda degraded, region_map, moved=moved: flat + moved
    losses = [task.loss(batch, 0.0)[0] for task in (plain, coloured)]
    shift = coloured.loss(batch, 0.0)[1]["colour_shift"]
    assert shift == pytest.approx(25.5, abs=0.1)
    assert float(losses[1] - losses[0]) > 0.15


def test_a_run_leaves_a_model_for_slides_that_enlarges_a_picture(tmp_path, data):
    result = train(make_pathology_recipe(tmp_path / "r.json"), tmp_path / "run", 5, data, Progress())

    assert result["is_done"]
    library = ModelLibrary(tmp_path / "run", tmp_path / "none")
    card = library.card("toy-slides")
    assert (card.scale, card.channels, card.modalities) == (2, 3, ("SM", "GM"))
    assert card.region_engine == "region tree"
    assert card.data == ({"name": "phantom", "licence": "CC0", "patients": 1, "slices": 2},)
    picture = stained(7, (37, 41))
    restorer = NetworkRestorer(library.load("toy-slides", "cpu"))
    made = restorer.restore_slice(picture, maps={"region_map": regions_of(picture)}).values
    assert made.shape == (74, 82, 3)
    assert np.abs(made.astype(float) - enlarged_picture(picture, 2, KERNELS["linear"])).mean() < 10


def test_two_pictures_of_one_slide_are_on_one_side(tmp_path, data):
    task = _task(tmp_path, data, tuning_patients=["bmgraz001"])
    assert task.data.patients == 1
    assert {entry["slices"] for entry in task.data.collections} == {1}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"factor": 3}, "factor is 2 or 4"),
        ({"config": {"img_channel": 1, "scale": 2}}, "img_channel 3"),
        ({"crops": [[40, 2]]}, "multiples of 16"),
        ({"cutoffs": [1.2, 0.8]}, "cutoffs rise"),
        ({"focal_beta": -1}, "focal_beta"),
    ],
)
def test_recipes_that_cannot_work_are_refused(changes, told):
    entries = {"name": "x", "task": "pathology-super-resolution", "iterations": 1, **changes}
    with pytest.raises(TrainingError, match=told):
        recipe_of(entries)


def test_a_place_without_large_colour_pictures_is_refused(tmp_path):
    data = make_slides(tmp_path / "small", size=(40, 90))
    with pytest.raises(TrainingError, match="No colour picture is large enough"):
        _task(tmp_path, data)


def test_a_low_picture_keeps_flat_colours_and_interpolation_keeps_corners():
    flat = np.full((32, 32, 3), (200, 90, 160), np.float32)
    np.testing.assert_array_equal(low_picture(flat, 4), flat[:8, :8].astype(np.uint8))
    ramp = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], 16, axis=0)
    for kernel in KERNELS.values():
        made = enlarged_picture(np.repeat(ramp, 3, axis=2), 2, kernel).astype(float)
        np.testing.assert_allclose(made[:, 8:-8:2].mean(axis=(0, 2)), 10 * np.arange(4, 12) - 2.5, atol=0.6)


def test_colours_enter_networks_between_zero_and_one():
    tensor = to_tensor(np.array([[[[0, 51, 255]]]], np.uint8))
    assert tensor.flatten().tolist() == pytest.approx([0.0, 0.2, 1.0])
