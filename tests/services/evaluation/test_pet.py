"""Low-dose PET is measured against its input and tuned filters."""

from medapp.networks.library import ModelLibrary
from medapp.progress import Progress
from medapp.services.evaluation.tasks import evaluate
from tests.services.evaluation.making import make_pet


def test_tuned_filters_come_closer_than_the_low_dose_input(tmp_path):
    data = make_pet(tmp_path / "data")
    result = evaluate("pet-synthesis", ModelLibrary(tmp_path / "none", tmp_path / "none"), data, Progress())
    assert result["unit"] == "SUV"
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["low-dose input"]["n_subjects"] == 2
    assert rows["Gaussian"]["psnr_db"] > rows["low-dose input"]["psnr_db"]
    assert rows["total variation"]["psnr_db"] > rows["low-dose input"]["psnr_db"]
