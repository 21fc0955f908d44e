"""Results as text: one table a task, lined up for a terminal or as Markdown for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medapp.services.evaluation.figures import MATTING_ERRORS

_GAP = "  "
_NOTHING = "-"


@dataclass(frozen=True)
class Block:
    """A part of a table.

    Attributes:
        title: Above it; may be empty.
        head: Titles of the columns.
        lines: Cells.
        left: So many columns are names and stand to the left.
    """

    title: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    left: int = 1


def as_text(blocks: Sequence[Block], notes: Sequence[str]) -> str:
    """For a terminal."""
    texts = [f"{block.title}\n{aligned(block)}".lstrip("\n") for block in blocks]
    return "\n\n".join([*texts, "\n".join(notes)])


def as_markdown(blocks: Sequence[Block], notes: Sequence[str]) -> str:
    """For ``docs/models.md``."""
    texts = []
    for block in blocks:
        rule = [":--" if i < block.left else "--:" for i in range(len(block.head))]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in (block.head, rule, *block.lines))
        texts.append(f"#### {block.title}\n\n{table}" if block.title else table)
    return "\n\n".join([*texts, " ".join(notes)])


def aligned(block: Block) -> str:
    """Columns under their titles."""
    lines = [block.head, *block.lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(block.head))]

    def text(line: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i < block.left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return _GAP.join(cells).rstrip()

    return "\n".join([text(block.head), _GAP.join("-" * width for width in widths), *map(text, block.lines)])


def matting_table(result: Mapping[str, Any]) -> tuple[list[Block], list[str]]:
    """A row a source and method; errors with, for models, how far they lie from closed form, and notes."""
    lines = []
    for row in result["rows"]:
        cells = [row["source"], row["name"], f"{row['cases']} of {row['patients']}"]
        for key in MATTING_ERRORS:
            text = number(row[key], 4 if key == "mse" else 3)
            if "below_percent" in row:
                low, high = row["below_ci95"][key]
                text += f" ({_percent(row['below_percent'][key])}, {_percent(high)} to {_percent(low)})"
            cells.append(text)
        lines.append((*cells, number(row["soft_dice"], 3), number(row.get("ged"), 3)))
    head = ("source", "method", "cases of patients", "SAD", "MSE", "Grad", "Conn", "soft Dice", "GED")
    pixels = ", ".join(f"{px:g}" for px in result["disturbed_by_px"])
    notes = [
        f"Errors over crops of {result['side_px']} px. Closed form starts from the trimap of the true mask, disturbed",
        f"by {pixels} of these pixels (mean over them). Models get a box alone; where a row says so, these",
        "disturbed masks themselves, without a band. In brackets: percent against closed form with its 95 % interval;",
        "negative is better.",
        told_data(result),
    ]
    return [Block("", head, tuple(lines), left=2)], notes


def depth_table(result: Mapping[str, Any]) -> tuple[list[Block], list[str]]:
    """A row a kind of frames, pattern, number of points and method."""
    lines = []
    for row in result["rows"]:
        where = (row["kind"], row["method"], row["pattern"], str(row["points"]))
        if "mae" not in row:
            lines.append((*where, "finite" if row["is_finite"] else "not finite", "", "", "", ""))
            continue
        figures = [number(row[key], digits) for key, digits in (("mae", 2), ("rmse", 2), ("rel", 3))]
        lines.append((*where, *figures, number(100 * row["delta_110"], 1), signed(-row["gain_percent"], 1)))
    head = ("frames", "method", "pattern", "points", "MAE, mm", "RMSE, mm", "REL", "within 10 %", "MAE change, %")
    note = f"{result['n_frames']} held-out frames, {result['seeds']} draws each; change against the better fill."
    return [Block("", head, tuple(lines), left=3)], [note, told_data(result)]


def told_data(result: Mapping[str, Any]) -> str:
    """The line that says on what it was measured."""
    return f"Data SHA-256 {result['data_sha256']}" + (" (quick, not for tables)" if result.get("is_quick") else "")


def number(value: float | None, digits: int) -> str:
    """Fixed digits; a dash where there is nothing."""
    return _NOTHING if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int) -> str:
    """With its sign; a dash where there is nothing."""
    return _NOTHING if value is None else f"{value:+.{digits}f}"


def interval(limits: Sequence[float | None] | None) -> str:
    """Both ends; a dash where there is nothing."""
    return _NOTHING if limits is None else f"{number(limits[0], 2)} to {number(limits[1], 2)}"


def _percent(below: float | None) -> str:
    return signed(None if below is None else -below, 0)
