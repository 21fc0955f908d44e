"""From a click, a box or a rough mask to several masks, where they disagree, and an alpha, by a trained network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medapp.errors import ComputeError, UnsuitableModelError, UsageError
from medapp.matting.finish import Finish
from medapp.matting.matter import shown_image
from medapp.matting.rough import box_picture, rough_picture
from medapp.networks.architectures.medical_matting import MedicalMatting, binary_entropy
from medapp.networks.card import ROUGH_MASK
from medapp.networks.device import free_bytes, is_out_of_memory
from medapp.networks.library import LoadedModel
from medapp.networks.registry import architecture
from medapp.progress import Progress
from medapp.scan.scan import Window

MOST_MASKS = 32
BY_PIXELS = -1
"""Seed that follows from the pixels: the same slice and prompt always give the same answer."""
_CROP_PX = 128
_CROP_OF_BOX = 1.5
_LONGEST = 2.0
"""Of the network's side: no crop is drawn out longer."""
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_MEMORY_SHARE = 0.4
_MOST_BYTES = 2_000_000_000
_LEAST_TILE_PX = 64
_MIRRORED: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))
"""Axes of ``(C, H, W)`` that the views of a card with ``views`` 4 in its ``training`` are mirrored along; with 8 the
same again with rows and columns exchanged."""

Box = tuple[int, int, int, int]
"""``x0, y0, x1, y1`` in pixels, the upper ends exclusive."""


@dataclass(frozen=True)
class MattingProposal:
    """What a network proposes for one crop; arrays are of the crop, in the pixels of the slice.

    Attributes:
        box_xyxy: The crop in the slice.
        masks: ``(K, h, w)`` float32 probabilities.
        uncertainty: ``(h, w)`` float32 bits, 0..1.
        alpha: ``(h, w)`` float32, 0..1.
        seed: Of the draws; given again, it gives the same again.
        network_px: Height and width of what the network saw.
    """

    box_xyxy: Box
    masks: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    alpha: NDArray[np.float32]
    seed: int
    network_px: tuple[int, int]


@dataclass(frozen=True)
class CropRule:
    """Where the crop lies and how large its pixels are, as the model was trained.

    Attributes:
        side_px: Side the network was trained on.
        of_box: Crop side over the longer side of a box.
        is_box_scaled: True where the training scaled every thing to the same size; False where pixels kept theirs.
        is_within: The crop ends where the slice does, and what is left of it has the same area to the network: beyond
            the slice there is nothing to see, and a thing that fills its picture is seen as finely as it can be.
            False = the pixels at the border go on.
        spacing_mm: Pixel sizes it was trained on; None when unknown.
    """

    side_px: int = _CROP_PX
    of_box: float = _CROP_OF_BOX
    is_box_scaled: bool = False
    is_within: bool = False
    spacing_mm: tuple[float, float] | None = None

    @classmethod
    def of(cls, training: Mapping[str, Any], spacing_mm: tuple[float, float] | None) -> CropRule:
        """From ``training`` of a card: ``crop_px``, ``crop_of_box``, ``crop_scale``, ``box`` or ``pixels``, and
        ``crop_within``."""
        side, share = training.get("crop_px", _CROP_PX), training.get("crop_of_box", _CROP_OF_BOX)
        is_sound = isinstance(side, int) and 8 <= side <= 1024 and isinstance(share, (int, float)) and 1 <= share <= 8
        return cls(
            side if is_sound else _CROP_PX,
            float(share) if is_sound else _CROP_OF_BOX,
            training.get("crop_scale") == "box",
            training.get("crop_within") is True,
            spacing_mm,
        )

    def scale(self, box_side: float, spacing_mm: float | None) -> float:
        """Network pixels per slice pixel."""
        if self.is_box_scaled:
            return self.side_px / (self.of_box * box_side) if box_side > 0 else 1.0
        if self.spacing_mm is None or not spacing_mm:
            return 1.0
        return spacing_mm / float(np.clip(spacing_mm, *self.spacing_mm))

    def scale_within(self, crop: Box) -> float:
        """Network pixels per slice pixel for a crop of any shape: of the area that it would have as a square."""
        wide, high = crop[2] - crop[0], crop[3] - crop[1]
        return min(self.side_px / (wide * high) ** 0.5, _LONGEST * self.side_px / max(wide, high))

    def box(self, prompt: tuple[float, float, float, float], scale: float) -> Box:
        """The square crop around a prompt; it may reach beyond the slice."""
        x0, y0, x1, y1 = prompt
        side = self.of_box * max(x1 - x0, y1 - y0)
        if not (self.is_box_scaled and side > 0):
            side = max(self.side_px / scale, side)
        middle_x, middle_y = (x0 + x1) / 2, (y0 + y1) / 2
        (left, right), (top, bottom) = _span(middle_x, side), _span(middle_y, side)
        return left, top, right, bottom


@dataclass(frozen=True)
class MattingProposer:
    """A Medical Matting model, ready to answer clicks, boxes and rough masks."""

    model: LoadedModel

    @property
    def takes_rough_mask(self) -> bool:
        """Whether the model looks at a rough mask; others take no more of it than where it lies."""
        return ROUGH_MASK in self.model.card.inputs

    def propose(
        self,
        values: NDArray,
        window: Window | None = None,
        point_xy: tuple[float, float] | None = None,
        box_xyxy: tuple[float, float, float, float] | None = None,
        count: int = 8,
        seed: int = BY_PIXELS,
        mean_first: bool = False,
        spacing_mm: float | None = None,
        modality: str | None = None,
        progress: Progress | None = None,
        rough: NDArray | None = None,
    ) -> MattingProposal:
        """Propose masks and an alpha for what a person points at.

        Click and box choose the crop. A model whose card names ``rough_mask`` also sees the rough mask, or
        the box where there is none.

        Args:
            values: ``(H, W)`` in the scan's unit, or ``(H, W, 3)`` colours as stored.
            window: The display window, which is what the network sees where its card names no range.
            point_xy: A click in pixels; used where there is no box.
            box_xyxy: A box in pixels.
            count: Masks to draw, 1 to 32.
            seed: Of the draws; ``BY_PIXELS`` = from what the network sees.
            mean_first: The first mask, and with it the alpha, comes from the mean of the prior.
            spacing_mm: Pixel size of the slice; None when unknown.
            modality: DICOM code, for models that take several.
            progress: Notices Stop before every tile.
            rough: ``(H, W)`` bool, or float 0..1 the share of each pixel: a hurried mask or a region of what is meant.
                Without a box the crop lies around it.

        Raises:
            UsageError: No prompt, a prompt outside the slice, a rough mask that is empty or of another size, or an
                impossible count.
            UnsuitableModelError: The model takes other pictures, or gives no alpha.
            ComputeError: Out of memory, or a result that is not finite.
            Cancelled: The user stopped it.
        """
        progress = progress or Progress()
        if not 1 <= count <= MOST_MASKS:
            raise UsageError(f"Between 1 and {MOST_MASKS} masks can be drawn, not {count}.")
        network = self._network()
        if rough is not None and box_xyxy is None:
            box_xyxy = _around(rough, values.shape)
        prompt = _prompt(point_xy, box_xyxy, values.shape)
        rule = CropRule.of(self.model.card.training, self.model.card.spacing_mm)
        scale = rule.scale(max(prompt[2] - prompt[0], prompt[3] - prompt[1]), spacing_mm)
        crop = rule.box(prompt, scale)
        box = _clipped(crop, values.shape)
        if rule.is_within and box != crop:
            crop, scale = box, rule.scale_within(box)
        left, top, right, bottom = box
        shown = self._entering(values, window, modality)[:, top:bottom, left:right]
        around = ((0, 0), (top - crop[1], crop[3] - bottom), (left - crop[0], crop[2] - right))
        shown = np.pad(shown, around, mode="edge")  # as in training; a mirror would show the thing twice
        size = tuple(max(8, round(side * scale)) for side in shown.shape[1:])
        image = _resized(torch.from_numpy(np.ascontiguousarray(shown)), size)
        told = None
        if self.takes_rough_mask:
            told = _of_box(prompt, crop, rule, size) if rough is None else _of_mask(rough, box, around, size)

        def entering(picture: NDArray[np.float32] | None) -> torch.Tensor:
            given = image if picture is None else torch.cat([image, torch.from_numpy(picture)[None]])
            return _padded(given, network.size_multiple)

        if seed == BY_PIXELS:
            seed = _hash(entering(told), box)
        drawn_noise = np.random.default_rng(seed).standard_normal((1, count, network.latent_dim)).astype(np.float32)
        noise = torch.from_numpy(drawn_noise)

        def look(picture: NDArray[np.float32] | None) -> torch.Tensor:
            made = _finite(self._run(network, entering(picture), noise, mean_first, progress))  # (K + 2, H, W)
            return made[:, : size[0], : size[1]]

        finish = Finish.of(self.model.card.training)
        found = look(told)
        if told is not None and rough is not None:
            alpha = finish.of_mask(image.numpy(), found[-1].numpy(), told, lambda picture: look(picture)[-1].numpy())
            found[-1] = torch.from_numpy(alpha)
        found = _resized(found, shown.shape[1:]).clamp_(0, 1)
        arrays = found[:, top - crop[1] :, left - crop[0] :][:, : bottom - top, : right - left].numpy()
        alpha = arrays[count + 1]
        if told is None or rough is None:
            is_drawn = rough is None and prompt[2] > prompt[0] and prompt[3] > prompt[1]
            drawn = (prompt[0] - left, prompt[1] - top, prompt[2] - left, prompt[3] - top) if is_drawn else None
            alpha = finish.of_box(alpha, drawn)  # a rough mask says more of how far the thing reaches
        return MattingProposal(box, arrays[:count], arrays[count], alpha, seed, (size[0], size[1]))

    def _network(self) -> MedicalMatting:
        network = self.model.network
        if not isinstance(network, MedicalMatting) or network.matting_net is None:
            raise UnsuitableModelError("This model gives no masks and alpha.", "Choose a Medical Matting model.")
        return network

    def _entering(self, values: NDArray, window: Window | None, modality: str | None) -> NDArray[np.float32]:
        """``(C, H, W)`` as the network sees it."""
        card = self.model.card
        intake = card.intake(modality)
        if intake is None and card.takes and modality is not None:
            raise UnsuitableModelError(
                f"This model takes {', '.join(card.modalities)}, not {modality}.", "Choose another model."
            )
        if intake is not None and intake.unit != "colour" and values.ndim == 2:
            (low, high), (bottom, top) = intake.value_range, intake.network_range
            finite = np.where(np.isfinite(values), values, low)
            share = np.clip((finite.astype(np.float64) - low) / (high - low), 0, 1)
            shown = (share * (top - bottom) + bottom).astype(np.float32)
        else:
            shown = shown_image(values, window)
        if card.channels == 3:  # grey is a colour too: trained models saw many slices in it
            return np.ascontiguousarray((shown if shown.ndim == 3 else np.dstack([shown] * 3)).transpose(2, 0, 1))
        return (shown if shown.ndim == 2 else (shown @ _LUMINANCE).astype(np.float32))[None]

    def _run(
        self, network: MedicalMatting, image: torch.Tensor, noise: torch.Tensor, mean_first: bool, progress: Progress
    ) -> torch.Tensor:
        """Masks, uncertainty and alpha ``(K + 2, H, W)`` float32 on the CPU; the mean over mirrored views."""
        device, card = self.model.device, self.model.card
        bytes_per_px = architecture(card.architecture).bytes_per_px(card.config)
        budget = min(_MOST_BYTES, int(_MEMORY_SHARE * free_bytes(device)))
        tile_px = max(_LEAST_TILE_PX, int((budget / bytes_per_px) ** 0.5) - 64)
        told = card.training.get("views")
        mirrored = _MIRRORED if told in (4, 8) else _MIRRORED[:1]
        views = [(axes, is_turned) for is_turned in ((False, True) if told == 8 else (False,)) for axes in mirrored]
        progress.start(0, "tiles")
        seen: list[torch.Tensor] = []
        try:
            with torch.inference_mode():
                for axes, is_turned in views:
                    view = torch.flip(image, axes)
                    made = network(
                        (view.transpose(1, 2) if is_turned else view)[None].to(device),
                        count=noise.shape[1],
                        noise=noise.to(device),
                        mean_first=mean_first,
                        tile_px=tile_px,
                        check=progress.step,
                    )
                    back = torch.cat([made.masks[0], made.alpha[0]])
                    seen.append(torch.flip(back.transpose(1, 2) if is_turned else back, axes).float().cpu())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise ComputeError("The memory is full; nothing was changed.", "Draw a smaller box.") from error
        found = torch.stack(seen).mean(dim=0)
        return torch.cat([found[:-1], binary_entropy(found[:-1].mean(dim=0, keepdim=True)), found[-1:]])


def _finite(found: torch.Tensor) -> torch.Tensor:
    if not bool(torch.isfinite(found).all()):
        raise ComputeError(
            "The model gave numbers that are not finite; nothing was changed.", "Try another box or another model."
        )
    return found


def _around(rough: NDArray, shape: tuple[int, ...]) -> tuple[float, float, float, float]:
    """The box of a rough mask."""
    if rough.shape != tuple(shape[:2]):
        raise UsageError(
            "The rough mask has another size than the slice.", f"The slice is {shape[1]} x {shape[0]} pixels."
        )
    rows, columns = np.nonzero(np.asarray(rough) > 0.5)
    if not rows.size:
        raise UsageError("The rough mask is empty.", "Paint what you mean, or draw a box.")
    return float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1


def _of_mask(
    rough: NDArray, box: Box, around: tuple[tuple[int, int], ...], size: tuple[int, ...]
) -> NDArray[np.float32]:
    """The picture of a rough mask of the slice at the size the network sees."""
    left, top, right, bottom = box
    part = np.pad(np.asarray(rough, dtype=np.float32)[top:bottom, left:right], around[1:], mode="edge")
    return rough_picture(np.asarray(_resized(torch.from_numpy(part)[None], size)[0].numpy() > 0.5))


def _of_box(
    prompt: tuple[float, float, float, float], crop: Box, rule: CropRule, size: tuple[int, ...]
) -> NDArray[np.float32]:
    """The picture of a box at the size the network sees; for a click a box around it that leaves the usual margin."""
    x0, y0, x1, y1 = prompt
    if not (x1 > x0 and y1 > y0):
        half_x, half_y = (crop[2] - crop[0]) / rule.of_box / 2, (crop[3] - crop[1]) / rule.of_box / 2
        x0, y0, x1, y1 = x0 - half_x, y0 - half_y, x1 + half_x, y1 + half_y
    wide, high = size[1] / (crop[2] - crop[0]), size[0] / (crop[3] - crop[1])
    left, top = crop[:2]
    return box_picture(
        ((x0 - left) * wide, (y0 - top) * high, (x1 - left) * wide, (y1 - top) * high), (size[0], size[1])
    )


def _prompt(
    point_xy: tuple[float, float] | None, box_xyxy: tuple[float, float, float, float] | None, shape: tuple[int, ...]
) -> tuple[float, float, float, float]:
    """The box, or the point as one without size."""
    if box_xyxy is None and point_xy is None:
        raise UsageError("A click, a box or a rough mask is needed.", "Point at what you mean.")
    given = box_xyxy if box_xyxy is not None else (*point_xy, *point_xy)  # type: ignore[misc]
    if not np.isfinite(given).all():
        raise UsageError("The box has corners that are no numbers.", "Give x0,y0,x1,y1 in pixels.")
    height, width = shape[:2]
    x0, x1 = sorted((float(given[0]), float(given[2])))
    y0, y1 = sorted((float(given[1]), float(given[3])))
    if x1 < 0 or y1 < 0 or x0 > width or y0 > height:
        raise UsageError("The click or box lies outside the slice.", f"The slice is {width} x {height} pixels.")
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))


def _span(middle: float, side: float) -> tuple[int, int]:
    """``side`` pixels around the middle; never empty."""
    first = int(np.floor(middle - side / 2 + 0.5))
    return first, max(int(np.floor(middle + side / 2 + 0.5)), first + 1)


def _clipped(box: Box, shape: tuple[int, ...]) -> Box:
    """What of a crop lies in the slice: at least a pixel."""
    left, top = min(max(box[0], 0), shape[1] - 1), min(max(box[1], 0), shape[0] - 1)
    return left, top, max(min(box[2], shape[1]), left + 1), max(min(box[3], shape[0]), top + 1)


def _resized(image: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """``(C, h, w)`` at another size; shrinking averages."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    grown = torch.nn.functional.interpolate(
        image[None], size=tuple(size), mode="bilinear", align_corners=False, antialias=True
    )
    return grown[0]


def _padded(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Mirrored at the lower and right border up to a multiple of the network's."""
    height, width = image.shape[1:]
    margins = ((0, 0), (0, -height % multiple), (0, -width % multiple))
    return torch.from_numpy(np.pad(image.numpy(), margins, mode="reflect"))


def _hash(image: torch.Tensor, box: Box) -> int:
    digest = hashlib.blake2b(np.ascontiguousarray(image.numpy()).tobytes(), digest_size=4)
    digest.update(repr(box).encode())
    return int.from_bytes(digest.digest(), "little") >> 1  # fits a spin box
