"""Adopt the challenger of a run, or let the model before it serve again; nothing is overwritten."""

from __future__ import annotations

from pathlib import Path

from medapp.errors import TrainingError
from medapp.networks.card import read_card
from medapp.networks.library import LINE
from medapp.progress import Progress
from medapp.requests import AdoptRequest, AdoptResult, RollBackRequest
from medapp.services.workspace import Workspace

CHALLENGER = "challenger"
"""Folder in a run that holds the fine-tuned model and its card."""


def adopt(request: AdoptRequest, workspace: Workspace, progress: Progress) -> AdoptResult:
    """Copy the challenger of a run into the user's models and let it serve for its line from now on.

    Raises:
        TrainingError: The run has no compared challenger, or its files are damaged.
        WeightsError: The user's models cannot be written; the model in use stays.
    """
    from medapp.networks.checkpoint import file_sha256, read_weights
    from medapp.services.scorecard import read_scorecard

    folder = Path(request.run)
    wanted = str(read_scorecard(folder)["challenger"]["id"])
    card_path = folder / CHALLENGER / f"{wanted}.json"
    if not card_path.is_file():
        raise TrainingError(
            "The new model is not in this run any more; the model in use is unchanged.",
            "Train again, or go on with it.",
        )
    card = read_card(card_path)
    weights = card_path.with_suffix("").with_name(f"{wanted}.safetensors")
    if LINE not in card.training or file_sha256(weights) != card.sha256:
        raise TrainingError(
            "The new model of this run is damaged; the model in use is unchanged.", "Train again, or go on with it."
        )
    progress.check()
    library = workspace.library
    before = library.in_use(str(card.training[LINE]))
    kept = library.adopt(read_weights(weights, card.architecture, card.config), card)
    return AdoptResult(kept.id, before)


def roll_back(request: RollBackRequest, workspace: Workspace, progress: Progress) -> AdoptResult:
    """Let the model before the adopted one serve again; files stay.

    Raises:
        WeightsError: Nothing was adopted in this line, or the folder cannot be written.
    """
    serves, served = workspace.library.roll_back(request.model_id)
    return AdoptResult(serves, served)
