"""What a person gets for input that a network cannot take: one line and a hint, or a result; never a crash."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from medapp import paths
from medapp.cli.main import main
from medapp.errors import UnsuitableModelError
from medapp.jobs.worker import run
from medapp.networks.card import Intake
from medapp.networks.checkpoint import keep_weights
from medapp.networks.registry import build_network
from medapp.progress import Progress
from medapp.requests import (
    DepthFileRequest,
    DepthRequest,
    Done,
    ImportModelRequest,
    ImportRequest,
    MattingRequest,
    ModelsRequest,
    PrepareModelRequest,
    Refused,
    RestoreRequest,
)
from medapp.restoration.restorer import NetworkRestorer
from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import ct_torso
from medapp.services.workspace import Workspace
from medapp.store.project import Project
from tests.builders import make_dataset, make_scan, save_dataset
from tests.depth.test_completing import TOY as DEPTH_TOY
from tests.depth.test_completing import toy_card as depth_card
from tests.matting.toy_matting import keep_toy_matting
from tests.networks.toys import TOYS, keep_toy

COLOUR = Intake("XC", "colour", (0.0, 255.0))


@pytest.fixture
def workspace():
    made = Workspace()
    yield made
    made.close()


@pytest.fixture
def project(tmp_path):
    path = tmp_path / "p.medapp"
    Project.create(path).close()
    return str(path)


@pytest.fixture
def ct(workspace, project, tmp_path):
    """A small CT in the project, by its id."""
    return _ct(workspace, project, tmp_path)


@pytest.fixture
def photo(workspace, project, tmp_path):
    """A colour picture in the project, by its id."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (36, 52, 3)).astype(np.uint8)).save(tmp_path / "p.png")
    return run(ImportRequest(project, (str(tmp_path / "p.png"),)), workspace, Progress()).result.series_ids[0]


def _ct(workspace, project, tmp_path, shape=(1, 40, 48)):
    write_series(tmp_path / "ct", ct_torso(shape, (20.0, 6.0, 6.0)), "P1")
    result = run(ImportRequest(project, (str(tmp_path / "ct"),)), workspace, Progress()).result
    return result.series_ids[0]


def _toy(name, config=None, **entries):
    return keep_toy(paths.user_models_dir(), name, config, **entries).id


def _restore(workspace, project, series, model_id):
    return run(RestoreRequest(project, series, model_id, device="cpu"), workspace, Progress())


def _refusal(outcome):
    """The line of a refusal, after looking at its form."""
    assert isinstance(outcome, Refused), outcome
    assert outcome.hint
    assert "\n" not in outcome.message + outcome.hint
    return outcome.message


# ------------------------------------------------------------------ cards that contradict their network


CONTRADICTIONS = [
    ("restore_rwkv", {"inp_channels": 3, "out_channels": 3}, {}, "images of 3 channels, not 1"),
    ("restore_rwkv", {}, {"channels": 3}, "images of 1 channel, not 3"),
    ("amir", {"inp_channels": 3, "out_channels": 3}, {}, "images of 3 channels, not 1"),
    ("amir", {}, {"min_side_px": 8}, "sides of 8 px are too small, 16 are needed"),
    ("drmc", {"dims": 3}, {"dims": 2}, "takes volumes, not slices"),
    ("sgsgan", {}, {"dims": 3}, "takes slices, not volumes"),
    ("rat", {"img_channel": 3}, {}, "images of 3 channels, not 1"),
    ("rat", {}, {"inputs": ()}, "needs region_map, not nothing"),
    ("rat", {}, {"size_multiple": 8}, "multiples of 16 px, not of 8"),
    ("rat", {"scale": 2}, {}, "enlarges its input 2 times, the card says 1"),
    ("restore_rwkv", {}, {"scale": 2}, "keeps the grid, and the card says that the result's is 2 times finer"),
    ("restore_rwkv", {}, {"inputs": ("region_map",)}, "needs nothing, not region_map"),
    ("restore_rwkv", {}, {"size_multiple": 4}, "multiples of 8 px, not of 4"),
    ("restore_rwkv", {}, {"serves": "depth"}, "serves restoration, not depth"),
]


@pytest.mark.parametrize(("name", "config", "entries", "told"), CONTRADICTIONS)
def test_a_card_that_contradicts_its_network_is_said_before_anything_runs(
    workspace, project, ct, name, config, entries, told
):
    model_id = _toy(name, {**TOYS[name], **config}, **entries)
    for outcome in (
        _restore(workspace, project, ct, model_id),
        run(PrepareModelRequest(model_id, "cpu"), workspace, Progress()),
    ):
        assert told in _refusal(outcome)
    assert len(workspace.project(project).series()) == 1


@pytest.mark.parametrize(("name", "config", "entries", "told"), CONTRADICTIONS[:2])
def test_a_card_that_contradicts_its_network_is_not_imported(tmp_path, capsys, name, config, entries, told):
    keep_toy(tmp_path, name, {**TOYS[name], **config}, **entries)

    assert main(["models", "import", str(next(tmp_path.glob("*.safetensors")))]) == 2
    line = json.loads(capsys.readouterr().out)
    assert told in line["refused"]
    assert line["hint"]
    assert not list(paths.user_models_dir().glob("*"))


def test_matting_and_depth_models_whose_cards_are_wrong_are_said(workspace, project, ct, photo):
    folder = paths.user_models_dir()
    keep_toy_matting(folder, "colour-matting", config={"input_channels": 3})
    request = MattingRequest(project, ct, 0, 0, 40.0, 400.0, "colour-matting", box_xyxy=(10.0, 10.0, 30.0, 30.0))
    assert "images of 3 channels, not 1" in _refusal(run(request, workspace, Progress()))

    restorer = _toy("restore_rwkv")
    assert "does not complete depth" in _refusal(run(DepthRequest(project, photo, 0, restorer), workspace, Progress()))
    wrong = _toy("amir", serves="depth")
    assert "serves restoration" in _refusal(run(DepthRequest(project, photo, 0, wrong), workspace, Progress()))


# ------------------------------------------------------------------ images


def test_colour_and_grey_are_told_apart(workspace, project, ct, photo):
    grey = _toy("restore_rwkv")
    assert "made for grey images" in _refusal(_restore(workspace, project, photo, grey))
    colour = _toy("rat", {**TOYS["rat"], "img_channel": 3}, channels=3, takes=(COLOUR,))
    assert "made for colour images" in _refusal(_restore(workspace, project, ct, colour))
    assert isinstance(_restore(workspace, project, photo, colour), Done)
    assert "needs a colour frame" in _refusal(run(DepthRequest(project, ct, 0, "fill-nearest"), workspace, Progress()))


@pytest.mark.parametrize("name", ["amir", "rat"])
def test_a_slice_below_the_smallest_size_is_refused_with_both_sizes(workspace, project, tmp_path, name):
    series = _ct(workspace, project, tmp_path, (1, 12, 48))
    assert "needs at least 16 px a side; this has 12" in _refusal(_restore(workspace, project, series, _toy(name)))


def test_a_frame_below_the_smallest_size_is_refused_with_both_sizes(workspace, project, tmp_path):
    Image.fromarray(np.zeros((12, 40, 3), dtype=np.uint8)).save(tmp_path / "small.png")
    series = run(ImportRequest(project, (str(tmp_path / "small.png"),)), workspace, Progress()).result.series_ids[0]
    told = _refusal(run(DepthRequest(project, series, 0, _depth_model()), workspace, Progress()))
    assert "needs at least 16 px a side; this frame is 40 × 12" in told


@pytest.mark.parametrize("name", ["amir", "rat", "restore_rwkv"])
def test_voxels_that_are_no_numbers_keep_their_place_and_spoil_nothing(workspace, project, tmp_path, name):
    ds = make_dataset(make_scan(modality="MR"), 0, BitsStored=None, HighBit=None, PixelRepresentation=None)
    rows, columns = int(ds.Rows), int(ds.Columns)
    values = np.linspace(0, 1, rows * columns, dtype=np.float32).reshape(rows, columns)
    values[0, 0], values[3, 4] = np.nan, np.inf
    del ds.PixelData
    ds.BitsAllocated, ds.FloatPixelData = 32, values.tobytes()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.30"  # Parametric Map
    found = run(
        ImportRequest(project, (str(save_dataset(tmp_path / "map.dcm", ds)),)), workspace, Progress()
    ).result.series_ids[0]
    store = workspace.project(project)
    takes = (Intake("MR", store.scan(found).unit, (0.0, 1.0)),)

    entries = {"size_multiple": 16, "min_side_px": 8} if name == "amir" else {"min_side_px": 8}
    outcome = _restore(workspace, project, found, _toy(name, takes=takes, **entries))

    assert isinstance(outcome, Done), outcome
    before, after = (store.scan(one).values()[0] for one in (found, outcome.result.series_id))
    assert np.isfinite(after).all()
    assert after[0, 0] == before[0, 0]
    assert after[3, 4] == before[3, 4]
    assert np.abs(after - before).max() > 1e-3


# ------------------------------------------------------------------ regions


def _labels(kind):
    labels = np.arange(32 * 48).reshape(32, 48) // 100
    return {
        "another size": labels[:, :40],
        "turned": labels.T,
        "negative": labels - 1,
        "fractional": labels / 2,
        "no number": np.where(labels == 3, np.nan, labels),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("another size", "is 40 × 32, the slice is 48 × 32"),
        ("turned", "is 32 × 48, the slice is 48 × 32"),
        ("negative", "must not hold negative numbers"),
        ("fractional", "must hold whole numbers"),
        ("no number", "must hold whole numbers"),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_labels_that_cannot_be_are_said_in_a_line(workspace, kind, told, precision):
    restorer = NetworkRestorer(workspace.library.load(_toy("rat", precision=precision), "cpu"))
    with pytest.raises(UnsuitableModelError) as caught:
        restorer.restore_slice(np.zeros((32, 48), np.float32), maps={"region_map": _labels(kind)})
    assert told in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["another size", "negative", "fractional"])
def test_reference_files_with_labels_that_cannot_be_are_refused(tmp_path, capsys, kind):
    network = build_network("rat", TOYS["rat"])
    tensors = {f"weights.{key}": value for key, value in network.state_dict().items()}
    tensors |= {"input.image": torch.zeros(1, 1, 32, 48), "output": torch.zeros(1, 1, 32, 48)}
    tensors["input.labels"] = torch.from_numpy(np.ascontiguousarray(_labels(kind)))[None]
    save_file(tensors, tmp_path / "rat.safetensors", {"architecture": "rat", "config": json.dumps(TOYS["rat"])})

    assert main(["models", "parity", "--json", str(tmp_path / "rat.safetensors")]) == 1
    row = json.loads(capsys.readouterr().out)
    assert "cannot run the reference file's input" in row["refused"]
    assert "region map" in row["hint"]


def test_a_slice_without_any_region_is_one_region_and_restored(workspace, project, ct):
    store = workspace.project(project)
    flat = store.add_derived(ct, np.full(store.scan(ct).shape, 40.0, np.float32), {"task": "test"})
    outcome = _restore(workspace, project, flat, _toy("rat"))

    assert isinstance(outcome, Done), outcome
    assert np.unique(store.region_map(flat, 0).labels).size == 1
    assert np.isfinite(store.scan(outcome.result.series_id).values()).all()


# ------------------------------------------------------------------ depth


def _depth_model():
    torch.manual_seed(1)
    return keep_weights(build_network("pddm", DEPTH_TOY).state_dict(), depth_card(), paths.user_models_dir()).id


def test_a_depth_file_of_zeros_is_nothing_measured_which_a_network_completes_and_a_fill_refuses(
    workspace, project, photo, tmp_path
):
    Image.fromarray(np.zeros((36, 52), dtype=np.uint16)).save(tmp_path / "zeros.png")
    read = run(DepthFileRequest(project, str(tmp_path / "zeros.png"), "mm"), workspace, Progress())
    assert isinstance(read, Done), read
    assert read.result.points == 0

    request = DepthRequest(project, photo, 0, _depth_model(), sparse_path=read.result.path)
    outcome = run(request, workspace, Progress())
    assert isinstance(outcome, Done), outcome
    assert outcome.result.report["points"] == 0
    assert any("Nothing was measured" in note for note in outcome.result.report["notes"])
    depth = workspace.project(project).scan(outcome.result.series_id).values()
    assert 0 <= depth.min() <= depth.max() <= 100
    filled = run(DepthRequest(project, photo, 0, "fill-nearest", sparse_path=read.result.path), workspace, Progress())
    assert "at least one measured point" in _refusal(filled)


def test_a_depth_file_whose_scale_nobody_stated_is_refused_with_what_may_be_stated(workspace, project, tmp_path):
    Image.fromarray(np.full((36, 52), 900, dtype=np.uint16)).save(tmp_path / "depth.png")
    outcome = run(DepthFileRequest(project, str(tmp_path / "depth.png")), workspace, Progress())
    assert "scale" in _refusal(outcome) or "mean" in outcome.message
    assert "--preset" in outcome.hint


# ------------------------------------------------------------------ weights, by the command and by the window's request


def _saved(path, name="restore_rwkv", change=None):
    torch.manual_seed(0)
    weights = build_network(name, TOYS[name]).state_dict()
    torch.save(change(weights) if change else weights, path)
    return path


def test_half_precision_and_prefixed_weights_become_a_model_that_restores(workspace, project, ct, tmp_path):
    halves = _saved(tmp_path / "w.pth", change=lambda w: {f"module.{key}": value.half() for key, value in w.items()})
    brought = run(ImportModelRequest(str(halves), "", "CT"), workspace, Progress())
    assert isinstance(brought, Done), brought

    outcome = _restore(workspace, project, ct, brought.result)
    assert isinstance(outcome, Done), outcome
    assert np.isfinite(workspace.project(project).scan(outcome.result.series_id).values()).all()


def test_weights_that_cannot_be_are_refused_by_the_request(workspace, tmp_path):
    def spoilt(weights):
        return {**weights, "output.bias": torch.full_like(weights["output.bias"], float("nan"))}

    cases = (
        (_saved(tmp_path / "other.pth"), "amir", "do not fit amir: missing"),
        (_saved(tmp_path / "nan.pth", change=spoilt), "restore_rwkv", "not finite"),
        (_saved(tmp_path / "unknown.pth"), "unet", "The architecture 'unet' is not known"),
        (_saved(tmp_path / "nobody.pth", "sgsgan"), "", "no network that medapp knows"),
    )
    for path, name, told in cases:
        assert told in _refusal(run(ImportModelRequest(str(path), name, "CT"), workspace, Progress()))
    assert not list(paths.user_models_dir().glob("*"))


@pytest.mark.parametrize("name", TOYS)
def test_a_model_that_lost_its_card_or_whose_card_is_foreign_is_refused_and_listed_no_more(
    workspace, project, ct, name
):
    model_id = _toy(name)
    card = paths.user_models_dir() / f"{model_id}.json"
    text = card.read_text()
    card.write_text(json.dumps(json.loads(text) | {"architecture": "swin_unet"}))
    assert "'swin_unet' is not known" in _refusal(_restore(workspace, project, ct, model_id))
    card.write_text("{")
    assert "not JSON" in _refusal(_restore(workspace, project, ct, model_id))
    card.unlink()
    assert "There is no model" in _refusal(_restore(workspace, project, ct, model_id))
    rows = run(ModelsRequest(project, ct), workspace, Progress()).result
    assert model_id not in [row["id"] for row in rows]


def test_weights_changed_after_the_card_was_written_are_not_run(workspace, project, ct):
    model_id = _toy("restore_rwkv")
    path = paths.user_models_dir() / f"{model_id}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert "have changed since the card was written" in _refusal(_restore(workspace, project, ct, model_id))


def test_a_network_whose_numbers_run_away_leaves_the_project_as_it_was(workspace, project, ct):
    model_id = _toy("restore_rwkv")
    network = workspace.library.load(model_id, "cpu").network
    with torch.no_grad():
        network.output.bias.fill_(float("inf"))
    assert "not finite" in _refusal(_restore(workspace, project, ct, model_id))
    assert len(workspace.project(project).series()) == 1
