"""Numbers of the command line that have to lie in a range."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def between(low: float, high: float) -> Callable[[str], float]:
    """For ``type=``: a number from ``low`` to ``high``, both allowed."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    parse.__name__ = "number"  # argparse names it where the text is none
    return parse


def above_zero(text: str) -> float:
    """For ``type=``: a number above 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


above_zero.__name__ = "number"


def not_negative(text: str) -> int:
    """For ``type=``: a whole number, 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


not_negative.__name__ = "whole number"
