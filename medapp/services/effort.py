"""What accepted mattes took, before and after a model was adopted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from medapp.networks.card import Card
from medapp.networks.library import LINE
from medapp.store.effort import MatteEffort, means
from medapp.store.project import DataSetCase, Project


def effort_of(project: Project, cases: Iterable[DataSetCase], card: Card) -> dict[str, Any]:
    """What accepted mattes took, by how they came to be, before and after the model in use was adopted.

    Returns:
        ``before``, ``after`` (its proposals were accepted), ``with_alpha``, ``with_masks``, ``by_hand``, and the two
        ways before and after; each ``mattes``, ``strokes_per_matte``, ``seconds_per_matte``.
    """
    known = project.efforts()
    wanted = {(case.series_id, matte_id, case.slice_index) for case in cases for matte_id in case.matte_ids}
    rows = [effort for key, effort in known.items() if key in wanted]
    is_adopted = LINE in card.training

    def is_after(effort: MatteEffort) -> bool:
        return is_adopted and card.title in effort.models

    parts: dict[str, list[MatteEffort]] = {
        "before": [row for row in rows if not is_after(row)],
        "after": [row for row in rows if is_after(row)],
        "by_hand": [row for row in rows if row.way == "hand"],
    }
    for way, name in (("alpha", "with_alpha"), ("masks", "with_masks")):
        parts[name] = [row for row in rows if row.way == way]
        parts[f"{name}_before"] = [row for row in parts[name] if not is_after(row)]
        parts[f"{name}_after"] = [row for row in parts[name] if is_after(row)]
    return {name: dict(means(part)) for name, part in parts.items()}
