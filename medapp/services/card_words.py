"""What a card's figures say, in sentences a person can read: each against what one would otherwise use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medapp.networks.card import Card

MOST = 8
"""Sentences a model; the rest stands in docs/models.md."""
ROUGH = ", rough mask"
"""Behind a source or a model's id: told the very disturbed masks whose trimaps closed form is told."""
_GROUPS = {"clean": "", "noisy reference": ", on scans that are noisy themselves"}
_TOLD_UNITS = ("HU", "SUV", "grey levels")


def figures_in_words(card: Card) -> tuple[str, ...]:
    """At most ``MOST`` sentences, the headline first; empty where nothing was measured on held-out patients.

    A sentence says what was measured, by how much the model is better or worse than the best method without a network,
    with the 95 % interval, and on how many patients. Loads no torch.
    """
    told: list[str] = []
    for name, figures in _in_order(card.figures):
        if isinstance(figures, Mapping):
            told += _sentences(name, figures, str(card.figures.get("unit", "")))
    return tuple(told[:MOST])


def _in_order(figures: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """As the card has them; a model that starts from rough masks is told by these first, then by all with a box."""
    rows = list(figures.items())
    if not any(name.endswith(ROUGH) for name, _ in rows):
        return rows
    return sorted(rows, key=lambda row: (not row[0].endswith(ROUGH), row[0] != "all"))


def _sentences(name: str, figures: Mapping[str, Any], unit: str) -> Iterator[str]:
    if "colour_shift_worst" in figures:
        yield _enlarged(name, figures)
    elif "gain_db" in figures:
        yield _restored(name, figures, unit)
    elif "suvmax_off" in figures:
        yield _tumours(name, figures)
    elif "rank_correlation" in figures:
        yield _trusted(name, figures)
    elif isinstance(figures.get("below_percent"), Mapping):
        yield _matted(name, figures)
    elif any(str(key).endswith(" points") for key in figures):
        yield _completed(name, figures)


def _restored(name: str, figures: Mapping[str, Any], unit: str) -> str:
    """A condition of a restoration: the gain over the best rival, and what it does to levels and edges."""
    unit = str(figures.get("unit", unit))  # models of several kinds of scans have one each
    condition, _, group = name.rpartition(", ") if ", " in name else (name, "", "")
    where = _GROUPS.get(group, f", {group}" if group else "")
    gain, rival = float(figures["gain_db"]), str(figures.get("best_classical", "the best filter"))
    text = f"{_begun(condition)}{where}: {abs(gain):.2f} dB {'above' if gain >= 0 else 'below'} {rival}"
    text += _interval(figures.get("gain_ci95"), "dB") + _patients(figures)
    changes = []
    bias = figures.get("bias", figures.get("hu_bias"))
    if isinstance(bias, int | float) and unit in (*_TOLD_UNITS, ""):
        changes.append(f"mean shift {bias:+.2g} {unit or 'HU'}")
    edges = figures.get("edge_width", figures.get("edge_width_change"))
    if isinstance(edges, int | float):
        changes.append(f"edges {100 * edges:+.1f} % wide")
    highest = figures.get("suvmax_bias")
    if isinstance(highest, int | float):
        changes.append(f"SUVmax of tumours {highest:+.1f} %")
    return f"{text}; {', '.join(changes)}." if changes else f"{text}."


def _enlarged(name: str, figures: Mapping[str, Any]) -> str:
    """A condition of pictures in colour: the gain over interpolation, and how far colours move."""
    condition, _, group = name.rpartition(", ")
    gain, rival = float(figures["gain_db"]), str(figures.get("best_classical", "interpolation"))
    slides, mean, worst = (figures.get(key) for key in ("slides", "colour_shift", "colour_shift_worst"))
    what = f"{condition}, {'all pictures' if group == 'all' else group}"
    better = (
        f"{abs(gain):.2f} dB {'above' if gain >= 0 else 'below'} {rival}{_interval(figures.get('gain_ci95'), 'dB')}"
    )
    moved = f"the mean of a colour moves by {mean:.1f}, at most {worst:.1f} grey levels"
    return f"{what}: {better}, {slides} {'slide' if slides == 1 else 'slides'}; {moved}."


def _tumours(where: str, figures: Mapping[str, Any]) -> str:
    """The highest uptake of tumours over all simulated centres, with its sign and without."""
    mean = f"{figures['suvmax_bias']:+.1f} % in the mean{_interval(figures.get('suvmax_bias_ci95'), '%', 1)}"
    return (
        f"SUVmax of tumours, {where}: {mean}; {figures['suvmax_off']:.0f} % off, too high or too low, in a single one."
    )


def _trusted(name: str, figures: Mapping[str, Any]) -> str:
    rises = "rises with every tenth" if figures.get("rises") else "does not rise with every tenth"
    correlation = f"rank correlation {figures['rank_correlation']:.2f}"
    return f"{_begun(name)}: the error {rises} of its spread ({correlation})."


def _begun(words: str) -> str:
    """As a line begins: with a capital, but a factor such as x2 stays a factor."""
    return f"×{words[1:]}" if words[:1] == "x" and words[1:2].isdigit() else f"{words[:1].upper()}{words[1:]}"


def _matted(source: str, figures: Mapping[str, Any]) -> str:
    """A source of mattes: its absolute error beside closed form from a trimap."""
    below = float(figures["below_percent"]["sad"])
    interval = (figures.get("below_ci95") or {}).get("sad")
    if below < 0 and isinstance(interval, list | tuple):
        interval = [-interval[1], -interval[0]]
    side = "below" if below >= 0 else "above"
    given = "rough mask" if source.endswith(ROUGH) else "box"
    source = source.removesuffix(ROUGH)
    what = "All of them" if source == "all" else _begun(source)
    what += f", told a {given}"
    return f"{what}: error {abs(below):.0f} % {side} closed form{_interval(interval, '%', 0)}{_patients(figures)}."


def _completed(kind: str, figures: Mapping[str, Any]) -> str:
    """Depth of a kind of scene, over all numbers of points."""
    gains = {
        int(str(key).split()[0].replace(",", "")): float(value["gain_percent"])
        for key, value in figures.items()
        if str(key).endswith(" points") and isinstance(value, Mapping) and "gain_percent" in value
    }
    low, high = min(gains.values()), max(gains.values())
    points = f"at {min(gains):,} to {max(gains):,} points"
    if low >= 0:
        return f"{_begun(kind)}: error {low:.0f} to {high:.0f} % below the better plain fill {points}."
    if high <= 0:
        return f"{_begun(kind)}: error {-high:.0f} to {-low:.0f} % above the better plain fill {points}."
    return f"{_begun(kind)}: from {-low:.0f} % above to {high:.0f} % below the better plain fill {points}."


def _interval(ends: Any, unit: str, digits: int = 2) -> str:
    if not isinstance(ends, list | tuple) or len(ends) != 2 or not all(isinstance(end, int | float) for end in ends):
        return ""
    return f" (95\N{NO-BREAK SPACE}%: {ends[0]:.{digits}f} to {ends[1]:.{digits}f} {unit})"


def _patients(figures: Mapping[str, Any]) -> str:
    count = figures.get("n_subjects", figures.get("patients"))
    return f", {count} {'patient' if count == 1 else 'patients'}" if isinstance(count, int) else ""
