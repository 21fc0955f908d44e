"""A tiny Medical Matting model in a folder, with random weights that make something of every picture."""

import torch

from medapp.networks.architectures.medical_matting import MedicalMatting
from medapp.networks.card import Card
from medapp.networks.checkpoint import keep_weights

CONFIG = {"num_filters": [4, 6, 6, 8], "hidden_channel": 4, "num_sampling": 3, "use_posterior": False}


def keep_toy_matting(folder, model_id="toy-matting", **changes):
    """Write weights and card; the card."""
    config = {**CONFIG, **changes.pop("config", {})}
    torch.manual_seed(0)
    network = MedicalMatting(**config).eval()
    with torch.no_grad():
        network.prob_unet.fcomb.last_layer.weight.mul_(3)  # masks that differ
    card = Card(
        **{
            "id": model_id,
            "name": "Toy matting",
            "version": "1",
            "architecture": "medical_matting",
            "config": config,
            "task": "matting",
            "serves": "matting",
            "takes": (),
            "sha256": "0" * 64,
            "min_side_px": 8,
            "training": {"crop_px": 32, "crop_scale": "box", "crop_of_box": 1.5},
            **changes,
        }
    )
    weights = network.state_dict()
    return keep_weights(weights, card, folder)
