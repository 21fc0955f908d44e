"""What a proposal's alpha goes through at the end: contrast, and reaching as far as the box says the thing reaches.

A person's box says more than where to look: it touches the thing on all four sides. A network that is sure of the dark
middle of a lesion only, and half sure of its pale rest, is short of the box; raising its alpha until it spans the box
uses what was told. A rough mask says more: its border may be off, but what lies far from it on either side is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medapp.errors import ComputeError
from medapp.matting.closed_form import refine_soft
from medapp.matting.rough import REACH_PX, rough_picture

_SHORT, _ENOUGH = 0.7, 0.8
"""Overlap with the box, 1 = equal: below the one an alpha is raised, at the other it is enough. Hands are not exact."""
_GAIN = 0.06
_STEPS = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0])  # of the logit
_LEAST_PART = 0.03  # of the largest; smaller ones are specks
_EPS = 1e-3
_HALF = 0.5
_NEAR_PX = 7.0
"""To the border of a rough mask, in pixels of its picture: what closed form may change."""
_LEAST_SURE = 1e-3
_COLOUR_EPSILON = 1e-6
_AROUND_PX = 11
_LEAST_SPREAD = 1e-4

Span = tuple[float, float, float, float]
"""``x0, y0, x1, y1`` in pixels of the alpha, upper ends exclusive."""


@dataclass(frozen=True)
class Colours:
    """How closed form goes on from an alpha, in pictures in colour.

    Attributes:
        pull: Weight of the alpha's own opinion where it is sure; it falls with the square of its sureness.
        fit: How much of the alpha the colours around must explain, two shares: up to the first nothing changes, from
            the second on all that closed form says is taken over.
        contrast: Slope around a half of what comes of it: closed form leaves a haze of a few percent.
    """

    pull: float
    fit: tuple[float, float]
    contrast: float = 1.0


@dataclass(frozen=True)
class Finish:
    """How an alpha is finished.

    Attributes:
        contrast: Slope around a half; what passes 0 and 1 is cut.
        is_reaching: Raise an alpha that falls far short of the box.
        hold: Two distances to the border of a rough mask, in the network's pixels: from the first on the alpha is drawn
            to the mask, from the second on it is the mask. None = nowhere.
        colours: In pictures in colour closed form goes on from the alpha of a rough mask, as far as colours explain it.
            None = it does not.
        is_asked_again: The network looks twice, the second time with its own answer as the rough mask.
    """

    contrast: float = 1.0
    is_reaching: bool = False
    hold: tuple[float, float] | None = None
    colours: Colours | None = None
    is_asked_again: bool = False

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> Finish:
        """From ``finish`` of a card's ``training``: ``contrast``, 1 to 4, ``reach``, ``hold``, two distances,
        ``colours``, ``pull``, ``fit`` and a ``contrast`` of its own, and ``again``."""
        told = training.get("finish")
        if not isinstance(told, Mapping):
            return cls()
        return cls(
            _contrast(told.get("contrast")),
            told.get("reach") is True,
            _distances(told.get("hold")),
            _colours(told.get("colours")),
            told.get("again") is True,
        )

    def of_mask(
        self,
        image: NDArray[np.float32],
        alpha: NDArray[np.float32],
        rough: NDArray[np.float32],
        ask: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """The alpha of a rough mask, finished at the size that the network saw.

        Args:
            image: ``(C, H, W)`` float32, 0..1.
            alpha: ``(H, W)`` float32, 0..1; not changed.
            rough: ``(H, W)`` float32, the picture of the rough mask as ``rough_picture`` makes it.
            ask: The network's alpha for another such picture.

        Returns:
            ``(H, W)`` float32, 0..1.
        """
        alpha, told = self._held(_contrasted(alpha, self.contrast), rough), rough
        own = alpha > _HALF
        if self.is_asked_again and own.any() and not own.all():
            # a hurried border is off by some pixels, the first answer by less: the network errs less from there, but
            # forgets what the person drew, hence the mean
            told = rough_picture(own)
            again = self._held(_contrasted(ask(told), self.contrast), told)
            alpha = ((alpha + again) / 2).astype(np.float32)
        if self.colours is None or bool((image == image[:1]).all()):  # where all is grey, little tells two things apart
            return alpha
        fitted = fitted_to_colours(image.transpose(1, 2, 0), alpha, told, self.colours)
        return self._held(_contrasted(fitted, self.colours.contrast), rough)

    def of_box(self, alpha: NDArray[np.float32], box: Span | None) -> NDArray[np.float32]:
        """The alpha of a box or a click, finished.

        Args:
            alpha: ``(H, W)`` float32, 0..1; not changed.
            box: What the person drew; None for a click.

        Returns:
            ``(H, W)`` float32, 0..1.
        """
        return _contrasted(raised_to(alpha, box) if self.is_reaching and box is not None else alpha, self.contrast)

    def _held(self, alpha: NDArray[np.float32], rough: NDArray[np.float32]) -> NDArray[np.float32]:
        return alpha if self.hold is None else held_to(alpha, rough, self.hold)


def _contrasted(alpha: NDArray[np.float32], contrast: float) -> NDArray[np.float32]:
    return alpha if contrast == 1.0 else np.clip((alpha - _HALF) * contrast + _HALF, 0, 1).astype(np.float32)


def _contrast(told: Any) -> float:
    return float(told) if isinstance(told, int | float) and 1 <= told <= 4 else 1.0


def _distances(told: Any) -> tuple[float, float] | None:
    if not isinstance(told, list | tuple) or len(told) != 2 or not all(isinstance(px, (int, float)) for px in told):
        return None
    near, far = float(told[0]), float(told[1])
    return (near, far) if 0 <= near < far <= REACH_PX else None


def _colours(told: Any) -> Colours | None:
    if not isinstance(told, Mapping) or not isinstance(pull := told.get("pull"), int | float) or pull <= 0:
        return None
    fit = told.get("fit")
    if not isinstance(fit, list | tuple) or len(fit) != 2 or not all(isinstance(one, int | float) for one in fit):
        return None
    if not fit[0] < fit[1]:
        return None
    return Colours(float(pull), (float(fit[0]), float(fit[1])), _contrast(told.get("contrast")))


def fitted_to_colours(
    image: NDArray[np.float32], alpha: NDArray[np.float32], rough: NDArray[np.float32], colours: Colours
) -> NDArray[np.float32]:
    """The alpha around the border of a rough mask, drawn to what closed form makes of it and of the colours.

    Closed form takes alpha for a linear function of the colours in every small window. Where that explains what the
    network says, as in photographs, it finds an edge to a fraction of a pixel; where it does not, as where two tissues
    look alike, the network is left alone.

    Args:
        image: ``(H, W)`` or ``(H, W, C)`` float32, 0..1.
        alpha: ``(H, W)`` float32, 0..1; not changed.
        rough: ``(H, W)`` float32, the picture of the rough mask.
        colours: How.

    Returns:
        ``(H, W)`` float32, 0..1; the given alpha where closed form has no solution.

    Reference:
        Levin, Lischinski, Weiss, "A Closed-Form Solution to Natural Image Matting", TPAMI 2008.
    """
    is_near = 2 * REACH_PX * np.abs(rough - 0.5) < _NEAR_PX
    sureness = np.square(2 * alpha.astype(np.float64) - 1)
    try:
        drawn = refine_soft(image, alpha, is_near, colours.pull * (_LEAST_SURE + sureness), _COLOUR_EPSILON)
    except ComputeError:
        return alpha
    low, high = colours.fit
    share = np.clip((explained(image, alpha) - low) / (high - low), 0, 1)
    return (alpha + share * (drawn - alpha)).astype(np.float32)


def explained(image: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much of the alpha's variance around each pixel is a linear function of the colours there.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``, 0..1.
        alpha: ``(H, W)``, 0..1.

    Returns:
        ``(H, W)``, 0..1; 1 where the alpha is flat.
    """
    layers = np.atleast_3d(image).astype(np.float64)
    around = lambda values: ndimage.uniform_filter(values, (_AROUND_PX, _AROUND_PX))  # noqa: E731
    given = alpha.astype(np.float64)
    mean, means = around(given), [around(layers[..., c]) for c in range(layers.shape[2])]
    variance = around(given * given) - mean**2
    together = np.stack([around(layers[..., c] * given) - means[c] * mean for c in range(len(means))], axis=-1)
    spread = np.empty((*alpha.shape, len(means), len(means)))
    for i in range(len(means)):
        for j in range(len(means)):
            spread[..., i, j] = around(layers[..., i] * layers[..., j]) - means[i] * means[j]
    spread += _LEAST_SPREAD * np.eye(len(means))
    of_colours = (np.linalg.solve(spread, together[..., None])[..., 0] * together).sum(axis=-1)
    flat = variance <= _LEAST_SPREAD
    return np.where(flat, 1.0, np.clip(of_colours / np.where(flat, 1.0, variance), 0, 1))


def held_to(alpha: NDArray[np.float32], rough: NDArray[np.float32], hold: tuple[float, float]) -> NDArray[np.float32]:
    """The alpha drawn to a rough mask where its border is far.

    Args:
        alpha: ``(H, W)`` float32, 0..1; not changed.
        rough: ``(H, W)`` float32, its picture.
        hold: Distances in the network's pixels: up to the first the alpha stays, from the second on it is the mask.

    Returns:
        ``(H, W)`` float32, 0..1.
    """
    near, far = hold
    weight = np.clip((2 * REACH_PX * np.abs(rough - 0.5) - near) / (far - near), 0, 1)
    return (alpha + weight * ((rough > 0.5) - alpha)).astype(np.float32)


def raised_to(alpha: NDArray[np.float32], box: Span) -> NDArray[np.float32]:
    """The alpha with its logit raised by what brings its span clearly closer to the box; itself when it is close.

    Args:
        alpha: ``(H, W)`` float32, 0..1; not changed.
        box: Around what is meant; what of it lies beyond the picture does not count.

    Returns:
        ``(H, W)`` float32, 0..1, nowhere lower than before by more than 0.001.
    """
    height, width = alpha.shape
    x0, y0, x1, y1 = (float(np.clip(v, 0, most)) for v, most in zip(box, (width, height) * 2, strict=True))
    wanted = (x0, y0, x1, y1)
    overlap = _overlap(_span(alpha > 0.5), wanted)
    if overlap >= _SHORT:
        return alpha
    sure = np.clip(alpha, _EPS, 1 - _EPS)
    logit = np.log(sure / (1 - sure))
    best = 0.0
    for step in _STEPS:
        reached = _overlap(_span(logit + step > 0), wanted)
        if reached > overlap + _GAIN:
            overlap, best = reached, float(step)
        if reached >= _ENOUGH:
            break
    if best == 0.0:
        return alpha
    return (1 / (1 + np.exp(-(logit + best)))).astype(np.float32)


def _span(mask: NDArray[np.bool_]) -> Span | None:
    """Around all parts of a mask but its specks."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return None
    sizes = np.bincount(parts.ravel())[1:]
    spans = [
        (columns.start, rows.start, columns.stop, rows.stop)
        for (rows, columns), size in zip(ndimage.find_objects(parts), sizes, strict=True)
        if size >= _LEAST_PART * sizes.max()
    ]
    x0, y0, x1, y1 = np.array(spans, dtype=np.float64).T
    return float(x0.min()), float(y0.min()), float(x1.max()), float(y1.max())


def _overlap(span: Span | None, box: Span) -> float:
    """Area that both share over the area of both together."""
    if span is None:
        return 0.0
    shared = max(min(span[2], box[2]) - max(span[0], box[0]), 0.0) * max(min(span[3], box[3]) - max(span[1], box[1]), 0)
    both = (span[2] - span[0]) * (span[3] - span[1]) + (box[2] - box[0]) * (box[3] - box[1]) - shared
    return shared / both if both > 0 else 0.0
