"""Results as text that lines up: one table a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medapp.services.evaluation.figures import MATTING_ERRORS

_GAP = "  "


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns under their titles: the first ``left`` ones to the left, the others to the right."""
    lines = [list(head), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]

    def text(line: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return _GAP.join(cells).rstrip()

    return "\n".join([text(lines[0]), _GAP.join("-" * width for width in widths), *map(text, lines[1:])])


def matting_table(result: Mapping[str, Any]) -> str:
    """A row a source and method; errors with, for models, by how much they lie below closed form."""
    lines = []
    for row in result["rows"]:
        below = row.get("below_percent")
        cells = [row["source"], row["name"], f"{row['cases']} of {row['patients']}"]
        for key in MATTING_ERRORS:
            text = number(row[key], 4 if key == "mse" else 3)
            if below is not None:
                text += f" ({signed(_negative(below[key]), 0)} %)"
            cells.append(text)
        lines.append([*cells, number(row["soft_dice"], 3), number(row.get("ged"), 3)])
    head = ["source", "method", "cases of patients", "SAD", "MSE", "Grad", "Conn", "soft Dice", "GED"]
    note = (
        f"Errors over crops of {result['side_px']} px; closed form starts from the trimap of the true mask\n"
        f"disturbed by {', '.join(f'{px:g}' for px in result['disturbed_by_px'])} of these pixels (mean), "
        "models from a box alone.\n"
        "In brackets: against closed form; negative is better."
    )
    return f"{aligned(head, lines, left=2)}\n\n{note}\n{told_data(result)}"


def depth_table(result: Mapping[str, Any]) -> str:
    """A row a kind of frames, pattern, number of points and method."""
    lines = []
    for row in result["rows"]:
        where = [row["kind"], row["method"], row["pattern"], str(row["points"])]
        if "mae" not in row:
            lines.append([*where, "finite" if row["is_finite"] else "not finite", "", "", "", ""])
            continue
        figures = [number(row[key], digits) for key, digits in (("mae", 2), ("rmse", 2), ("rel", 3))]
        lines.append([*where, *figures, number(100 * row["delta_110"], 1), signed(-row["gain_percent"], 1)])
    head = ["frames", "method", "pattern", "points", "MAE, mm", "RMSE, mm", "REL", "within 10 %", "MAE change, %"]
    note = f"{result['n_frames']} held-out frames, {result['seeds']} draws each; change against the better fill."
    return f"{aligned(head, lines, left=2)}\n\n{note}\n{told_data(result)}"


def told_data(result: Mapping[str, Any]) -> str:
    """The line that says on what it was measured."""
    return f"Data SHA-256 {result['data_sha256']}" + (" (quick, not for tables)" if result.get("is_quick") else "")


def number(value: float | None, digits: int) -> str:
    """Fixed digits; a dash where there is nothing."""
    return "-" if value is None else f"{value:.{digits}f}"


def signed(value: float | None, digits: int) -> str:
    """With its sign; a dash where there is nothing."""
    return "-" if value is None else f"{value:+.{digits}f}"


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def restoration_table(result: Mapping[str, Any]) -> str:
    """A block a condition, a row a method; then how well the trust maps tell the error."""
    unit = result["unit"]
    head = ["method", "PSNR, dB", "95 %", "SSIM", f"RMSE, {unit}", f"shift, {unit}", "worst", "edge width, %"]
    head += ["noise power", "noise freq.", "gain, dB", "95 %"]
    blocks: dict[str, list[list[str]]] = {}
    for row in result["rows"]:
        cells = [row["name"], number(row.get("psnr_db"), 2), _interval(row.get("ci95")), number(row.get("ssim"), 4)]
        cells += [number(row.get("rmse"), 2), signed(row.get("bias"), 2), signed(row.get("bias_worst"), 2)]
        wider = row.get("edge_width")
        cells += [signed(None if wider is None else 100 * wider, 1)]
        cells += [number(row["noise_power"], 3), number(row["noise_frequency"], 2)]
        cells += [signed(row.get("gain_db"), 2), _interval(row.get("gain_ci95"))]
        who = f"{row['n_subjects']} patients, {row['n_slices']} slices"
        blocks.setdefault(f"{row['condition']}, {row['group']} ({who})", []).append(cells)
    texts = [f"{title}\n{aligned(head, lines)}" for title, lines in blocks.items()]
    notes = [
        "PSNR, SSIM, RMSE inside the body; shift and noise in flat regions, noise power and mean frequency against",
        "the input; edge width against the reference; gain: PSNR over the best classical method, paired by patient.",
    ]
    if result["calibration"]:
        texts.append(_calibration_table(result["calibration"]))
    return "\n\n".join([*texts, "\n".join([*notes, told_data(result)])])


def _calibration_table(calibration: Sequence[Mapping[str, Any]]) -> str:
    head = ["trust map of", "condition", "rank correlation", "95 %", "in 8 px blocks", "95 %"]
    head += ["mean error by tenths of the spread", "rises"]
    lines = []
    for told in calibration:
        tenths = " ".join(number(value, 1) for value in told["error_by_decile"])
        lines.append(
            [
                told["name"],
                told["condition"],
                number(told["rank_correlation"], 2),
                _interval(told["rank_ci95"]),
                number(told["block_rank_correlation"], 2),
                _interval(told["block_rank_ci95"]),
                f"{tenths} {told['unit']}",
                "yes" if told["rises"] else "no",
            ]
        )
    return aligned(head, lines, left=2)


def _interval(limits: Sequence[float | None] | None) -> str:
    return "-" if limits is None else f"{number(limits[0], 2)} to {number(limits[1], 2)}"
