"""Toy places with references: a folder with a manifest, a plain folder, DICOM, a project, an exported data set."""

from __future__ import annotations

import csv

import nibabel as nib
import numpy as np


def picture(number, side=64):
    """A smooth thing with grain on a quiet ground, ``(side, side + 8)``, 0..1000; every number gives another."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:side, : side + 8]
    inside = (y - side / 2) ** 2 + (x - side / 2 - number % 5) ** 2 < (side * 0.36) ** 2
    return inside * (
        400 + 100 * np.sin(y / 5 + number) + 40 * random.standard_normal(inside.shape)
    ) + 5 * random.random(inside.shape)


def save_nifti(path, slices, spacing_mm=1.0):
    """Slices ``(Z, Y, X)`` as float32 NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.stack(slices).astype(np.float32)
    image = nib.Nifti1Image(values.transpose(2, 1, 0), np.diag([-spacing_mm, -spacing_mm, 5.0, 1.0]))
    nib.save(image, path)
    return path


def save_manifest(folder, rows):
    """Rows of ``(path, modality, kind[, notes])``."""
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "modality", "kind", "source repo", "licence", "notes", "sha256", "bytes"])
        for path, modality, kind, *notes in rows:
            writer.writerow([path, modality, kind, "phantoms", "CC0", *(notes or [""]), "", ""])


def mr_place(folder, patients=("a", "b", "c", "d")):
    """MR scans of two slices a patient with a label map beside the first; the last patient is for validation."""
    rows = []
    for number, name in enumerate(patients):
        save_nifti(folder / f"mri/{name}_t1.nii.gz", [picture(10 * number), picture(10 * number + 1)])
        rows.append((f"mri/{name}_t1.nii.gz", "MR T1", "val" if name == patients[-1] else "train"))
    save_nifti(folder / f"mri/{patients[0]}_tissue.nii.gz", [(picture(0) > 100) * 1.0 + (picture(0) > 420)])
    rows.append((f"mri/{patients[0]}_tissue.nii.gz", "MR T1 label", "train"))
    save_manifest(folder, rows)
    return folder


def three_modalities(folder, patients=("a", "b", "c", "d")):
    """CT, MR and PET of each patient, one or two slices; the last patient is for validation."""
    rows = []
    for number, name in enumerate(patients):
        disc = np.where(picture(number) > 100, 40.0 + 10 * number, -1000.0)
        kind = "val" if name == patients[-1] else "train"
        save_nifti(folder / f"ct/{name}.nii.gz", [disc], 2.0)
        save_nifti(folder / f"mri/{name}_t1.nii.gz", [picture(10 * number), picture(10 * number + 1)])
        save_nifti(folder / f"pet/{name}_pet.nii.gz", [picture(20 + number, 40) / 200], 4.0)
        rows += [(f"ct/{name}.nii.gz", "CT", kind), (f"mri/{name}_t1.nii.gz", "MR T1", kind)]
        rows.append((f"pet/{name}_pet.nii.gz", "PET FDG (SUV)", kind))
    save_manifest(folder, rows)
    return folder
