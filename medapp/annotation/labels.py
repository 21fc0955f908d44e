"""Names and colours of labels: safe for common colour-vision deficiencies, each with a letter and an outline."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Literal

Outline = Literal["solid", "dash", "dot", "dash-dot", "dash-dot-dot", "long-dash", "double"]

COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
OUTLINES: tuple[Outline, ...] = ("solid", "dash", "dot", "dash-dot", "dash-dot-dot", "long-dash", "double")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class LabelStyle:
    """How a label is drawn: never by colour alone."""

    colour: str
    letter: str
    outline: Outline


def label_style(label: int) -> LabelStyle:
    """Colour, letter and outline of a label; they repeat after fourteen colours and go on with ``A2``, ``B2``...

    Args:
        label: From 1.
    """
    place = max(int(label), 1) - 1
    colour = COLOURS[place % len(COLOURS)]
    if (place // len(COLOURS)) % 2:
        colour = _darker(colour)
    turn, letter = divmod(place, len(_LETTERS))
    return LabelStyle(colour, _LETTERS[letter] + (str(turn + 1) if turn else ""), OUTLINES[place % len(OUTLINES)])


def _darker(colour: str, factor: float = 0.6) -> str:
    """The same hue at a share of its lightness."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    return "#" + "".join(f"{round(c * 255):02x}" for c in colorsys.hls_to_rgb(hue, lightness * factor, saturation))
