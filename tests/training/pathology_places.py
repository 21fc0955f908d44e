"""A toy folder of stained pictures with a manifest, and a recipe that takes seconds."""

from __future__ import annotations

import csv
import json

import numpy as np
from PIL import Image

CONFIG = {
    "img_channel": 3,
    "width": 8,
    "middle_blk_num": 3,
    "enc_blk_nums": [1, 1],
    "dec_blk_nums": [1, 1],
}
NAMES = (("bmgraz001_01_0_0", "train"), ("bmgraz001_01_0_256", "train"), ("wbc1", "train"), ("wbc2", "val"))


def stained(seed, size=(72, 80)):
    """``(H, W, 3)`` uint8: dark nuclei on pink, with some texture."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    tissue = np.full((*size, 3), (225.0, 160.0, 195.0)) + random.normal(0, 6, (*size, 1))
    for _ in range(12):
        cy, cx, radius = random.uniform(0, size[0]), random.uniform(0, size[1]), random.uniform(3, 8)
        tissue[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = (90 + 3 * seed, 55, 130)
    return np.clip(tissue, 0, 255).astype(np.uint8)


def make_slides(folder, names=NAMES, size=(72, 80)):
    """Write one small picture a name."""
    rows = []
    for number, (name, kind) in enumerate(names):
        below = "wbc" if name.startswith("wbc") else "he"
        (folder / "pathology" / below).mkdir(parents=True, exist_ok=True)
        Image.fromarray(stained(number, size)).save(folder / "pathology" / below / f"{name}.png")
        words = "blood smear RGB" if below == "wbc" else "H&E histology"
        rows.append([f"pathology/{below}/{name}.png", words, kind, "phantom", "CC0", "dots", "", ""])
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "modality", "kind", "source repo", "licence", "notes", "sha256", "bytes"])
        writer.writerows(rows)
    return folder


def make_pathology_recipe(path, factor=2, **changes):
    """Write the toy recipe."""
    entries = {
        "name": "toy-slides",
        "task": "pathology-super-resolution",
        "config": {**CONFIG, "scale": factor},
        "factor": factor,
        "crops": [[32, 2]],
        "realisations": 2,
        "iterations": 4,
        "warm_up": 1,
        "check_every": 2,
        "tuning_patients": ["wbc1"],
        **changes,
    }
    path.write_text(json.dumps(entries))
    return path
