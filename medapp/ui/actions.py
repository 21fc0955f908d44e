"""Every action in one table: name, text, shortcut, tooltip, menu."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PySide6.QtCore import QObject, Qt
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import QWidget

from medapp.ui.icons import icon

MENUS = ("File", "Edit", "View", "Image", "Matte", "Help")


@dataclass(frozen=True)
class ActionSpec:
    """One thing that can be done.

    Attributes:
        name: Unique; settings store changed keys by it.
        text: Sentence case; ends in an ellipsis when a dialog opens.
        keys: Shortcuts, the first is shown.
        help: One line.
        menu: A name of ``MENUS``, or empty: reachable by key, tool strip and command search.
        section: Menu entries of one section stand together.
        icon: A Phosphor icon.
        scope: ``window`` acts anywhere in the window; ``viewport`` keys are answered by the image that has the focus,
            since lists and fields need them themselves.
        is_tool: May be held: the previous tool returns when the key goes up.
    """

    name: str
    text: str
    keys: tuple[str, ...] = ()
    help: str = ""
    menu: str = ""
    section: int = 0
    icon: str = ""
    scope: str = "window"
    is_checkable: bool = False
    is_tool: bool = False
    repeats: bool = False


def _tool(name: str, text: str, key: str, help_: str, icon_name: str) -> ActionSpec:
    return ActionSpec(f"tool_{name}", text, (key,), help_, "", 0, icon_name, is_checkable=True, is_tool=True)


_W = "viewport"
_SPECS: tuple[ActionSpec, ...] = (
    # File
    ActionSpec(
        "open_files", "Open images…", ("Ctrl+O",), "DICOM, NIfTI, PNG, JPEG, TIFF, ZIP", "File", 0, "folder-open"
    ),
    ActionSpec("open_folder", "Open folder…", ("Ctrl+Shift+O",), "Every image in a folder", "File", 0, "folders"),
    ActionSpec("open_sample", "Try a sample", (), "Three small bundled cases", "File", 0, "test-tube"),
    ActionSpec("new_project", "New project", (), "Start an empty project", "File", 1, "file-plus"),
    ActionSpec("open_project", "Open project…", (), "A .medapp folder", "File", 1, "package"),
    ActionSpec("start_page", "Start page", (), "Recent projects and the sample", "File", 1, "house"),
    ActionSpec(
        "import_masks", "Import masks…", (), "Label maps, alphas, SEG or RTSTRUCT as mattes", "File", 2, "stack"
    ),
    ActionSpec("import_model", "Import model file…", (), "Weights of a restorer or SAM", "File", 2, "cube"),
    ActionSpec("save_version", "Save version…", ("Ctrl+S",), "Name the present state", "File", 3, "bookmark-simple"),
    ActionSpec("export", "Export…", ("Ctrl+E",), "Write a data set that other software reads", "File", 3, "export"),
    ActionSpec("quit", "Quit", ("Ctrl+Q",), "Everything is saved already", "File", 4, "power"),
    # Edit
    ActionSpec("undo", "Undo", ("Ctrl+Z",), "Take the last step back", "Edit", 0, "arrow-u-up-left", repeats=True),
    ActionSpec("redo", "Redo", ("Ctrl+Shift+Z", "Ctrl+Y"), "Do it again", "Edit", 0, "arrow-u-up-right", repeats=True),
    ActionSpec("delete", "Delete", ("Delete", "Backspace"), "Remove the selected prompt", "Edit", 1, "trash", _W),
    ActionSpec("find_command", "Find command", ("Ctrl+K",), "Type what you want to do", "Edit", 2, "magnifying-glass"),
    ActionSpec("settings", "Settings…", ("Ctrl+,",), "Theme, reader, device, privacy, keys", "Edit", 2, "gear-six"),
    # View
    ActionSpec("workspace_review", "Review", ("Ctrl+Alt+1",), "Look and compare", "View", 0, "eye", is_checkable=True),
    ActionSpec(
        "workspace_restore", "Restore", ("Ctrl+Alt+2",), "Restore a series", "View", 0, "sparkle", is_checkable=True
    ),
    ActionSpec(
        "workspace_annotate", "Annotate", ("Ctrl+Alt+3",), "Make mattes", "View", 0, "paint-brush", is_checkable=True
    ),
    ActionSpec(
        "workspace_curate", "Curate", ("Ctrl+Alt+4",), "Check and export", "View", 0, "table", is_checkable=True
    ),
    ActionSpec(
        "workspace_train",
        "Train",
        ("Ctrl+Alt+5",),
        "Let a model learn from what was accepted",
        "View",
        0,
        "graduation-cap",
        is_checkable=True,
    ),
    ActionSpec("layout_1", "One view", (), "The slice alone", "View", 1, "square"),
    ActionSpec("layout_4", "2×2 views", (), "Three planes", "View", 1, "squares-four"),
    ActionSpec("layout_3_1", "3+1 views", (), "One plane large, two beside it", "View", 1, "layout"),
    ActionSpec("fit", "Fit image", ("R", "Ctrl+0"), "Fit and centre", "View", 2, "corners-out"),
    ActionSpec(
        "zoom_100", "Zoom 100 %", ("Ctrl+1",), "One image pixel on one screen pixel", "View", 2, "number-square-one"
    ),
    ActionSpec("zoom_in", "Zoom in", ("Ctrl+=", "Ctrl++"), "Larger", "View", 2, "magnifying-glass-plus", repeats=True),
    ActionSpec("zoom_out", "Zoom out", ("Ctrl+-",), "Smaller", "View", 2, "magnifying-glass-minus", repeats=True),
    ActionSpec(
        "compare_cycle",
        "Next compare mode",
        ("Y",),
        "Single, side by side, swipe, difference",
        "View",
        3,
        "square-half",
    ),
    ActionSpec(
        "toggle_overlays", "Hide overlays", ("H",), "Mattes, crosshair, text; the chip stays", "View", 3, "eye-slash"
    ),
    ActionSpec(
        "matte_view_cycle",
        "Next matte view",
        ("T",),
        "Tint, outline, on black, white, checker, grey",
        "View",
        3,
        "intersect",
    ),
    ActionSpec(
        "toggle_panels", "Image only", ("Ctrl+\\", "F9"), "Hide every panel; again restores", "View", 4, "frame-corners"
    ),
    ActionSpec("full_screen", "Full screen", ("F11",), "The window fills the screen", "View", 4, "arrows-out"),
    ActionSpec(
        "reset_layout", "Reset layout", (), "Panels of this workspace as at first", "View", 4, "arrow-counter-clockwise"
    ),
    # Image
    ActionSpec("invert_display", "Invert display", ("I",), "Black for white", "Image", 0, "circle-half"),
    ActionSpec("window_default", "Default window", ("`",), "The window the series opened with", "Image", 0, "sun-dim"),
    ActionSpec("window_full", "Full range", (), "Every value visible", "Image", 0, "arrows-out-line-horizontal"),
    ActionSpec("slice_next", "Next slice", ("Up",), "One slice on", "Image", 1, "caret-up", _W, repeats=True),
    ActionSpec(
        "slice_previous", "Previous slice", ("Down",), "One slice back", "Image", 1, "caret-down", _W, repeats=True
    ),
    ActionSpec(
        "slice_next_10", "Ten slices on", ("PgUp",), "Ten slices on", "Image", 1, "caret-double-up", _W, repeats=True
    ),
    ActionSpec(
        "slice_previous_10",
        "Ten slices back",
        ("PgDown",),
        "Ten slices back",
        "Image",
        1,
        "caret-double-down",
        _W,
        repeats=True,
    ),
    ActionSpec("slice_first", "First slice", ("Home",), "To the first slice", "Image", 1, "arrow-line-down", _W),
    ActionSpec("slice_last", "Last slice", ("End",), "To the last slice", "Image", 1, "arrow-line-up", _W),
    ActionSpec("slice_go", "Go to slice…", ("Ctrl+G",), "By its number", "Image", 1, "hash"),
    ActionSpec("restore_run", "Run on series", (), "Restore every slice with the chosen model", "Image", 2, "sparkle"),
    ActionSpec("restore_preview", "Preview restoration", (), "Restore the slice on screen", "Image", 2, "eye"),
    ActionSpec("regions_find", "Find regions", (), "Of this slice, for the chosen model", "Image", 2, "polygon"),
    ActionSpec("regions_show", "Show or hide regions", (), "Over the image, in Restore", "Image", 2, "polygon"),
    ActionSpec(
        "depth_file", "Open depth file…", (), "Sparse depths of this frame, of a stated scale", "Image", 3, "file"
    ),
    ActionSpec("depth_run", "Estimate depth", (), "Complete the depth of this colour frame", "Image", 3, "waves"),
    ActionSpec(
        "depth_export", "Export depth files…", (), "16-bit PNG and float TIFF with their scale", "Image", 3, "export"
    ),
    ActionSpec(
        "series_reference", "Mark or unmark as reference", (), "Restoration models learn from it", "Image", 4, "target"
    ),
    # Matte
    ActionSpec(
        "matte_new", "New matte", ("Ctrl+Shift+N",), "A soft layer with the next label", "Matte", 0, "stack-simple"
    ),
    ActionSpec("matte_delete", "Delete matte", ("Ctrl+Delete",), "Remove the active layer", "Matte", 0, "trash"),
    ActionSpec("matte_previous", "Previous matte", ("Ctrl+Up",), "The layer above", "Matte", 0, "arrow-up"),
    ActionSpec("matte_next", "Next matte", ("Ctrl+Down",), "The layer below", "Matte", 0, "arrow-down"),
    ActionSpec("matte_visible", "Show or hide matte", ("V",), "The active layer", "Matte", 0, "eye"),
    ActionSpec(
        "matte_invert", "Invert matte", ("Ctrl+I",), "On this slice α becomes 1 − α", "Matte", 0, "selection-inverse"
    ),
    ActionSpec(
        "propose", "Propose for this slice", ("A",), "Find the regions of this slice", "Matte", 1, "tree-structure"
    ),
    ActionSpec(
        "accept", "Accept proposal", ("Return", "Enter"), "Merge it into the active layer", "Matte", 1, "check", _W
    ),
    ActionSpec("reject", "Reject or cancel", ("Escape",), "Stroke, then proposal, then tool", "Matte", 1, "x", _W),
    ActionSpec(
        "region_smaller", "Smaller region", (",",), "One level down the region tree", "Matte", 1, "minus", repeats=True
    ),
    ActionSpec(
        "region_larger", "Larger region", (".",), "One level up the region tree", "Matte", 1, "plus", repeats=True
    ),
    ActionSpec(
        "proposal_next", "Next proposal", ("N",), "The first follows the last", "Matte", 1, "arrow-right", repeats=True
    ),
    ActionSpec("proposal_previous", "Previous proposal", ("Shift+N",), "Back", "Matte", 1, "arrow-left", repeats=True),
    ActionSpec(
        "prompt_kind", "Point, box or scribble", ("Shift+P",), "What the prompt tool draws", "Matte", 1, "selection"
    ),
    ActionSpec("refine", "Refine unknown band", ("Shift+A",), "Solve α inside the band", "Matte", 2, "intersect"),
    ActionSpec(
        "uncertain_to_band",
        "Uncertain to unknown band",
        ("Shift+U",),
        "Where the drawn masks disagree becomes the band",
        "Matte",
        2,
        "circle-dashed",
    ),
    ActionSpec("draw_anew", "New draw of masks", ("Shift+D",), "Other masks at the same place", "Matte", 1, "shuffle"),
    ActionSpec(
        "show_uncertainty",
        "Show uncertainty",
        ("Shift+V",),
        "Where the drawn masks disagree, in bits",
        "Matte",
        1,
        "eye",
    ),
    ActionSpec("copy_next", "Copy to next slice", ("Ctrl+D",), "The active matte of this slice", "Matte", 2, "copy"),
    ActionSpec(
        "interpolate", "Interpolate…", ("Ctrl+Shift+I",), "Fill slices between annotated ones", "Matte", 2, "stack"
    ),
    # Train
    ActionSpec("train_start", "Start training", (), "With the recipe of the Train workspace", "", 0, "graduation-cap"),
    ActionSpec("train_pause", "Pause training", (), "The run is kept and goes on later", "", 0, "pause"),
    ActionSpec("train_resume", "Resume training", (), "Go on exactly where the run stopped", "", 0, "play"),
    ActionSpec("train_adopt", "Adopt model", (), "The new model of the last run serves from now on", "", 0, "check"),
    ActionSpec("train_roll_back", "Roll back model", (), "The model before serves again", "", 0, "arrow-u-up-left"),
    # Help
    ActionSpec("shortcuts", "Keyboard shortcuts", ("?",), "All keys on one sheet", "Help", 0, "keyboard"),
    ActionSpec("hints", "Hints", ("F1",), "Three things to know", "Help", 0, "lightbulb"),
    ActionSpec("messages", "Messages", (), "Everything that was said", "Help", 1, "chat-centered-text"),
    ActionSpec("about", "About medapp", (), "Version and licences", "Help", 1, "info"),
    # Tools
    _tool("navigate", "Navigate", "Q", "Click places the crosshair", "cursor"),
    _tool("window", "Contrast", "W", "Drag for window and level", "sun"),
    _tool("zoom", "Zoom", "Z", "Drag to zoom at the pointer", "magnifying-glass-plus"),
    _tool("pan", "Pan", "Space", "Drag to move the image", "hand"),
    _tool("brush", "Brush", "B", "Paint the active matte", "paint-brush"),
    _tool("eraser", "Eraser", "E", "Take the active matte away", "eraser"),
    _tool("unknown", "Unknown-band brush", "U", "Mark what is still to be resolved", "circle-dashed"),
    _tool("fill", "Fill", "F", "Fill a closed area of this slice", "paint-bucket"),
    _tool("lasso", "Lasso", "L", "Draw around an area; Shift adds, Alt subtracts", "scribble-loop"),
    _tool("prompt", "Prompt", "P", "Click a structure, get its region", "magic-wand"),
    _tool("depth", "Measured depth", "G", "Click the image and type the depth in mm", "map-pin"),
    _tool("ruler", "Ruler", "M", "Drag for a length on the surface of the depth map", "ruler"),
    # Brush keys
    ActionSpec("brush_smaller", "Smaller brush", ("[", "-"), "10 % smaller", repeats=True),
    ActionSpec("brush_larger", "Larger brush", ("]", "="), "10 % larger", repeats=True),
    ActionSpec("brush_softer", "Softer brush", ("Shift+[", "{", "_"), "Hardness down 25 %"),
    ActionSpec("brush_harder", "Harder brush", ("Shift+]", "}"), "Hardness up 25 %"),
    ActionSpec("brush_swap", "Swap paint value", ("X",), "1 ↔ 0"),
    ActionSpec("brush_reset", "Reset paint value", ("D",), "To 1"),
    ActionSpec("brush_edges", "Edge-aware brush", ("Shift+B",), "The falloff stops at image edges", is_checkable=True),
    *(
        ActionSpec(f"digit_{n}", f"Digit {n}", (str(n),), "Opacity with a paint tool, else a window preset")
        for n in range(10)
    ),
    *(ActionSpec(f"flow_{n}", f"Flow {n * 10 or 100} %", (f"Shift+{n}",), "Flow of the brush") for n in range(10)),
    *(ActionSpec(f"preset_{n}", f"Window preset {n}", (f"Alt+{n}",), "In every tool") for n in range(1, 10)),
)

SPECS: dict[str, ActionSpec] = {spec.name: spec for spec in _SPECS}
TOOL_ACTIONS = tuple(spec.name for spec in _SPECS if spec.is_tool)

_SHOWN_KEYS = {
    "Ctrl+\\": "Ctrl+\\",
    "Return": "Enter",
    "Escape": "Esc",
    "PgUp": "Page up",
    "PgDown": "Page down",
}


def shown_key(key: str) -> str:
    """A shortcut as the interface writes it."""
    return _SHOWN_KEYS.get(key, QKeySequence(key).toString(QKeySequence.SequenceFormat.NativeText))


def tooltip(name: str, key: str, help_: str) -> str:
    """``Name (Shortcut) — one line``."""
    head = name.rstrip("…")
    if key:
        head += f" ({shown_key(key)})"
    return f"{head} — {help_}" if help_ else head


def build_actions(
    parent: QObject,
    handlers: Mapping[str, Callable[[], object]],
    changed_keys: Mapping[str, str] | None = None,
) -> dict[str, QAction]:
    """Make every action of the table that has a handler.

    ``attach`` then adds them to the window.

    Raises:
        KeyError: A handler is for no action of the table.
    """
    actions: dict[str, QAction] = {}
    for name in handlers:
        SPECS[name]
    for name, spec in SPECS.items():
        if name not in handlers:
            continue
        action = QAction(spec.text, parent)
        action.setObjectName(name)
        if spec.icon:
            action.setIcon(icon(spec.icon))
        action.setCheckable(spec.is_checkable)
        action.setAutoRepeat(spec.repeats)
        _set_keys(action, spec, (changed_keys or {}).get(name))
        handler = handlers[name]
        action.triggered.connect(lambda _checked=False, call=handler: call())
        actions[name] = action
    return actions


def _set_keys(action: QAction, spec: ActionSpec, changed: str | None) -> None:
    keys = spec.keys if changed is None else tuple(k for k in (changed,) if k)
    action.setShortcuts([QKeySequence(key) for key in keys])
    context = Qt.ShortcutContext.WidgetWithChildrenShortcut if spec.scope == _W else Qt.ShortcutContext.WindowShortcut
    action.setShortcutContext(context)
    line = tooltip(spec.text, keys[0] if keys else "", spec.help)
    action.setToolTip(line)
    action.setStatusTip("")
    action.setWhatsThis(spec.help)


def change_keys(actions: Mapping[str, QAction], changed_keys: Mapping[str, str]) -> None:
    """Give actions the keys of the settings, or their own again."""
    for name, action in actions.items():
        _set_keys(action, SPECS[name], changed_keys.get(name))


def attach(actions: Mapping[str, QAction], window: QWidget) -> None:
    """Let the shortcuts act; the image answers keys of scope ``viewport`` itself, whatever tool is held."""
    for name, action in actions.items():
        if SPECS[name].scope != _W:
            window.addAction(action)


def conflicts(keys: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Pairs of actions on one key, as ``(key, name, name)``.

    Args:
        keys: Changed keys by action name.
    """
    taken: dict[str, str] = {}
    found = []
    for name, spec in SPECS.items():
        own = (keys[name],) if name in keys else spec.keys
        for key in own:
            if not key:
                continue
            normal = QKeySequence(key).toString(QKeySequence.SequenceFormat.PortableText)
            if normal in taken and taken[normal] != name:
                found.append((normal, taken[normal], name))
            taken.setdefault(normal, name)
    return found
