"""From stored numbers to HU, SUV or arbitrary units, and the windows to look at them through."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medapp.errors import UnreadableFileError
from medapp.scan.header import Header
from medapp.scan.scan import Scan, Window

PRESETS: dict[str, tuple[Window, ...]] = {
    "CT": (
        Window(40, 400, "Soft tissue"),
        Window(-600, 1500, "Lung"),
        Window(400, 1800, "Bone"),
        Window(40, 80, "Brain"),
        Window(60, 160, "Liver"),
        Window(50, 350, "Mediastinum"),
        Window(300, 600, "Angiography"),
    ),
    "PT": (Window(2.5, 5, "SUV 0–5"), Window(5, 10, "SUV 0–10"), Window(10, 20, "SUV 0–20")),
}


@dataclass(frozen=True)
class Rescale:
    """Stored value to unit: a line, or a table when there is one.

    Attributes:
        table: ``(first stored value, float32 values)`` of a Modality LUT Sequence; None otherwise.
        is_given: False when the file has neither slope, intercept nor table.
        type: Rescale Type or Modality LUT Type; empty when absent.
    """

    slope: float = 1.0
    intercept: float = 0.0
    is_given: bool = False
    type: str = ""
    table: tuple[int, NDArray[np.float32]] | None = None

    def times(self, factor: float) -> Rescale:
        """The same with every value multiplied."""
        if factor == 1.0:
            return self
        table = None if self.table is None else (self.table[0], (self.table[1] * factor).astype(np.float32))
        return Rescale(self.slope * factor, self.intercept * factor, self.is_given, self.type, table)

    def apply(self, stored: NDArray) -> NDArray[np.float32]:
        """``(…)`` stored values in the unit; computed in float64."""
        if self.table is not None:
            first, values = self.table
            index = np.clip(stored.astype(np.int64) - first, 0, len(values) - 1)
            return values[index]
        return (stored.astype(np.float64) * self.slope + self.intercept).astype(np.float32)


def read_rescale(header: Header) -> Rescale:
    """Modality LUT Sequence if present, else slope and intercept.

    Raises:
        UnreadableFileError: Slope or intercept is not finite, or the table is damaged.

    Reference:
        DICOM PS3.3 C.11.1.
    """
    for item in header.items("ModalityLUTSequence")[:1]:
        descriptor = item.numbers("LUTDescriptor")
        data = item.value("LUTData")
        if len(descriptor) == 3 and data is not None:
            entries = int(descriptor[0]) or 65536
            values = np.frombuffer(data, dtype="<u2") if isinstance(data, bytes) else np.atleast_1d(np.asarray(data))
            if len(values) == entries:
                return Rescale(
                    is_given=True,
                    type=item.text("ModalityLUTType"),
                    table=(int(descriptor[1]), values.astype(np.float32)),
                )
        raise UnreadableFileError(f"{header.name}: its modality look-up table is damaged.", "Export it again.")
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    is_given = slope is not None or intercept is not None
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise UnreadableFileError(
            f"{header.name}: rescale slope {slope:g} or intercept {intercept:g} is not a finite number.",
            "Export the image again from its source.",
        )
    return Rescale(slope, intercept, is_given, header.text("RescaleType"))


def read_windows(header: Header) -> tuple[tuple[Window, ...], tuple[str, ...]]:
    """Display windows of a file, and a note when one had to be ignored.

    Reference:
        DICOM PS3.3 C.11.2.1.2.
    """
    centers = header.numbers("WindowCenter", is_needed=False)
    widths = header.numbers("WindowWidth", is_needed=False)
    names = header.texts("WindowCenterWidthExplanation")
    windows, notes = [], ()
    for index, (center, width) in enumerate(zip(centers, widths, strict=False)):
        if math.isfinite(center) and math.isfinite(width) and width > 0:
            windows.append(Window(center, width, names[index][:64] if index < len(names) else ""))
        else:
            notes = ("A display window whose width is not positive was ignored.",)
    return tuple(windows), notes


def value_range(scan: Scan) -> tuple[float, float]:
    """Smallest and largest value in the scan's unit; padding takes no part unless there is nothing else."""
    low, high = math.inf, -math.inf
    for use_padding in (False, True):
        for z in range(scan.shape[0]):
            stored = scan.stored[z]
            if scan.padding is not None and not use_padding:
                stored = stored[~scan.padding[z]]
            if stored.size:
                low, high = min(low, float(stored.min())), max(high, float(stored.max()))
        if low <= high:
            break
    if scan.is_colour:
        return low, high
    ends = sorted(float(np.float32(end * scan.slope + scan.intercept)) for end in (low, high))
    return ends[0], ends[1]


def suggested_modality(low: float, has_fraction: bool) -> str | None:
    """``CT`` when the smallest value looks like air in HU and there is no fraction (formats.md 3)."""
    return "CT" if -1100 <= low <= -900 and not has_fraction else None


def starting_window(scan: Scan) -> Window:
    """The window to show a scan through first: the file's, else one for its modality, else 0.5 to 99.5 % of its values.

    Always of positive width, also for constant images.
    """
    if scan.windows:
        return scan.windows[0]
    if scan.modality == "CT" and scan.unit == "HU":
        return PRESETS["CT"][0]
    if scan.is_colour:
        top = float(np.iinfo(scan.stored.dtype).max)
        return Window(top / 2, top, "Full range")
    step = max(1, scan.stored.size // 200_000)
    sample = scan.stored.reshape(-1)[::step].astype(np.float64)
    if scan.padding is not None:
        kept = sample[~scan.padding.reshape(-1)[::step]]
        sample = kept if kept.size else sample
    values = sample * scan.slope + scan.intercept
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    if scan.unit == "SUV":
        low, high = 0.0, max(high, 5.0)
    if high <= low:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        high = low + 1.0
    return Window((low + high) / 2, high - low, "Automatic")


def presets(modality: str | None, unit: str) -> tuple[Window, ...]:
    """Named windows that make sense for a modality in its unit; empty where values are arbitrary."""
    if modality == "CT" and unit == "HU":
        return PRESETS["CT"]
    if modality == "PT" and unit == "SUV":
        return PRESETS["PT"]
    return ()
