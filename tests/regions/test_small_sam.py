"""A small Sam with medapp's own encoder answers like any other, and its sizes are read off its weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medapp.errors import WeightsError
from medapp.networks.card import read_card
from medapp.progress import Progress
from medapp.regions.automatic import AutomaticSettings, automatic_masks
from medapp.regions.prompts import Prompts
from medapp.regions.sam import SamEngine
from medapp.regions.sam_checkpoint import build_sam, import_checkpoint, infer_shape, is_sam
from medapp.regions.segment_anything_import import load_segment_anything
from medapp.regions.small_sam import drawn_prompts, make_small_sam, predict_each, with_mask

SIZES = {"image_size": 64, "widths": (8, 8, 16, 16, 24), "depths": (0, 1, 2, 1, 1), "prompt_dim": 32, "decoder_mlp": 48}


@pytest.fixture(scope="module")
def toy():
    torch.manual_seed(0)
    return make_small_sam(**SIZES, iou_hidden=40).eval()


def picture(height=50, width=70):
    values = np.random.default_rng(1).normal(90, 5, (height, width, 3))
    values[10:30, 20:45] += 100
    return values.astype(np.uint8)


def test_it_is_a_sam_whose_sizes_are_read_off_its_weights(toy):
    assert isinstance(toy, load_segment_anything().modeling.Sam)
    shape = infer_shape(toy.state_dict())
    assert (shape.image_size, shape.widths, shape.depths) == (64, SIZES["widths"], SIZES["depths"])
    assert (shape.prompt_dim, shape.decoder_mlp, shape.iou_hidden, shape.masks) == (32, 48, 40, 3)
    assert shape.variant == "small"


def test_weights_kept_and_read_again_give_the_same_embedding(toy, tmp_path):
    save_file({key: value.contiguous() for key, value in toy.state_dict().items()}, tmp_path / "small.safetensors")
    assert is_sam(tmp_path / "small.safetensors")
    models = tmp_path / "models"
    models.mkdir()
    model_id = import_checkpoint(tmp_path / "small.safetensors", models)
    card = read_card(models / f"{model_id}.json")
    assert (card.serves, card.config["widths"]) == ("regions", list(SIZES["widths"]))
    engine = SamEngine.load(models / f"{model_id}.safetensors")
    assert engine.name == f"SAM · {card.name.removeprefix('SAM ')}"
    again, _ = build_sam(toy.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    assert torch.equal(again.image_encoder(pixels), toy.image_encoder(pixels))


def test_clicks_and_boxes_are_answered_on_any_size_of_slice(toy):
    engine = SamEngine(toy.state_dict(), "toy")
    for values in (picture(), picture(130, 41)[..., 0].astype(np.float32)):
        click = engine.propose(values, None, Prompts(include_xy=((30.0, 20.0),)))
        box = engine.propose(values, None, Prompts(box_xyxy=(5.0, 5.0, 30.0, 30.0)))
        assert len(click) == len(box) == 3
        assert all(answer.mask.shape == values.shape[:2] for answer in (*click, *box))
        assert [answer.score for answer in click] == sorted((answer.score for answer in click), reverse=True)


def test_automatic_masks_work_with_it(toy):
    everything = AutomaticSettings(points_per_side=3, pred_iou_thresh=-1e9, stability_score_thresh=-1.0)
    masks = automatic_masks(SamEngine(toy.state_dict(), "toy"), picture(), None, settings=everything)
    assert all(mask.shape == (50, 70) for mask in masks)


def test_many_images_at_once_are_decoded_like_one_after_the_other(toy):
    torch.manual_seed(1)
    embeddings = torch.randn(2, 32, 8, 8)
    points = (torch.rand(2, 3, 2) * 64, torch.tensor([[1, 0, 1], [1, 1, 0]]))
    pe = toy.prompt_encoder.get_dense_pe()
    sparse, dense = toy.prompt_encoder(points=points, boxes=None, masks=None)
    logits, scores = predict_each(toy.mask_decoder, embeddings, pe.expand(2, -1, -1, -1), sparse, dense)
    for i in range(2):
        alone = toy.mask_decoder.predict_masks(embeddings[i : i + 1], pe, sparse[i : i + 1], dense[i : i + 1])
        torch.testing.assert_close(logits[i : i + 1], alone[0])
        torch.testing.assert_close(scores[i : i + 1], alone[1])


def test_clicks_and_boxes_are_drawn_where_they_are():
    points = (torch.tensor([[[20.0, 10.0], [50.0, 40.0]]]), torch.tensor([[1, 0]]))
    drawn = drawn_prompts(points, None, 32)[0, 0]
    assert drawn.shape == (32, 32)
    assert drawn.argmax() == 5 * 32 + 10
    assert drawn.argmin() == 20 * 32 + 25
    box = drawn_prompts(None, torch.tensor([[20.0, 10.0, 41.0, 31.0]]), 32)[0, 0]
    assert (box[5:16, 10:21] == 0).all()
    assert box.lt(0).sum() == 32 * 32 - 11 * 11
    assert with_mask(drawn, torch.full((32, 32), 8.0)).min() > drawn.min()


def test_many_points_at_once_are_answered_like_single_clicks(toy):
    engine, values = SamEngine(toy.state_dict(), "toy"), picture()
    points = np.array([[12.0, 9.0], [40.0, 30.0]])
    decoder = engine.point_decoder(values, None, Progress())
    found = decoder.decode(engine.scaled_points(points, (50, 70)), least_score=-1e9)
    for number, (x, y) in enumerate(points.tolist()):
        alone = engine.propose(values, None, Prompts(include_xy=((x, y),)))
        scores = found.scores[found.points == number].clamp(0, 1)
        assert scores.max().item() == pytest.approx(alone[0].score, abs=1e-4)
        best = found.logits[found.points == number][scores.argmax()]
        assert np.mean((engine.full_logits(best[None], (50, 70))[0].numpy() > 0) != alone[0].mask) < 0.01


def test_every_weight_of_the_encoder_gets_a_gradient():
    model = make_small_sam(**SIZES)
    model.image_encoder(torch.randn(1, 3, 64, 64)).pow(3).mean().backward()
    assert all(parameter.grad is not None for parameter in model.image_encoder.parameters())


def test_weights_with_a_part_missing_are_refused_by_name(toy):
    state = dict(toy.state_dict())
    del state["image_encoder.fine.weight"]
    with pytest.raises(WeightsError):
        build_sam(state)
    state = {**toy.state_dict(), "image_encoder.extra": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"image_encoder\.extra"):
        build_sam(state)


@pytest.mark.parametrize("wrong", [{"image_size": 65}, {"widths": (8, 8)}, {"prompt_dim": 30}])
def test_sizes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="multiple"):
        make_small_sam(**{**SIZES, **wrong})
