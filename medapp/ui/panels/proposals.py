"""Proposals: what a model or the region tree suggests; a person accepts it."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QCheckBox, QComboBox, QListWidget, QListWidgetItem, QStackedLayout, QWidget

from medapp.ui.document import Document
from medapp.ui.icons import icon
from medapp.ui.matte_proposing import MatteProposing
from medapp.ui.panels.matting_tray import MattingTray
from medapp.ui.prompts import PROMPT_KINDS, MattingSet
from medapp.ui.proposing import TREE_ORIGIN
from medapp.ui.widgets import EmptyState, button, column, field, icon_button, label, row, scrolling, wrapped

_MATTING = "matting:"
ROUGH_MASK = "rough_mask"
"""Among the inputs on a card (``networks.card``, which the window does not load)."""
_MODES = (("add", "Add to matte"), ("replace", "Replace matte"), ("subtract", "Subtract from matte"))


class ProposalsPanel(QWidget):
    """The tray: smaller or larger region, next candidate, accept, reject; the strip of a matting model."""

    def __init__(self, document: Document, propose_slice, matte_proposing: MatteProposing) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self._document = document
        self._models: list[tuple[str, str]] = []  # title and key of what answers clicks
        self._matting_models: list[tuple[str, str]] = []
        self._proposing = matte_proposing
        self._looking: dict[str, bool] = {}  # whether a matting model looks at a rough mask
        self.mode = QComboBox()
        for mode, text in _MODES:
            self.mode.addItem(text, mode)
        self.mode.setToolTip("What accepting does to the active matte on this slice")
        self.mode.setAccessibleName("What accepting does")
        self.mode.activated.connect(lambda _i: setattr(document, "accept_mode", self.mode.currentData()))
        self.source = QComboBox()
        self.source.setToolTip("What answers a click")
        self.source.activated.connect(self._on_source)
        self.kind = QComboBox()
        for kind in PROMPT_KINDS:
            self.kind.addItem(kind.capitalize(), kind)
        self.kind.setToolTip("Point, box or scribble (Shift+P) — what the prompt tool draws")
        self.kind.activated.connect(self._on_kind)
        self._hard = QCheckBox("Hard edge")
        self._hard.setToolTip("Accept the region as it is, without solving α at its edge")
        self._hard.toggled.connect(self._on_hard)
        self._text = wrapped()
        self.better = button("")
        self.better.clicked.connect(lambda _c=False: matte_proposing.ask_model(self._for_a_box()[0]))
        self._of_box = QWidget()
        self._of_box.setLayout(row(wrapped("Told a box alone"), self.better, spacing=6))
        self._list = QListWidget()
        self._list.setAccessibleName("Candidates, smallest first")
        self._list.currentRowChanged.connect(self._on_row)
        self._smaller = icon_button("minus", "Smaller region", "Smaller region (,) — one level down")
        self._smaller.clicked.connect(lambda _c=False: document.step_candidate(-1))
        self._larger = icon_button("plus", "Larger region", "Larger region (.) — one level up")
        self._larger.clicked.connect(lambda _c=False: document.step_candidate(1))
        self.next = icon_button("arrow-right", "Next proposal", "Next proposal (N)")
        self.next.clicked.connect(lambda _c=False: document.turn_candidate(1))
        self.accept = button("Accept", "primary", "Accept proposal (Enter) — merge it into the active matte", "check")
        self.accept.clicked.connect(lambda _c=False: self.accept_now())
        self.reject = button("Reject", "", "Reject (Esc) — accepted work stays", "x")
        self.reject.clicked.connect(lambda _c=False: self._reject())
        self.matting = MattingTray(document, matte_proposing)
        self._empty = EmptyState(
            "Click a structure with the prompt tool (P), or let medapp propose regions of this slice.",
            "Propose for this slice",
            propose_slice,
        )
        inner = QWidget()
        inner.setLayout(column(self._text, self._of_box, self._list, self.matting, margin=0, spacing=6))
        scroll = scrolling(inner, takes_focus=False)  # in a small window Accept stays in sight
        tray = QWidget()
        tray.setLayout(
            column(
                scroll,
                row(self._smaller, self._larger, self.next, -1, spacing=4),
                row(self.mode, self._hard, -1),
                row(self.reject, self.accept),
                margin=0,
                spacing=6,
            )
        )
        holder = QWidget()
        self._stack = QStackedLayout(holder)
        self._stack.addWidget(self._empty)
        self._stack.addWidget(tray)
        self._waiting = label("", "secondary")
        self._draw = QWidget()
        self._draw.setLayout(field("Draw", self.kind, 76))
        self.setLayout(column(field("Click gives", self.source, 76), self._draw, self._waiting, holder))
        self.set_segmenters([])
        document.proposals_changed.connect(self._show)
        document.preview_changed.connect(self._show)
        document.active_matte_changed.connect(self._show)  # accepting names a new one
        document.tool_changed.connect(self._show_kind)
        document.settings_changed.connect(self._show_source)
        self._show()

    def set_segmenters(self, models: list[dict]) -> None:
        """Models that may answer clicks, beside the region tree, which is always there."""
        self._models = [(str(model["title"]), str(model["id"])) for model in models]
        chosen = self._document.settings.sam_model
        if chosen and chosen not in (key for _, key in self._models):
            self._models.append((chosen, chosen))
        self._fill_source()

    def set_matting_models(self, models: list[dict]) -> None:
        """Models that answer a click or box with several masks and an alpha; none = the choice is absent."""
        self._matting_models = [(str(model["title"]), f"{_MATTING}{model['id']}") for model in models]
        self._looking = {str(model["id"]): ROUGH_MASK in model.get("inputs", ()) for model in models}
        self._fill_source()
        self._show()

    def _for_a_box(self) -> tuple[str, str]:
        """Id and title of a model made for a box alone, where one that looks for a rough mask saw none; or empty."""
        matting = self._document.matting
        if matting is None or matting.told or not self._looking.get(self._proposing.model_id):
            return "", ""
        others = ((key.removeprefix(_MATTING), title) for title, key in self._matting_models)
        return next(((model, title) for model, title in others if not self._looking[model]), ("", ""))

    def _fill_source(self) -> None:
        self.source.clear()
        self.source.addItem("Region tree", "")
        for title, key in (*self._models, *self._matting_models):
            self.source.addItem(title, key)
        self._show_source()

    def accept_now(self) -> None:
        """Accept the preview, or the shown region."""
        self._document.accept_candidate()

    def _reject(self) -> None:
        self._document.reject_candidate()

    def _show_source(self) -> None:
        settings = self._document.settings
        key = f"{_MATTING}{settings.matting_model}" if settings.matting_model else settings.sam_model
        self.source.setCurrentIndex(max(0, self.source.findData(key)))

    def _show_kind(self) -> None:
        self.kind.setCurrentIndex(PROMPT_KINDS.index(self._document.prompt_kind))

    def _on_source(self, _index: int) -> None:
        key = self.source.currentData() or ""
        if key.startswith(_MATTING):
            self._document.change_settings(matting_model=key.removeprefix(_MATTING))
        else:
            self._document.change_settings(matting_model="", sam_model=key)
        self._document.clear_prompts()

    def _on_kind(self, _index: int) -> None:
        self._document.prompt_kind = self.kind.currentData()
        self._document.tool_changed.emit()

    def _on_hard(self, checked: bool) -> None:
        self._document.is_exact_edge = checked

    def _on_row(self, place: int) -> None:
        if place >= 0:
            self._document.step_candidate(place - self._document.candidate_index)

    def _show(self) -> None:
        document = self._document
        candidates, preview = document.candidates, document.preview
        self._waiting.setText("Drawing masks…" if document.settings.matting_model else "Looking for regions…")
        self._waiting.setVisible(document.is_proposing)
        self._stack.setCurrentIndex(1 if candidates or preview is not None else 0)
        matting = document.matting if preview is None else None
        for control in (self.mode, self._hard):
            control.setVisible(preview is None)
        for control in (self._list, self._smaller, self._larger, self.next):
            control.setVisible(preview is None and matting is None)
        self.matting.setVisible(matting is not None)
        self._show_better(matting)
        self._draw.setVisible(matting is None)  # the tool options hold it too; the strip needs the room
        if preview is not None:
            self._text.setText(f"Preview: {preview.text.lower()}. Scroll through it, then accept or reject.")
            return
        if not candidates:
            return
        active = document.active_matte
        into = f"“{active.name}”" if active is not None else "a new matte"
        if matting is not None:
            tip = f"From {matting.model}; the same seed gives the same masks again"
            if matting.told:  # the line is narrow
                self._text.setText(f"From the {matting.told}, for {into}")
                tip += f" (seed {matting.seed}). A click on what you painted starts from that"
            elif self._proposing.model_id != document.settings.matting_model:
                self._text.setText(f"From {matting.model}, for {into}")
                tip += f" (seed {matting.seed})"
            else:
                self._text.setText(f"Seed {matting.seed}, for {into}")
            self._text.setToolTip(tip)
            self._hard.setEnabled(document.candidate is not None and document.candidate.alpha is None)
            self.matting.show_set()
            return
        self._hard.setEnabled(True)
        origin = "region tree" if candidates[0].origin == TREE_ORIGIN else candidates[0].origin
        self._text.setText(f"From the {origin}, for {into}" if origin == TREE_ORIGIN else f"From {origin}, for {into}")
        self._list.blockSignals(True)
        if self._list.count() != len(candidates):
            self._list.clear()
            for _ in candidates:
                self._list.addItem(QListWidgetItem(icon("selection", "text_2"), ""))
        area = self._pixel_mm2()
        for place, candidate in enumerate(candidates):
            count = int(candidate.mask.sum())
            square_cm = count * area / 100 if area else 0.0
            size = (f"{square_cm:.3g} cm²" if square_cm < 100 else f"{square_cm:.0f} cm²") if area else f"{count} px"
            name = f"Level {candidate.level + 1}" if candidate.level is not None else f"Region {place + 1}"
            score = f" · score {candidate.score:.2f}" if candidate.score is not None else ""
            self._list.item(place).setText(f"{name} · {size}{score}")
        self._list.setCurrentRow(document.candidate_index)
        self._list.scrollToItem(self._list.currentItem())
        self._list.blockSignals(False)
        self._smaller.setEnabled(document.candidate_index > 0)
        self._larger.setEnabled(document.candidate_index + 1 < len(candidates))

    def _show_better(self, matting: MattingSet | None) -> None:
        _, title = self._for_a_box() if matting is not None else ("", "")
        self._of_box.setVisible(bool(title))
        if matting is not None and title:
            self.better.setText(f"Ask {title}")
            self.better.setAccessibleName(self.better.text())
            self.better.setToolTip(
                f"Ask {title} — made for a box alone. {matting.model} is made for a rough mask: paint one, or click "
                "a region"
            )

    def _pixel_mm2(self) -> float:
        scan, candidates = self._document.scan, self._document.candidates
        if scan is None or not candidates:
            return 0.0
        axis = candidates[0].axis
        if axis == 0:
            spacing = scan.in_plane_spacing_mm
            return spacing[0] * spacing[1] if spacing is not None else 0.0
        spacing_mm = scan.spacing_mm
        if spacing_mm is None:
            return 0.0
        rows, columns = (spacing_mm[a] for a in range(3) if a != axis)
        return rows * columns

    def keyPressEvent(self, event) -> None:  # type: ignore[no-untyped-def]
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.accept_now()
        elif event.key() == Qt.Key.Key_Escape:
            self._reject()
        else:
            super().keyPressEvent(event)
