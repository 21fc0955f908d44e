"""The whole chain: corrections, fine-tuning, scorecard, adopt, propose, roll back."""

import json
from pathlib import Path

import numpy as np
import pytest

from medapp import paths
from medapp.errors import Cancelled, TrainingError, WeightsError
from medapp.jobs.worker import run as run_request
from medapp.networks.card import Intake
from medapp.progress import Progress
from medapp.requests import AdoptRequest, Done, MattingRequest, Refused, RestoreRequest, RetrainRequest, RollBackRequest
from medapp.services.adoption import adopt, roll_back
from medapp.services.retrain import PLAN, retrain
from medapp.services.scorecard import FILE
from medapp.services.workspace import Workspace
from medapp.store.project import Project
from medapp.training.tasks.corrections import painted
from tests.matting.toy_matting import keep_toy_matting
from tests.networks.toys import keep_toy
from tests.services.corrected import SIDE, add_case, add_reference

MINUTES = 0.004


@pytest.fixture(autouse=True)
def no_shared_data(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDAPP_SHARED", str(tmp_path / "nothing"))


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "work", reader="Ann") as made:
        for seed in range(5):
            add_case(made, seed, f"P-{seed}", slices=2)
        yield made


@pytest.fixture
def card():
    return keep_toy_matting(paths.user_models_dir())


class Watch:
    """Collects progress; stops when asked."""

    def __init__(self, stop_in=""):
        self.events, self.stop_in = [], stop_in

    def progress(self):
        return Progress(self.events.append, lambda: bool(self.stop_in) and self.stop_in in self.notes())

    def notes(self):
        return [event.note for event in self.events]


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def proposed_by(workspace, project, model_id, tmp_path):
    series_id = project.series()[0].series_id
    box = (12.0, 12.0, SIDE - 12.0, SIDE - 12.0)
    request = MattingRequest(str(project.path), series_id, 0, 0, 40, 400, model_id=model_id, box_xyxy=box, count=2)
    outcome = run_request(request, workspace, Progress())
    assert isinstance(outcome, Done), outcome
    return outcome.result.model


def test_corrections_become_a_model_that_serves_when_adopted_and_leaves_when_rolled_back(project, card, tmp_path):
    workspace, watch = Workspace(), Watch()
    before = files_of(paths.user_models_dir())
    result = retrain(RetrainRequest(str(project.path), card.id, MINUTES), workspace, watch.progress())
    assert result.is_done
    assert (result.model_id, result.challenger_id) == (card.id, f"{card.id}.2")
    assert [note for note in dict.fromkeys(watch.notes()) if note in ("gathering", "training", "comparing")] == [
        "gathering",
        "training",
        "comparing",
    ]
    assert any(event.detail.get("run") == result.run for event in watch.events)
    assert files_of(paths.user_models_dir()) == before  # nobody asked to adopt

    told = json.loads((Path(result.run) / FILE).read_text())
    assert told["champion"]["id"] == card.id
    assert told["data_set"]["version"] == "mattes-1"
    assert {row["key"] for row in told["metrics"]} >= {"sad", "mse", "grad", "conn", "soft_dice", "ged"}
    assert {row["group"] for row in told["cases"]} == {"new hold-out"}
    held_out = {case.group for case in project.data_set("mattes-1").of("hold-out")}
    assert {row["patient_group"] for row in told["cases"]} == held_out
    harms = [row for row in told["cases"] if row["metric"] == "sad"]
    assert harms == sorted(harms, key=lambda row: -row["change_percent"])  # worst first
    assert any("not on this machine" in note for note in told["notes"])
    of_share = [note for note in told["notes"] if "of the way from the model in use" in note]
    assert len(of_share) == 1
    assert "lie 60 % of the way" in of_share[0]
    assert "no cases were held apart" in of_share[0]  # of too few patients to choose it

    assert proposed_by(workspace, project, card.id, tmp_path) == "Toy matting 1"
    adopted = adopt(AdoptRequest(result.run), workspace, Progress())
    assert (adopted.model_id, adopted.replaced) == (f"{card.id}.2", card.id)
    assert proposed_by(workspace, project, card.id, tmp_path) == "Toy matting 1.2"
    assert proposed_by(Workspace(), project, card.id, tmp_path) == "Toy matting 1.2"  # and in every other process
    after = files_of(paths.user_models_dir())
    assert {name: after[name] for name in before} == before

    again = roll_back(RollBackRequest(card.id), workspace, Progress())
    assert (again.model_id, again.replaced) == (card.id, f"{card.id}.2")
    assert proposed_by(workspace, project, card.id, tmp_path) == "Toy matting 1"
    with pytest.raises(WeightsError, match="nothing to roll back"):
        roll_back(RollBackRequest(card.id), workspace, Progress())


def test_a_model_that_takes_rough_masks_learns_with_them_and_still_takes_them(project, tmp_path):
    guided = keep_toy_matting(paths.user_models_dir(), config={"input_channels": 2}, inputs=("rough_mask",))
    workspace = Workspace()
    result = retrain(RetrainRequest(str(project.path), guided.id, MINUTES), workspace, Progress())
    assert result.is_done
    recipe = json.loads((Path(result.run) / "recipe.json").read_text())
    assert recipe["rough"]["disturbed"] > 0
    assert recipe["rough"]["box"] > 0
    adopted = adopt(AdoptRequest(result.run), workspace, Progress())
    assert workspace.library.card(adopted.model_id).inputs == ("rough_mask",)
    assert proposed_by(workspace, project, guided.id, tmp_path) == "Toy matting 1.2"


def test_the_next_retraining_goes_on_from_the_adopted_model(project, card):
    workspace = Workspace()
    first = retrain(RetrainRequest(str(project.path), card.id, MINUTES), workspace, Progress())
    adopt(AdoptRequest(first.run), workspace, Progress())
    second = retrain(RetrainRequest(str(project.path), card.id, MINUTES, "mattes-1"), workspace, Progress())
    assert (second.model_id, second.challenger_id) == (f"{card.id}.2", f"{card.id}.3")
    adopt(AdoptRequest(second.run), workspace, Progress())
    assert workspace.library.history(card.id) == (card.id, f"{card.id}.2", f"{card.id}.3")


@pytest.mark.parametrize("phase", ["training", "comparing"])
def test_a_stopped_run_goes_on_and_changes_nothing_meanwhile(project, card, phase):
    workspace, before = Workspace(), files_of(paths.user_models_dir())
    watch = Watch(stop_in=phase)
    request = RetrainRequest(str(project.path), card.id, MINUTES)
    with pytest.raises(Cancelled):
        retrain(request, workspace, watch.progress())
    run = next(event.detail["run"] for event in watch.events if "run" in event.detail)
    with pytest.raises(TrainingError, match="no scorecard"):
        adopt(AdoptRequest(run), workspace, Progress())
    assert files_of(paths.user_models_dir()) == before
    add_case(project, 9, "P-9")  # a run stays with what it began with
    result = retrain(RetrainRequest(str(project.path), card.id, MINUTES, run=run), workspace, Progress())
    assert result.run == run
    assert json.loads((Path(run) / FILE).read_text())["data_set"]["version"] == "mattes-1"


def test_runs_that_cannot_be_gone_on_with_are_refused_in_a_line(project, card, tmp_path):
    workspace = Workspace()

    def refused(**request):
        outcome = run_request(RetrainRequest(str(project.path), card.id, MINUTES, **request), workspace, Progress())
        assert isinstance(outcome, Refused), outcome
        assert outcome.hint
        return outcome.message

    (tmp_path / "run").mkdir()
    assert "no retraining" in refused(run=str(tmp_path / "run"))
    (tmp_path / "run" / PLAN).write_text("{")
    assert "damaged" in refused(run=str(tmp_path / "run"))
    (tmp_path / "run" / PLAN).write_text(json.dumps({"format": 99}))
    assert "newer medapp" in refused(run=str(tmp_path / "run"))
    assert "no such data set" in refused(data_set="mattes-7")
    minutes = run_request(RetrainRequest(str(project.path), card.id, 0.0), workspace, Progress())
    assert "time budget" in minutes.message


def test_a_full_disk_at_the_checkpoint_leaves_the_model_in_use(project, card, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = files_of(paths.user_models_dir())
    monkeypatch.setattr("medapp.training.run_folder.os.fsync", full)
    outcome = run_request(RetrainRequest(str(project.path), card.id, MINUTES), Workspace(), Progress())
    assert isinstance(outcome, Refused)
    assert "disk" in outcome.message or "written" in outcome.message
    assert files_of(paths.user_models_dir()) == before


def test_a_changed_challenger_is_not_adopted(project, card):
    workspace = Workspace()
    result = retrain(RetrainRequest(str(project.path), card.id, MINUTES), workspace, Progress())
    weights = Path(result.run) / "challenger" / f"{card.id}.2.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 255
    weights.write_bytes(bytes(content))
    with pytest.raises(TrainingError, match="damaged"):
        adopt(AdoptRequest(result.run), workspace, Progress())
    assert workspace.library.in_use(card.id) == card.id


DOSE = {"kind": "ct-dose", "doses": [0.2, 0.5], "kernels": ["hann"], "views": 60}


def test_a_restorer_is_retrained_from_references_with_accepted_mattes_in_its_regions(tmp_path):
    toy = keep_toy(paths.user_models_dir(), "rat", task="ct-denoise", degradation=DOSE)
    workspace = Workspace()
    with Project.create(tmp_path / "scans", reader="Ann") as project:
        for seed in range(3):
            project.set_reference(add_case(project, seed, f"P-{seed}", slices=1, side=64), True)
        result = retrain(RetrainRequest(str(project.path), toy.id, MINUTES), workspace, Progress())
        told = json.loads((Path(result.run) / FILE).read_text())
        assert (told["kind"], told["data_set"]["version"], told["effort"]) == ("restoration", "references-1", {})
        psnr = next(row for row in told["metrics"] if row["key"] == "psnr_db")
        assert (psnr["better"], psnr["unit"], psnr["group"]) == ("higher", "dB", "new hold-out")
        assert {row["unit"] for row in told["metrics"] if row["key"] == "rmse"} == {"HU"}
        adopt(AdoptRequest(result.run), workspace, Progress())
        series_id = project.series()[0].series_id
        outcome = run_request(RestoreRequest(str(project.path), series_id, toy.id), workspace, Progress())
        assert isinstance(outcome, Done), outcome
        made = project.series_info(outcome.result.series_id)
        assert made.provenance["model_id"] == f"{toy.id}.2"


def test_mr_super_resolution_is_retrained_from_references_at_full_resolution(tmp_path):
    toy = keep_toy(
        paths.user_models_dir(),
        "restore_rwkv",
        task="mr-super-resolution",
        scale=2,
        degradation={"kind": "mr-kspace", "factor": 2},
        takes=(Intake("MR", "arbitrary", (0.0, 1000.0), (0.0, 4.0), limits="percentiles"),),
    )
    with Project.create(tmp_path / "scans", reader="Ann") as project:
        for seed in range(3):
            add_reference(project, seed, f"P-{seed}", unit="arbitrary", slices=1, modality="MR")
        result = retrain(RetrainRequest(str(project.path), toy.id, MINUTES), Workspace(), Progress())
    told = json.loads((Path(result.run) / FILE).read_text())
    assert [row["cases"] for row in told["metrics"] if row["key"] == "psnr_db"] == [1]


def test_accepted_mattes_are_regions_of_their_own_in_training():
    side = np.zeros((8, 8), np.uint8)
    side[2:4, 2:4], side[3, 3] = 1, 2
    labels = painted(np.zeros((8, 8), np.int32), side)
    assert sorted(np.unique(labels)) == [0, 1, 2]
    assert labels[2, 2] != labels[3, 3] != labels[0, 0]
