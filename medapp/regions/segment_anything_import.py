"""Imports ``segment_anything`` on machines without a working torchvision.

The package wants four names of torchvision and uses them only at its edges. Where a working torchvision is installed it
is used; elsewhere four stand-ins are put in its place for the length of the import and taken away again: left there,
every library that asks for torchvision would stumble over them.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

log = logging.getLogger(__name__)

_NAMES = (
    "torchvision",
    "torchvision.ops",
    "torchvision.ops.boxes",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)
_lock = threading.Lock()


def load_segment_anything() -> Any:
    """The package ``segment_anything``, imported once."""
    with _lock:
        if "segment_anything" in sys.modules:
            return sys.modules["segment_anything"]
        if _torchvision_works():
            return importlib.import_module("segment_anything")
        return _import_with_stand_ins()


def _torchvision_works() -> bool:
    # PyPI's torchvision beside CPU torch raises RuntimeError, not ImportError, and leaves halves of itself behind.
    present = {name for name in sys.modules if name.split(".")[0] == "torchvision"}
    try:
        boxes = importlib.import_module("torchvision.ops.boxes")
        importlib.import_module("torchvision.transforms.functional")
        boxes.batched_nms(torch.zeros(1, 4), torch.ones(1), torch.zeros(1), 0.5)
    except Exception as error:  # whatever it raises, it cannot be used
        log.debug("torchvision cannot be used: %s", error)
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision" and n not in present]:
            del sys.modules[name]
        return False
    return True


def _import_with_stand_ins() -> Any:
    before = {name: sys.modules[name] for name in list(sys.modules) if name.split(".")[0] == "torchvision"}
    for name in before:
        del sys.modules[name]
    for name in _NAMES:
        sys.modules[name] = ModuleType(name)
    boxes: Any = sys.modules["torchvision.ops.boxes"]
    boxes.batched_nms, boxes.box_area = batched_nms, box_area
    functional: Any = sys.modules["torchvision.transforms.functional"]
    functional.resize, functional.to_pil_image = resize, to_pil_image
    try:
        return importlib.import_module("segment_anything")
    except BaseException:
        for name in [n for n in sys.modules if n.split(".")[0] == "segment_anything"]:
            del sys.modules[name]
        raise
    finally:
        for name in _NAMES:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def box_area(boxes: Tensor) -> Tensor:
    """``(N, 4)`` boxes ``x0, y0, x1, y1`` to their ``(N,)`` areas."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression of overlapping boxes within each group; indices of the kept ones, best first."""
    order = torch.argsort(scores, descending=True)
    areas = box_area(boxes)
    kept: list[int] = []
    while len(order):
        best, order = int(order[0]), order[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[order, :2])
        high = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        overlap = shared / (areas[best] + areas[order] - shared).clamp(min=1e-9)
        order = order[(overlap <= iou_threshold) | (idxs[order] != idxs[best])]
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


def to_pil_image(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture as it is: our ``resize`` takes arrays."""
    return image


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 to ``(*size, 3)`` uint8, bilinear and antialiased as Pillow's."""
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    return np.asarray(resized[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy())
