"""What restores and segments: listing with the fit to a series, and importing foreign weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medapp.errors import UsageError
from medapp.networks.card import PET_SYNTHESIS, Card, Intake, read_card
from medapp.networks.titles import TITLES
from medapp.progress import Progress
from medapp.requests import ImportModelRequest, ModelsRequest
from medapp.restoration.fit import Fit, ScanFacts, fit_card, fit_filter
from medapp.services.card_words import figures_in_words
from medapp.services.workspace import Workspace

UNITS = {"CT": "HU", "PT": "SUV"}
"""Units by modality; the others are arbitrary."""
FILTER_ID = "filter-nlm"


def list_models(request: ModelsRequest, workspace: Workspace, progress: Progress) -> tuple[dict[str, Any], ...]:
    """Every model, best fit first; with a series each says how it fits and why. Loads no torch.

    A retrained model is listed under the first one of its line, with what is known of the one that serves: ``in_use``
    is its id, ``history`` what served before and can be rolled back to.

    Raises:
        ProjectError: The series cannot be read.
    """
    facts = None
    if request.project and request.series_id:
        facts = ScanFacts.of(workspace.project(request.project).scan(request.series_id))
    rows = []
    library = workspace.library
    for listed in library.list():
        if library.is_successor(listed):
            continue
        card = library.card(library.in_use(listed.id))
        fit = fit_card(facts, card) if facts is not None and card.takes else None
        here = card.narrowed(facts.modality) if facts is not None else card
        rows.append(
            {
                **card.summary(),
                "id": listed.id,
                "in_use": card.id,
                "history": list(library.history(listed.id)),
                "title": card.name,
                "scale": here.scale,
                "fills_kspace": here.fills_kspace,
                "network": TITLES.get(card.architecture, card.architecture),
                "told": list(figures_in_words(card)),
                "kind": _kind_made(card),
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

    def place(row: dict[str, Any]) -> tuple[int, bool, bool]:
        """Of those that fit alike, one made for this kind of scan alone comes before one made for several."""
        return order[row["fit"]], row["kind"] == "filtered", len(row["takes"]) > 1

    return tuple(sorted(rows, key=place))


def import_model(request: ImportModelRequest, workspace: Workspace, progress: Progress) -> str:
    """Check a weights file, keep it as safetensors with a card, and return the new model's id.

    A card (``.json``) beside the file is followed; without one the card is made from what was published.

    Raises:
        WeightsError: The file is unsafe, damaged or of another architecture, its card contradicts it, or its range
            is not known.
        UsageError: There is no such file, or what was said contradicts itself or the card.
    """
    from medapp.networks.agreement import check_agreement
    from medapp.networks.checkpoint import import_weights
    from medapp.networks.published import import_published
    from medapp.regions.sam_checkpoint import ARCHITECTURE, import_checkpoint, is_sam

    path, folder = Path(request.path), workspace.library.user_folder
    if not path.is_file():
        raise UsageError(f"There is no file {path.name}.", "Name a .pth or .safetensors file.")
    takes = _takes(request)
    folder.mkdir(parents=True, exist_ok=True)
    card_path = path.with_suffix(".json")
    card = read_card(card_path) if card_path.is_file() else None
    if card is not None and request.architecture not in ("", card.architecture):
        raise UsageError(f"The card beside the file is for {card.architecture}.", "Correct the card or --architecture.")
    named = card.architecture if card is not None else request.architecture
    if named == ARCHITECTURE or (not named and is_sam(path)):
        return import_checkpoint(path, folder)
    if card is not None:
        check_agreement(card)
        return import_weights(path, card, folder).id
    return import_published(path, folder, named, request.modality, takes).id


def _takes(request: ImportModelRequest) -> tuple[Intake, ...]:
    """What a person said of the scans a checkpoint was trained on; empty when the publication is to tell."""
    if request.value_range is None:
        return ()
    if not request.modality or request.value_range[0] >= request.value_range[1]:
        raise UsageError("A range needs a modality and two rising numbers.", "--modality CT --range=-1024,3072")
    unit = request.unit or UNITS.get(request.modality, "arbitrary")
    return (Intake(request.modality, unit, request.value_range),)


def _kind_made(card: Card) -> str:
    """The kind of series a model makes, for the chip of a preview."""
    if card.task == PET_SYNTHESIS:
        return "synthetic"
    return {"restoration": "restored"}.get(card.serves, card.serves)
