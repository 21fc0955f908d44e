"""Which way a network sent an image: the shares that its routers gave to their experts, as small bars."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import QGridLayout, QSizePolicy, QWidget

from medapp.ui import theme
from medapp.ui.widgets import column, label, row, wrapped

BAR_PX = 3
CELL_HEIGHT = 22
_BLOCK = re.compile(r"body\.(\d+)\.(\w+)")
_LEVEL = re.compile(r"(?:spatial|channel)_routing_(\w+?)(?:_level(\d+))?")
_BANKS = {"attention": "Attention", "mlp": "MLP"}
_TITLES = {
    "pixels": ("Experts, share of pixels", "Each pixel goes to a few experts; what each expert got, over all pixels."),
    "channels": ("Channels, mean gate", "How far the channels were moved towards the task, over all channels."),
    "gates": ("Experts, gates of the image", "How loud each expert is; 0 is silent, the numbers need not sum to 1."),
}


@dataclass(frozen=True)
class RoutingRow:
    """One line of the view.

    Attributes:
        name: Of a router, or of the part of the network that several belong to.
        cells: What each expert got, with what a screen reader says before it; None = a gap between two routers.
    """

    name: str
    cells: tuple[tuple[str, float] | None, ...]


@dataclass(frozen=True)
class RoutingGroup:
    """Routers of one kind.

    Attributes:
        kind: As ``RouterChoice`` of the networks says: ``pixels``, ``channels`` or ``gates``.
        heads: Above the columns, as (first column, columns, text).
        rows: Its routers.
        full: Length of a full bar, in the unit of the shares.
    """

    kind: str
    heads: tuple[tuple[int, int, str], ...]
    rows: tuple[RoutingRow, ...]
    full: float


class ShareCell(QWidget):
    """A number with a bar under it."""

    def __init__(self) -> None:
        super().__init__()
        self._text, self._share = "", 0.0
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        return QSize(30, CELL_HEIGHT)

    def minimumSizeHint(self) -> QSize:
        return QSize(24, CELL_HEIGHT)

    @property
    def text(self) -> str:
        """What stands above the bar."""
        return self._text

    @property
    def share(self) -> float:
        """Length of the bar, 0..1."""
        return self._share

    def show_share(self, text: str, share: float, spoken: str) -> None:
        """Take another number."""
        self._text, self._share = text, min(max(share, 0.0), 1.0)
        self.setAccessibleName(spoken)
        self.setToolTip(spoken)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        del event
        colours = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = painter.font()
        font.setPixelSize(theme.SECONDARY_PX)
        painter.setFont(font)
        painter.setPen(QColor(colours.text if self._share > 0 else colours.text_2))
        width, height = self.width(), self.height()
        above = QRectF(0, 0, width, height - BAR_PX - 2)
        painter.drawText(above, int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter), self._text)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(colours.line))
        painter.drawRoundedRect(QRectF(0, height - BAR_PX, width, BAR_PX), BAR_PX / 2, BAR_PX / 2)
        if self._share > 0:
            painter.setBrush(QColor(colours.text_2))
            length = max(BAR_PX, width * self._share)
            painter.drawRoundedRect(QRectF(0, height - BAR_PX, length, BAR_PX), BAR_PX / 2, BAR_PX / 2)
        painter.end()


class RoutingView(QWidget):
    """The choices of all routers of a network; hidden while there are none."""

    def __init__(self, title: str = "Routing it chose") -> None:
        super().__init__()
        self._title, self._about = label(title), label("", "secondary")
        self._grid = QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(6)
        self._grid.setVerticalSpacing(2)
        self._shape: tuple = ()
        self._cells: list[ShareCell] = []
        self.setLayout(column(row(self._title, -1, self._about), self._grid, margin=0))
        self.setAccessibleName(title)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.hide()

    @property
    def cells(self) -> list[ShareCell]:
        """The numbers on show, row by row."""
        return self._cells

    @property
    def about(self) -> str:
        """What the numbers are of."""
        return self._about.text()

    def show_routing(self, choices: Sequence[Mapping[str, Any]], about: str = "") -> None:
        """Show what routers chose.

        Args:
            choices: Dicts with ``name``, ``kind`` and ``shares``, as reports and provenances carry them; other dicts
                are left out.
            about: What they are of, such as ``Slice 14``.
        """
        groups = grouped(choices)
        self.setVisible(bool(groups))
        self._about.setText(about)
        self._about.setVisible(bool(about))
        shape = tuple(
            (group.kind, group.heads, tuple((line.name, len(line.cells)) for line in group.rows)) for group in groups
        )
        if shape != self._shape:
            self._shape = shape
            self._build(groups)
        cells = iter(self._cells)
        for group in groups:
            for line in group.rows:
                for given in line.cells:
                    if given is not None:
                        spoken, share = given
                        text = share_text(share, group.kind)
                        next(cells).show_share(text, share / group.full, f"{spoken}: {text}")

    def _build(self, groups: Sequence[RoutingGroup]) -> None:
        while self._grid.count():
            widget = self._grid.takeAt(0).widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        self._cells = []
        widest = max((len(line.cells) for group in groups for line in group.rows), default=0)
        for index in range(self._grid.columnCount()):
            self._grid.setColumnStretch(index, 0)
            self._grid.setColumnMinimumWidth(index, 0)
        gaps = {first + count for group in groups for first, count, _ in group.heads[:-1] if count > 1}
        for index in range(widest):
            self._grid.setColumnStretch(index + 1, 0 if index in gaps else 1)
        place = 0
        for group in groups:
            title, meaning = _TITLES.get(group.kind, (group.kind.capitalize(), ""))
            head = wrapped(title)
            head.setToolTip(meaning)
            if place:
                head.setContentsMargins(0, theme.MARGIN, 0, 0)
            self._grid.addWidget(head, place, 0, 1, widest + 1)
            place += 1
            for first, count, text in group.heads:
                self._grid.addWidget(label(text, "secondary"), place, first + 1, 1, count)
            place += bool(group.heads)
            for line in group.rows:
                name = label(line.name)
                name.setContentsMargins(0, 0, 0, BAR_PX + 2)  # on the line of the numbers, above the bars
                self._grid.addWidget(name, place, 0)
                for index, given in enumerate(line.cells):
                    if given is not None:
                        cell = ShareCell()
                        self._cells.append(cell)
                        # a single number is as wide as the view
                        self._grid.addWidget(cell, place, index + 1, 1, widest if len(line.cells) == 1 else 1)
                place += 1


def grouped(choices: Iterable[Mapping[str, Any]]) -> list[RoutingGroup]:
    """Sort the choices of a report into what the view shows; anything that is no choice is left out."""
    by_kind: dict[str, list[tuple[str, list[float]]]] = {}
    for choice in choices:
        name, kind, shares = (choice.get(key) for key in ("name", "kind", "shares"))
        if not (isinstance(name, str) and isinstance(kind, str) and isinstance(shares, list) and shares):
            continue
        if all(isinstance(share, int | float) and not isinstance(share, bool) for share in shares):
            by_kind.setdefault(kind, []).append((name, [float(share) for share in shares]))
    return [_group(kind, routers) for kind, routers in by_kind.items()]


def _group(kind: str, routers: list[tuple[str, list[float]]]) -> RoutingGroup:
    full = 1.0 if kind != "gates" else max(1e-9, *(share for _, shares in routers for share in shares))
    banks: dict[str, dict[str, list[float]]] = {}
    for name, shares in routers:
        match = _BLOCK.fullmatch(name)
        if match is None:
            break
        banks.setdefault(f"Block {int(match[1]) + 1}", {})[_BANKS.get(match[2], match[2])] = shares
    else:
        return _banked(kind, banks, full)
    width = max(len(shares) for _, shares in routers)
    rows = tuple(
        RoutingRow(title_of(name), tuple((_spoken(title_of(name), i, shares), s) for i, s in enumerate(shares)))
        for name, shares in routers
    )
    return RoutingGroup(kind, tuple((i, 1, str(i + 1)) for i in range(width)) if width > 1 else (), rows, full)


def _banked(kind: str, blocks: Mapping[str, Mapping[str, list[float]]], full: float) -> RoutingGroup:
    """The routers of a block beside each other: attention, then perceptrons."""
    widths: dict[str, int] = {}
    for banks in blocks.values():
        for bank, shares in banks.items():
            widths[bank] = max(widths.get(bank, 0), len(shares))
    heads, first = [], 0
    for bank, width in widths.items():
        heads.append((first, width, bank))
        first += width + 1
    rows = []
    for block, banks in blocks.items():
        cells: list[tuple[str, float] | None] = []
        for bank, width in widths.items():
            shares = banks.get(bank, [])
            cells += [None] if cells else []
            cells += [
                (_spoken(f"{block} {bank.lower() if bank != 'MLP' else bank}", i, shares), s)
                for i, s in enumerate(shares)
            ]
            cells += [None] * (width - len(shares))
        rows.append(RoutingRow(block, tuple(cells)))
    return RoutingGroup(kind, tuple(heads), tuple(rows), full)


def _spoken(name: str, index: int, shares: Sequence[float]) -> str:
    return f"{name}, expert {index + 1}" if len(shares) > 1 else name


def share_text(share: float, kind: str) -> str:
    """A share as people read it: percent of the pixels, or the gate itself."""
    return f"{100 * share:.0f} %" if kind == "pixels" else f"{share:.2f}"


def title_of(router: str) -> str:
    """The name of a router in words: ``spatial_routing_encoder_level1`` is *Encoder 1*."""
    match = _LEVEL.fullmatch(router)
    if match is not None:
        words = [match[1], match[2] or ""]
    else:
        words = re.split(r"[._]+", router)
    return " ".join(word for word in words if word).capitalize()[:40]


def routing_of_slice(provenance: Mapping[str, Any], z: int, slices: int) -> tuple[list[Mapping[str, Any]], str]:
    """What the routers chose for a slice of a derived series, and of what that is.

    Args:
        provenance: Of the series.
        z: The slice.
        slices: How many the series has.

    Returns:
        The choices, empty where nothing was kept, and such as ``Slice 14`` or ``Mean over the volume``.
    """
    by_slice = provenance.get("routing_slices")
    if isinstance(by_slice, dict) and (len(by_slice) > 1 or slices == 1):
        chosen = by_slice.get(str(z))
        if isinstance(chosen, list):
            return [choice for choice in chosen if isinstance(choice, dict)], f"Slice {z + 1}"
        return [], ""
    whole = provenance.get("routing")
    if isinstance(whole, list):
        return [choice for choice in whole if isinstance(choice, dict)], "Mean over the volume"
    return [], ""
