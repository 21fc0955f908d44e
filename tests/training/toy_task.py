"""A task of seconds for the training loop: one convolution that learns to double its image."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from medapp.progress import Progress
from medapp.training.loop import Trainer
from medapp.training.recipe import Recipe
from medapp.training.run_folder import RunFolder
from medapp.training.tasks.task import DataFacts, Judgement, Sample, marked, own_samples

SAMPLES = 5


class ToyTask:
    """Doubles noise; ``spoil(step)`` may change or refuse the batch of a step."""

    def __init__(self, count=4, spoil=None, network=None):
        torch.manual_seed(0)
        self.network = network or nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Dropout(0.1), nn.Conv2d(3, 1, 1))
        self.data = DataFacts("0" * 64, ("a.nii",), 1)
        self.count, self.spoil = count, spoil
        self.scale = nn.ParameterDict({"of_loss": nn.Parameter(torch.ones(()))})

    def parts(self):
        return {"scale": self.scale}

    def batch(self, step, rank, world, share):
        image = torch.from_numpy(np.random.default_rng([7, step]).standard_normal((self.count, 1, 8, 8), np.float32))
        if self.spoil is not None:
            image = self.spoil(step, image)
        own, is_own = own_samples(self.count, rank, world)
        return marked({"image": image[list(own)]}, is_own)

    def loss(self, batch, share):
        error = (self.network(batch["image"]).float() - 2 * batch["image"]).square().mean()
        learnt = self.scale["of_loss"]
        return error * learnt.exp() - learnt, {"error": float(error.detach())}

    def judge(self, network):
        image = torch.from_numpy(np.random.default_rng(0).standard_normal((SAMPLES, 1, 8, 8), np.float32))
        made = network(image.to(next(network.parameters()).device)).cpu()
        error = float((made - 2 * image).square().mean())
        return Judgement(
            -error,
            {"error": error},
            [Sample(*(x.numpy() for x in (i[0], m[0], 2 * i[0]))) for i, m in zip(image, made, strict=True)],
        )


def toy_recipe(**changes):
    """Twelve iterations with a point of the curves each."""
    entries = {"name": "toy", "iterations": 12, "check_every": 5, "warm_up": 2, "learning_rate": 0.01}
    return Recipe(**{**entries, **changes})


def main(folder: str) -> None:
    """One process of several, without dropout, which each draws for itself."""
    from medapp.training import loop

    loop.NOTE_EVERY = 1
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 1, 1))
    task = ToyTask(count=3, network=network)
    Trainer(toy_recipe(), task, RunFolder(Path(folder)), "cpu").train(5, Progress())


if __name__ == "__main__":
    main(sys.argv[1])
