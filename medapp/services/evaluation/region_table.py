"""The result of clicking as a table: a row a set and method, then how far the models lie from the region tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medapp.services.evaluation.tables import Block, number, signed, told_data


def region_table(result: Mapping[str, Any]) -> tuple[list[Block], list[str]]:
    """IoU by number of clicks with intervals, the best of what was offered, and times."""
    keys = [str(count) for count in result["clicks"]]
    lines = []
    for row in result["rows"]:
        cells = [row["set"], row["name"], f"{row['cases']} of {row['patients']}"]
        for key in keys:
            low, high = row["ci95"][key]
            cells.append(f"{number(row['iou'][key], 3)} ({number(low, 3)} to {number(high, 3)})")
        cells.append(number(row["iou"].get("box"), 3))
        cells.append(" / ".join(number(row["best"][key], 3) for key in keys))
        lines.append((*cells, number(row["prepare_ms"], 0), number(row["click_ms"], 0)))
    clicks = ("1 click", *(f"{key} clicks" for key in keys[1:]))
    head = ("set", "method", "things of patients", *(f"IoU, {title}" for title in clicks), "IoU, box")
    head = (*head, "best offered", "ms to prepare", "ms a click")
    blocks = [Block("", head, tuple(lines), left=2)]
    if result["differences"]:
        blocks.append(_differences(result, keys))
    notes = [
        "Clicks: into the middle of the thing, then of the largest error. Region tree: the level shown first, then the",
        "marked parts joined; stepped: someone who knows the truth steps to the best level at each click and adds or",
        "subtracts it. Best offered: the best of up to three answers. Intervals: 95 %, over patients.",
        "Milliseconds are CPU time.",
        told_data(result),
    ]
    return blocks, notes


def _differences(result: Mapping[str, Any], keys: list[str]) -> Block:
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in result["differences"]:
        low, high = row["ci95"]
        text = f"{signed(row['difference'], 3)} ({signed(low, 3)} to {signed(high, 3)})"
        found.setdefault((row["set"], row["name"], row["over"]), {})[str(row["clicks"])] = text
    lines = tuple((*names, *(texts[key] for key in keys)) for names, texts in found.items())
    head = ("set", "model", "over", *(f"{key} click{'s' if key != '1' else ''}" for key in keys))
    return Block("IoU over the region tree (over the stepped one: best of three answers)", head, lines, left=3)
