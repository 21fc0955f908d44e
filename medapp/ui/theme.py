"""The colours and sizes of the interface: the only place that holds them (``look.md``)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from string import Template
from typing import Literal

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QFont, QFontDatabase, QPalette
from PySide6.QtWidgets import QApplication

from medapp import paths

Mode = Literal["system", "light", "dark"]

GRID = 4
MARGIN = 8
GROUP_GAP = 16
CONTROL_HEIGHT = 28
TOOL_BUTTON = 32
ICON = 18
DOCK_MIN_WIDTH = 264
RADIUS_CONTROL = 6
RADIUS_CARD = 8
BODY_PX = 13
SECONDARY_PX = 12
TITLE_PX = 15
MOTION_MS = 120

LABEL_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Safe for common colour-vision deficiencies; later labels repeat the hues at 60 % lightness."""

_PROPERTY = "medappTheme"


@dataclass(frozen=True)
class Tokens:
    """The colours of one theme, as ``#rrggbb``; the names are those of ``look.md``."""

    surround: str
    panel: str
    raised: str
    hover: str
    pressed: str
    line: str
    text: str
    text_2: str
    text_off: str
    accent: str
    processed: str
    synthetic: str
    on_accent: str
    danger: str
    ok: str


DARK = Tokens(
    surround="#18191b",
    panel="#232427",
    raised="#2d2f33",
    hover="#36393e",
    pressed="#1f2023",
    line="#3b3e44",
    text="#e8e9eb",
    text_2="#a7abb3",
    text_off="#6d727b",
    accent="#4c9be8",
    processed="#e3a33b",
    synthetic="#c98bdb",
    on_accent="#18191b",
    danger="#ec7c74",
    ok="#62b179",
)
LIGHT = Tokens(
    surround="#18191b",
    panel="#f5f5f6",
    raised="#ffffff",
    hover="#e9eaec",
    pressed="#dcdee1",
    line="#d3d5d9",
    text="#1c1e22",
    text_2="#555a63",
    text_off="#9aa0a8",
    accent="#1f6fc4",
    processed="#8f5a00",
    synthetic="#7b3a92",
    on_accent="#ffffff",
    danger="#b3261e",
    ok="#1f7a3d",
)


def tokens(theme: Literal["dark", "light"]) -> Tokens:
    """The colours of a theme; over an image always take ``DARK``."""
    return DARK if theme == "dark" else LIGHT


def current() -> Tokens:
    """The colours in use; ``DARK`` before ``apply`` was called."""
    app = QApplication.instance()
    return LIGHT if app is not None and app.property(_PROPERTY) == "light" else DARK


def label_colour(index: int) -> str:
    """The colour of the n-th label as ``#rrggbb``."""
    hue = LABEL_COLOURS[index % len(LABEL_COLOURS)]
    if (index // len(LABEL_COLOURS)) % 2 == 0:
        return hue
    colour = QColor(hue)
    darker = QColor.fromHslF(max(colour.hslHueF(), 0.0), colour.hslSaturationF(), colour.lightnessF() * 0.6)
    return darker.name()


def resolve(app: QApplication, mode: Mode) -> Literal["dark", "light"]:
    """What ``system`` means on this machine now."""
    if mode != "system":
        return mode
    return "light" if app.styleHints().colorScheme() == Qt.ColorScheme.Light else "dark"


def apply(app: QApplication, mode: Mode) -> Tokens:
    """Dress the application: Fusion, palette, fonts and style sheet.

    Returns:
        The colours now in use.
    """
    theme = resolve(app, mode)
    colours = tokens(theme)
    app.setProperty(_PROPERTY, theme)
    if app.style().objectName() != "fusion":
        app.setStyle("Fusion")
    app.setPalette(_palette(colours))
    app.setFont(_body_font())
    app.setStyleSheet(_style_sheet(colours, theme))
    return colours


def _body_font() -> QFont:
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.GeneralFont)
    font.setPixelSize(BODY_PX)
    return font


def _palette(colours: Tokens) -> QPalette:
    palette = QPalette()
    role, group = QPalette.ColorRole, QPalette.ColorGroup
    for name, value in (
        (role.Window, colours.panel),
        (role.WindowText, colours.text),
        (role.Base, colours.raised),
        (role.AlternateBase, colours.panel),
        (role.Text, colours.text),
        (role.Button, colours.raised),
        (role.ButtonText, colours.text),
        (role.BrightText, colours.danger),
        (role.ToolTipBase, colours.raised),
        (role.ToolTipText, colours.text),
        (role.Highlight, colours.accent),
        (role.HighlightedText, colours.on_accent),
        (role.Accent, colours.accent),
        (role.Link, colours.accent),
        (role.PlaceholderText, colours.text_2),
        (role.Mid, colours.line),
        (role.Midlight, colours.hover),
        (role.Light, colours.hover),
        (role.Dark, colours.pressed),
        (role.Shadow, colours.pressed),
    ):
        palette.setColor(name, QColor(value))
    for name in (role.WindowText, role.Text, role.ButtonText, role.HighlightedText):
        palette.setColor(group.Disabled, name, QColor(colours.text_off))
    palette.setColor(group.Disabled, role.Highlight, QColor(colours.hover))
    return palette


def _style_sheet(colours: Tokens, theme: str) -> str:
    resources = paths.resources_dir()
    values = {item.name: getattr(colours, item.name) for item in fields(Tokens)}
    values |= {
        "theme": theme,
        "glyphs": (resources / "glyphs").as_posix(),
        "control": str(CONTROL_HEIGHT - 2),
        "radius": str(RADIUS_CONTROL),
        "radius_card": str(RADIUS_CARD),
        "body": str(BODY_PX),
        "secondary": str(SECONDARY_PX),
        "title": str(TITLE_PX),
    }
    return Template((resources / "style.qss").read_text(encoding="utf-8")).substitute(values)
