"""What restores and segments: listing with the fit to a series, and importing foreign weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medapp.errors import UsageError
from medapp.progress import Progress
from medapp.requests import ImportModelRequest, ModelsRequest
from medapp.restoration.fit import Fit, ScanFacts, fit_card, fit_filter
from medapp.services.workspace import Workspace

FILTER_ID = "filter-nlm"


def list_models(request: ModelsRequest, workspace: Workspace, progress: Progress) -> tuple[dict[str, Any], ...]:
    """Every model, best fit first; with a series each says how it fits and why. Loads no torch.

    Raises:
        ProjectError: The series cannot be read.
    """
    facts = None
    if request.project and request.series_id:
        facts = ScanFacts.of(workspace.project(request.project).scan(request.series_id))
    rows = []
    for card in workspace.library.list():
        fit = fit_card(facts, card) if facts is not None and card.takes else None
        rows.append(
            {
                **card.summary(),
                "title": card.name,
                "kind": {"restoration": "restored"}.get(card.serves, card.serves),
                "fit": fit.level if fit else None,
                "reason": fit.reason if fit else "",
            }
        )
    nlm: Fit | None = fit_filter(facts) if facts is not None else None
    rows.append(
        {
            "id": FILTER_ID,
            "title": "non-local means",
            "version": "",
            "task": "filter",
            "serves": "restoration",
            "takes": [],
            "inputs": [],
            "kind": "filtered",
            "fit": nlm.level if nlm else None,
            "reason": nlm.reason if nlm else "",
        }
    )
    order = {"green": 0, "amber": 1, None: 1, "blocked": 2}
    return tuple(sorted(rows, key=lambda row: (order[row["fit"]], row["kind"] == "filtered")))


def import_model(request: ImportModelRequest, workspace: Workspace, progress: Progress) -> str:
    """Check a weights file, keep it as safetensors with a card, and return the new model's id.

    Raises:
        WeightsError: The file is unsafe, damaged or of another architecture.
        UsageError: The file does not tell its architecture.
    """
    path = Path(request.path)
    if not path.is_file():
        raise UsageError(f"There is no file {path.name}.", "Name a .pth or .safetensors file.")
    workspace.library.user_folder.mkdir(parents=True, exist_ok=True)
    if request.architecture in ("", "sam"):
        from medapp.regions.sam_checkpoint import import_checkpoint

        return import_checkpoint(path, workspace.library.user_folder)
    from medapp.networks.card import read_card
    from medapp.networks.checkpoint import import_weights

    card = read_card(path.with_suffix(".json"))  # range, unit and configuration cannot be told from the weights
    if card.architecture != request.architecture:
        raise UsageError(f"The card beside the file is for {card.architecture}.", "Correct the card or --architecture.")
    return import_weights(path, card, workspace.library.user_folder).id
