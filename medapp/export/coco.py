"""COCO annotations of the PNG images: masks at alpha >= 0.5, which is all that COCO can hold.

Reference:
    Lin et al., "Microsoft COCO", ECCV 2014; data format at cocodataset.org.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass
class CocoDocument:
    """Collects images, categories and annotations of one export.

    Ids are made from what they name, so that two exports of the same revision have the same ids.
    """

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[str, int] = field(default_factory=dict)

    def add_image(
        self, key: str, file_name: str, size_hw: tuple[int, int], z: int, spacing: tuple[float, float] | None
    ) -> int:
        """Add one PNG; ``key`` is the series key, ``spacing`` is ``(y, x)`` mm or None. Returns its id."""
        number = _stable_id(f"{key}/{z}")
        entry = {
            "id": number,
            "file_name": file_name,
            "height": size_hw[0],
            "width": size_hw[1],
            "series_key": key,
            "slice_index": z,
            "spacing_mm": list(spacing) if spacing else None,
        }
        self.images.append(entry)
        return number

    def add_mask(self, image_id: int, matte_id: str, name: str, mask: NDArray[np.bool_], alpha_file: str) -> None:
        """Add the mask of one matte on one image; an empty mask is left out."""
        if not mask.any():
            return
        category = self.categories.setdefault(name, len(self.categories) + 1)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        entry = {
            "id": _stable_id(f"{image_id}/{matte_id}"),
            "image_id": image_id,
            "category_id": category,
            "iscrowd": 0,
            "segmentation": segmentation_of(mask),
            "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
            "area": int(mask.sum()),
            "alpha_file": alpha_file,
        }
        self.annotations.append(entry)

    def as_dict(self) -> dict[str, Any]:
        """The whole document."""
        categories = [{"id": number, "name": name, "supercategory": ""} for name, number in self.categories.items()]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}


def segmentation_of(mask: NDArray[np.bool_]) -> list[list[float]] | dict[str, Any]:
    """Polygons along the pixel edges, one per part, or run lengths where the mask has holes.

    Args:
        mask: ``(H, W)`` bool.
    """
    padded = np.pad(mask, 1)
    holes = ndimage.label(~padded)[1] > 1  # background is 4-connected, so parts that touch at a corner stay apart
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if holes or any(ndimage.label(parts == i)[1] != 1 for i in range(1, count + 1)):
        return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": encode_runs(run_lengths(mask))}
    return [_outline(parts == i) for i in range(1, count + 1)]


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs of 0, 1, 0, ... down the columns; the first may be 0."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


def encode_runs(runs: list[int]) -> str:
    """COCO's text of run lengths: differences to the run two before, six bits a character."""
    text = []
    for i, run in enumerate(runs):
        rest = run - runs[i - 2] if i > 2 else run
        while True:
            bits = rest & 0x1F
            rest >>= 5
            more = rest != -1 if bits & 0x10 else rest != 0
            text.append(chr((bits | 0x20 if more else bits) + 48))
            if not more:
                break
    return "".join(text)


def decode_runs(text: str) -> list[int]:
    """The run lengths of ``encode_runs``."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 0x1F) << shift
        shift += 5
        if not code & 0x20:
            if code & 0x10:
                value |= -1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs


def _outline(part: NDArray[np.bool_]) -> list[float]:
    """The boundary of a connected part without holes, corner by corner, along pixel edges: ``x, y, x, y, ...``."""
    padded = np.pad(part, 1)
    top_left = np.argwhere(padded)[0]  # first row, then first column: its upper left corner is a corner of the outline
    y, x = int(top_left[0]), int(top_left[1])
    start, corner, heading = (x, y), (x, y), (1, 0)
    points: list[float] = []
    while True:
        # Inside is on the right of the heading; look at the two pixels ahead of the corner.
        ahead_left, ahead_right = _pixels_ahead(padded, corner, heading)
        if ahead_right and not ahead_left:
            turn = heading
        elif ahead_left:
            turn = (heading[1], -heading[0])
        else:
            turn = (-heading[1], heading[0])
        if turn != heading or not points:
            points += [float(corner[0] - 1), float(corner[1] - 1)]
        heading = turn
        corner = (corner[0] + heading[0], corner[1] + heading[1])
        if corner == start:
            return points


def _pixels_ahead(padded: NDArray[np.bool_], corner: tuple[int, int], heading: tuple[int, int]) -> tuple[bool, bool]:
    """Whether the pixel ahead on the left and on the right of a corner belongs to the part."""
    x, y = corner
    cells = {
        (1, 0): ((y - 1, x), (y, x)),
        (0, 1): ((y, x), (y, x - 1)),
        (-1, 0): ((y, x - 1), (y - 1, x - 1)),
        (0, -1): ((y - 1, x - 1), (y - 1, x)),
    }
    left, right = cells[heading]
    return bool(padded[left]), bool(padded[right])


def _stable_id(text: str) -> int:
    return uuid5(NAMESPACE_OID, f"medapp coco {text}").int >> 76  # 52 bits: exact in every JSON reader
