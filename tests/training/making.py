"""A toy training folder: phantoms as NIfTI files with a manifest, and a recipe that takes seconds."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np

RECIPE = {
    "name": "toy",
    "config": {"dim": 2, "num_blocks": [0, 0, 0, 1], "num_refinement_blocks": 0},
    "crops": [[32, 2]],
    "noise_fields": 1,
    "iterations": 6,
    "warm_up": 1,
    "schedule": "flat",
    "cool_down": 2,
    "check_every": 3,
    "tuning_patients": ["b"],
}


def make_data(folder, names=(("a", "train"), ("b", "train"), ("c", "val")), noise=0.0):
    """Write one small CT slice a patient, clean unless noise (HU) is asked for."""
    (folder / "ct").mkdir(parents=True)
    rows = []
    for i, (name, kind) in enumerate(names):
        y, x = np.mgrid[:64, :72]
        values = np.where((y - 32) ** 2 + (x - 36) ** 2 < (24 + i) ** 2, 40.0, -1000.0)
        values[28:34, 30:40] += 80.0 + i
        values += noise * np.random.default_rng(i).standard_normal(values.shape)
        image = nib.Nifti1Image(values.T[:, :, None].astype(np.int16), np.diag([-2.0, -2.0, 5.0, 1.0]))
        nib.save(image, folder / "ct" / f"{name}.nii.gz")
        rows.append([f"ct/{name}.nii.gz", "CT", kind, "phantom", "CC0", "a disc", "", ""])
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "modality", "kind", "source repo", "licence", "notes", "sha256", "bytes"])
        writer.writerows(rows)
    return folder


def make_recipe(path, **changes):
    """Write the toy recipe."""
    path.write_text(json.dumps({**RECIPE, **changes}))
    return path
