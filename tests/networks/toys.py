"""Networks at toy size as models of the library: random weights, whose cards say what they take."""

import torch

from medapp.networks.card import Card, Intake
from medapp.networks.checkpoint import keep_weights
from medapp.networks.registry import architecture, build_network

TOYS = {
    "restore_rwkv": {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
    "amir": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
    "drmc": {"res_num": 1, "n_feats": 16, "dims": 2},
    "rat": {"width": 8, "middle_blk_num": 3, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]},
    "sgsgan": {"dims": 2, "channels": [4, 8, 8, 8], "style_width": 8},
}
CT = Intake("CT", "HU", (-1024.0, 3072.0))


def keep_toy(folder, name, config=None, **entries):
    """Write a model with random weights, drawn so that every part of the network has a say; returns its card."""
    torch.manual_seed(0)
    config = TOYS[name] if config is None else config
    network = build_network(name, config)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0.0, 0.05)  # scales that start at zero would hide what lies behind them
    built = architecture(name)
    told = {
        "inputs": built.inputs,
        "size_multiple": built.size_multiple,
        "min_side_px": max(8, built.min_side_px),
        "dims": config.get("dims", 2),
        "region_engine": "region tree" if "region_map" in built.inputs else "",
        "takes": (CT,),
        "task": "toy",
        **entries,
    }
    card = Card(
        id=f"toy-{name.replace('_', '-')}",
        name=f"Toy {built.title}",
        version="1",
        architecture=name,
        config=config,
        sha256="0" * 64,
        **told,
    )
    return keep_weights(network.state_dict(), card, folder)
