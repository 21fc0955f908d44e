"""``medapp bench regions``: region trees, clicks in them, and SAM with random weights of the published size."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

from medapp.benchmarks.memory import PeakMemory
from medapp.benchmarks.timing import row, times_ms
from medapp.regions.automatic import AutomaticSettings, automatic_masks
from medapp.regions.prompts import Prompts
from medapp.regions.region_tree_builder import build_region_tree
from medapp.regions.sam import SamEngine, shown_pixels
from medapp.regions.sam_encoder import FastEncoder
from medapp.regions.segment_anything_import import load_segment_anything
from medapp.scan.phantoms import ct_torso
from medapp.scan.scan import Window

WINDOW = Window(40.0, 400.0)
CLICKS = 40


def run() -> list[dict[str, Any]]:
    """Building and clicking at 512 and 1024 px; embedding, clicking and automatic masks with SAM ViT-B at 1024 px."""
    return [*_tree_rows(512), *_tree_rows(1024), *_sam_rows()]


def torso_slice(side: int) -> NDArray[np.float32]:
    """``(side, side)`` HU, a slice of the built-in CT at this size."""
    pixel_mm = 0.75 * 512 / side
    return np.asarray(ct_torso((5, side, side), (4.0, pixel_mm, pixel_mm)).values[2], dtype=np.float32)


def _tree_rows(side: int) -> list[dict[str, Any]]:
    values = torso_slice(side)
    shown = np.clip((values - WINDOW.center) / WINDOW.width + 0.5, 0, 1)
    tree = build_region_tree(values, WINDOW)
    points = np.random.default_rng(1).uniform(0, side, (CLICKS, 2)).tolist()
    data = tree.to_bytes()
    return [
        row(
            f"region tree, {side} px",
            times_ms(lambda: build_region_tree(values, WINDOW), 5),
            "scikit-image felzenszwalb, one level",
            times_ms(lambda: felzenszwalb(shown, scale=100), 3),
        ),
        row(f"click in the tree, {side} px", _each(points, lambda point: tree.region_at((point[0], point[1])))),
        row(f"box in the tree, {side} px", _each(points, lambda p: tree.region_for_box((p[0], p[1], p[1], p[0])))),
        row(f"tree from its file, {side} px", times_ms(lambda: type(tree).from_bytes(data), 10)),
    ]


def _sam_rows() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    sam = load_segment_anything().sam_model_registry["vit_b"]().eval()
    engine = SamEngine(sam.state_dict(), "random")
    pixels = torch.randn(1, 3, 1024, 1024)
    published = torch.inference_mode()(functools.partial(sam.image_encoder, pixels))
    fast = FastEncoder(sam)
    values = torso_slice(512)
    engine.prepare(values, WINDOW)
    points = np.random.default_rng(1).uniform(0, 512, (15, 2)).tolist()
    return [
        row(
            f"SAM ViT-B, embed at 1024 px, {str(fast.dtype).removeprefix('torch.')}",
            times_ms(lambda: fast(pixels), 2),
            "segment-anything as published, float32",
            times_ms(published, 1, warm_up=0),
        ),
        row(
            "SAM ViT-B, click at 512 px, embedding ready",
            _each(points, lambda p: engine.propose(values, WINDOW, Prompts(include_xy=((p[0], p[1]),)))),
        ),
        *_automatic_rows(sam, values),
    ]


def _automatic_rows(sam: Any, values: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Everything SAM sees on a slice, embedding included; no mask of random weights passes, so once all may pass."""
    rows = []
    for name, settings in (
        ("no mask passes", AutomaticSettings()),
        (
            "all 3,072 masks pass",
            AutomaticSettings(pred_iou_thresh=-1e9, stability_score_thresh=-1.0, box_nms_thresh=2.0),
        ),
    ):
        engine = SamEngine(sam.state_dict(), "random")
        memory = PeakMemory()
        taken = times_ms(functools.partial(automatic_masks, engine, values, WINDOW, settings=settings), 1, warm_up=0)
        rows.append(
            row(f"SAM ViT-B, automatic masks at 512 px, 32x32 points, {name}", taken)
            | {"peak_process_mb": round(memory.process_mb())}
        )
    engine.prepare(values, WINDOW)
    few = AutomaticSettings(points_per_side=8)  # one published batch
    generator = load_segment_anything().SamAutomaticMaskGenerator(sam, points_per_side=8)
    generator.predictor.set_image(np.rint(shown_pixels(values, WINDOW)).astype(np.uint8))
    points = generator.point_grids[0] * 512
    memory = PeakMemory()
    ours = times_ms(functools.partial(automatic_masks, engine, values, WINDOW, settings=few), 3)
    held = round(memory.process_mb())
    memory = PeakMemory()
    peer = times_ms(lambda: generator._process_batch(points, (512, 512), [0, 0, 512, 512], (512, 512)), 1)
    return [
        *rows,
        row("SAM ViT-B, automatic masks, 8x8 points, embedding ready", ours, "segment-anything's generator", peer)
        | {"peak_process_mb": held, "peer_peak_process_mb": round(memory.process_mb())},
    ]


def _each(points: list[list[float]], action: Callable[[list[float]], Any]) -> list[float]:
    return [times_ms(functools.partial(action, point), 1, warm_up=0)[0] for point in points]
