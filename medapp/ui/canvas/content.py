"""What one viewport shows of the document: which series on which side, lined up, with mattes and chips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QRect

from medapp.naming import with_version
from medapp.scan.scan import Scan
from medapp.ui.canvas.compare import Alignment, align, difference, difference_limit
from medapp.ui.canvas.depth_picture import DepthBar, DepthColours, bar_of
from medapp.ui.canvas.furniture import Chip
from medapp.ui.canvas.overlay import MatteOverlay
from medapp.ui.canvas.picture import Picture
from medapp.ui.canvas.plane import Plane
from medapp.ui.canvas.trust_overlay import TrustBar, TrustLayer
from medapp.ui.document import Document

_CHIP_WORDS = {
    "restored": "RESTORED",
    "filtered": "FILTERED",
    "synthetic": "SYNTHETIC PET",
    "depth": "DEPTH",
    "trust": "TRUST MAP",
}


@dataclass
class Pane:
    """One picture in a part of the viewport.

    Attributes:
        area: The part whose middle the camera looks at; ``clip`` is what may be painted of it.
        side: ``original``, ``processed`` or ``difference``.
        picture: None where there is nothing to show, ``note`` says why.
        scan, alignment: What lies under the pointer here.
        depth_bar: What the colours mean, where they are depths.
        trust_bar: What the colours mean, where the trust map lies over the image.
    """

    area: QRect
    clip: QRect
    side: str
    chip: Chip
    picture: Picture | None = None
    scan: Scan | None = None
    alignment: Alignment | None = None
    note: str = ""
    depth_bar: DepthBar | None = None
    trust_bar: TrustBar | None = None


def processed_chip(info: Any, suffix: str = "") -> Chip:
    """The chip of a processed series from its row in the project, or from what is known of a run under way."""
    kind = str(getattr(info, "kind", "") or "restored")
    kind = kind if kind in _CHIP_WORDS else "restored"
    provenance = getattr(info, "provenance", None) or {}
    model = str(provenance.get("model", "") or getattr(info, "model", "") or "")
    version = str(provenance.get("version", "") or provenance.get("model_version", "") or "")
    if kind == "depth" and provenance.get("role") == "sigma":
        parts = ["DEPTH ±", with_version(model, version)]
    elif kind == "filtered":
        parts = [_CHIP_WORDS[kind], model or "non-local means"]
    else:
        parts = [_CHIP_WORDS[kind], with_version(model, version)]
    return Chip(" · ".join(part for part in (*parts, suffix) if part), kind)


class Content:
    """Keeps the pictures of one viewport up to date with the document.

    Attributes:
        plane, index: Of the series on screen; ``plane`` is None without one.
        overlay: The mattes, on the grid of the original series.
        shows_original: The key is held: the original alone.
        is_second: The fourth viewport: the other side of a pair, else the active matte alone.
        limit: Range of the difference colours, kept while stepping through slices.
    """

    def __init__(self, document: Document, axis: int) -> None:
        self.document = document
        self.axis = axis
        self.plane: Plane | None = None
        self.index = 0
        self.overlay = MatteOverlay()
        self._here: object = None
        self._alignments: dict[int, tuple[Scan, Alignment]] = {}  # the scan is kept, so that its id stays its own
        self.shows_original = False
        self.is_second = False
        self.limit = 1.0
        self._limit_of: object = None
        self._pictures = {side: Picture() for side in ("original", "processed", "difference")}
        self._plane_of: tuple[Scan, int] | None = None
        self._depth_colours = DepthColours()
        self.trust = TrustLayer()

    @property
    def overlay_at(self) -> Alignment | None:
        """Where the mattes' grid lies in the frame now; None without a series."""
        document, plane = self.document, self.follow()
        if plane is None or document.scan is None:
            return None
        return self._aligned(document.original or document.scan)

    def _aligned(self, scan: Scan) -> Alignment:
        """Where another series lies under the slice on screen; looked up once per slice."""
        frame, plane = self.document.scan, self.plane
        assert frame is not None
        assert plane is not None
        here = (frame, plane, self.index)
        if here != self._here:
            self._here, self._alignments = here, {}
        if id(scan) not in self._alignments:
            info = self.document.series if self.document.is_derived else self.document.processed_info
            grid = (getattr(info, "provenance", None) or {}).get("grid") or {}
            keeps_centres = bool(grid.get("keeps_centres", False))
            self._alignments[id(scan)] = (scan, align(frame, plane, self.index, scan, keeps_centres))
        return self._alignments[id(scan)][1]

    @property
    def mode(self) -> str:
        """The compare mode that applies now."""
        document = self.document
        has_pair = document.processed is not None and document.original is not None
        is_pair = has_pair and not self.shows_original and not self.is_second
        return document.compare_mode if is_pair else "single"

    @property
    def unit(self) -> str:
        """Of the values on screen; empty when they have none."""
        unit = self.document.scan.unit if self.document.scan is not None else ""
        return "" if unit == "arbitrary" else unit

    def follow(self) -> Plane | None:
        """Take over series, plane and slice from the document."""
        scan = self.document.scan
        if scan is None:
            self.plane = None
            return None
        if self._plane_of is None or self._plane_of[0] is not scan or self._plane_of[1] != self.axis:
            self.plane = Plane.of(scan, self.axis)
            self._plane_of = (scan, self.axis)
        self.index = self.document.position_zyx[self.axis]
        return self.plane

    def panes(self, view: QRect) -> list[Pane]:
        """The panes of the viewport, pictures rendered."""
        document, plane = self.document, self.follow()
        if plane is None or document.scan is None:
            return []
        self._show_mattes()
        mode = self.mode
        if mode == "side by side":
            half = view.width() // 2
            left = QRect(view.left(), view.top(), half - 1, view.height())
            right = QRect(view.left() + half + 1, view.top(), view.width() - half - 1, view.height())
            return [self._side("original", left, left), self._side("processed", right, right)]
        if mode == "swipe":
            at = self.divider_x(view)
            left = QRect(view.left(), view.top(), at - view.left(), view.height())
            right = QRect(at, view.top(), view.right() + 1 - at, view.height())
            return [self._side("original", view, left), self._side("processed", view, right)]
        if mode == "difference":
            return [self._difference(view)]
        if mode == "trust overlay":
            return [self._trusted(view)]
        is_processed = document.is_derived
        if self.is_second and document.processed is not None:
            is_processed = not is_processed
        side = "processed" if is_processed and not self.shows_original else "original"
        return [self._side(side, view, view)]

    def divider_x(self, view: QRect) -> int:
        """Where the swipe line is."""
        return view.left() + round(self.document.divider * view.width())

    def patch(self, box: Any) -> None:
        """The overlay has changed in a display box: put it into the pictures."""
        for picture in (self._pictures["original"], self._pictures["processed"]):
            picture.patch(self.overlay, box)

    def forget_voxels(self) -> None:
        """Voxels of a series under way have changed."""
        self.trust.forget()
        for picture in self._pictures.values():
            picture.forget()
        self._limit_of = None

    # --------------------------------------------------------------------------------------------------------- inside

    def _show_mattes(self) -> None:
        document, at = self.document, self.overlay_at
        assert at is not None
        if document.annotation is None or at.index is None:
            self.overlay.show(None, at.plane, 0, "tint", None)
            return
        has_active = document.active_matte is not None
        self.overlay.show(
            document.annotation if document.overlays_visible else None,
            at.plane,
            at.index,
            "on black" if self.is_second and document.processed is None and has_active else document.matte_view,
            document.active_matte.matte_id if document.active_matte is not None else None,
            shows_band=document.tool == "unknown",
        )

    def _is_ready(self, side: str, at: Alignment) -> bool:
        document = self.document
        slices = document.processed_slices if side == "processed" else document.arrived_slices
        if slices is None or (side == "original" and document.original is not document.scan):
            return True
        return at.index in slices if self.axis == 0 else len(slices) >= at.plane.shape[0]

    def _side(self, side: str, area: QRect, clip: QRect) -> Pane:
        document, plane = self.document, self.plane
        assert plane is not None
        assert document.scan is not None
        chip = Chip("ORIGINAL")
        scan = document.original or document.scan
        if side == "processed":
            scan = document.scan if document.is_derived else document.processed or document.scan
            info = document.series if document.is_derived else document.processed_info
            at = self._aligned(scan)
            is_partial = document.processed_slices is not None
            if is_partial and not self._is_ready("processed", at):
                side, scan, chip = "original", document.original or document.scan, Chip("ORIGINAL · not restored yet")
            else:
                chip = processed_chip(info, "slice ready" if is_partial else "")
        at = self._aligned(scan)
        pane = Pane(area, clip, side, chip, scan=scan, alignment=at)
        if at.index is None:
            pane.note = "no slice at this position"
        elif not self._is_ready(side, at):
            pane.note = "this slice is still being read"
        else:
            pane.picture = self._pictures[side]
            window, is_inverted = document.window, document.is_inverted
            if side == "processed" and chip.kind == "depth":
                info = document.series if document.is_derived else document.processed_info
                pane.depth_bar, is_inverted = bar_of(info, scan, self.document.position_zyx[0]), False
                scan = self._depth_colours.shown(scan, pane.depth_bar, self.document.position_zyx[0])
            pane.picture.show(scan, at.plane, at.index, window, is_inverted, self.overlay, at.to_frame)
        return pane

    def _trusted(self, area: QRect) -> Pane:
        """The restoration under its trust map."""
        pane, trust = self._side("processed", area, area), self.document.trust
        if trust is not None and pane.side == "processed" and pane.picture is not None and pane.alignment is not None:
            pane.trust_bar = self.trust.show(trust, pane.alignment)
            pane.chip = Chip(f"{pane.chip.text} · trust overlay", pane.chip.kind)
        return pane

    def _difference(self, area: QRect) -> Pane:
        document, plane = self.document, self.plane
        assert plane is not None
        assert document.scan is not None
        original, processed = document.original, document.processed
        assert original is not None
        assert processed is not None
        info = document.series if document.is_derived else document.processed_info
        chip = processed_chip(info)
        of_what = " · mean of the colours" if processed.is_colour else ""
        words = f"DIFFERENCE · {chip.text} \N{MINUS SIGN} ORIGINAL{of_what}"
        pane = Pane(area, area, "difference", Chip(words, chip.kind))
        pane.scan, pane.alignment = processed, self._aligned(processed)
        at_original = self._aligned(original)
        if not self._is_ready("processed", pane.alignment):
            pane.note = "not restored yet"
            return pane
        key = (original, processed, self.axis, self.index)
        picture = self._pictures["difference"]
        if picture.shows(key):
            pane.picture = picture
            return pane
        values = difference(original, at_original, processed, pane.alignment)
        if values is None:
            pane.note = "no difference between colour and grey" if original.is_colour else "no slice at this position"
            return pane
        pair = (original, processed)
        if self._limit_of != pair:
            self.limit, self._limit_of = difference_limit(values), pair
        picture.show_difference(values, self.limit, key, pane.alignment.to_frame)
        pane.picture = picture
        return pane
