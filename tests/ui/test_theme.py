from dataclasses import fields

import pytest
from PySide6.QtWidgets import QApplication

from medapp.ui import theme


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["dark", "light"])
@pytest.mark.parametrize("text", ["text", "text_2", "danger", "ok", "processed", "synthetic"])
@pytest.mark.parametrize("ground", ["panel", "raised"])
def test_text_can_be_read(name, text, ground):
    colours = theme.tokens(name)
    assert contrast(getattr(colours, text), getattr(colours, ground)) >= 4.5


@pytest.mark.parametrize("name", ["dark", "light"])
def test_icons_and_the_focus_ring_can_be_seen_on_every_ground(name):
    colours = theme.tokens(name)
    for ground in (colours.panel, colours.raised, colours.hover, colours.pressed):
        assert contrast(colours.text, ground) >= 4.5
        assert contrast(colours.text_2, ground) >= 3
        assert contrast(colours.accent, ground) >= 3


@pytest.mark.parametrize("name", ["dark", "light"])
def test_words_on_the_primary_button_can_be_read(name):
    colours = theme.tokens(name)
    assert contrast(colours.on_accent, colours.accent) >= 4.5


def test_chips_over_the_image_can_be_read():
    for role in ("text", "processed", "synthetic"):
        assert contrast(getattr(theme.DARK, role), theme.DARK.surround) >= 4.5


def test_the_surround_is_the_same_neutral_grey_in_both_themes():
    assert theme.DARK.surround == theme.LIGHT.surround == "#18191b"


def test_changing_the_theme_changes_every_colour_of_the_style_sheet(qapp):
    theme.apply(qapp, "light")
    light = QApplication.instance().styleSheet()
    theme.apply(qapp, "dark")
    dark = QApplication.instance().styleSheet()

    for item in fields(theme.Tokens):
        mine, other = getattr(theme.LIGHT, item.name), getattr(theme.DARK, item.name)
        if mine != other and item.name in ("panel", "raised", "text", "accent", "line"):
            assert mine in light
            assert mine not in dark
    assert "$" not in dark


def test_labels_repeat_their_hues_darker():
    first, later = theme.label_colour(0), theme.label_colour(7)
    assert first == "#e69f00"
    assert luminance(later) < luminance(first)
