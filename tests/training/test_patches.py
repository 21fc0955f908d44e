"""Patches come from disk, show bodies and not air, and the same step always gives the same ones."""

import numpy as np
import pytest

from medapp.errors import TrainingError
from medapp.progress import Progress
from medapp.training.patches import Cropper, PatchPairs, PatchSet, body_of
from medapp.training.references import References
from medapp.training.sources import find_references
from tests.training.places import mr_place, picture, save_nifti

HALF = {"kind": "mr-kspace", "factor": 2}


@pytest.fixture
def references(tmp_path):
    return find_references(mr_place(tmp_path / "data"), "MR", "train")


def _files(cache):
    return {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}


def test_slices_lie_on_disk_and_a_second_run_finds_them(tmp_path, references):
    cache = tmp_path / "cache"
    patches = PatchSet.build(references, cache, Progress()).degraded(HALF, Progress())
    before = _files(cache)
    again = PatchSet.build(references, cache, Progress()).degraded(HALF, Progress())

    assert _files(cache) == before
    assert not any(name.endswith(".part") for name in before)
    assert again.sha256 == patches.sha256
    assert (len(patches.slices), patches.patients) == (6, ("a", "b", "c"))
    assert isinstance(patches.slices[0].layer("degraded"), np.memmap)
    np.testing.assert_allclose(patches.slices[0].values, picture(0), atol=1e-3)


def test_other_parameters_are_degraded_again(tmp_path, references):
    patches = PatchSet.build(references, tmp_path / "cache", Progress())
    two, four = (patches.degraded({"kind": "mr-kspace", "factor": f}, Progress()) for f in (2, 4))
    assert two.slices[0].files["degraded"] != four.slices[0].files["degraded"]
    gone = [np.abs(made.slices[0].layer("degraded")[0] - patches.slices[0].values).mean() for made in (two, four)]
    assert gone[0] < gone[1]


def test_a_damaged_file_of_the_cache_is_made_again(tmp_path, references):
    patches = PatchSet.build(references, tmp_path / "cache", Progress())
    file = patches.slices[0].files["reference"]
    file.write_bytes(file.read_bytes()[:100])
    again = PatchSet.build(references, tmp_path / "cache", Progress())
    np.testing.assert_allclose(again.slices[0].values, picture(0), atol=1e-3)


def test_reference_and_degraded_are_cut_and_turned_alike(tmp_path, references):
    patches = PatchSet.build(references, tmp_path / "cache", Progress()).degraded(HALF, Progress())
    for step in range(4):
        degraded, reference, is_own = PatchPairs(patches, ((32, 3), (40, 2)), seed=1).batch(step)
        assert is_own
        assert degraded.shape == reference.shape
        assert degraded.shape in ((3, 1, 32, 32), (2, 1, 40, 40))
        for one, other in zip(degraded[:, 0], reference[:, 0], strict=True):
            assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.9


def test_the_same_step_gives_the_same_batch_and_processes_share_it(tmp_path, references):
    patches = PatchSet.build(references, tmp_path / "cache", Progress()).degraded(HALF, Progress())
    pairs = PatchPairs(patches, ((32, 4),))
    whole = pairs.batch(7)[0]
    np.testing.assert_array_equal(PatchPairs(patches, ((32, 4),)).batch(7)[0], whole)
    assert not np.array_equal(pairs.batch(8)[0], whole)
    first, second = (pairs.batch(7, rank, 2)[0] for rank in range(2))
    np.testing.assert_array_equal(np.concatenate([first, second]), whole[[0, 2, 1, 3]])
    assert not pairs.batch(7, 5, 6)[2]


def test_crops_show_the_body_and_not_the_air(tmp_path):
    wide = np.zeros((128, 160))
    wide[40:80, 100:140] = picture(3, 48)[4:44, 4:44] + 200
    save_nifti(tmp_path / "data" / "p.nii.gz", [wide + np.random.default_rng(0).random(wide.shape)])
    patches = PatchSet.build(find_references(tmp_path / "data", "MR"), tmp_path / "cache", Progress())
    cropper = Cropper(patches, layers=("is_body",))
    shares = [cropper.crop(32, np.random.default_rng(n)).layers["is_body"].mean() for n in range(20)]
    assert np.mean(shares) > 0.35  # at random it would be less than a tenth


def test_patients_count_alike_however_many_slices_they_have(tmp_path):
    save_nifti(tmp_path / "data" / "many.nii.gz", [picture(n) for n in range(12)])
    save_nifti(tmp_path / "data" / "one.nii.gz", [picture(20)])
    patches = PatchSet.build(find_references(tmp_path / "data", "MR"), tmp_path / "cache", Progress())
    crops = Cropper(patches, layers=()).batch(32, 200, (0, 0))
    assert 60 < sum(crop.entry.patient == "one" for crop in crops) < 140


def test_realisations_differ_and_one_of_them_is_cut(tmp_path, references):
    noisy = {"kind": "mr-kspace", "factor": 2, "noise": 0.05}
    patches = PatchSet.build(references, tmp_path / "cache", Progress()).degraded(noisy, Progress(), realisations=3)
    layer = patches.slices[0].layer("degraded")
    assert layer.shape == (3, *patches.slices[0].shape)
    assert not np.array_equal(layer[0], layer[1])
    assert PatchPairs(patches, ((32, 2),)).batch(0)[0].shape == (2, 1, 32, 32)


def test_crops_larger_than_a_slice_are_mirrored(tmp_path, references):
    patches = PatchSet.build(references, tmp_path / "cache", Progress()).degraded(HALF, Progress())
    degraded, reference, _ = PatchPairs(patches, ((160, 1),)).batch(0)
    assert degraded.shape == reference.shape == (1, 1, 160, 160)


def test_colours_keep_their_channels(tmp_path):
    from PIL import Image

    from tests.training.places import save_manifest

    colours = np.stack([np.clip(picture(n, 64) / 4, 0, 255) for n in (1, 2, 3)], axis=-1).astype(np.uint8)
    (tmp_path / "he").mkdir()
    Image.fromarray(colours).save(tmp_path / "he" / "tile.png")
    save_manifest(tmp_path, [("he/tile.png", "H&E histology", "train")])
    found = find_references(tmp_path, "SM", "train")
    assert found.unit == "colour"
    optics = {"kind": "pathology-optics", "factor": 2}
    patches = PatchSet.build(found, tmp_path / "cache", Progress()).degraded(optics, Progress())
    degraded, reference, _ = PatchPairs(patches, ((32, 2),)).batch(0)
    assert degraded.shape == reference.shape == (2, 3, 32, 32)


def test_air_and_tiny_slices_are_left_out_with_a_note(tmp_path):
    values = np.full((64, 64), -1000.0)
    body = values.copy()
    body[10:50, 10:50] = picture(1, 48)[:40, :40] / 10
    save_nifti(tmp_path / "data" / "p.nii.gz", [values, body])
    found = find_references(tmp_path / "data", "CT")
    patches = PatchSet.build(found, tmp_path / "cache", Progress())
    assert (len(patches.slices), patches.notes) == (1, ("1 slice shows nothing but air: left out.",))

    save_nifti(tmp_path / "small" / "q.nii.gz", [picture(1, 24)[:, :24]])
    with pytest.raises(TrainingError, match="1 slice is smaller than 32 px"):
        PatchSet.build(find_references(tmp_path / "small", "MR"), tmp_path / "cache", Progress())
    with pytest.raises(TrainingError, match="Nothing is left"):
        Cropper(patches.of_patients([]))


def test_a_cache_that_cannot_be_written_is_said(tmp_path, references: References, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot be written") as caught:
        PatchSet.build(references, tmp_path / "file" / "cache", Progress())
    assert "disk" in caught.value.hint

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(TrainingError, match="No space left"):
        PatchSet.build(references, tmp_path / "cache", Progress())
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("modality", ["MR", "PT", "CT"])
def test_bodies_are_found_in_every_modality(modality):
    values = picture(5).astype(np.float32) / (50 if modality == "PT" else 1) - (1000 if modality == "CT" else 0)
    if modality == "CT":
        values = np.where(picture(5) > 100, 30, -1000).astype(np.float32)
    share = body_of(values, modality).mean()
    assert 0.25 < share < 0.5
