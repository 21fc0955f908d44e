"""What a network needs beside the image, made from the degraded crops it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medapp.errors import TrainingError
from medapp.regions.region_map import region_map_from_tree
from medapp.regions.region_tree_builder import build_region_tree
from medapp.regions.segmenter import TREE_NAME
from medapp.scan.scan import Window

REGION_ENGINE = TREE_NAME
"""What finds the regions in training, for the card."""


def region_maps(degraded: NDArray[np.float32], focus: tuple[float, float]) -> Tensor:
    """Region maps of degraded crops, as the app finds them before it restores.

    Args:
        degraded: ``(B, 1, H, W)`` in native units.
        focus: Native values ``(low, high)`` that are told apart, like a display window.

    Returns:
        ``(B, H, W)`` int32.
    """
    window = Window((focus[0] + focus[1]) / 2, focus[1] - focus[0])
    maps = [region_map_from_tree(build_region_tree(crop[0], window)) for crop in degraded]
    return torch.from_numpy(np.stack(maps))


_MAKERS: Mapping[str, Callable[[NDArray[np.float32], tuple[float, float]], Tensor]] = {"region_map": region_maps}


def check_inputs(architecture_name: str, needed: Sequence[str]) -> None:
    """Refuse a recipe whose network needs what images alone do not have.

    Raises:
        TrainingError: Says what is missing.
    """
    for name in needed:
        if name not in _MAKERS:
            raise TrainingError(
                f"{architecture_name} needs a {name.replace('_', ' ')}, which these training data do not have",
                "Choose another architecture in the recipe",
            )


def make_inputs(needed: Sequence[str], degraded: NDArray[np.float32], focus: tuple[float, float]) -> dict[str, Tensor]:
    """Keyword arguments of the network for a batch; see ``check_inputs``."""
    return {name: _MAKERS[name](degraded, focus) for name in needed}
