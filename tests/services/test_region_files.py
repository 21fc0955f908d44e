"""Label maps of files, without a project and without a window."""

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medapp.cli.main import main
from medapp.errors import Cancelled
from medapp.export.nifti import write_nifti
from medapp.progress import Progress
from medapp.scan.geometry import Geometry
from medapp.scan.phantoms import ct_torso
from medapp.services.region_files import regions_of_file
from medapp.services.workspace import Workspace


@pytest.fixture
def ct_file(tmp_path):
    phantom = ct_torso((3, 72, 64), (20.0, 6.0, 5.0))
    values = np.asarray(phantom.values, dtype=np.float32)
    write_nifti(
        tmp_path / "ct.nii.gz",
        list(values),
        values.shape,
        np.dtype(np.float32),
        Geometry.from_spacing((20.0, 6.0, 5.0)),
    )
    return tmp_path / "ct.nii.gz"


def test_every_slice_of_a_volume_gets_labels_on_its_grid(ct_file, tmp_path, capsys):
    out = tmp_path / "made" / "labels.nii.gz"
    assert main(["regions", str(ct_file), "--window", "40,400", "--out", str(out)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["engine"], said["slices"], said["window"]) == ("region tree", [1, 3], [40.0, 400.0])
    assert len(said["regions"]) == 3
    assert max(said["regions"]) > 5

    labels, scan = nib.load(out), nib.load(ct_file)
    assert labels.shape == scan.shape
    assert np.allclose(labels.affine, scan.affine)
    assert [len(np.unique(np.asarray(labels.dataobj)[..., z])) for z in range(3)] == said["regions"]


def test_one_slice_keeps_its_place(ct_file, tmp_path, capsys):
    out = tmp_path / "labels.nii.gz"
    assert main(["regions", str(ct_file), "--slice", "2", "--window", "40,400", "--out", str(out)]) == 0
    assert main(["regions", str(ct_file), "--window", "40,400", "--out", str(tmp_path / "labels.png")]) == 0
    labels, scan = nib.load(out), nib.load(ct_file)
    assert labels.shape == (64, 72, 1)
    assert np.allclose(labels.affine[:3, 3], (scan.affine @ [0, 0, 1, 1])[:3])
    with Image.open(tmp_path / "labels.png") as picture:
        assert np.array_equal(
            np.asarray(picture), np.asarray(labels.dataobj)[..., 0].T
        )  # the middle slice is the second


@pytest.mark.parametrize(
    "arguments",
    [
        ["--slice", "4", "--out", "labels.png"],
        ["--slice", "0", "--out", "labels.png"],
        ["--out", "labels.tiff"],
        ["--window", "40,0", "--out", "labels.png"],
        ["--model", "sam-none", "--out", "labels.png"],
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(ct_file, tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert main(["regions", str(ct_file), *arguments]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) >= 1
    assert not list(tmp_path.glob("labels*"))


def test_stop_is_noticed_between_slices(ct_file, tmp_path):
    events = []
    progress = Progress(events.append, lambda: any(event.done == 1 for event in events))
    with pytest.raises(Cancelled):
        regions_of_file(ct_file, tmp_path / "labels.nii.gz", Workspace(), progress=progress)
    assert not (tmp_path / "labels.nii.gz").exists()
