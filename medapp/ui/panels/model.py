"""Model: what each model of the library is for, how it fits, what was measured, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QComboBox, QLabel, QSizePolicy, QStackedLayout, QVBoxLayout, QWidget

from medapp.naming import with_version
from medapp.requests import ModelsRequest
from medapp.ui import theme
from medapp.ui.job_bridge import JobBridge
from medapp.ui.panels.restore import FIT_TEXT
from medapp.ui.restoring import Restoring
from medapp.ui.widgets import EmptyState, button, column, field, label, line, refresh_style, row, scrolling, wrapped

SERVES = {
    "restoration": "Restores",
    "regions": "Finds regions",
    "matting": "Proposes mattes",
    "depth": "Completes depth",
}
NOT_MEASURED = "Not measured on held-out patients by medapp."
Model = Mapping[str, Any]


class ModelPanel(QWidget):
    """One model at a time, in plain words."""

    def __init__(self, restoring: Restoring, bridge: JobBridge) -> None:
        super().__init__()
        self._restoring, self._bridge = restoring, bridge
        self._models: tuple[Model, ...] = ()
        self._shown_id = ""
        self._is_asked = False
        self.choice = QComboBox()
        self.choice.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.choice.setMinimumContentsLength(14)
        self.choice.activated.connect(lambda _i: self.show_model(self.choice.currentData() or ""))
        self._chip = label()
        self._chip.setProperty("look", "chip")
        self._chip.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self._reason = wrapped()
        self._fit = QWidget()
        self._fit.setLayout(row(self._chip, self._reason))
        self.use = button("Use for restoring", "", "Use for restoring — chooses this model in the Restore panel")
        self.use.clicked.connect(lambda _c=False: restoring.choose(self._shown_id))
        self._parts = QVBoxLayout()
        self._parts.setSpacing(theme.GRID)
        inner = QWidget()
        inner.setLayout(
            column(field("Model", self.choice, 60), self._fit, row(self.use, -1), line(), self._parts, -1, spacing=6)
        )
        scroll = scrolling(inner)
        self._empty = EmptyState("Looking for models…")
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._empty)
        self._stack.addWidget(scroll)
        restoring.models_changed.connect(self._on_models)
        restoring.choice_changed.connect(self._on_choice)

    @property
    def text(self) -> str:
        """Everything it says of the model, a line each."""
        widgets = [self._parts.itemAt(i).widget() for i in range(self._parts.count())]
        return "\n".join(one.text() for one in widgets if isinstance(one, QLabel))

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if not self._models and not self._is_asked:  # no series is open: the library is there all the same
            self._is_asked = True
            self._bridge.submit(ModelsRequest(), is_quiet=True, on_done=self._on_listed, on_failed=self._on_failed)

    def show_model(self, model_id: str) -> None:
        """Tell of a model; one that is not there leaves what is shown."""
        model = next((one for one in self._models if one["id"] == model_id), None)
        if model is None:
            return
        self._shown_id = model_id
        self.choice.setCurrentIndex(self.choice.findData(model_id))
        fit = str(model.get("fit") or "")
        self._fit.setVisible(bool(fit))
        self._chip.setText(FIT_TEXT.get(fit, ""))
        self._chip.setProperty("fit", fit)
        refresh_style(self._chip)
        self._reason.setText(str(model.get("reason", "")))
        self._reason.setVisible(bool(model.get("reason")))
        is_restorer = model.get("serves") == "restoration"
        self.use.setVisible(is_restorer)
        is_chosen = model_id == self._restoring.model_id
        self.use.setText("Chosen for restoring" if is_chosen else "Use for restoring")
        self.use.setEnabled(fit in ("green", "amber") and not is_chosen)
        while self._parts.count():
            old = self._parts.takeAt(0).widget()
            if old is not None:
                old.hide()
                old.deleteLater()
        for title, lines in sections_of(model):
            heading = label(title)
            heading.setContentsMargins(0, theme.MARGIN, 0, 0)
            self._parts.addWidget(heading)
            for text in lines:
                told = wrapped(text)
                told.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
                self._parts.addWidget(told)

    def _on_models(self) -> None:
        if self._restoring.models:
            self._take(self._restoring.models)

    def _on_listed(self, models: Sequence[Model]) -> None:
        """The library without a series; a series that was opened meanwhile knows more."""
        self._is_asked = False
        if not self._restoring.models:
            self._take(models)

    def _on_choice(self) -> None:
        """Follow what the Restore panel has chosen."""
        self.show_model(self._restoring.model_id or self._shown_id)

    def _take(self, models: Sequence[Model]) -> None:
        self._models = tuple(dict(model) for model in models)
        self.choice.clear()
        order = list(SERVES)
        for model in sorted(self._models, key=lambda m: order.index(m.get("serves", order[0]))):
            self.choice.addItem(with_version(model["title"], model.get("version", "")), model["id"])
        wanted = (self._shown_id, self._restoring.model_id, self.choice.itemData(0))
        known = {model["id"] for model in self._models}
        self.show_model(next((one for one in wanted if one in known), ""))
        self._stack.setCurrentIndex(1 if self._models else 0)

    def _on_failed(self, _outcome: object) -> None:
        self._is_asked = False
        self._empty.say("The models could not be listed.")


def sections_of(model: Model) -> list[tuple[str, list[str]]]:
    """Headings, each with its lines, of a row of ``ModelsRequest``."""
    found = [("What it is", _identity(model))]
    told = [str(text) for text in model.get("told", ())]
    is_network = bool(model.get("architecture"))
    if told or is_network:
        found.append(("Measured on held-out patients", told or [NOT_MEASURED]))
    limits = [str(text) for text in model.get("limits", ())]
    if limits:
        found.append(("Limits", [f"• {text}" for text in limits]))
    made = _making(model)
    if made:
        found.append(("How it was made", made))
    return found


def _identity(model: Model) -> list[str]:
    takes = ", ".join(_taken(one) for one in model.get("takes", ()))
    verb = SERVES.get(str(model.get("serves")), SERVES["restoration"])
    lines = [f"{verb}: {takes}" if takes else verb]
    is_of_one_kind = any(int(one.get("scale") or 1) > 1 for one in model.get("takes", ()))
    if int(model.get("scale", 1)) > 1 and not is_of_one_kind:
        lines.append(f"Pixels {model['scale']} times finer than its source")
    needs = {"region_map": "a region map", "sparse_depth": "measured depths", "rough_mask": "a rough mask or a box"}
    wanted = [needs.get(str(one), str(one).replace("_", " ")) for one in model.get("inputs", ())]
    if wanted:
        lines.append(f"Needs {' and '.join(wanted)} beside the image")
    if model.get("architecture"):
        lines.append(f"Network: {model.get('network') or model['architecture']}")
    if model.get("kind") == "filtered":
        lines.append("A filter without a network; it measures the noise of each slice by itself")
    return lines


def _making(model: Model) -> list[str]:
    training = model.get("training") or {}
    lines = []
    if isinstance(training.get("patients"), int) and training["patients"]:
        lines.append(f"Trained on {training['patients']} patients")
    stages = [one for one in training.get("stages", ()) if isinstance(one, Mapping)]
    minutes = sum(float(one.get("minutes") or 0) for one in stages) or float(training.get("minutes") or 0)
    if minutes:
        lines.append(f"{minutes:.0f} minutes of training on {training.get('machine', 'a CPU')}")
    collections = sorted({str(one.get("name", "")) for one in model.get("data", ()) if one.get("name")})
    if collections:
        lines.append(f"Data: {', '.join(collections)}")
    if model.get("licence"):
        lines.append(f"Licence of the weights: {model['licence']}")
    return lines


def _taken(intake: Mapping[str, Any]) -> str:
    """What a model takes, such as ``CT in HU``; with the factor where it is of this kind of scan alone."""
    modality, unit = str(intake["modality"]), str(intake["unit"])
    if modality == "ES":
        return "colour frames of endoscopes"
    kind = {"PT": "PET", "SM": "slides (SM)", "GM": "microscopy (GM)"}.get(modality, modality)
    finer = f" (pixels {intake['scale']} times finer)" if int(intake.get("scale") or 1) > 1 else ""
    return f"{kind} in {unit}{finer}" if unit in ("HU", "SUV") else f"{kind}{finer}"
