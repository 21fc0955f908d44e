"""From a click, a box or a painted matte to several masks and an alpha, by a matting model of the library."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, QTimer

from medapp.annotation.edits import Stroke, one_edit
from medapp.annotation.matte import FULL, to_alpha, to_stored
from medapp.errors import MedappError
from medapp.requests import MattingRequest, MattingResult, Outcome, Stopped
from medapp.scan.scan import Scan, Window
from medapp.ui import theme
from medapp.ui.background import Background
from medapp.ui.canvas.plane import Plane
from medapp.ui.document import Document
from medapp.ui.job_bridge import JobBridge
from medapp.ui.matting_pictures import crop_grey, thumbnails
from medapp.ui.messages import Messages
from medapp.ui.prompts import Candidate, MattingSet, Prompt
from medapp.ui.proposing import Proposing, plane_patch

BY_PIXELS = -1
MOST_MASKS = 32
_ASK_AGAIN_MS = 300
_NEARLY_ALL = 0.6  # of the slice: a region that large says nothing of where the thing is
_SAME_PLACE = 0.5  # overlap from which on a box is drawn around what is painted, not around something beside it

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class _Told:
    """What the model is told of a place; ``name`` is what people call the rough mask."""

    box_xyxy: Box | None
    point_xy: tuple[float, float] | None
    rough: NDArray[np.bool_] | None
    name: str


class MatteProposing(QObject):
    """Answers prompts of the document where a matting model was chosen for clicks.

    Attributes:
        seed: Of the draws on screen; ``BY_PIXELS`` before the first answer.
    """

    def __init__(
        self,
        document: Document,
        proposing: Proposing,
        bridge: JobBridge,
        background: Background,
        messages: Messages,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._document, self._proposing, self._bridge = document, proposing, bridge
        self._background, self._messages = background, messages
        self.seed = BY_PIXELS
        self._ticket = 0
        self._job: int | None = None
        self._told: _Told | None = None
        self._other = ""  # a model that was asked for this place alone
        self._is_waiting = False
        self._timer = QTimer(self, singleShot=True, interval=_ASK_AGAIN_MS)
        self._timer.timeout.connect(self._ask)
        document.prompt_added.connect(self._on_prompt_added)
        document.proposals_changed.connect(self._on_proposals_changed)

    # ---------------------------------------------------------------------------------------------------------- asking

    def _on_prompt_added(self) -> None:
        self._timer.stop()
        if self._document.settings.matting_model and self._document.prompts:
            self.seed = BY_PIXELS  # another place
            self._told, self._other = None, ""
            self._ask()

    def _on_proposals_changed(self) -> None:
        if not self._document.prompts and self._is_waiting:
            self._is_waiting = False
            self._forget_job()
            self._set_waiting(False)

    def ask_again(self) -> None:
        """The same place with another number of masks, or with the mean first; soon, so that bursts count once."""
        if self._document.settings.matting_model and self._document.prompts:
            self._timer.start()

    @property
    def model_id(self) -> str:
        """The model that answers here."""
        return self._other or self._document.settings.matting_model

    def ask_model(self, model_id: str) -> None:
        """Another model's answer at the same place; what answers later clicks stays chosen."""
        if self._document.settings.matting_model and self._document.prompts:
            self._other, self.seed = model_id, BY_PIXELS
            self._ask()

    def draw_anew(self) -> None:
        """Other draws at the same place."""
        if self._document.matting is not None and self._document.prompts:
            self.seed = self._document.matting.seed + 1
            self._ask()

    def _forget_job(self) -> None:
        self._ticket += 1  # whatever still comes is not wanted
        job, self._job = self._job, None
        if job is not None:
            self._bridge.cancel(job)

    def _set_waiting(self, is_waiting: bool) -> None:
        self._is_waiting = is_waiting
        if self._document.is_proposing != is_waiting:
            self._document.is_proposing = is_waiting
            self._document.proposals_changed.emit()

    def _ask(self) -> None:
        document = self._document
        prompts = document.prompts
        if not prompts or document.series is None or document.project is None:
            return
        self._forget_job()
        ticket = self._ticket
        self._set_waiting(True)
        if self._told is not None:  # more draws of the same, whatever was accepted meanwhile
            self._submit(ticket, self._told)
            return
        box = _drawn_box(prompts)
        painted = self._painted(prompts, box)
        if box is not None or painted is not None:
            self._submit(ticket, _Told(box, None, painted, "active matte"))
            return
        point = next((p.points_xy[0] for p in prompts if p.is_include), prompts[0].points_xy[0])

        def with_region(region: NDArray[np.bool_] | None) -> None:
            if ticket == self._ticket:
                around = _box_of(region)
                self._submit(ticket, _Told(around, point, region if around is not None else None, "region"))

        # the region under the click says how large the thing is, which a point does not
        self._proposing.region_at(prompts, with_region)

    def _painted(self, prompts: list[Prompt], box: Box | None) -> NDArray[np.bool_] | None:
        """What the active matte holds where the marks point: who clicks on it, or draws a box around it, means it."""
        matte, first = self._document.active_matte, prompts[0]
        if matte is None:
            return None
        inside = to_alpha(matte.slice_stored(first.slice_index, first.axis)) >= 0.5
        if not inside.any():
            return None
        if box is not None:
            around = _box_of(inside)
            return inside if around is not None and _overlap(around, box) >= _SAME_PLACE else None
        from scipy import ndimage  # not at the start of the window

        parts, _ = ndimage.label(inside)
        height, width = inside.shape
        marks = [xy for prompt in prompts if prompt.is_include for xy in prompt.points_xy]
        places = [(int(y), int(x)) for x, y in marks if 0 <= x < width and 0 <= y < height]
        hit = {int(parts[place]) for place in places} - {0}
        return np.isin(parts, list(hit)) if hit else None

    def _submit(self, ticket: int, told: _Told) -> None:
        """Ask the model; a rough mask goes beside the request as a file, which the worker removes."""
        document = self._document
        if document.project is None:
            return
        self._told, rough = told, told.rough
        if rough is None:
            self._request(ticket, told, "")
            return
        path = document.project.cache_dir / f"rough-{uuid.uuid4().hex}.npy"

        def ask(_: None) -> None:
            if ticket == self._ticket:
                self._request(ticket, told, str(path))
            else:
                path.unlink(missing_ok=True)

        def failed(error: MedappError) -> None:
            self._set_waiting(False)
            self._messages.tell_error(error)

        self._background.run(lambda: _write(path, rough), ask, failed)

    def _request(self, ticket: int, told: _Told, rough_path: str) -> None:
        document = self._document
        if document.series is None or document.project is None or not document.prompts:
            return
        first, settings, seed = document.prompts[0], document.settings, self.seed

        def done(result: MattingResult) -> None:
            self._job = None
            scan, window = document.original, document.window
            if result.ticket == self._ticket and scan is not None:
                colour = document.active_matte.colour if document.active_matte is not None else theme.LABEL_COLOURS[0]
                self._background.run(
                    lambda: _read(result, first, scan, window, colour, told.name),
                    lambda read: show(*read),
                    lambda error: failed_reading(error.message),
                )

        def failed_reading(message: str) -> None:
            self._set_waiting(False)
            self._messages.say(message, kind="warning")

        def show(candidates: list[Candidate], matting: MattingSet) -> None:
            if ticket != self._ticket:
                return
            self.seed = matting.seed
            document.is_proposing = self._is_waiting = False
            place = document.candidate_index if document.matting is not None else 0
            document.set_candidates(candidates, min(place, len(candidates) - 1), matting)

        def failed(outcome: Outcome) -> None:
            self._job = None
            if ticket == self._ticket:
                self._set_waiting(False)
                if not isinstance(outcome, Stopped):
                    self._messages.tell_outcome(outcome, "drawing the masks")

        self._job = self._bridge.submit(
            MattingRequest(
                project=str(document.project.path),
                series_id=document.proposed_series_id,
                slice_index=first.slice_index,
                axis=first.axis,
                window_center=document.window.center,
                window_width=document.window.width,
                model_id=self.model_id,
                point_xy=told.point_xy,
                box_xyxy=told.box_xyxy,
                rough_path=rough_path,
                count=min(max(settings.matting_count, 2), MOST_MASKS),
                seed=seed,
                mean_first=settings.matting_mean_first,
                ticket=ticket,
            ),
            is_quiet=True,
            on_done=done,
            on_failed=failed,
        )

    # ------------------------------------------------------------------------------------------------------ to a band

    def uncertain_to_band(self, bits: float) -> None:
        """Put the pixels whose uncertainty is at least so many bits into the active matte's unknown band.

        A matte that is empty on this slice also gets the shown mask, or there would be nothing to refine from. One
        undo step.
        """
        document = self._document
        matting, candidate = document.matting, document.candidate
        if matting is None or candidate is None:
            self._messages.say("There is no uncertainty yet. Click a structure with a matting model first.")
            return
        matte = document.active_or_new_matte()
        if matte is None:
            return
        if matte.is_locked:
            self._messages.say(f"“{matte.name}” is locked; nothing was changed.", hint="Unlock it in the layer list.")
            return
        index, axis = matting.slice_index, matting.axis
        stored = matte.slice_stored(index, axis)
        unknown = matte.slice_stored(index, axis, "unknown").astype(bool)
        found = matting.uncertain(bits, stored.shape)
        if not found.any():
            self._messages.say(f"Nothing is uncertain by {bits:.2f} bit or more. Lower the threshold.")
            return
        inside = to_alpha(stored) >= 0.5 if stored.any() else candidate.mask
        if not (inside & ~found & ~unknown).any():
            self._messages.say(
                f"From {bits:.2f} bit on nothing surely inside would be left, and α could not be solved.",
                hint="Raise the threshold, or accept a mask first.",
            )
            return
        text = f"Uncertain to unknown band (from {bits:.2f} bit, {matting.model}, seed {matting.seed})"
        strokes = []
        keep = matte.slice_stored(index, axis, "keep").astype(bool)
        band = plane_patch(matte, ((unknown | found) & ~keep).astype(np.uint8), index, axis, "unknown")
        if band is not None:
            strokes.append(Stroke(matte.matte_id, (band,), text))
        if not stored.any():
            alpha = to_stored(candidate.mask.astype(np.float32))
            patch = plane_patch(matte, np.minimum(alpha, FULL), index, axis)
            if patch is not None:
                strokes.append(Stroke(matte.matte_id, (patch,), text))
        edit = one_edit(strokes, text)
        if edit is None:
            self._messages.say("All of it is in the unknown band already; nothing was changed.")
        elif document.apply(edit):
            self._messages.say(
                f"{int(found.sum())} px are in the unknown band. Refine (Shift+A) solves them.", kind="info"
            )


def _write(path: Path, rough: NDArray[np.bool_]) -> None:
    try:
        np.save(path, rough)
    except OSError as error:
        raise MedappError("The rough mask could not be handed over.", "Free some space, then click again.") from error


def _drawn_box(prompts: list[Prompt]) -> Box | None:
    box = next((p for p in prompts if p.kind == "box"), None)
    strokes = [box] if box is not None else [p for p in prompts if p.kind == "scribble" and p.is_include]
    points = [xy for prompt in strokes for xy in prompt.points_xy]
    return _around(points) if points else None


def _around(points: list[tuple[float, float]]) -> Box:
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return min(xs), min(ys), max(xs), max(ys)


def _box_of(region: NDArray[np.bool_] | None) -> Box | None:
    if region is None or not region.any() or region.mean() > _NEARLY_ALL:
        return None
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1


def _overlap(one: Box, other: Box) -> float:
    """Area that two boxes share over the area of both together."""
    wide, high = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    shared = max(wide, 0.0) * max(high, 0.0)
    both = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - shared
    return shared / both if both > 0 else 0.0


def _read(
    result: MattingResult, prompt: Prompt, scan: Scan, window: Window, colour: str, told: str
) -> tuple[list[Candidate], MattingSet]:
    path = Path(result.path)
    with np.load(path) as arrays:
        masks, uncertainty, alpha = arrays["masks"], arrays["uncertainty"], arrays["alpha"]
    path.unlink(missing_ok=True)
    plane = Plane.of(scan, prompt.axis)
    shape = tuple(n for axis, n in enumerate(scan.shape[:3]) if axis != prompt.axis)
    grey = crop_grey(scan, prompt.axis, prompt.slice_index, result.box_xyxy, window)
    told = told if result.is_guided else ""
    note = f"from {result.model}{f', told the {told}' if told else ''}, seed {result.seed}"
    where = (result.model, prompt.axis, prompt.slice_index)
    candidates = []
    for place, mask in enumerate(masks, 1):
        inside = _in_slice(mask > 0.5, result.box_xyxy, shape)
        candidates.append(
            Candidate(inside, None, *where, name=f"Mask {place}", note=f"mask {place} of {len(masks)} {note}")
        )
    soft = _in_slice(alpha, result.box_xyxy, shape)
    candidates.append(Candidate(soft >= 0.5, None, *where, alpha=soft, name="α", note=f"α {note}"))
    pictures = thumbnails(grey, list(masks), alpha, plane, colour)
    aspect = plane.pixel_mm[0] / plane.pixel_mm[1]
    return candidates, MattingSet(result.box_xyxy, uncertainty, result.seed, *where, pictures, aspect, told)


def _in_slice(values: NDArray, box: tuple[int, int, int, int], shape: tuple[int, ...]) -> NDArray:
    left, top, right, bottom = box
    whole = np.zeros(shape, dtype=values.dtype)
    whole[top:bottom, left:right] = values
    return whole
