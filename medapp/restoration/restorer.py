"""One interface for everything that restores a slice, network or filter, in native units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from medapp.errors import ComputeError, UnsuitableModelError
from medapp.networks.card import PET_SYNTHESIS
from medapp.networks.device import choose_dtype
from medapp.networks.library import LoadedModel
from medapp.networks.registry import architecture
from medapp.networks.routing import RouterChoice, averaged, record_routing
from medapp.progress import Progress
from medapp.restoration.blending import around_gaps, as_seen, part_of_change, typed
from medapp.restoration.fit import Fit, ScanFacts, fit_card
from medapp.restoration.interpolation import first_filtered
from medapp.restoration.kspace import keep_measured, onto_finer_grid
from medapp.restoration.light import keep_light
from medapp.restoration.ranges import from_network, own_intake, to_network
from medapp.restoration.shared_pools import POOLED, SharedPools
from medapp.restoration.tiling import Maps, RunTile, Tiling, run_tiled
from medapp.restoration.windows import run_volume
from medapp.scan.finer import FinerGrid

if TYPE_CHECKING:
    from medapp.networks.card import Card, Intake


Kind = Literal["restored", "filtered", "synthetic"]


@dataclass(frozen=True)
class Restored:
    """A slice or volume that came back.

    Attributes:
        values: On the restorer's grid, in native units: float32, or the source's type for colours.
        outside_range: Voxels that kept their source value because the restorer is not made for it.
        tile_px: Side of the tiles or windows that were used; 0 = whole.
        routing: What each router of the network chose; the mean over tiles or windows.
        before: The slice as it was, on the finer grid of the values; None where that is the source's own.
    """

    values: NDArray
    outside_range: int = 0
    tile_px: int = 0
    routing: tuple[RouterChoice, ...] = ()
    before: NDArray | None = None


class Restorer(ABC):
    """Restores slices, or volumes where ``dims`` is 3.

    Attributes:
        id: Model id, or ``filter-...``.
        chip: What the header chip says.
        makes: What kind of series: ``restored``, ``filtered`` or ``synthetic``.
        dims: 2 when it works slice by slice, 3 when it needs the volume.
        inputs: What it needs beside the image.
    """

    id: str
    chip: str
    makes: Kind = "restored"
    dims: int = 2
    inputs: tuple[str, ...] = ()

    @abstractmethod
    def fit(self, facts: ScanFacts, region_engine: str | None = None) -> Fit:
        """How it fits a scan."""

    @property
    def grid(self) -> FinerGrid:
        """Where the result's pixels lie."""
        return FinerGrid()

    @abstractmethod
    def restore(self, values: NDArray[np.float32], maps: Maps, progress: Progress) -> Restored:
        """Restore at full strength what ``prepared`` made of a slice."""

    def prepared(
        self, values: NDArray[np.float32], maps: Maps | None = None, is_filled: bool = False
    ) -> tuple[NDArray[np.float32], Maps]:
        """What ``restore`` takes: a slice and its maps, brought onto the finer grid where the restorer needs it.

        Args:
            values: ``(Y, X)`` or ``(Y, X, 3)``.
            maps: What ``inputs`` names, each ``(Y, X)``.
            is_filled: The slice lies on the finer grid already, its k-space filled with zeros.

        Raises:
            UnsuitableModelError: Something it needs is missing, or not of this slice.
        """
        del is_filled
        return values, self._checked(maps or {}, values.shape[:2])

    def restore_slice(
        self,
        values: NDArray,
        strength: float = 1.0,
        progress: Progress | None = None,
        maps: Maps | None = None,
        is_filled: bool = False,
    ) -> Restored:
        """Restore one slice and blend with the original.

        Args:
            values: ``(Y, X)`` in the scan's unit, or ``(Y, X, 3)`` colours; voxels that are not finite pass unchanged.
            strength: 0..1; 0 returns the original bit for bit, on a finer grid the interpolated one.
            progress: Asked for Stop before every tile.
            maps: What ``inputs`` names, each ``(Y, X)``.
            is_filled: The slice lies on the finer grid already, its k-space filled with zeros: for models that bring
                slices onto one before they look at them.

        Raises:
            UnsuitableModelError: The slice is not of the kind that it takes, or something it needs is missing.
            ComputeError: Out of memory, or a result that is not finite.
            Cancelled: The user stopped it.
        """
        progress = progress or Progress()
        progress.check()
        given, maps = self.prepared(as_seen(values), maps, is_filled)
        restored = self.restore(given, maps, progress) if strength > 0.0 else None
        return self.finished(restored, values, given, strength, is_filled)

    def finished(
        self, restored: Restored | None, values: NDArray, given: NDArray[np.float32], strength: float, is_filled: bool
    ) -> Restored:
        """Blend with the original.

        Args:
            restored: What ``restore`` made of ``given``; None at strength 0.
            values: The slice as ``restore_slice`` took it.
            given: What ``prepared`` made of it.
            strength, is_filled: As in ``restore_slice``.
        """
        is_finer = self.grid.factor > 1 and not is_filled
        if restored is None and not is_finer:
            return Restored(values.copy() if values.ndim == 3 else np.array(values, dtype=np.float32))
        before = given
        if is_finer and given.shape[:2] == values.shape[:2]:  # networks that enlarge by themselves
            before = around_gaps(given, self.grid.linear, self.grid)
        made = before if restored is None else restored.values
        if 0.0 < strength < 1.0:
            made = part_of_change(before, made, strength)
        return replace(
            restored or Restored(made), values=typed(made, values), before=typed(before, values) if is_finer else None
        )

    def _checked(self, maps: Maps, size: tuple[int, ...]) -> Maps:
        for name in self.inputs:
            if name not in maps:
                raise UnsuitableModelError(
                    f"This model needs a {name.replace('_', ' ')}, and there is none.", "Find regions first."
                )
            if maps[name].shape != size:
                raise UnsuitableModelError(
                    f"The {name.replace('_', ' ')} is {_size(maps[name].shape)}, the slice is {_size(size)}.",
                    "Make it again for this slice.",
                )
        return maps


@dataclass
class NetworkRestorer(Restorer):
    """A network of the library.

    Attributes:
        model: Network, card and device.
        tile_px: 0 = automatic.
        modality: Of the scans to come, for models that take several.
        keeps_measured: Models that bring slices onto a finer grid put the frequencies that were measured back.
        keeps_light: Models that enlarge pictures in colour leave the light around each place as the picture has it.
    """

    model: LoadedModel
    tile_px: int = 0
    modality: str | None = None
    keeps_measured: bool = True
    keeps_light: bool = True

    @property
    def id(self) -> str:  # type: ignore[override]
        """Model id."""
        return self.model.card.id

    @property
    def chip(self) -> str:  # type: ignore[override]
        """``RESTORED · <model> <version>``, or ``SYNTHETIC PET · ...``."""
        return chip_of(self.model.card)

    @property
    def makes(self) -> Kind:  # type: ignore[override]
        """Full-dose PET that was never measured is synthetic, not restored."""
        return "synthetic" if self.model.card.task == PET_SYNTHESIS else "restored"

    @property
    def dims(self) -> int:  # type: ignore[override]
        """As the card says."""
        return self.model.card.dims

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        """As the card says."""
        return self.model.card.inputs

    @property
    def card(self) -> Card:
        """As it is for the scans to come."""
        return self.model.card.narrowed(self.modality)

    @property
    def intake(self) -> Intake:
        """How values enter the network."""
        return self.card.takes[0]

    def fit(self, facts: ScanFacts, region_engine: str | None = None) -> Fit:
        """By the card."""
        return fit_card(facts, self.model.card, region_engine)

    @property
    def grid(self) -> FinerGrid:
        """As the card says."""
        return FinerGrid(self.card.scale, keeps_centres=not self._enlarges)

    @property
    def fills(self) -> bool:
        """Slices are brought onto the finer grid before the network sees them, by zeros around their k-space."""
        return self.card.fills_kspace

    @property
    def enlarges_colours(self) -> bool:
        """The network makes finer pictures in colour."""
        return self._enlarges and self.card.channels == 3

    @property
    def _enlarges(self) -> bool:
        return int(self.model.card.config.get("scale", 1)) > 1

    def prepared(
        self, values: NDArray[np.float32], maps: Maps | None = None, is_filled: bool = False
    ) -> tuple[NDArray[np.float32], Maps]:
        """Onto the finer grid; see ``Restorer.prepared``."""
        maps = self._checked(maps or {}, values.shape[:2])
        if self.card.scale == 1 or (self.fills and is_filled):
            return values, maps
        if is_filled:
            raise ValueError("this model enlarges slices by itself")
        maps = {name: self.grid.nearest(labels) for name, labels in maps.items()}
        if not self.fills or values.ndim != 2:
            return values, maps
        return around_gaps(values, lambda filled: onto_finer_grid(filled, self.grid.factor), self.grid), maps

    def restore(self, values: NDArray[np.float32], maps: Maps, progress: Progress) -> Restored:
        """Scale to the network's range, run, scale back; voxels outside the card's range keep their value."""
        card = self.card
        if (values.ndim == 3) != (card.channels == 3) or card.dims != 2:
            wanted = "volumes" if card.dims == 3 else "colour images" if card.channels == 3 else "grey slices"
            raise UnsuitableModelError(f"This model takes {wanted} only.", "Choose another model.")
        before = around_gaps(values, self.grid.linear, self.grid) if self._enlarges else values
        seen = first_filtered(values, card.scale, self.intake.first_filter) if self.fills else values
        intake = own_intake(self.intake, seen)
        if intake is None:
            return Restored(before.copy(), int(np.count_nonzero(~np.isfinite(before))))
        image, is_outside = self._entering(seen, intake)
        if image.ndim == 3:
            image = np.ascontiguousarray(image.transpose(2, 0, 1))  # (3, H, W)
        enlarged = card.scale if self._enlarges else 1
        tiling = Tiling(self.tile_px, card.size_multiple, self._bytes_per_px(), enlarged)
        whole = self._context(image)
        choices: list[RouterChoice] = []
        run: RunTile = lambda part, here: self._run(part, here, whole, choices)  # noqa: E731
        shared = SharedPools(self.model.network, run, self._measure_dtype) if self._shares_pools else None
        image, tile_px = run_tiled(image, shared or run, tiling, self.model.device, progress, maps, shared)
        if image.ndim == 3:
            image = image.transpose(1, 2, 0)
        if self._enlarges:
            is_outside = self.grid.nearest(is_outside)
        restored = replace(self._leaving(image, before, is_outside, intake, tile_px), routing=averaged(choices))
        if self.enlarges_colours and self.keeps_light:
            given = np.where(is_outside[:: card.scale, :: card.scale], np.float32(np.nan), values)
            kept = self._in_range(keep_light(restored.values, given, card.scale))
            return replace(restored, values=np.where(is_outside, restored.values, kept))
        return replace(restored, values=self._kept(restored.values, values)) if self.fills else restored

    def _kept(self, restored: NDArray[np.float32], given: NDArray[np.float32]) -> NDArray[np.float32]:
        """The measured frequencies put back, where that is wanted."""
        if not self.keeps_measured:
            return restored
        is_gap = ~np.isfinite(given)
        low = np.float32(given[~is_gap].min()) if not is_gap.all() else np.float32(0)
        try:
            kept = keep_measured(np.where(is_gap, low, restored), np.where(is_gap, low, given), self.card.scale)
        except ValueError as error:
            raise UnsuitableModelError(f"{str(error).capitalize()}.", "Choose another model.") from error
        return np.where(is_gap, given, kept)

    def restore_volume(
        self, values: NDArray, strength: float, progress: Progress, region: slice | None = None
    ) -> Restored:
        """Restore a volume by overlapped windows; the result has the slices of ``region`` only.

        Args:
            values: ``(Z, Y, X)`` in the scan's unit.
            strength: 0..1, blend with the original.
            progress: Counts windows.
            region: Slices that are wanted; None = all.

        Raises:
            UnsuitableModelError: The model works slice by slice.
            ComputeError: Out of memory, or a result that is not finite.
            Cancelled: The user stopped it.
        """
        card = self.model.card
        if card.dims != 3 or values.ndim != 3:
            raise UnsuitableModelError("This model takes slices, not volumes.", "Choose another model.")
        original = np.ascontiguousarray(values, dtype=np.float32)
        chosen = region or slice(None)
        intake = own_intake(self.intake, original)
        if intake is None:
            return Restored(original[chosen].copy(), int(np.count_nonzero(~np.isfinite(original[chosen]))))
        volume, is_outside = self._entering(original, intake)
        choices: list[RouterChoice] = []
        made, window = run_volume(
            volume,
            lambda part: self._run(part, {}, {}, choices),
            self._bytes_per_px(),
            card.size_multiple,
            self.model.device,
            progress,
            region,
        )
        side = 0 if all(w >= s for w, s in zip(window, original.shape, strict=True)) else max(window)
        restored = self._leaving(made, original[chosen], is_outside[chosen], intake, side)
        restored = replace(restored, routing=averaged(choices))
        if strength >= 1.0:
            return restored
        return replace(restored, values=part_of_change(original[chosen], restored.values, strength))

    @property
    def per_tile(self) -> tuple[str, ...]:
        """Quantities that the network takes over all it sees, and that tiles therefore see differently."""
        return tuple(one for one in architecture(self.model.card.architecture).global_quantities if one != POOLED)

    @property
    def _shares_pools(self) -> bool:
        return POOLED in architecture(self.model.card.architecture).global_quantities

    # ------------------------------------------------------------------ inside

    def _entering(self, values: NDArray[np.float32], intake: Intake) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """What the network sees, and which voxels keep their value."""
        low, high = intake.value_range
        is_outside = ~np.isfinite(values)
        filled = np.where(is_outside, low, values)
        if self._has_hard_limits:
            is_outside |= (values < low) | (values > high)
            filled = np.clip(filled, low, high)
        return to_network(filled, intake), is_outside

    def _leaving(
        self,
        made: NDArray[np.float32],
        values: NDArray[np.float32],
        is_outside: NDArray[np.bool_],
        intake: Intake,
        tile_px: int,
    ) -> Restored:
        if not np.isfinite(made).all():
            raise ComputeError(
                "The model gave numbers that are not finite; nothing was changed",
                "Try CPU as the device in the settings",
            )
        restored = self._in_range(from_network(made, intake))
        outside = int(np.count_nonzero(is_outside))
        return Restored(np.where(is_outside, values, restored).astype(np.float32), outside, tile_px)

    def _in_range(self, restored: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.clip(restored, *self.intake.value_range) if self._has_hard_limits else restored

    @property
    def _has_hard_limits(self) -> bool:
        """Limits of the slice's own are where it is scaled, not where it ends."""
        return self.intake.limits == "fixed"

    def _bytes_per_px(self) -> int:
        return architecture(self.model.card.architecture).bytes_per_px(self.model.card.config)

    def _context(self, image: NDArray[np.float32]) -> Mapping[str, torch.Tensor]:
        """What the network takes from the whole image once, so that all tiles share it."""
        context = getattr(self.model.network, "context", None)
        if context is None:
            return {}
        with torch.inference_mode():
            whole: Mapping[str, torch.Tensor] = context(self._tensor(image))
        return whole

    def _tensor(self, values: NDArray) -> torch.Tensor:
        """``(1, C, H, W)`` or ``(1, 1, D, H, W)`` on the device."""
        tensor = torch.from_numpy(np.ascontiguousarray(values))[None].to(self.model.device)
        has_channels = values.ndim == 3 and self.model.card.dims == 2
        return tensor if has_channels else tensor[None]

    def _run(
        self,
        image: NDArray[np.float32],
        maps: Maps,
        whole: Mapping[str, torch.Tensor],
        choices: list[RouterChoice],
    ) -> NDArray[np.float32]:
        """One pass of the network; what its routers chose is added to ``choices``."""
        device = self.model.device
        tensor = self._tensor(image)
        inputs = self._inputs(maps)
        try:
            dtype = self._dtype(tensor, inputs)
            with (
                torch.inference_mode(),
                torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16),
                record_routing(self.model.network) as chosen,
            ):
                restored = self.model.network(tensor, **inputs, **whole)
        except RuntimeError:
            choices.clear()  # when memory ran out, all starts anew with smaller tiles
            raise
        except ValueError as error:  # networks say in one line what they cannot take
            raise UnsuitableModelError(
                f"{self.model.card.name} cannot take this: {str(error)[:200]}.", "Choose another model."
            ) from error
        choices += chosen
        sides = image.shape if not self._enlarges else (*image.shape[:-2], *restored.shape[-2:])
        result: NDArray[np.float32] = restored[0].float().cpu().numpy().reshape(sides)
        return result

    def _inputs(self, maps: Maps) -> dict[str, torch.Tensor]:
        device = self.model.device
        return {name: torch.from_numpy(np.ascontiguousarray(maps[name]))[None].to(device) for name in self.inputs}

    def _measure_dtype(self, image: NDArray[np.float32], maps: Maps) -> None:
        self._dtype(self._tensor(image), self._inputs(maps))

    def _dtype(self, tensor: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.dtype:
        """The precision that is safe and quick; measured once on the middle of the first image."""
        if self.model.card.precision == "float32":
            return torch.float32
        if "dtype" not in self.model.measured:
            multiple = self.model.card.size_multiple
            middle: list[slice] = []
            for size in tensor.shape[2:]:
                side = min(max(64 // multiple, 1) * multiple, size)
                middle.append(slice((size - side) // 2, (size - side) // 2 + side))
            larger = self.card.scale if self._enlarges else 1
            there = tuple(slice(part.start * larger, part.stop * larger) for part in middle)
            probes = {name: values[(slice(None), *there)] for name, values in inputs.items()}
            image = tensor[(slice(None), slice(None), *middle)]
            self.model.measured["dtype"] = choose_dtype(self.model.network, image, probes)
        dtype: torch.dtype = self.model.measured["dtype"]
        return dtype


def chip_of(card: Card) -> str:
    """What the header chip says of a series this model restored."""
    return f"{'SYNTHETIC PET' if card.task == PET_SYNTHESIS else 'RESTORED'} · {card.title}"


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(str(side) for side in shape[:2][::-1])
