"""AMIR around the trunk of a Restormer: at the start it does exactly what the Restormer does."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medapp.networks.architectures.amir import AMIR

_LEVELS = {
    "patch_embed": "patch_embed.proj",
    "encoders.0": "encoder_level1",
    "encoders.1": "encoder_level2",
    "encoders.2": "encoder_level3",
    "downs.0": "down1_2",
    "downs.1": "down2_3",
    "downs.2": "down3_4",
    "ups.0": "up4_3",
    "ups.1": "up3_2",
    "ups.2": "up2_1",
    "reduces.0": "reduce_chan_level3",
    "reduces.1": "reduce_chan_level2",
    "decoders.0": "decoder_level3",
    "decoders.1": "decoder_level2",
    "decoders.2": "decoder_level1",
}
"""Parts of a Restormer, and what AMIR calls them; the others have the same name."""


def around_trunk(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as they are, or those of a Restormer with AMIR's own parts, as drawn, around them.

    The experts answer nothing at first: their last layers are zero, and the logarithm of what they add up to is zero
    then too. The channel routers change nothing at the start anyway.

    Args:
        network: That is to be trained.
        weights: Of the same architecture, or of a Restormer of the same size when it is an AMIR.
    """
    if not isinstance(network, AMIR) or not any(key.startswith("encoders.") for key in weights):
        return dict(weights)
    whole = dict(network.state_dict())
    for key, value in whole.items():
        if ".experts." in key and ".fc2." in key:
            whole[key] = torch.zeros_like(value)
    for key, value in weights.items():
        part = next((part for part in _LEVELS if key.startswith(f"{part}.")), "")
        whole[_LEVELS.get(part, part) + key[len(part) :]] = value
    return whole
