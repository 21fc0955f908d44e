"""Automatic masks against those of segment_anything's own generator, on a real, small Sam."""

import numpy as np
import pytest
import torch

from medapp.errors import Cancelled, ComputeError
from medapp.progress import Progress
from medapp.regions.automatic import AutomaticSettings, automatic_masks, point_grid, suppressed
from medapp.regions.region_map import region_map_from_masks
from medapp.regions.sam import SamEngine, shown_pixels
from medapp.regions.sam_decoder import PointDecoder
from medapp.regions.segment_anything_import import load_segment_anything
from medapp.scan.scan import Window
from tests.regions.toy_sam import make_toy_sam

GREY = Window(127.5, 255.0)  # what is shown is what is stored


@pytest.fixture(scope="module")
def toy():
    sam = make_toy_sam()
    with torch.no_grad():  # random heads score and draw next to nothing: make them draw blobs of all sizes
        for net in sam.mask_decoder.output_hypernetworks_mlps:
            net.layers[-1].weight.mul_(1000)
        sam.mask_decoder.iou_prediction_head.layers[-1].weight.mul_(8)
    return sam


@pytest.fixture(scope="module")
def engine(toy):
    return SamEngine(toy.state_dict(), "toy", encoder_dtype=torch.float32)


def picture(height=64, width=64, seed=1):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 80, (height, width))
    values[height // 6 : height // 2, width // 4 : width // 2] += 150
    return values.astype(np.float32)


def lowered(toy, engine, values, share=0.4):
    """Thresholds that a toy's masks pass in part."""
    decoder = engine.point_decoder(values, GREY, Progress())
    points = engine.scaled_points(point_grid(6) * values.shape[::-1], values.shape)
    scores = decoder.decode(points, -1e9).scores.numpy()
    return AutomaticSettings(
        points_per_side=6,
        points_per_batch=16,
        pred_iou_thresh=float(np.quantile(scores, share)),
        stability_score_thresh=0.6,
        stability_score_offset=0.2,
        box_nms_thresh=0.98,
    )


def published(toy, engine, values, settings):
    """What the package's own generator says of the same embedding."""
    generator = load_segment_anything().SamAutomaticMaskGenerator(
        toy,
        points_per_side=settings.points_per_side,
        points_per_batch=settings.points_per_batch,
        pred_iou_thresh=settings.pred_iou_thresh,
        stability_score_thresh=settings.stability_score_thresh,
        stability_score_offset=settings.stability_score_offset,
        box_nms_thresh=settings.box_nms_thresh,
    )
    with torch.no_grad():
        return generator.generate(shown_pixels(values, GREY).round().astype(np.uint8))


def test_the_defaults_are_the_published_ones():
    import inspect

    asked = inspect.signature(load_segment_anything().SamAutomaticMaskGenerator.__init__).parameters
    ours = AutomaticSettings()
    for name in AutomaticSettings.__dataclass_fields__:
        assert getattr(ours, name) == asked[name].default, name
    assert asked["crop_n_layers"].default == asked["min_mask_region_area"].default == 0


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 48), (40, 64)])
def test_masks_equal_those_of_the_published_generator(toy, engine, height, width):
    values = picture(height, width)
    settings = lowered(toy, engine, values)
    ours = automatic_masks(engine, values, GREY, settings=settings)
    theirs = published(toy, engine, values, settings)

    assert len(ours) == len(theirs) > 3
    for place, other in enumerate(theirs):
        assert (ours[place] != other["segmentation"]).mean() < 0.002  # a pixel at the very threshold
        assert ours.scores[place] == pytest.approx(other["predicted_iou"], abs=1e-4)
        assert ours.stability[place] == pytest.approx(other["stability_score"], abs=2e-3)
        assert ours.points_xy[place].tolist() == pytest.approx(other["point_coords"][0], abs=1e-3)
        assert ours.areas[place] == np.count_nonzero(ours[place])
        x, y, w, h = other["bbox"]
        assert np.abs(ours.boxes[place] - [x, y, x + w, y + h]).max() <= 1
    everything = published(toy, engine, values, AutomaticSettings(6, 16, -1e9, -1, 0.2, 2.0))
    assert len(everything) > len(theirs)  # each of the three filters had something to do


@pytest.mark.parametrize("batch", [1, 5])
def test_the_decoder_gives_the_published_numbers(toy, batch):
    torch.manual_seed(3)
    embedding = torch.randn(1, 32, 8, 8)
    points = torch.rand(batch, 2) * 64
    pe = toy.prompt_encoder.get_dense_pe()
    with torch.no_grad():
        sparse, dense = toy.prompt_encoder((points[:, None], torch.ones(batch, 1, dtype=torch.int32)), None, None)
        logits, scores = toy.mask_decoder.predict_masks(embedding, pe, sparse, dense)
    answer = PointDecoder(toy, embedding, pe).decode(points, -1e9)
    assert torch.allclose(answer.logits, logits[:, 1:].flatten(0, 1), atol=1e-4, rtol=1e-4)
    assert torch.allclose(answer.scores, scores[:, 1:].flatten(), atol=1e-5)
    assert answer.points.tolist() == [i for i in range(batch) for _ in range(3)]

    ordered = scores[:, 1:].flatten().sort().values
    middle = float(ordered[1:3].mean())
    some = PointDecoder(toy, embedding, pe).decode(points, middle)
    passed = scores[:, 1:].flatten() > middle
    assert torch.allclose(some.logits, logits[:, 1:].flatten(0, 1)[passed], atol=1e-4, rtol=1e-4)
    assert len(PointDecoder(toy, embedding, pe).decode(points, 1e9).logits) == 0


def test_a_picture_of_another_size_than_the_network_s_gives_masks_of_its_own_size(toy, engine):
    values = picture(90, 130)
    ours = automatic_masks(engine, values, GREY, settings=lowered(toy, engine, values))
    assert len(ours) > 3
    assert all(mask.shape == (90, 130) and mask.any() for mask in ours)
    assert region_map_from_masks(ours, (90, 130)).max() <= len(ours) + 1


def test_the_size_of_a_batch_changes_no_mask(toy, engine):
    values = picture()
    settings = lowered(toy, engine, values)
    other = AutomaticSettings(*(5 if n == 1 else v for n, v in enumerate(vars(settings).values())))
    a, b = (automatic_masks(engine, values, GREY, settings=s) for s in (settings, other))
    assert len(a) == len(b)
    assert (region_map_from_masks(a, (64, 64)) != region_map_from_masks(b, (64, 64))).mean() < 0.01


def test_a_result_is_kept_and_told_apart_by_all_it_depends_on(toy, engine, tmp_path):
    values = picture()
    settings = lowered(toy, engine, values)

    def ask(these=values, window=GREY, how=settings):
        counted = Progress()
        masks = automatic_masks(engine, these, window, counted, how, tmp_path)
        return masks, counted.total > 0

    first, was_made = ask()
    again, was_made_again = ask()
    assert (was_made, was_made_again) == (True, False)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert ask(window=Window(100.0, 255.0))[1]
    assert ask(these=values + 1)[1]
    assert ask(how=lowered(toy, engine, values, 0.7))[1]

    for file in tmp_path.glob("*.npz"):
        file.write_bytes(file.read_bytes()[:-40])  # cut off when the disk was full
    healed, was_made = ask()
    assert was_made
    assert all(np.array_equal(a, b) for a, b in zip(first, healed, strict=True))


def test_nothing_that_passes_means_one_region(engine):
    masks = automatic_masks(engine, picture(), GREY, settings=AutomaticSettings(points_per_side=3, pred_iou_thresh=1e9))
    assert len(masks) == 0
    assert (region_map_from_masks(masks, (64, 64)) == 1).all()


def test_stop_is_noticed_between_batches_and_nothing_is_kept(toy, engine, tmp_path):
    events = []
    settings = lowered(toy, engine, picture())
    progress = Progress(events.append, lambda: any(event.done == 1 for event in events))
    with pytest.raises(Cancelled):
        automatic_masks(engine, picture(), GREY, progress, settings, tmp_path)
    assert (progress.total, progress.unit, progress.done) == (3, "batches", 1)
    assert list(tmp_path.iterdir()) == []


def test_scores_that_are_not_finite_are_said(toy):
    state = {key: value.clone() for key, value in toy.state_dict().items()}
    state["mask_decoder.iou_prediction_head.layers.2.bias"][:] = float("inf")
    broken = SamEngine(state, "broken", encoder_dtype=torch.float32)
    with pytest.raises(ComputeError) as caught:
        automatic_masks(broken, picture(), GREY, settings=AutomaticSettings(points_per_side=2))
    assert caught.value.hint


def test_suppression_is_greedy_by_score_and_keeps_the_order_of_equals():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 7], [40, 40, 50, 50], [0, 0, 10, 10]], dtype=np.int32)
    scores = np.array([0.8, 0.9, 0.95, 0.5, 0.8], dtype=np.float32)
    # 2 takes out 1 (0.78); 0 overlaps with it by exactly 0.7, which stays; 4 is 0 again
    assert suppressed(boxes, scores, 0.7).tolist() == [2, 0, 3]
    assert suppressed(boxes[:0], scores[:0], 0.7).tolist() == []
