"""What a network's routers chose: after a preview and a run in Restore, and slice by slice in Info."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel, QStyle, QStyleOptionButton

from medapp import paths
from medapp.scan.phantom_files import write_series
from medapp.scan.phantoms import ct_torso
from medapp.ui import theme
from medapp.ui.panels.restore_routing import RoutingView, grouped, routing_of_slice, share_text, title_of
from tests.networks.toys import keep_toy

AMIR_LIKE = [
    {"name": "spatial_routing_encoder_level1", "kind": "pixels", "shares": [0.5, 0.3, 0.2, 0.0]},
    {"name": "spatial_routing_encoder_level2", "kind": "pixels", "shares": [0.1, 0.2, 0.3, 0.4]},
    {"name": "channel_routing_latent", "kind": "channels", "shares": [0.75]},
]
DRMC_LIKE = [
    {"name": "body.0.attention", "kind": "gates", "shares": [0.0, 2.0, 0.5]},
    {"name": "body.0.mlp", "kind": "gates", "shares": [4.0, 0.0, 0.0]},
    {"name": "body.1.attention", "kind": "gates", "shares": [0.0, 0.0, 0.0]},
    {"name": "body.1.mlp", "kind": "gates", "shares": [1.0, 1.0, 1.0]},
]


@pytest.fixture
def view(qtbot):
    theme.apply(QApplication.instance(), "dark")
    made = RoutingView()
    qtbot.addWidget(made)
    made.show()
    return made


def words(widget):
    QTest.qWait(1)  # layouts show what was added when events are next handled
    return [made.text() for made in widget.findChildren(QLabel) if not made.isHidden() and made.text()]


def test_routers_have_names_that_people_read():
    assert title_of("spatial_routing_encoder_level1") == "Encoder 1"
    assert title_of("channel_routing_latent") == "Latent"
    assert title_of("channel_routing_decoder_level3") == "Decoder 3"
    assert title_of("trunk.gate_4") == "Trunk gate 4"
    assert share_text(0.537, "pixels") == "54 %"
    assert share_text(1.25, "gates") == "1.25"


def test_shares_of_pixels_and_channels_are_rows_of_bars(view):
    view.show_routing(AMIR_LIKE, "Slice 3")

    assert not view.isHidden()
    assert view.about == "Slice 3"
    assert {"Encoder 1", "Encoder 2", "Latent"} <= set(words(view))
    assert [cell.text for cell in view.cells] == ["50 %", "30 %", "20 %", "0 %", "10 %", "20 %", "30 %", "40 %", "0.75"]
    assert [cell.share for cell in view.cells[:4]] == [0.5, 0.3, 0.2, 0.0]
    assert view.cells[1].toolTip() == "Encoder 1, expert 2: 30 %"


def test_gates_of_a_block_stand_beside_each_other_and_the_loudest_fills_its_bar(view):
    view.show_routing(DRMC_LIKE)

    assert {"Block 1", "Block 2", "Attention", "MLP"} <= set(words(view))
    assert len(view.cells) == 12
    assert [cell.text for cell in view.cells[:6]] == ["0.00", "2.00", "0.50", "4.00", "0.00", "0.00"]
    assert [cell.share for cell in view.cells[:4]] == [0.0, 0.5, 0.125, 1.0]
    assert view.cells[3].toolTip() == "Block 1 MLP, expert 1: 4.00"


def test_all_gates_shut_is_shown_as_empty_bars(view):
    view.show_routing([{**choice, "shares": [0.0, 0.0, 0.0]} for choice in DRMC_LIKE])
    assert {cell.text for cell in view.cells} == {"0.00"}
    assert {cell.share for cell in view.cells} == {0.0}


def test_without_routers_nothing_is_shown(view):
    view.show_routing(AMIR_LIKE)
    view.show_routing([])
    assert view.isHidden()


@pytest.mark.parametrize(
    "choice",
    [{}, {"name": 3, "kind": "gates", "shares": [1.0]}, {"name": "a", "kind": "gates", "shares": ["x"]},
     {"name": "a", "kind": "gates", "shares": []}],
)  # fmt: skip
def test_a_foreign_provenance_is_left_out(choice):
    assert grouped([choice]) == []
    assert len(grouped([choice, *AMIR_LIKE])) == 2


def test_the_bars_can_be_seen_in_both_themes(view):
    for mode in ("dark", "light"):
        colours = theme.apply(QApplication.instance(), mode)
        view.show_routing(AMIR_LIKE)
        QTest.qWait(1)
        view.resize(280, view.sizeHint().height())
        cell = view.cells[0]
        picture = cell.grab().toImage()
        y = picture.height() - 2
        assert picture.pixelColor(picture.width() // 4, y).name() == colours.text_2
        assert picture.pixelColor(picture.width() * 3 // 4, y).name() == colours.line


def test_new_numbers_move_the_bars_that_are_there(view):
    view.show_routing(AMIR_LIKE)
    before = list(view.cells)
    view.show_routing([{**choice, "shares": list(reversed(choice["shares"]))} for choice in AMIR_LIKE])
    assert view.cells == before
    assert view.cells[0].text == "0 %"


def test_a_series_made_slice_by_slice_has_the_routing_of_each():
    by_slice = {"routing": AMIR_LIKE[2:], "routing_slices": {"0": AMIR_LIKE[:1], "1": AMIR_LIKE[1:2]}}
    assert routing_of_slice(by_slice, 1, 2) == (AMIR_LIKE[1:2], "Slice 2")
    assert routing_of_slice(by_slice, 5, 6) == ([], "")
    volume = {"routing": DRMC_LIKE, "routing_slices": {"0": DRMC_LIKE}}
    assert routing_of_slice(volume, 3, 9) == (DRMC_LIKE, "Mean over the volume")
    assert routing_of_slice({"model": "x"}, 0, 9) == ([], "")


@pytest.fixture
def restoring(window, open_files, tmp_path, qtbot):
    """The Restore workspace with a small CT and two toy models that route."""
    for name, config in (("amir", None), ("drmc", {"res_num": 2, "n_feats": 16, "dims": 2})):
        keep_toy(paths.user_models_dir(), name, config)
    write_series(tmp_path / "ct", ct_torso((3, 48, 64), (8.0, 6.0, 6.0)), "P1")
    open_files(window, tmp_path / "ct")
    window.set_workspace("restore")
    qtbot.waitUntil(lambda: bool(window.restoring.models), timeout=20000)
    return window


def _click_box(box):
    """On the box itself: the words beside it end somewhere."""
    option = QStyleOptionButton()
    box.initStyleOption(option)
    place = box.style().subElementRect(QStyle.SubElement.SE_CheckBoxIndicator, option, box).center()
    QTest.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(place))


def _run(window, qtbot):
    window.restoring.report = {}
    QTest.mouseClick(window.restore.run, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(window.restoring.report) and not window.bridge.running(), timeout=30000)


def test_a_preview_and_a_run_show_the_way_the_image_went(restoring, qtbot):
    window, view = restoring, restoring.restore.routing
    window.restoring.choose("toy-amir")
    window.document.go_to_slice(0, 1)
    assert view.isHidden()

    _click_box(window.restore._preview)
    qtbot.waitUntil(lambda: not view.isHidden(), timeout=30000)
    assert view.about == "Slice 2"
    assert {"Encoder 1", "Encoder 3", "Latent", "Decoder 1"} <= set(words(view))
    numbers = [cell.text for cell in view.cells]
    assert sum(float(text.split()[0]) for text in numbers[:4]) == pytest.approx(100, abs=2)

    window.document.go_to_slice(0, 2)  # the preview follows, and so does its routing
    qtbot.waitUntil(lambda: view.about == "Slice 3", timeout=30000)

    _run(window, qtbot)
    assert view.about == "Mean over the series"

    window.restoring.choose("filter-median")
    assert view.isHidden()  # the routing of another model would mislead


def test_info_follows_the_gates_of_the_slice_on_screen(restoring, qtbot):
    window, document = restoring, restoring.document
    window.restoring.choose("toy-drmc")
    _run(window, qtbot)
    window.show_dock("info")
    assert window.info.routing.isHidden()  # an original was routed by nobody

    derived = next(info for info in document.series_list if info.source_id)
    document.open_series(derived.series_id)
    qtbot.waitUntil(lambda: document.series.series_id == derived.series_id, timeout=20000)
    view = window.info.routing
    assert not view.isHidden()
    assert {"Block 1", "Block 2", "Attention", "MLP"} <= set(words(view))

    shown = {}
    for z in (0, 2):
        document.go_to_slice(0, z)
        assert view.about == f"Slice {z + 1}"
        shown[z] = [cell.text for cell in view.cells]
        kept = document.series.provenance["routing_slices"][str(z)]
        assert shown[z] == [f"{share:.2f}" for choice in kept for share in choice["shares"]]
