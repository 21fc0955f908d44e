"""``medapp restore``: a file in, a file on the right grid out, and a line where it cannot be."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medapp import paths
from medapp.cli.main import main
from medapp.networks.card import MR_SUPER_RESOLUTION, Intake
from tests.networks.toys import keep_toy

MR = Intake("MR", "arbitrary", (0.0, 1000.0), (0.0, 4.0), limits="percentiles")


@pytest.fixture
def scan(tmp_path):
    """A small NIfTI volume ``(X, Y, Z)`` in a place of its own."""
    values = np.random.default_rng(0).gamma(2.0, 100.0, (24, 20, 3)).astype(np.float32)
    affine = np.diag([-2.0, -1.5, 4.0, 1.0])
    affine[:3, 3] = (30.0, 20.0, -10.0)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def ask(scan, model, out, *more):
    return main(["restore", str(scan), "--model", model, "--out", str(out), "--device", "cpu", *more])


@pytest.mark.parametrize("free", [False, True])
def test_a_finer_volume_and_its_trust_map_lie_where_the_scan_lies(scan, tmp_path, capsys, free):
    model = keep_toy(paths.user_models_dir(), "restore_rwkv", takes=(MR,), task=MR_SUPER_RESOLUTION, scale=2).id
    more = ["--free-kspace"] if free else []
    assert ask(scan, model, tmp_path / "fine.nii.gz", "--modality", "MR", "--trust", *more) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["keeps_measured"] is not free
    assert told["size"] == [48, 40, 3]
    assert told["spacing_mm"] == [1.0, 0.75, 4.0]
    assert told["files"] == ["fine.nii.gz", "fine_trust.nii.gz"]
    source = nib.load(scan)
    for name in told["files"]:
        made = nib.load(tmp_path / name)
        assert made.shape == (48, 40, 3)
        np.testing.assert_allclose(made.affine @ (4, 6, 1, 1), source.affine @ (2, 3, 1, 1), atol=1e-4)
    assert np.asarray(nib.load(tmp_path / "fine_trust.nii.gz").dataobj).max() > 0


def test_a_model_that_works_within_regions_finds_them_on_the_way(scan, tmp_path, capsys):
    model = keep_toy(paths.user_models_dir(), "rat", takes=(MR,)).id
    assert ask(scan, model, tmp_path / "made.nii.gz", "--modality", "MR") == 0
    assert json.loads(capsys.readouterr().out)["size"] == [24, 20, 3]


@pytest.mark.parametrize(
    ("model", "out", "more", "told"),
    [
        ("toy-restore-rwkv", "a.nii.gz", [], "--modality"),
        ("toy-restore-rwkv", "a.nii.gz", ["--modality", "CT"], "made for MR"),
        ("filter-nlm", "a.png", ["--modality", "MR"], ".nii.gz"),
        ("nothing", "a.nii.gz", ["--modality", "MR"], "no model"),
    ],
)
def test_what_cannot_be_restored_is_said_in_a_line_and_nothing_is_written(
    scan, tmp_path, capsys, model, out, more, told
):
    keep_toy(paths.user_models_dir(), "restore_rwkv", takes=(MR,))
    assert ask(scan, model, tmp_path / out, *more) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / out).exists()


def test_colours_are_refused(tmp_path, capsys):
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "photo.png")
    assert ask(tmp_path / "photo.png", "filter-nlm", tmp_path / "a.nii.gz") == 2
    assert "in colour" in capsys.readouterr().err
