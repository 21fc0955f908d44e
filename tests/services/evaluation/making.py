"""Toy held-out scans and toy models, so that measuring takes seconds."""

from __future__ import annotations

import csv

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from medapp.networks.card import Card, Intake
from medapp.networks.checkpoint import keep_weights
from medapp.networks.registry import build_network

CONFIG = {"dim": 2, "num_blocks": [0, 0, 0, 1], "num_refinement_blocks": 0}
CT = Intake("CT", "HU", (-1024.0, 3072.0), (-8.0, 24.0))
MR = Intake("MR", "arbitrary", (0.0, 1000.0), (0.0, 4.0), limits="percentiles")


def make_model(folder, model_id="toy", intake=CT, task="ct-denoise", scale=1):
    """A restorer that changes little: small random weights behind its skip connection."""
    torch.manual_seed(0)
    network = build_network("restore_rwkv", CONFIG)
    card = Card(model_id, model_id.title(), "1", "restore_rwkv", task, (intake,), "0" * 64, CONFIG, scale=scale)
    keep_weights(network.state_dict(), card, folder)
    return folder


def make_mr(folder, names=(("ptbp1_t1", "val"), ("ptbp2_t1", "val"), ("ptbp3_t1", "train"))):
    """Write a head of two slices a patient, a slice of air above it, and a label map that is none of them."""
    (folder / "mri").mkdir(parents=True, exist_ok=True)
    rows = []
    y, x = np.mgrid[:72, :80]
    for i, (name, kind) in enumerate(names):
        head = np.hypot(y - 36, x - 40) < 26
        values = (
            np.where(head, 500.0, 0.0) + 300.0 * (np.hypot(y - 30 - i, x - 44) < 9) - 200.0 * (abs(x - 34) < 3) * head
        )
        grain = np.random.default_rng(i).normal(0, 4, values.shape)
        stack = np.stack([values + grain, 0.8 * values + grain.T[:72, :72].mean() + grain, np.zeros_like(values)])
        nib.save(
            nib.Nifti1Image(stack.T.astype(np.float32), np.diag([1.0, 1.0, 4.0, 1.0])), folder / f"mri/{name}.nii.gz"
        )
        labels = nib.Nifti1Image((stack.T > 400).astype(np.uint8), np.diag([1.0, 1.0, 4.0, 1.0]))
        nib.save(labels, folder / f"mri/{name[:-2]}tissue.nii.gz")
        rows += [[f"mri/{name}.nii.gz", "MR T1", kind], [f"mri/{name[:-2]}tissue.nii.gz", "MR T1 label", kind]]
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "modality", "kind", "source repo", "licence", "notes", "sha256", "bytes"])
        writer.writerows([*row, "phantom", "CC0", "", "", ""] for row in rows)
    return folder


PET = Intake("PT", "SUV", (0.0, 80.0), (0.0, 16.0))


def make_pet(folder, names=(("STS_001", "val"), ("STS_002", "val"), ("STS_003", "train")), unit_row="PET FDG (SUV)"):
    """Write a limb of three slices a patient with a hot tumour of known place, and the mask of the tumour."""
    (folder / "pet").mkdir(parents=True, exist_ok=True)
    rows = []
    y, x = np.mgrid[:30, :34]
    for i, (name, kind) in enumerate(names):
        tumour = np.hypot(y - 15 - i, x - 15) < 5
        values = ndimage.gaussian_filter(np.where(np.hypot(y - 15, x - 17) < 12, 0.6, 0.02) + (5.0 + i) * tumour, 1.5)
        grain = np.random.default_rng(i).uniform(0.9, 1.1, (3, *values.shape))
        for ending, stack in (("pet", values * grain), ("gtv", np.stack([tumour] * 3).astype(np.float32))):
            image = nib.Nifti1Image(stack.T.astype(np.float32), np.diag([4.0, 4.0, 3.3, 1.0]))
            nib.save(image, folder / f"pet/{name}_{ending}.nii.gz")
        rows += [[f"pet/{name}_pet.nii.gz", unit_row, kind], [f"pet/{name}_gtv.nii.gz", "PET label", kind]]
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "modality", "kind", "source repo", "licence", "notes", "sha256", "bytes"])
        writer.writerows([*row, "phantom", "CC0", "", "", ""] for row in rows)
    return folder
