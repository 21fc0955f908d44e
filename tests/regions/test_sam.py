import importlib.util
import sys

import numpy as np
import pytest
import torch

from medapp.errors import MedappError, UsageError, WeightsError
from medapp.networks.card import read_card
from medapp.regions.prompts import Prompts
from medapp.regions.sam import SamEngine, shown_pixels
from medapp.regions.sam_checkpoint import build_sam, import_checkpoint, infer_shape
from medapp.regions.sam_encoder import FastEncoder
from medapp.regions.segment_anything_import import batched_nms, load_segment_anything
from medapp.scan.scan import Window
from tests.regions.toy_sam import make_toy_sam

WINDOW = Window(40.0, 400.0)


@pytest.fixture(scope="module")
def toy():
    return make_toy_sam()


@pytest.fixture
def checkpoint(toy, tmp_path):
    torch.save(toy.state_dict(), tmp_path / "sam_toy.pth")
    return tmp_path / "sam_toy.pth"


def slice_values(height=50, width=70, seed=1):
    rng = np.random.default_rng(seed)
    values = rng.normal(-60, 20, (height, width))
    values[10:30, 20:45] += 150
    return values.astype(np.float32)


def test_importing_segment_anything_leaves_no_false_torchvision_behind():
    load_segment_anything()
    if "torchvision" in sys.modules:
        assert sys.modules["torchvision"].__spec__ is not None
    assert importlib.util.find_spec("torchvision") is None or "torchvision" in sys.modules


def test_the_stand_in_suppresses_overlaps_within_a_group_only():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [1, 1, 10, 10], [50, 50, 60, 60]])
    kept = batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([0, 0, 1, 0]), iou_threshold=0.5)
    assert kept.tolist() == [0, 2, 3]


def test_dimensions_are_read_off_the_weights(toy):
    shape = infer_shape(toy.state_dict())
    assert (shape.image_size, shape.patch_size, shape.embed_dim, shape.depth, shape.heads) == (64, 8, 32, 3, 2)
    assert (shape.window_size, shape.global_blocks, shape.prompt_dim, shape.masks) == (3, (1,), 32, 3)


@pytest.mark.parametrize(("name", "heads"), [("vit_b", 12), ("vit_l", 16), ("vit_h", 16)])
def test_the_published_sizes_are_recognised(name, heads):
    with torch.device("meta"):
        state = load_segment_anything().sam_model_registry[name]().state_dict()
    shape = infer_shape(state)
    assert (shape.variant, shape.heads, shape.image_size, shape.window_size) == (name, heads, 1024, 14)
    assert shape.global_blocks == {"vit_b": (2, 5, 8, 11), "vit_l": (5, 11, 17, 23), "vit_h": (7, 15, 23, 31)}[name]


def test_the_rebuilt_network_is_the_same_network(toy):
    rebuilt, _ = build_sam(toy.state_dict())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(rebuilt.image_encoder(pixels), toy.image_encoder(pixels))


def test_the_fast_encoder_agrees_with_the_published_one(toy):
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = toy.image_encoder(pixels)
    assert torch.allclose(FastEncoder(toy, torch.float32)(pixels), expected, atol=1e-5)
    close = FastEncoder(toy, torch.bfloat16)(pixels)
    assert float((close - expected).abs().mean() / expected.abs().mean()) < 0.05
    assert next(toy.image_encoder.parameters()).dtype == torch.float32  # the model itself is left alone


def test_answers_equal_those_of_the_published_predictor(toy):
    values = slice_values(48, 64)
    engine = SamEngine(toy.state_dict(), "toy", encoder_dtype=torch.float32)
    points = Prompts(include_xy=((30.0, 20.0),))
    proposals = engine.propose(values, WINDOW, points)

    predictor = load_segment_anything().SamPredictor(toy)
    predictor.set_torch_image(torch.from_numpy(shown_pixels(values, WINDOW)).permute(2, 0, 1)[None], (48, 64))
    masks, scores, _ = predictor.predict(np.array([[30.0, 20.0]]), np.array([1]))
    order = np.argsort(-scores)
    assert [p.score for p in proposals] == pytest.approx(np.clip(scores[order], 0, 1), abs=1e-4)
    for proposal, mask in zip(proposals, masks[order], strict=True):
        assert (proposal.mask != mask).mean() < 0.002
        assert proposal.mask.shape == (48, 64)


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(include_xy=((30, 20), (35, 22)), exclude_xy=((5, 5),)),
        Prompts(box_xyxy=(45, 30, 20, 10)),
        Prompts(mask=slice_values() > 50),
        Prompts(include_xy=((30, 20),), box_xyxy=(18, 8, 47, 32), mask=slice_values() > 50),
    ],
    ids=["points", "box", "mask", "all"],
)
def test_every_kind_of_prompt_gives_three_candidates_best_first(toy, prompts):
    proposals = SamEngine(toy.state_dict(), "toy").propose(slice_values(), WINDOW, prompts)
    scores = [p.score for p in proposals]
    assert len(proposals) == 3
    assert scores == sorted(scores, reverse=True)
    assert all(p.mask.shape == (50, 70) and p.mask.dtype == bool for p in proposals)
    assert all(p.origin.startswith("SAM · ") for p in proposals)


def test_prompts_change_the_answer(toy):
    engine = SamEngine(toy.state_dict(), "toy")
    one = engine.propose(slice_values(), WINDOW, Prompts(include_xy=((30, 20),)))
    other = engine.propose(slice_values(), WINDOW, Prompts(include_xy=((5, 45),)))
    assert [p.score for p in one] != [p.score for p in other]


def test_colour_images_are_segmented_as_they_are(toy):
    colours = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    proposals = SamEngine(toy.state_dict(), "toy").propose(colours, None, Prompts(include_xy=((30, 20),)))
    assert proposals[0].mask.shape == (40, 60)


def test_the_embedding_is_kept_on_disk_by_pixels_window_and_model(toy, tmp_path, monkeypatch):
    values = slice_values()
    prompts = Prompts(include_xy=((30, 20),))
    first = SamEngine(toy.state_dict(), "toy", tmp_path).propose(values, WINDOW, prompts)
    assert len(list(tmp_path.glob("*.npy"))) == 1

    again = SamEngine(toy.state_dict(), "toy", tmp_path)
    assert again.is_ready(values, WINDOW)
    assert not again.is_ready(values, Window(0.0, 100.0))
    assert not again.is_ready(slice_values(seed=2), WINDOW)
    assert not SamEngine(toy.state_dict(), "another", tmp_path).is_ready(values, WINDOW)
    monkeypatch.setattr(FastEncoder, "__call__", lambda *_: pytest.fail("embedded again"))
    second = again.propose(values, WINDOW, prompts)
    assert [p.score for p in second] == pytest.approx([p.score for p in first], abs=0.01)
    assert (first[0].mask != second[0].mask).mean() < 0.02


def test_a_damaged_cache_file_is_made_again(toy, tmp_path):
    values, prompts = slice_values(), Prompts(include_xy=((30, 20),))
    SamEngine(toy.state_dict(), "toy", tmp_path).propose(values, WINDOW, prompts)
    file = next(tmp_path.glob("*.npy"))
    file.write_bytes(file.read_bytes()[:200])
    assert len(SamEngine(toy.state_dict(), "toy", tmp_path).propose(values, WINDOW, prompts)) == 3
    assert np.load(file).ndim == 3


def test_an_imported_checkpoint_becomes_a_model_with_a_card(checkpoint, toy, tmp_path):
    model_id = import_checkpoint(checkpoint, tmp_path / "models")
    card = read_card(tmp_path / "models" / f"{model_id}.json")
    assert (card.architecture, card.id, card.config["embed_dim"]) == ("sam", model_id, 32)
    engine = SamEngine.load(tmp_path / "models" / f"{model_id}.safetensors")
    expected = SamEngine(toy.state_dict(), "toy").propose(slice_values(), WINDOW, Prompts(include_xy=((30, 20),)))
    found = engine.propose(slice_values(), WINDOW, Prompts(include_xy=((30, 20),)))
    assert [p.score for p in found] == [p.score for p in expected]


def test_weights_that_changed_after_import_are_refused(checkpoint, tmp_path):
    model_id = import_checkpoint(checkpoint, tmp_path / "models")
    weights = tmp_path / "models" / f"{model_id}.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsError, match="changed"):
        SamEngine.load(weights)


@pytest.mark.parametrize("wrap", [lambda s: {"model": s}, lambda s: {f"module.{k}": v for k, v in s.items()}])
def test_wrapped_and_prefixed_checkpoints_are_unwrapped(toy, tmp_path, wrap):
    torch.save(wrap(toy.state_dict()), tmp_path / "wrapped.pth")
    assert import_checkpoint(tmp_path / "wrapped.pth", tmp_path / "models").startswith("sam-")


def test_other_weights_are_refused_with_the_first_differing_keys(toy, tmp_path):
    torch.save({"conv.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="not SAM"):
        import_checkpoint(tmp_path / "other.pth", tmp_path / "models")
    state = dict(toy.state_dict())
    del state["mask_decoder.iou_token.weight"]
    state["extra"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"missing: mask_decoder\.iou_token\.weight; surplus: extra"):
        build_sam(state)
    assert not list((tmp_path / "models").glob("*"))


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(),
        Prompts(exclude_xy=((1, 1),)),
        Prompts(include_xy=((float("nan"), 1),)),
        Prompts(box_xyxy=(3, 3, 3, 9)),
        Prompts(mask=np.zeros((2, 2), dtype=bool)),
    ],
)
def test_prompts_that_point_at_nothing_are_refused_in_one_line(toy, prompts):
    with pytest.raises(UsageError) as caught:
        SamEngine(toy.state_dict(), "toy").propose(slice_values(), WINDOW, prompts)
    assert isinstance(caught.value, MedappError)
    assert caught.value.hint
