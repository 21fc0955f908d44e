"""``medapp bench brush``: one sample of the pen, the end of a stroke, undo; beside painting on whole arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medapp.annotation.annotation import Annotation
from medapp.annotation.brush import BrushSettings, StrokeBuilder
from medapp.annotation.history import History
from medapp.annotation.matte import Matte
from medapp.benchmarks.timing import row, times_ms

SAMPLES = 200


def run() -> list[dict[str, Any]]:
    """Rows of wall milliseconds; a sample is one pen position: its dabs, the preview of the changed box included."""
    rows = []
    for side in (512, 2048, 4096):
        ours = _samples(side, BrushSettings(radius_px=20))
        peer = _whole_image_samples(side) if side <= 2048 else []
        rows.append(row(f"40 px dab on {side} x {side}, preview included", ours, "whole-image float32 alpha", peer))
    rows.append(row("1000 px brush sample on 4096 x 4096", _samples(4096, BrushSettings(radius_px=500), 60), "", []))
    rows.append(row("40 px dab, edge-aware", _samples(2048, BrushSettings(radius_px=20, edge_aware=True)), "", []))
    rows.append(row("40 px dab, five slices deep", _samples(2048, BrushSettings(radius_px=20, depth_mm=5.0)), "", []))
    finish, undo = _strokes()
    rows.append(row("end of a 300 px stroke on 2048 x 2048: patches and undo copy", finish, "", []))
    rows.append(row("undo of that stroke", undo, "", []))
    return rows


def _matte(side: int) -> Matte:
    matte = Matte("bench", (11, side, side))
    alpha = np.random.default_rng(0).integers(0, 65536, (1, side, side)).astype(np.uint16)
    matte.paste(matte.make_patch("alpha", (5, 0, 0), alpha))  # type: ignore[arg-type]
    return matte


def _samples(side: int, brush: BrushSettings, count: int = SAMPLES) -> list[float]:
    image = np.random.default_rng(1).normal(size=(side, side)).astype(np.float32)
    builder = StrokeBuilder(_matte(side), brush, 5, 0, (1.0, 1.0, 1.0), image_slice=image)
    place = iter(range(10**6))

    def sample() -> None:
        n = next(place)
        step = max(4.0, brush.radius_px * 0.4)  # a quick hand
        box = builder.add_point((50 + (n * step) % (side - 100), 60 + (n * 1.3) % (side - 100)))
        if box is not None:
            builder.preview(box)

    for _ in range(10):
        sample()
    return times_ms(sample, count)


def _whole_image_samples(side: int) -> list[float]:
    """The plain way: one float32 alpha, a stamp the size of the image's part, a copy of the image for undo."""
    alpha = np.random.default_rng(0).random((side, side), dtype=np.float32)
    yy, xx = np.mgrid[-20:21, -20:21]
    stamp = np.clip(1 - np.hypot(yy, xx) / 20, 0, 1).astype(np.float32)
    undo: list[NDArray] = []
    place = iter(range(10**6))

    def sample() -> None:
        n = next(place)
        undo[:] = [alpha.copy()]
        top, left = int(50 + n * 1.3) % (side - 60), (50 + n * 4) % (side - 60)
        part = alpha[top : top + 41, left : left + 41]
        part += (1 - part) * stamp

    return times_ms(sample, 60)


def _strokes() -> tuple[list[float], list[float]]:
    annotation, history = Annotation("bench", (11, 2048, 2048)), History()
    annotation.add(_matte(2048))
    matte = annotation.mattes[0]
    finish: list[float] = []
    undo: list[float] = []
    for n in range(40):
        builder = StrokeBuilder(matte, BrushSettings(radius_px=20, value=1 - n // 11 % 2), n % 11)
        builder.add_point((100 + n * 10, 100 + n * 20))
        builder.add_point((400 + n * 10, 100 + n * 20))

        def end(builder: StrokeBuilder = builder) -> None:
            edit = builder.finish_edit()
            if edit is not None:
                edit.apply(annotation)
                history.push("bench", edit)

        def back() -> None:
            step = history.undo()
            if step is not None:
                step[1].apply(annotation)

        finish += times_ms(end, 1, warm_up=0)
        undo += times_ms(back, 1, warm_up=0)
    return finish, undo
