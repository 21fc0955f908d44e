"""Depth files: millimetres by a stated scale, never by a guess."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from medapp.errors import DepthScaleError, ExportError, UnreadableFileError, UsageError
from medapp.scan.camera import Camera, surface_length
from medapp.scan.depth import read_depth, write_depth
from medapp.scan.depth_scale import PRESETS, parse_scale, side_car_of
from medapp.scan.turbo import depth_colours, spread, turbo


def _png(path, values):
    Image.fromarray(np.asarray(values, dtype=np.uint16)).save(path)
    return path


@pytest.mark.parametrize(
    ("preset", "stored", "expected_mm"),
    [
        ("mm", [[0, 12]], [[np.nan, 12]]),
        ("c3vd", [[0, 32768, 65535]], [[np.nan, 32768 / 65535 * 100, np.nan]]),
        ("scared-toolkit", [[0, 256, 384]], [[np.nan, 1, 1.5]]),
        ("scared-toolkit-128", [[0, 256]], [[np.nan, 2]]),
        ("hamlyn", [[0, 1, 300, 301]], [[np.nan, 1, 300, np.nan]]),
        ("simcol3d", [[0, 65280]], [[np.nan, 200]]),
        ("kitti", [[0, 256]], [[np.nan, 1000]]),
        ("unit=cm,scale=0.5,offset=1,invalid=7", [[0, 2, 7]], [[10, 20, np.nan]]),
    ],
)
def test_every_preset_decodes_as_its_data_set_says(tmp_path, preset, stored, expected_mm):
    found = read_depth(_png(tmp_path / "depth.png", stored), parse_scale(preset))

    assert found.depth_mm.dtype == np.float32
    np.testing.assert_allclose(found.depth_mm, expected_mm, rtol=1e-6)
    assert found.record()["pixels_known"] == int(np.isfinite(expected_mm).sum())


def test_scared_key_frames_give_their_third_channel(tmp_path):
    xyz = np.stack([np.full((2, 3), v, dtype=np.float32) for v in (-5, 4, 60)], axis=-1)
    xyz[0, 0] = np.nan
    xyz[1, 1, 2] = 0
    tifffile.imwrite(tmp_path / "left_depth_map.tiff", xyz, photometric="rgb")

    depth = read_depth(tmp_path / "left_depth_map.tiff", PRESETS["scared"]).depth_mm

    assert np.isnan(depth[0, 0])
    assert np.isnan(depth[1, 1])
    assert depth[1, 2] == 60


def test_nobody_stated_the_scale(tmp_path):
    path = _png(tmp_path / "depth.png", [[1, 2]])
    with pytest.raises(DepthScaleError, match="Nobody stated") as refused:
        read_depth(path)
    assert all(name in refused.value.hint for name in PRESETS)
    with pytest.raises(DepthScaleError, match="Nobody stated"):
        parse_scale("  ")


def test_relative_depths_are_refused_where_millimetres_are_needed(tmp_path):
    Image.fromarray(np.full((4, 4, 3), 51, dtype=np.uint8)).save(tmp_path / "aov_image_0001.png")
    with pytest.raises(DepthScaleError, match="relative"):
        read_depth(tmp_path / "aov_image_0001.png", PRESETS["endoslam"])

    relative = read_depth(tmp_path / "aov_image_0001.png", PRESETS["endoslam"], allow_relative=True)
    assert relative.is_relative
    np.testing.assert_allclose(relative.depth_mm, 0.2, rtol=1e-6)


def test_conflicting_scales_are_refused(tmp_path):
    path = _png(tmp_path / "depth.png", [[100]])
    side_car_of(path).write_text(json.dumps({"depth": {"unit": "mm", "scale": 0.02}}))

    assert read_depth(path).depth_mm[0, 0] == pytest.approx(2.0)
    assert read_depth(path, parse_scale("unit=cm,scale=0.002")).depth_mm[0, 0] == pytest.approx(2.0)
    with pytest.raises(DepthScaleError, match="was stated"):
        read_depth(path, PRESETS["mm"])


@pytest.mark.parametrize(
    "text", ["c3v", "unit=mm", "unit=inch,scale=1", "unit=mm,scale=0", "unit=mm,scale=nan", "unit=mm,scale=x", "foo=1"]
)
def test_scales_that_cannot_be_are_refused_with_the_presets(text):
    with pytest.raises(DepthScaleError) as refused:
        parse_scale(text)
    assert "c3vd" in refused.value.hint
    assert "\n" not in refused.value.message


def test_a_file_of_other_numbers_than_its_data_set_stores_is_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 7, dtype=np.uint8)).save(tmp_path / "depth.png")
    with pytest.raises(UnreadableFileError, match="8-bit"):
        read_depth(tmp_path / "depth.png", PRESETS["c3vd"])
    with pytest.raises(UnreadableFileError, match="float"):
        read_depth(tmp_path / "depth.png", PRESETS["scared"])
    Image.fromarray(np.zeros((2, 2, 3), dtype=np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(UnreadableFileError, match="colour"):
        read_depth(tmp_path / "colour.png", PRESETS["mm"])


def test_damaged_files_are_refused_in_a_line(tmp_path):
    whole = _png(tmp_path / "depth.png", np.arange(4000).reshape(50, 80)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.tiff").write_bytes(b"II*\0" + bytes(20))
    (tmp_path / "not.npy").write_bytes(b"\x93NUMPY")
    for name, preset in (("cut.png", "mm"), ("cut.tiff", "scared"), ("not.npy", "mm")):
        with pytest.raises(UnreadableFileError) as refused:
            read_depth(tmp_path / name, PRESETS[preset])
        assert name in refused.value.message


def test_an_empty_depth_file_is_legal_and_said(tmp_path):
    found = read_depth(_png(tmp_path / "depth.png", np.zeros((3, 4))), PRESETS["mm"])
    assert found.known == 0
    assert any("nothing was measured" in note for note in found.notes)


def test_lengths_along_the_line_of_sight_become_z_depth(tmp_path):
    camera = Camera(10, 10, 1, 0, 3, 1)
    scale = parse_scale("unit=mm,scale=1,kind=ray")
    path = _png(tmp_path / "depth.png", [[100, 100, 100]])

    depth = read_depth(path, scale, camera).depth_mm
    np.testing.assert_allclose(depth[0], [100 / np.sqrt(1.01), 100, 100 / np.sqrt(1.01)], rtol=1e-5)
    with pytest.raises(DepthScaleError, match="camera"):
        read_depth(path, scale)


@pytest.mark.parametrize(("most_mm", "step_mm"), [(200, 1 / 256), (255.99, 1 / 256), (600, 0.01), (5000, 0.1)])
def test_written_files_read_back_by_themselves(tmp_path, most_mm, step_mm):
    random = np.random.default_rng(0)
    depth = random.uniform(1, most_mm, (20, 30)).astype(np.float32)
    depth[0, 0], depth[3, 4] = most_mm, np.nan
    camera = Camera.centred(25, 30, 20)

    png, _, tiff, _ = write_depth(tmp_path / "new", "depth", depth, {"made_by": {"model": "x"}}, camera)

    coarse, exact = read_depth(png), read_depth(tiff)
    np.testing.assert_array_equal(exact.depth_mm, depth)
    assert np.nanmax(np.abs(coarse.depth_mm - depth)) <= step_mm / 2 + 1e-4
    assert np.isnan(coarse.depth_mm[3, 4])
    assert coarse.scale.camera == camera
    assert json.loads(side_car_of(png).read_text())["made_by"] == {"model": "x"}
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "depth.png", "depth.png.json", "depth.tiff", "depth.tiff.json",
    ]  # fmt: skip


def test_a_depth_map_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError):
        write_depth(tmp_path / "file", "depth", np.ones((2, 2), dtype=np.float32))
    with pytest.raises(ExportError, match="16-bit"):
        write_depth(tmp_path, "depth", np.full((2, 2), 1e6, dtype=np.float32))


def test_a_ruler_on_a_flat_wall_measures_its_length():
    camera = Camera.centred(100, 101, 101)
    wall = np.full((101, 101), 50, dtype=np.float32)

    length = surface_length(wall, (20, 30), (60, 60), camera)

    assert length.along_mm == pytest.approx(25.0)  # 50 px at 50 mm and f = 100 px
    assert length.straight_mm == pytest.approx(25.0)
    assert length.depth_change_mm == 0


def test_a_ruler_over_a_step_is_longer_along_the_surface():
    camera = Camera.centred(100, 101, 101)
    step = np.full((101, 101), 50, dtype=np.float32)
    step[:, 50:] = 60
    length = surface_length(step, (40, 50), (70, 50), camera)

    assert length.along_mm > length.straight_mm > 10
    assert length.crosses_edge
    gentle = np.tile(np.linspace(50, 60, 101, dtype=np.float32), (101, 1))
    assert not surface_length(gentle, (40, 50), (70, 50), camera).crosses_edge
    assert surface_length(step, (40, 50), (70, 50), None).along_mm is None
    assert surface_length(step, (40, 50), (70, 50), None).depth_change_mm == pytest.approx(10)
    step[50, 60] = np.nan
    assert surface_length(step, (40, 50), (70, 50), camera) is None
    assert surface_length(step, (40, 50), (170, 50), camera) is None


def test_a_camera_follows_the_size_of_the_image():
    camera = PRESETS["simcol3d"].camera
    half = camera.scaled_to(camera.width // 2, camera.height // 2)
    assert half.fx == pytest.approx(camera.fx / 2, rel=0.01)
    assert Camera.from_dict(camera.as_dict()) == camera
    with pytest.raises(UsageError):
        Camera.from_dict({"fx": 1})
    with pytest.raises(UsageError):
        Camera.centred(0, 10, 10)


def test_near_is_warm_far_is_cold_unknown_is_grey():
    near, far, unknown = depth_colours(np.array([10.0, 90.0, 0.0]), 0, 100)
    assert near[0] > near[2] + 50
    assert far[2] > far[0] + 50
    assert len(set(unknown.tolist())) == 1
    assert len(np.unique(turbo(np.linspace(0, 1, 64)), axis=0)) == 64
    assert spread(np.full((3, 3), 5.0)) == (4.5, 5.5)
