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
from medapp.scan.reading import read_scan
from tests.networks.toys import TOYS, keep_toy

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
        ("filter-nlm", "a.jpg", ["--modality", "MR"], ".nii.gz"),
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


@pytest.mark.parametrize("source", ["scan.nii.gz", "series", "scan_trust.nii.gz"])
def test_an_original_is_never_replaced(scan, tmp_path, capsys, source):
    out, more = scan, []
    if source == "series":
        (tmp_path / source).mkdir()
        out = scan.rename(tmp_path / source / scan.name)
    elif source != scan.name:
        scan.rename(tmp_path / source)
        more = ["--trust"]
    before = (out if out.exists() else tmp_path / source).read_bytes()

    assert ask(tmp_path / source, "filter-nlm", out, "--modality", "MR", *more) == 2

    assert "originals stay" in capsys.readouterr().err
    assert (out if out.exists() else tmp_path / source).read_bytes() == before


@pytest.mark.parametrize("wrong", [["--strength", "500"], ["--strength", "nan"], ["--tile", "-3"]])
def test_numbers_that_cannot_be_are_refused(scan, tmp_path, capsys, wrong):
    assert ask(scan, "filter-nlm", tmp_path / "a.nii.gz", "--modality", "MR", *wrong) == 2
    assert wrong[0] in capsys.readouterr().err


@pytest.fixture
def photo(tmp_path):
    """A small colour picture whose right half is half transparent."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 36, 4), np.uint8)
    pixels[..., 3] = np.where(np.arange(36) < 18, 255, 128)
    Image.fromarray(pixels).save(tmp_path / "photo.png", dpi=(25.4 / 0.5, 25.4 / 0.5))
    return tmp_path / "photo.png"


def keep_colour_toy(scale=2):
    takes = (Intake("SM", "colour", (0.0, 255.0)),)
    config = {**TOYS["rat"], "img_channel": 3, "scale": scale}
    return keep_toy(paths.user_models_dir(), "rat", config, takes=takes, channels=3, scale=scale).id


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_picture_comes_back_larger_says_what_made_it_and_keeps_its_transparency(photo, tmp_path, capsys, ending):
    assert ask(photo, keep_colour_toy(), tmp_path / f"fine.{ending}", "--trust") == 0

    told = json.loads(capsys.readouterr().out)
    assert told["size"] == [72, 40, 1]
    assert told["spacing_mm"][:2] == [0.25, 0.25]
    assert told["files"] == [f"fine.{ending}", "fine_trust.tif"]
    assert "transparency took no part" in told["notes"][0]
    assert "pixel size" in told["notes"][1]  # what was assumed of the source
    with Image.open(tmp_path / f"fine.{ending}") as made:
        assert made.size == (72, 40)
        described = made.info.get("Description") or str(made.tag_v2[270])
        assert described.startswith("RESTORED")
        assert "Toy RAT 1" in described
        alpha = np.asarray(made)[..., 3]
    assert set(np.unique(alpha[:, :34])) == {255}
    assert set(np.unique(alpha[:, 38:])) == {128}
    again = read_scan(tmp_path / f"fine.{ending}")
    np.testing.assert_allclose(again.pixel_spacing_mm, (0.25, 0.25), rtol=1e-3)


@pytest.mark.parametrize(
    ("model", "out", "told"), [("", "a.nii.gz", "in colour"), ("filter-nlm", "a.nii.gz", "made for grey images")]
)
def test_what_pictures_cannot_be_is_said(photo, tmp_path, capsys, model, out, told):
    assert ask(photo, model or keep_colour_toy(), tmp_path / out) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / out).exists()


def test_a_picture_that_is_too_small_is_not_asked_for_its_name(tmp_path, capsys):
    Image.new("RGB", (9, 7), (200, 100, 150)).save(tmp_path / "tiny.png")

    assert ask(tmp_path / "tiny.png", keep_colour_toy(), tmp_path / "large.png") == 2

    told = capsys.readouterr().err
    assert "this has 7" in told
    assert "Choose another model." in told
    assert "--modality" not in told


def test_several_pictures_do_not_go_into_one_png(photo, tmp_path, capsys):
    pages = [Image.fromarray(np.full((20, 36, 3), level, np.uint8)) for level in (40, 200)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    model = keep_colour_toy()
    assert ask(tmp_path / "pages.tif", model, tmp_path / "a.png") == 2
    assert "a PNG holds one" in capsys.readouterr().err
    assert ask(tmp_path / "pages.tif", model, tmp_path / "a.tif") == 0
    assert json.loads(capsys.readouterr().out)["spacing_mm"] is None
    with Image.open(tmp_path / "a.tif") as made:
        assert (made.size, made.n_frames) == ((72, 40), 2)
