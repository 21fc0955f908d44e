"""Whether a network gives the numbers of the published one, by a file of reference tensors."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from medapp.errors import WeightsError
from medapp.networks.checkpoint import fitting_weights, read_tensors
from medapp.networks.registry import build_network

LIMIT = 1e-5
"""Largest relative L2 difference of networks that compute the same in float32."""

_FORMAT_HINT = (
    "A reference file is .safetensors with 'architecture' and 'config' in its metadata, "
    "and the tensors weights.*, input.image and output"
)
_KEYWORDS = {"labels": "region_map"}
"""What reference files call an input, and what networks do."""


@dataclass(frozen=True)
class Parity:
    """How far a network is from its reference.

    Attributes:
        path: The reference file.
        architecture: Its name in the registry.
        max_abs: Largest absolute difference of an output value; infinite where the network's is not finite.
        relative_l2: L2 norm of the difference over that of the reference.
        seconds: The network's run alone, without reading the file.
        limit: Largest ``relative_l2`` that counts as equal.
    """

    path: Path
    architecture: str
    max_abs: float
    relative_l2: float
    seconds: float
    limit: float = LIMIT

    @property
    def is_equal(self) -> bool:
        """Whether the network computes the same as the published one."""
        return self.relative_l2 <= self.limit


def check_parity(path: Path) -> Parity:
    """Rebuild the network that a reference file describes, run its input and compare with its output.

    Raises:
        WeightsError: The file is damaged or no reference file, its architecture is unknown, or weights or input do
            not fit.
    """
    content = read_tensors(path)
    name, config = _description(path)
    weights = {key.removeprefix("weights."): value for key, value in content.items() if key.startswith("weights.")}
    if not weights:
        raise WeightsError("The reference file holds no weights", _FORMAT_HINT)
    network = build_network(name, config)
    network.load_state_dict(fitting_weights(weights, name, config), strict=True)
    if "output" not in content:
        raise WeightsError("The reference file holds no output", _FORMAT_HINT)
    reference = content["output"].double()
    started = time.perf_counter()
    output = _run(network.eval(), _inputs(content)).double()
    seconds = time.perf_counter() - started
    if output.shape != reference.shape:
        raise WeightsError(
            f"The reference output is {list(reference.shape)}; the network gives {list(output.shape)}", _FORMAT_HINT
        )
    difference = output - reference
    norm = float(reference.norm())
    max_abs = float(difference.abs().max()) if difference.numel() else 0.0
    relative = float(difference.norm()) / norm if norm else max_abs
    return Parity(path, name, _or_infinite(max_abs), _or_infinite(relative), seconds)


def _description(path: Path) -> tuple[str, dict[str, Any]]:
    """Architecture and configuration from the metadata of a file whose tensors have been read already."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError("The reference file is not in safetensors format", _FORMAT_HINT) from error
    if not metadata.get("architecture"):
        raise WeightsError("The reference file does not name its architecture", _FORMAT_HINT)
    try:
        config = json.loads(metadata.get("config") or "{}")
    except (ValueError, RecursionError) as error:
        raise WeightsError("The configuration in the reference file is not JSON", _FORMAT_HINT) from error
    if not isinstance(config, dict):
        raise WeightsError("The configuration in the reference file is not a JSON object", _FORMAT_HINT)
    return metadata["architecture"], config


def _inputs(content: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {key.removeprefix("input."): value for key, value in content.items() if key.startswith("input.")}
    if "image" not in named:
        raise WeightsError("The reference file holds no input image", _FORMAT_HINT)
    return {_KEYWORDS.get(key, key): value for key, value in named.items()}


def _run(network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    beside = {key: value for key, value in inputs.items() if key != "image"}
    try:
        with torch.inference_mode():
            output = network(inputs["image"], **beside)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise WeightsError("The network cannot run the reference file's input", str(error)[:200]) from error
    if not isinstance(output, Tensor):
        raise WeightsError("This network gives more than one image; there is no parity check for it", _FORMAT_HINT)
    return output


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
