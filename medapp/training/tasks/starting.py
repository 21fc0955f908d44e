"""The network a run begins with: at random, or from the weights of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from medapp import paths
from medapp.errors import TrainingError, WeightsError
from medapp.networks.architectures.medical_matting import MedicalMatting, with_a_silent_channel
from medapp.networks.checkpoint import read_tensors
from medapp.networks.registry import architecture, build_network
from medapp.training.recipe import Recipe
from medapp.training.tasks.trunk import around_trunk

_POSTERIOR, _PRIOR = "prob_unet.posterior.", "prob_unet.prior."


def starting_network(recipe: Recipe) -> nn.Module:
    """A network of the recipe's architecture, with the weights of ``start_from`` where it names some.

    Raises:
        TrainingError: The weights cannot be read, or belong to another network.
    """
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.architecture, recipe.config)
    if not recipe.start_from:
        silence_output(network)
        return network
    try:
        weights = architecture(recipe.architecture).adapt(dict(read_tensors(weights_file(recipe.start_from))))
    except WeightsError as error:
        raise TrainingError(f"The training cannot start from these weights: {error.message}", error.hint) from error
    load_into(network, around_trunk(network, weights))
    return network


def weights_file(start_from: str) -> Path:
    """The file itself, or that of a model of the user, or of one that came with medapp."""
    for place in (Path(start_from), *(folder / f"{start_from}.safetensors" for folder in _model_folders())):
        if place.is_file():
            return place
    raise TrainingError("There are no weights to start from at this place", "start_from is a model's id or a file")


def _model_folders() -> tuple[Path, ...]:
    return paths.user_models_dir(), paths.shipped_models_dir()


def load_into(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights into a network; one that was kept without its posterior gets it back from its prior.

    A posterior that is the prior with silent weights for the mask starts with no divergence at all. A Medical Matting
    network that looks at one channel more than they do, the rough mask, begins as blind to it as they were.

    Raises:
        TrainingError: They belong to another network.
    """
    expected = network.state_dict()
    whole = dict(weights)
    if isinstance(network, MedicalMatting):
        whole = with_a_silent_channel(network, whole)
    for key, tensor in expected.items():
        if key.startswith(_POSTERIOR) and key not in whole:
            of_prior = whole.get(_PRIOR + key.removeprefix(_POSTERIOR))
            if of_prior is None:
                continue
            whole[key] = torch.zeros_like(tensor)
            whole[key][tuple(slice(0, size) for size in of_prior.shape)] = of_prior
    try:
        network.load_state_dict(whole)
    except RuntimeError as error:
        raise TrainingError(
            "The weights to start from belong to another network", "Take architecture and config from their card"
        ) from error


def silence_output(network: nn.Module) -> None:
    """Silence the last layer of a restorer: it starts as "leave the image alone", never worse than doing nothing."""
    output = next(
        (getattr(network, name) for name in ("output", "ending", "tail_conv") if hasattr(network, name)), None
    )
    if isinstance(output, nn.Conv2d | nn.Conv3d):
        nn.init.zeros_(output.weight)
        if output.bias is not None:
            nn.init.zeros_(output.bias)
