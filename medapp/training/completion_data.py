"""Frames with dense depth, and the sparse measurements that are simulated from them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_gradient_magnitude
from torch import Tensor

from medapp.errors import TrainingError
from medapp.networks.blocks.depth_prior import local_prior
from medapp.scan.depth import read_depth
from medapp.scan.depth_scale import DepthScale, parse_scale
from medapp.scan.reading import read_scan
from medapp.training.sources import manifest_rows

_DEPTH_END = "_depth.png"
PATTERNS = ("uniform", "grid", "keypoints", "lines", "half")


@dataclass(frozen=True, eq=False)
class DepthFrame:
    """One frame whose depth is known.

    Attributes:
        name: Stem of its files.
        rgb: ``(H, W, 3)`` uint8.
        depth_mm: ``(H, W)`` float32 z-depth, NaN = unknown.
    """

    name: str
    rgb: NDArray[np.uint8]
    depth_mm: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CompletionBatch:
    """What one update sees; depths in millimetres.

    Attributes:
        image: ``(B, 3, H, W)`` 0..1.
        sparse_depth: ``(B, 1, H, W)``, 0 = no measurement.
        prior: ``(B, 2, H, W)`` of ``local_prior``.
        reference: ``(B, 1, H, W)``, NaN = unknown.
    """

    image: Tensor
    sparse_depth: Tensor
    prior: Tensor
    reference: Tensor


def read_frame(rgb_path: Path, depth_path: Path, scale: DepthScale, most_side_px: int = 320) -> DepthFrame:
    """A frame and its depth, made smaller by a whole factor where it is large; depths are picked, never mixed.

    Raises:
        TrainingError: The two differ in size.
    """
    rgb = np.asarray(read_scan(rgb_path).stored[0])
    depth = read_depth(depth_path, scale).depth_mm
    if rgb.shape[:2] != depth.shape:
        raise TrainingError(f"{rgb_path.name} and {depth_path.name} differ in size.", "Each frame needs its own depth.")
    factor = math.ceil(max(depth.shape) / most_side_px)
    H, W = (n // factor * factor for n in depth.shape)
    smaller = rgb[:H, :W].reshape(H // factor, factor, W // factor, factor, 3).mean(axis=(1, 3))
    middle = factor // 2
    return DepthFrame(
        rgb_path.stem.removesuffix("_rgb"), np.rint(smaller).astype(np.uint8), depth[middle:H:factor, middle:W:factor]
    )


def manifest_depth(data_dir: Path, kind: str, may_be_none: bool = False) -> list[dict[str, str]]:
    """The depth maps of a kind (``train`` or ``val``) in ``MANIFEST.csv``, sorted by path.

    Raises:
        TrainingError: The folder has no manifest, or no depth map of that kind unless there ``may_be_none``.
    """
    rows = [row for row in manifest_rows(data_dir) if row["kind"] == kind and row["path"].endswith(_DEPTH_END)]
    if not rows and not may_be_none:
        raise TrainingError(f"There are no depth maps for {kind} in this folder.", "Files end in _depth.png.")
    return sorted(rows, key=lambda row: row["path"])


def manifest_frames(data_dir: Path, rows: Sequence[Mapping[str, str]]) -> list[DepthFrame]:
    """The frames of manifest rows, each read by the scale that its row states (``16-bit, 0.02 mm``, ``16-bit mm``).

    Raises:
        DepthScaleError: A row states no scale.
    """
    frames = []
    for row in rows:
        stated = re.search(r"16-bit(?:, ([0-9.]+))? mm", row["modality"])
        step = (stated[1] or "1") if stated else ""
        scale = parse_scale(f"unit=mm,scale={step},invalid=0;65535" if stated else "")  # 65535: beyond what it can hold
        path = data_dir / row["path"]
        frames.append(read_frame(path.with_name(path.name.replace(_DEPTH_END, "_rgb.jpg")), path, scale))
    return frames


def pick_points(
    frame: DepthFrame, count: int, pattern: str, random: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of ``count`` pixels with known depth, fewer where the pattern has fewer.

    Args:
        frame: Where to measure.
        count: How many.
        pattern: ``uniform``, ``grid``, ``keypoints`` (where the image has edges and corners), ``lines`` (a few scan
            lines) or ``half`` (one half of the image has none).
        random: Source of chance.

    Raises:
        ValueError: There is no such pattern.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"there is no pattern {pattern}")
    known = np.isfinite(frame.depth_mm)
    H, W = known.shape
    if pattern == "grid" and count > 1:
        step = math.sqrt(H * W / count)
        rows = np.arange(random.uniform(0, step), H, step).astype(np.intp)
        columns = np.arange(random.uniform(0, step), W, step).astype(np.intp)
        some = np.zeros_like(known)
        some[np.ix_(rows, columns)] = True
        known = known & some
    elif pattern == "lines":
        some = np.zeros_like(known)
        some[random.integers(0, H, max(2, round(math.sqrt(count) / 2)))] = True
        known = known & some
    elif pattern == "half":
        some = np.zeros_like(known)
        if random.random() < 0.5:
            some[:, : W // 2] = True
        else:
            some[: H // 2] = True
        known = known & some
    flat = np.flatnonzero(known)
    if not len(flat):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    weights = None
    if pattern == "keypoints":
        strength = gaussian_gradient_magnitude(frame.rgb.mean(axis=2), 1.5)[known] + 1e-3
        weights = strength / strength.sum()
    chosen = random.choice(flat, min(count, len(flat)), replace=False, p=weights)
    rows, columns = np.unravel_index(chosen, known.shape)
    return rows, columns


def sparse_map(
    frame: DepthFrame, count: int, pattern: str, random: np.random.Generator, noise: float = 0.0, outliers: float = 0.0
) -> NDArray[np.float32]:
    """Measured depths ``(H, W)`` float32 in millimetres, 0 = none.

    Args:
        frame: Where to measure.
        count: How many points.
        pattern: See ``pick_points``.
        random: Source of chance.
        noise: Standard deviation, as a share of the depth.
        outliers: Share of the points that get the depth of another point.
    """
    sparse = np.zeros(frame.depth_mm.shape, dtype=np.float32)
    rows, columns = pick_points(frame, count, pattern, random)
    depth = frame.depth_mm[rows, columns] * (1 + noise * random.standard_normal(len(rows)).astype(np.float32))
    wrong = random.random(len(rows)) < outliers
    if wrong.any():
        depth[wrong] = random.choice(depth, int(wrong.sum()))
    sparse[rows, columns] = np.maximum(depth, 1e-3)
    return sparse


def augmented(frame: DepthFrame, side_px: int, random: np.random.Generator) -> DepthFrame:
    """A crop, turned, mirrored, and lit in another way; geometry of the depth unchanged."""
    H, W = frame.depth_mm.shape
    top = int(random.integers(0, max(H - side_px, 0) + 1))
    left = int(random.integers(0, max(W - side_px, 0) + 1))
    box = (slice(top, top + side_px), slice(left, left + side_px))
    rgb, depth = frame.rgb[box], frame.depth_mm[box]
    turns = int(random.integers(0, 4)) if depth.shape[0] == depth.shape[1] else 0
    rgb, depth = np.rot90(rgb, turns), np.rot90(depth, turns)
    if random.random() < 0.5:
        rgb, depth = rgb[:, ::-1], depth[:, ::-1]
    gain = random.uniform(0.6, 1.4) * random.uniform(0.85, 1.15, 3)
    lit = 255 * np.clip(rgb / 255 * gain, 0, 1) ** random.uniform(0.7, 1.4)
    return DepthFrame(frame.name, np.rint(lit).astype(np.uint8), np.ascontiguousarray(depth))


def batches(
    frames: Sequence[DepthFrame],
    size: int,
    side_px: int,
    fill: str,
    nominal_mm: float,
    seed: int,
    points: tuple[int, int] = (5, 2000),
) -> Iterator[CompletionBatch]:
    """Endless batches: number of points log-uniform, patterns mixed, one image in twenty without any point.

    An image without points has no scale, so its reference is brought to the nominal mean depth.
    """
    random = np.random.default_rng(seed)
    large = [frame for frame in frames if min(frame.depth_mm.shape) >= side_px]
    if not large:
        raise TrainingError(f"No frame has {side_px} pixels on both sides.", "Take a smaller crop.")
    while True:
        images: list[NDArray] = []
        sparse: list[NDArray] = []
        references: list[NDArray] = []
        while len(images) < size:
            frame = augmented(large[int(random.integers(len(large)))], side_px, random)
            known = np.isfinite(frame.depth_mm)
            if known.mean() < 0.2:
                continue
            count = round(math.exp(random.uniform(math.log(points[0]), math.log(points[1]))))
            pattern = PATTERNS[int(random.choice(5, p=(0.5, 0.1, 0.25, 0.075, 0.075)))]
            is_noisy = random.random() < 0.4
            measured = sparse_map(
                frame, count, pattern, random, random.uniform(0, 0.03) * is_noisy, random.uniform(0, 0.03) * is_noisy
            )
            reference = frame.depth_mm
            if random.random() < 0.05 or not (measured > 0).any():
                measured = np.zeros_like(measured)
                reference = reference * (nominal_mm / float(reference[known].mean()))
            images.append(frame.rgb.transpose(2, 0, 1).astype(np.float32) / 255)
            sparse.append(measured[None])
            references.append(reference[None])
        sparse_depth = torch.from_numpy(np.stack(sparse))
        yield CompletionBatch(
            torch.from_numpy(np.stack(images)),
            sparse_depth,
            local_prior(sparse_depth, 0.0, fill),
            torch.from_numpy(np.stack(references)),
        )
