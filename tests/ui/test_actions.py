import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence

from medapp.ui.actions import SPECS, conflicts, tooltip
from medapp.ui.dialogs.settings_sheet import SettingsSheet

UX_KEYS = {
    "open_files": "Ctrl+O",
    "save_version": "Ctrl+S",
    "export": "Ctrl+E",
    "find_command": "Ctrl+K",
    "settings": "Ctrl+,",
    "hints": "F1",
    "full_screen": "F11",
    "undo": "Ctrl+Z",
    "redo": "Ctrl+Shift+Z",
    "workspace_review": "Ctrl+Alt+1",
    "workspace_curate": "Ctrl+Alt+4",
    "fit": "R",
    "zoom_100": "Ctrl+1",
    "invert_display": "I",
    "window_default": "`",
    "slice_go": "Ctrl+G",
    "tool_brush": "B",
    "tool_eraser": "E",
    "tool_unknown": "U",
    "tool_fill": "F",
    "tool_prompt": "P",
    "prompt_kind": "Shift+P",
    "propose": "A",
    "refine": "Shift+A",
    "matte_visible": "V",
    "toggle_overlays": "H",
    "matte_view_cycle": "T",
    "matte_invert": "Ctrl+I",
    "compare_cycle": "Y",
    "brush_swap": "X",
    "brush_reset": "D",
    "toggle_panels": "Ctrl+\\",
    "shortcuts": "?",
}


def test_no_two_actions_share_a_key():
    assert conflicts({}) == []


@pytest.mark.parametrize(("name", "key"), UX_KEYS.items())
def test_the_keys_are_those_that_people_know(name, key):
    assert SPECS[name].keys[0] == key


def test_every_action_of_the_table_does_something(window):
    assert set(window.actions_by_name) == set(SPECS)


def test_every_action_says_its_name_key_and_what_it_does(window):
    for name, action in window.actions_by_name.items():
        assert action.toolTip().startswith(SPECS[name].text.rstrip("…"))
        assert SPECS[name].help in action.toolTip()


def test_a_tooltip_is_name_key_and_one_line():
    assert tooltip("Undo", "Ctrl+Z", "Take it back") == "Undo (Ctrl+Z) — Take it back"


def test_every_control_with_an_icon_only_has_a_name(window):
    from PySide6.QtWidgets import QAbstractButton

    nameless = [
        made
        for made in window.findChildren(QAbstractButton)
        if not made.text() and not made.accessibleName() and made.objectName() != "qt_toolbar_ext_button"
    ]
    assert [type(made.parent()).__name__ for made in nameless if made.isVisible()] == []


def test_find_command_runs_what_was_typed(window, qtbot):
    qtbot.keyClick(window, Qt.Key.Key_K, Qt.KeyboardModifier.ControlModifier)
    qtbot.waitUntil(window.command_search.isVisible)

    qtbot.keyClicks(window.command_search.field, "curate")
    qtbot.keyClick(window.command_search.field, Qt.Key.Key_Return)

    assert window.workspace == "curate"


def test_a_key_that_is_taken_is_refused_with_the_name_of_its_action(window, qtbot):
    sheet = SettingsSheet(window, window.document)
    qtbot.addWidget(sheet)
    sheet.table.setCurrentItem(sheet.table.findItems("Export", Qt.MatchFlag.MatchExactly)[0])
    sheet.key.setKeySequence(QKeySequence("Ctrl+O"))

    sheet._on_use()

    assert "Open images" in sheet.warning.text()
    assert window.document.settings.shortcuts == {}


def test_a_changed_key_acts_at_once(window, qtbot):
    window.document.change_settings(shortcuts={"workspace_curate": "Ctrl+J"})

    qtbot.keyClick(window, Qt.Key.Key_J, Qt.KeyboardModifier.ControlModifier)

    assert window.workspace == "curate"
