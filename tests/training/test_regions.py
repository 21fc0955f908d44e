"""Training of a small SAM, at toy size: crops with clicks, losses, learning, a card the app can use."""

import json

import numpy as np
import pytest
import torch

from medapp.errors import TrainingError
from medapp.networks.card import read_card
from medapp.progress import Progress
from medapp.regions.prompts import Prompts
from medapp.regions.sam import SamEngine
from medapp.scan.scan import Window
from medapp.services.train import train
from medapp.training.losses.regions import cut_target, mask_losses, overlaps, prompted_loss
from medapp.training.recipe import recipe_of
from medapp.training.region_crops import SHAPES, RegionCrops
from medapp.training.region_data import CUT_OUTS, RegionData, RegionPicture
from medapp.training.tasks.regions import RegionsTask
from tests.services.evaluation.test_regions import data as lesions  # noqa: F401 - a fixture

CONFIG = {"image_size": 64, "widths": [8, 8, 16, 16, 16], "depths": [0, 1, 1, 1, 1], "prompt_dim": 32}
CONFIG |= {"decoder_mlp": 32, "iou_hidden": 32, "mask_channels": 4}
ENTRIES = {"task": "regions", "name": "toy-sam", "config": CONFIG, "crops": [[64, 2]], "iterations": 2}
ENTRIES |= {"shares": {"nuclei": 1.0}, "architecture": "sam"}


def discs(seed, is_colour=False):
    """Three bright discs on a dark ground, of patient ``seed``."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:60, :80]
    values, labels = random.normal(40, 4, (60, 80)), np.zeros((60, 80), dtype=np.int32)
    for number in range(3):
        disc = (y - random.integers(12, 48)) ** 2 + (x - 14 - 25 * number) ** 2 < 100
        values[disc] += 120
        labels[disc] = number + 1
    if is_colour:
        values = np.dstack([values] * 3).clip(0, 255).astype(np.uint8)
    window = None if is_colour else Window(127.5, 255.0)
    return RegionPicture("nuclei", f"{seed}.png", str(seed), values, window, (labels,))


def region_data(*pictures):
    found = {}
    for picture in pictures:
        found.setdefault(picture.source, []).append(picture)
    return RegionData(found, tuple(p.name for p in pictures), "0" * 64, {"CC0": len(pictures)})


@pytest.mark.parametrize("side", [32, 64])
def test_a_batch_repeats_and_its_clicks_and_boxes_belong_to_its_things(side):
    pictures = {"nuclei": [discs(1), discs(2, is_colour=True)]}
    crops = RegionCrops(pictures, {"nuclei": 0.8, SHAPES: 0.2}, canvas=64, seed=3)
    batch, again = crops.batch(7, side, 6, 2), crops.batch(7, side, 6, 2)

    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert batch["pixels"].shape == (6, 3, side, side)
    assert torch.isfinite(batch["pixels"]).all()
    assert ((batch["offset"] >= 0) & (batch["offset"] + side <= 64) & (batch["offset"] % 8 == 0)).all()
    for mask, (x, y), box in zip(
        batch["masks"].flatten(0, 1),
        batch["points"].flatten(0, 1).int().tolist(),
        batch["boxes"].flatten(0, 1),
        strict=True,
    ):
        assert mask[y, x]
        assert box[0] < box[2]
        assert box[1] < box[3]


def test_discs_stay_brighter_than_the_ground_however_they_are_turned():
    crops = RegionCrops({"nuclei": [discs(1)]}, {"nuclei": 1.0}, canvas=64)
    brighter = []
    for step in range(30):
        batch = crops.batch(step, 64, 1, 3)
        pixels, mask = batch["pixels"][0].mean(0), batch["masks"][0].any(0)
        ground = ~mask & (pixels != 0)  # 0 lies beyond the picture
        brighter.append(float(pixels[mask].mean() > pixels[ground].mean()))
    assert 0.7 < np.mean(brighter) < 1  # some crops are inverted


def test_cut_outs_cover_what_lies_behind_them():
    y, x = np.mgrid[:40, :40]
    disc = ((y - 20) ** 2 + (x - 20) ** 2 < 200).astype(np.int32)
    red = np.zeros((40, 40, 3), dtype=np.uint8)
    red[disc > 0] = (250, 10, 10)
    cut_out = RegionPicture(CUT_OUTS, "red", "red", red, None, (disc,))
    crops = RegionCrops({CUT_OUTS: [cut_out]}, {CUT_OUTS: 1.0}, canvas=64)
    batch = crops.batch(0, 64, 12, 1)
    spread = (batch["pixels"].amax(1) - batch["pixels"].amin(1))[:, None]
    within, beyond = spread[batch["masks"]].mean(), spread[~batch["masks"]].mean()
    assert within > 1.5 * beyond  # red on grey, but for the crops that are shown in grey


def test_losses_fall_with_the_answer_and_the_best_candidate_counts():
    target = torch.zeros(1, 16, 16)
    target[:, 4:12, 4:12] = 1
    right, wrong = 16 * target - 8, 8 - 16 * target
    logits = torch.stack([wrong, right, wrong, wrong], dim=1)
    each = mask_losses(logits, target)
    assert each[0, 1] < 0.1 < each[0, 0]
    assert overlaps(logits, target).tolist() == [[0, 1, 0, 0]]
    weights = torch.tensor([20.0, 1.0, 1.0])
    perfect = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert prompted_loss(logits, perfect, target, True, weights) < prompted_loss(
        torch.stack([wrong] * 4, dim=1), perfect, target, True, weights
    )
    assert prompted_loss(logits, perfect, target, True, weights) < prompted_loss(
        logits, 1 - perfect, target, True, weights
    )


def test_targets_hold_the_share_of_each_pixel():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = True
    assert cut_target(mask, 2)[0].tolist() == [[0.25, 0], [0, 0]]


def test_it_learns_to_find_a_clicked_disc():
    entries = {**ENTRIES, "learning_rate": 3e-3, "warm_up": 5, "things": 2}
    task = RegionsTask(recipe_of(entries), region_data(*(discs(n) for n in range(6))))
    optimiser = torch.optim.AdamW(task.network.parameters(), lr=3e-3)
    losses = []
    for step in range(24):
        torch.manual_seed(step)
        loss, parts = task.loss(task.batch(step, 0, 1, 0.0), 0.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        assert set(parts) == {"first", "second"}
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    with torch.inference_mode():
        found = task.judge(task.network.eval())
    assert set(found.figures) == {"iou_1", "iou_3", "nuclei"}
    assert 0 <= found.score <= 1
    assert found.samples[0].result.shape == (60, 80)


def test_shares_of_several_processes_make_up_the_batch():
    task = RegionsTask(recipe_of(ENTRIES), region_data(*(discs(n) for n in range(4))))
    whole, first, second = (task.batch(3, rank, world, 0.0) for rank, world in ((0, 1), (0, 2), (1, 2)))
    assert torch.equal(torch.cat([first["pixels"], second["pixels"]]), whole["pixels"])
    assert torch.equal(whole["plan"][0], whole["plan"][1])


def test_a_recipe_becomes_a_sam_that_the_app_can_load(lesions, tmp_path):  # noqa: F811
    manifest = lesions / "MANIFEST.csv"
    manifest.write_text(manifest.read_text().replace(",val,", ",train,"))
    recipe = tmp_path / "toy-sam.recipe.json"
    recipe.write_text(json.dumps({**ENTRIES, "shares": {"skin lesions": 1.0, SHAPES: 0.2}}))
    told = train(recipe, tmp_path / "run", 1e9, lesions, Progress())

    assert told["is_done"]
    card = read_card(tmp_path / "run" / "toy-sam.json")
    assert (card.serves, card.architecture, card.name) == ("regions", "sam", "SAM small")
    assert any("no published SAM weights" in limit for limit in card.limits)
    assert card.training["patients"] == 3
    engine = SamEngine.load(tmp_path / "run" / "toy-sam.safetensors")
    answers = engine.propose(discs(9).values, Window(127.5, 255.0), Prompts(include_xy=((14.0, 30.0),)))
    assert len(answers) == 3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"crops": [[96, 1]]}, "at most image_size"),
        ({"shares": {}}, "shares"),
        ({"clicks": [1, 3]}, "clicks rise"),
        ({"architecture": "rat"}, "architecture is sam"),
    ],
)
def test_recipes_that_cannot_work_are_refused(wrong, told):
    with pytest.raises(TrainingError, match=told):
        recipe_of({**ENTRIES, **wrong})


def test_sources_that_are_not_there_are_named():
    with pytest.raises(TrainingError, match="no source"):
        RegionsTask(recipe_of({**ENTRIES, "shares": {"skin lesions": 1.0}}), region_data(discs(1), discs(2)))


def test_a_configuration_that_fits_no_sam_is_refused():
    with pytest.raises(TrainingError, match="small SAM"):
        RegionsTask(recipe_of({**ENTRIES, "config": {**CONFIG, "widths": [7] * 5}}), region_data(discs(1), discs(2)))
