"""One interface for everything that restores a slice, network or filter, in native units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from medapp.errors import ComputeError, UnsuitableModelError
from medapp.networks.device import choose_dtype
from medapp.networks.library import LoadedModel
from medapp.progress import Progress
from medapp.restoration.fit import Fit, ScanFacts, fit_card
from medapp.restoration.tiling import Tiling, run_tiled

if TYPE_CHECKING:
    from medapp.networks.card import Card


@dataclass(frozen=True)
class RestoredSlice:
    """A slice that came back.

    Attributes:
        values: ``(Y, X)`` float32 in native units.
        outside_range: Voxels that kept their source value because the restorer is not made for it.
        tile_px: Side of the tiles that were used; 0 = whole slice.
    """

    values: NDArray[np.float32]
    outside_range: int = 0
    tile_px: int = 0


class Restorer(ABC):
    """Restores grey slices.

    Attributes:
        id: Model id, or ``filter-...``.
        chip: What the header chip says.
    """

    id: str
    chip: str

    @abstractmethod
    def fit(self, facts: ScanFacts) -> Fit:
        """How it fits a scan."""

    @abstractmethod
    def restore(self, values: NDArray[np.float32], progress: Progress) -> RestoredSlice:
        """Restore at full strength; see ``restore_slice``."""

    def restore_slice(self, values: NDArray, strength: float = 1.0, progress: Progress | None = None) -> RestoredSlice:
        """Restore one slice and blend with the original.

        Args:
            values: ``(Y, X)`` in the scan's unit; voxels that are not finite pass unchanged.
            strength: 0..1; 0 returns the original bit for bit.
            progress: Asked for Stop before every tile.

        Raises:
            UnsuitableModelError: The slice is not one grey image.
            ComputeError: Out of memory, or a result that is not finite.
            Cancelled: The user stopped it.
        """
        if values.ndim != 2:
            raise UnsuitableModelError("This restorer takes grey slices only", "Choose a model for colour images")
        original = np.ascontiguousarray(values, dtype=np.float32)
        progress = progress or Progress()
        progress.check()
        if strength <= 0.0:
            return RestoredSlice(original.copy())
        restored = self.restore(original, progress)
        if strength >= 1.0:
            return restored
        kept = ~np.isfinite(original)
        blended = original + np.float32(strength) * (restored.values - np.where(kept, 0, original))
        return replace(restored, values=np.where(kept, original, blended).astype(np.float32))


@dataclass
class NetworkRestorer(Restorer):
    """A network of the library.

    Attributes:
        model: Network, card and device.
        tile_px: 0 = automatic.
    """

    model: LoadedModel
    tile_px: int = 0

    @property
    def id(self) -> str:  # type: ignore[override]
        """Model id."""
        return self.model.card.id

    @property
    def chip(self) -> str:  # type: ignore[override]
        """``RESTORED · <model> <version>``."""
        return chip_of(self.model.card)

    def fit(self, facts: ScanFacts) -> Fit:
        """By the card."""
        return fit_card(facts, self.model.card)

    def restore(self, values: NDArray[np.float32], progress: Progress) -> RestoredSlice:
        """Scale to the network's range, run, scale back; voxels outside the card's range keep their value."""
        card = self.model.card
        low, high = card.value_range
        is_finite = np.isfinite(values)
        is_outside = ~is_finite | (values < low) | (values > high)
        image = to_network(np.clip(np.where(is_finite, values, low), low, high), card)
        config = card.config
        width = int(config.get("dim", 48)) if isinstance(config.get("dim", 48), int) else 48
        # measured: the widest tensors are 4 x 2 dim channels at half size, or 2 dim at full size
        tiling = Tiling(self.tile_px, card.size_multiple, bytes_per_px=160 * width)
        image, tile_px = run_tiled(image, self._run, tiling, self.model.device, progress)
        if not np.isfinite(image).all():
            raise ComputeError(
                "The model gave numbers that are not finite; nothing was changed",
                "Try CPU as the device in the settings",
            )
        restored = np.clip(from_network(image, card), low, high)
        outside = int(np.count_nonzero(is_outside))
        return RestoredSlice(np.where(is_outside, values, restored).astype(np.float32), outside, tile_px)

    def _run(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        device = self.model.device
        tensor = torch.from_numpy(np.ascontiguousarray(image))[None, None].to(device)  # (1, 1, H, W)
        dtype = torch.float32 if self.model.card.precision == "float32" else self.model.measured.get("dtype")
        if dtype is None:
            side = [min(64, size // 8 * 8) for size in tensor.shape[-2:]]
            top, left = ((size - part) // 2 for size, part in zip(tensor.shape[-2:], side, strict=True))
            dtype = choose_dtype(self.model.network, tensor[..., top : top + side[0], left : left + side[1]])
            self.model.measured["dtype"] = dtype
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16),
        ):
            restored = self.model.network(tensor)
        result: NDArray[np.float32] = restored[0, 0].float().cpu().numpy()
        return result


def chip_of(card: Card) -> str:
    """What the header chip says of a series this model restored."""
    return f"RESTORED · {card.name} {card.version}"


def to_network(values: NDArray, card: Card) -> NDArray[np.float32]:
    """Native values to what the network sees; linear."""
    (low, high), (bottom, top) = card.value_range, card.network_range
    return ((values.astype(np.float64) - low) * ((top - bottom) / (high - low)) + bottom).astype(np.float32)


def from_network(values: NDArray, card: Card) -> NDArray[np.float32]:
    """The way back; to a hundredth of a HU and better, because it is computed in double."""
    (low, high), (bottom, top) = card.value_range, card.network_range
    return ((values.astype(np.float64) - bottom) * ((high - low) / (top - bottom)) + low).astype(np.float32)
