"""Segment Anything behind the engine interface: embed a slice once, then answer clicks at once.

Reference:
    Kirillov et al., "Segment Anything", ICCV 2023.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from numpy.typing import NDArray
from torch import Tensor

from medapp.errors import ComputeError, WeightsError
from medapp.networks.card import read_card
from medapp.networks.checkpoint import file_sha256
from medapp.progress import Progress
from medapp.regions.embedding import EmbeddingCache, embedding_key
from medapp.regions.prompts import Prompts, Proposal
from medapp.regions.sam_checkpoint import build_sam, read_sam_weights
from medapp.regions.sam_decoder import PointDecoder
from medapp.regions.sam_encoder import FastEncoder
from medapp.regions.segmenter import CANDIDATES
from medapp.regions.small_sam import drawn_prompts, draws_clicks, with_mask
from medapp.scan.scan import Window

log = logging.getLogger(__name__)

_PRODUCT_PIXELS = 2**20  # up to this size a matrix product enlarges masks faster than interpolation in two steps
_MASK_PROMPT_LOGIT = 8.0  # how sure SAM is told to be of a mask to start from


class SamEngine:
    """A loaded SAM with its cache of embeddings.

    Attributes:
        name: Shown beside its proposals, such as ``SAM · vit_b``.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        sha256: str,
        cache_folder: Path | None = None,
        device: str = "cpu",
        encoder_dtype: torch.dtype | None = None,
    ) -> None:
        """Build the network.

        Args:
            state: Weights as read safely.
            sha256: Of the weights file; part of the embeddings' names.
            cache_folder: Where embeddings are kept; None = only the last one, in memory.
            device: A torch device.
            encoder_dtype: None = bfloat16 where the hardware has it.

        Raises:
            WeightsError: The weights do not fit any SAM.
        """
        model, shape = build_sam(state)
        sam: Any = model.to(device)
        self._sam = sam
        self._encoder = FastEncoder(sam, encoder_dtype)
        self._cache = EmbeddingCache(cache_folder)
        self._sha256 = f"{sha256}-{self._encoder.dtype}"
        self._dense_pe: Tensor = sam.prompt_encoder.get_dense_pe()
        self.name = f"SAM · {shape.variant}"

    @classmethod
    def load(cls, weights: Path, cache_folder: Path | None = None, device: str = "cpu") -> SamEngine:
        """The engine of a weights file; with a card beside it, the file must be the one the card was written for.

        Raises:
            WeightsError: The file is unsafe, damaged, changed, or no SAM.
        """
        sha256 = file_sha256(weights)
        card = weights.with_suffix(".json")
        if card.is_file() and read_card(card).sha256 != sha256:
            raise WeightsError(
                "The weights of this model have changed since the card was written; they were not loaded.",
                "Import the model again.",
            )
        return cls(read_sam_weights(weights), sha256, cache_folder, device)

    def prepare(self, values: NDArray, window: Window | None, progress: Progress | None = None) -> None:
        """See ``RegionEngine.prepare``: embed the slice unless it is known."""
        self._embedding(values, window, progress or Progress())

    def is_ready(self, values: NDArray, window: Window | None) -> bool:
        """True when ``propose`` would answer at once."""
        return self._cache.get(embedding_key(values, window, self._sha256)) is not None

    @torch.inference_mode()
    def propose(
        self, values: NDArray, window: Window | None, prompts: Prompts, progress: Progress | None = None
    ) -> list[Proposal]:
        """See ``RegionEngine.propose``.

        Raises:
            ComputeError: The network gave no finite answer.
        """
        height, width = values.shape[:2]
        prompts.check((height, width))
        progress = progress or Progress()
        embedding = self._embedding(values, window, progress)
        scaled = self._scaled_size(height, width)
        sparse, dense = self._embedded_prompts(prompts, (height, width), scaled)
        logits, scores = self._sam.mask_decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=self._dense_pe,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )  # (1, masks + 1, s, s), (1, masks + 1); the first mask is the one for prompts that leave no doubt
        progress.check()
        choice = slice(1, None) if prompts.is_ambiguous else slice(None)
        logits, scores = logits[:, choice], scores[0, choice]
        if not torch.isfinite(scores).all():
            raise ComputeError("SAM gave no usable answer; nothing was changed.", "Import the checkpoint again.")
        best = torch.argsort(scores, descending=True)[:CANDIDATES]
        masks = self._sam.postprocess_masks(logits[:, best], scaled, (height, width))[0] > self._sam.mask_threshold
        answers = zip(masks.cpu().numpy(), scores[best].clamp(0, 1).tolist(), strict=True)
        return [Proposal(np.asarray(mask, dtype=bool), float(score), self.name) for mask, score in answers]

    # ------------------------------------------------------------------ for automatic masks

    @property
    def weights_key(self) -> str:
        """Tells these weights, and how the encoder runs, from any others."""
        return self._sha256

    def point_decoder(self, values: NDArray, window: Window | None, progress: Progress) -> PointDecoder:
        """Answers many single points on one slice; embeds it unless it is known.

        Raises:
            ComputeError: The encoder gave no finite answer.
        """
        return PointDecoder(self._sam, self._embedding(values, window, progress), self._dense_pe)

    def scaled_points(self, points_xy: NDArray, shape: tuple[int, int]) -> Tensor:
        """``(N, 2)`` pixels of an ``(H, W)`` slice to ``(N, 2)`` float32 pixels of the picture the encoder sees."""
        height, width = shape
        scaled = self._scaled_size(height, width)
        ratio = np.array([scaled[1] / width, scaled[0] / height])
        return torch.from_numpy((np.asarray(points_xy, dtype=np.float64) * ratio).astype(np.float32)).to(
            self._sam.device
        )

    def full_logits(self, logits: Tensor, shape: tuple[int, int]) -> Tensor:
        """``(K, s, s)`` logits of the decoder to ``(K, H, W)`` logits of the slice, enlarged as published."""
        scaled = self._scaled_size(*shape)
        if shape[0] * shape[1] > _PRODUCT_PIXELS:
            full: Tensor = self._sam.postprocess_masks(logits[:, None], scaled, shape)
            return full[:, 0]
        rows, cols = (self._enlarging(*sides) for sides in zip(logits.shape[1:], scaled, shape, strict=True))
        return rows @ logits @ cols.T

    @property
    def mask_threshold(self) -> float:
        """Logits above it are inside a mask."""
        return float(self._sam.mask_threshold)

    # ------------------------------------------------------------------ inside

    def _embedding(self, values: NDArray, window: Window | None, progress: Progress) -> Tensor:
        key = embedding_key(values, window, self._sha256)
        known = self._cache.get(key)
        if known is None:
            progress.start(1, "slices", "Looking at the slice")
            made = self._encoder(self._preprocessed(values, window))[0].cpu().numpy()
            if not np.isfinite(made).all():
                raise ComputeError(
                    "SAM's encoder gave values that are not finite; nothing was changed.",
                    "Import the checkpoint again.",
                )
            self._cache.put(key, made)
            progress.step()
            known = made
        return torch.from_numpy(known)[None].to(self._sam.device)

    def _preprocessed(self, values: NDArray, window: Window | None) -> Tensor:
        """``(1, 3, S, S)`` float32: longest side S, normalised as SAM was trained, zeros beyond the picture."""
        pixels = torch.from_numpy(shown_pixels(values, window)).permute(2, 0, 1)[None].to(self._sam.device)
        size = self._scaled_size(*values.shape[:2])
        scaled = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
        padded: Tensor = self._sam.preprocess(scaled)
        return padded

    def _enlarging(self, small: int, scaled: int, full: int) -> Tensor:
        """``(full, small)``: both of the published enlargements of one side, which are linear, as one matrix."""
        one_each = torch.eye(small, device=self._sam.device)[None]
        padded = F.interpolate(one_each, self._sam.image_encoder.img_size, mode="linear", align_corners=False)
        return F.interpolate(padded[..., :scaled], full, mode="linear", align_corners=False)[0].T.contiguous()

    def _scaled_size(self, height: int, width: int) -> tuple[int, int]:
        scale = self._sam.image_encoder.img_size / max(height, width)
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def _embedded_prompts(
        self, prompts: Prompts, size: tuple[int, int], scaled: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        device = self._sam.device
        ratio = torch.tensor([scaled[1] / size[1], scaled[0] / size[0]], dtype=torch.float32, device=device)
        points = boxes = masks = None
        coordinates = [*prompts.include_xy, *prompts.exclude_xy]
        if coordinates:
            labels = [1] * len(prompts.include_xy) + [0] * len(prompts.exclude_xy)
            points = (
                torch.tensor([coordinates], dtype=torch.float32, device=device) * ratio,
                torch.tensor([labels], dtype=torch.int32, device=device),
            )
        box = prompts.ordered_box()
        if box is not None:
            boxes = (torch.tensor(box, dtype=torch.float32, device=device).view(2, 2) * ratio).view(1, 4)
        if prompts.mask is not None:
            masks = self._mask_prompt(prompts.mask, scaled)
        if draws_clicks(self._sam):
            masks = with_mask(drawn_prompts(points, boxes, self._sam.prompt_encoder.mask_input_size[0]), masks)
        sparse, dense = self._sam.prompt_encoder(points=points, boxes=boxes, masks=masks)
        return sparse, dense

    def _mask_prompt(self, mask: NDArray, scaled: tuple[int, int]) -> Tensor:
        """``(1, 1, m, m)`` logits on the decoder's grid."""
        side = self._sam.image_encoder.img_size
        alpha = torch.from_numpy(np.asarray(mask, dtype=np.float32))[None, None].to(self._sam.device)
        shown = F.interpolate(alpha, scaled, mode="bilinear", antialias=True, align_corners=False)
        shown = F.pad(shown, (0, side - scaled[1], 0, side - scaled[0]))
        grid = self._sam.prompt_encoder.mask_input_size
        small = F.interpolate(shown, grid, mode="bilinear", antialias=True, align_corners=False)
        return (small * 2 - 1) * _MASK_PROMPT_LOGIT


def shown_pixels(values: NDArray, window: Window | None) -> NDArray[np.float32]:
    """The slice as it is shown: ``(H, W, 3)`` float32, 0..255; what is not finite counts as the lowest."""
    if values.ndim == 3:
        full = float(np.iinfo(values.dtype).max) if np.issubdtype(values.dtype, np.integer) else 1.0
        return (np.asarray(values[..., :3], dtype=np.float32) * np.float32(255.0 / full)).astype(np.float32)
    grey = np.asarray(values, dtype=np.float32)
    finite = np.isfinite(grey)
    lowest = float(grey[finite].min()) if finite.any() else 0.0
    grey = np.where(finite, grey, np.float32(lowest))
    if window is not None and window.width > 0:
        low, high = window.center - window.width / 2, window.center + window.width / 2
    else:
        low, high = lowest, float(grey.max())
    shown = np.clip((grey - low) / max(high - low, 1e-6), 0.0, 1.0) * 255.0
    return np.repeat(shown.astype(np.float32)[..., None], 3, axis=2)
