"""From a click to a matte: region trees, SAM, accepting, refining."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, QTimer

from medapp.annotation.edits import Stroke, one_edit
from medapp.annotation.matte import FULL, Matte, Patch, plane_box, to_alpha, to_stored
from medapp.errors import MedappError
from medapp.requests import AlphaResult, Outcome, PromptRequest, PromptResult, RefineRequest, RegionTreeRequest
from medapp.ui.background import Background
from medapp.ui.document import AcceptMode, Document
from medapp.ui.job_bridge import JobBridge
from medapp.ui.messages import Messages
from medapp.ui.prompts import Candidate, Prompt

if TYPE_CHECKING:
    from medapp.annotation.region_tree import RegionTree

TREE_ORIGIN = "region tree"
_KEPT_TREES = 12
_TREE_DELAY_MS = 150
_PROPOSALS = 12
_SMALLEST, _LARGEST = 0.0008, 0.35  # of the slice, for proposals without a prompt

Key = tuple[str, int, int, float, float]


class Proposing(QObject):
    """Answers prompts of the document and merges what is accepted."""

    def __init__(
        self,
        document: Document,
        bridge: JobBridge,
        background: Background,
        messages: Messages,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._document, self._bridge = document, bridge
        self._background, self._messages = background, messages
        self._trees: OrderedDict[Key, RegionTree] = OrderedDict()
        self._building: dict[Key, list[Callable[[], None]]] = {}
        self._ticket = 0
        self._timer = QTimer(self, singleShot=True, interval=_TREE_DELAY_MS)
        self._timer.timeout.connect(self._build_ahead)
        document.prompt_added.connect(self._on_prompt_added)
        document.accept_requested.connect(self.accept)
        for signal in (document.position_changed, document.tool_changed, document.series_opened):
            signal.connect(self._timer.start)

    # --------------------------------------------------------------------------------------------------------- trees

    def _key(self, axis: int, index: int) -> Key | None:
        document = self._document
        if document.series is None or document.project is None:
            return None
        window = document.window
        return document.proposed_series_id, axis, index, round(window.center, 3), round(window.width, 3)

    def _build_ahead(self) -> None:
        """The tree of the slice on screen is ready before the first click."""
        document = self._document
        if document.tool == "prompt" and not document.settings.sam_model:
            axis = document.active_axis
            self._with_tree(axis, document.matte_position_zyx[axis], lambda: None)

    def prepare(self, axis: int, index: int) -> None:
        """A slice will be clicked soon: have its tree ready."""
        if not self._document.settings.sam_model:
            self._with_tree(axis, index, lambda: None)

    def _with_tree(self, axis: int, index: int, then: Callable[[], None]) -> None:
        key = self._key(axis, index)
        if key is None or self._document.project is None:
            return
        if key in self._trees:
            self._trees.move_to_end(key)
            then()
            return
        if key in self._building:
            self._building[key].append(then)
            return
        self._building[key] = [then]

        def ready(tree: RegionTree) -> None:
            self._trees[key] = tree
            while len(self._trees) > _KEPT_TREES:
                self._trees.popitem(last=False)
            for call in self._building.pop(key, []):
                call()

        def failed(outcome: Outcome) -> None:
            self._building.pop(key, None)
            self._set_proposing(False)
            self._messages.tell_outcome(outcome, "finding the regions of this slice")

        def unreadable(error: MedappError) -> None:
            self._building.pop(key, None)
            self._set_proposing(False)
            self._messages.tell_error(error)

        def load(path: str) -> None:
            self._background.run(lambda: _read_tree(Path(path)), ready, unreadable)

        self._bridge.submit(
            RegionTreeRequest(
                project=str(self._document.project.path),
                series_id=key[0],
                axis=key[1],
                slice_index=key[2],
                window_center=key[3],
                window_width=key[4],
            ),
            is_quiet=True,
            on_done=load,
            on_failed=failed,
        )

    def tree(self, axis: int, index: int) -> RegionTree | None:
        """The region tree of a slice if it is here."""
        key = self._key(axis, index)
        return self._trees.get(key) if key is not None else None

    # ------------------------------------------------------------------------------------------------------- prompts

    def _on_prompt_added(self) -> None:
        document = self._document
        if not document.prompts or document.series is None:
            return
        self._ticket += 1
        if document.settings.matting_model:
            return  # MatteProposing answers
        if document.settings.sam_model:
            self._ask_sam()
            return
        first = document.prompts[0]
        if self.tree(first.axis, first.slice_index) is None:
            self._set_proposing(True)
        ticket = self._ticket
        self._with_tree(first.axis, first.slice_index, lambda: self._look_up(ticket))

    def region_at(self, prompts: list[Prompt], then: Callable[[NDArray[np.bool_] | None], None]) -> None:
        """Hand over the region of the tree at some prompts, at once or when the tree is there; None without one."""
        first = prompts[0]

        def look_up() -> None:
            tree = self.tree(first.axis, first.slice_index)
            candidates, index = candidates_of(tree, prompts) if tree is not None else ([], 0)
            then(candidates[index].mask if candidates else None)

        self._with_tree(first.axis, first.slice_index, look_up)

    def _set_proposing(self, is_proposing: bool) -> None:
        if self._document.is_proposing != is_proposing:
            self._document.is_proposing = is_proposing
            self._document.proposals_changed.emit()

    def _look_up(self, ticket: int) -> None:
        if ticket != self._ticket:
            return
        self._set_proposing(False)
        prompts = self._document.prompts
        tree = self.tree(prompts[0].axis, prompts[0].slice_index) if prompts else None
        if tree is None:
            return
        candidates, index = candidates_of(tree, prompts)
        self._document.set_candidates(candidates, index)
        if not candidates:
            self._messages.say("No region fits these marks. Draw a little larger, or use the brush.")

    def _ask_sam(self) -> None:
        document, ticket = self._document, self._ticket
        if document.project is None or document.series is None:
            return
        prompts = document.prompts
        points = [p for p in prompts if p.kind != "box"]
        box = next((p for p in prompts if p.kind == "box"), None)
        corners = None
        if box is not None:
            (x0, y0), (x1, y1) = box.points_xy[0], box.points_xy[-1]
            corners = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
        self._set_proposing(True)

        def done(result: PromptResult) -> None:
            if result.ticket != self._ticket:
                return
            self._background.run(lambda: _read_candidates(result, prompts[0]), show, self._messages.tell_error)

        def show(candidates: list[Candidate]) -> None:
            if ticket == self._ticket:
                self._set_proposing(False)
                document.set_candidates(candidates)

        def failed(outcome: Outcome) -> None:
            if ticket == self._ticket:
                self._set_proposing(False)
                self._messages.tell_outcome(outcome, "the region search")

        self._bridge.submit(
            PromptRequest(
                project=str(document.project.path),
                series_id=document.proposed_series_id,
                slice_index=prompts[0].slice_index,
                axis=prompts[0].axis,
                window_center=document.window.center,
                window_width=document.window.width,
                model_id=document.settings.sam_model,
                include_xy=tuple(xy for p in points if p.is_include for xy in _thinned(p)),
                exclude_xy=tuple(xy for p in points if not p.is_include for xy in _thinned(p)),
                box_xyxy=corners,
                ticket=ticket,
            ),
            is_quiet=True,
            on_done=done,
            on_failed=failed,
        )

    def propose_slice(self) -> None:
        """Put the most thing-like regions of the slice on screen into the tray."""
        document = self._document
        if document.series is None:
            return
        axis = document.active_axis
        index = document.matte_position_zyx[axis]
        self._ticket += 1
        ticket = self._ticket
        self._set_proposing(self.tree(axis, index) is None)

        def show() -> None:
            tree = self.tree(axis, index)
            if ticket != self._ticket or tree is None:
                return
            self._set_proposing(False)
            document.prompts = []
            document.set_candidates(salient(tree, axis, index))

        self._with_tree(axis, index, show)

    # ----------------------------------------------------------------------------------------- accepting and refining

    def accept(self, mode: AcceptMode = "add") -> None:
        """Merge the shown region into the active layer, its edge refined unless a hard edge is wanted."""
        document = self._document
        candidate = document.candidate
        if candidate is None or document.project is None or document.annotation is None:
            return
        matte = document.active_or_new_matte()
        if matte is None:
            return
        if matte.is_locked:
            self._messages.say(f"“{matte.name}” is locked; nothing was changed.", hint="Unlock it in the layer list.")
            return
        rest = [c for c in document.candidates if c is not candidate] if not document.prompts else []
        spacing = self._spacing(candidate.axis)

        def merge(alpha: NDArray[np.float32]) -> None:
            self._merge(matte.matte_id, candidate, alpha, mode)

        if candidate.alpha is not None:
            merge(candidate.alpha)
        elif document.is_exact_edge:
            merge(candidate.mask.astype(np.float32))
        else:
            self._solve(matte, candidate, spacing, merge)
        if document.matting is not None:
            return  # the strip stays: each of its masks and its alpha may be accepted by itself
        if rest:
            document.set_candidates(rest, min(document.candidate_index, len(rest) - 1))
        else:
            document.clear_prompts()
            document.set_tool("brush")

    def _spacing(self, axis: int) -> tuple[float, float] | None:
        scan = self._document.original
        if scan is None:
            return None
        if axis == 0:
            return scan.in_plane_spacing_mm
        spacing = scan.spacing_mm
        if spacing is None:
            return None
        rows, columns = (spacing[a] for a in range(3) if a != axis)
        return rows, columns

    def _solve(
        self,
        matte: Matte,
        candidate: Candidate,
        spacing: tuple[float, float] | None,
        merge: Callable[[NDArray[np.float32]], None],
    ) -> None:
        def make() -> tuple[NDArray, NDArray]:
            from medapp.annotation.trimap import trimap_from_mask

            trimap = trimap_from_mask(candidate.mask, spacing)
            return np.rint(trimap * 255).astype(np.uint8), np.zeros(trimap.shape, dtype=bool)

        def hard(reason: str) -> None:
            self._messages.say(f"The edge could not be refined, so it was accepted as it is. {reason}", kind="warning")
            merge(candidate.mask.astype(np.float32))

        self._background.run(
            make,
            lambda made: self._ask_refine(made, None, candidate.axis, candidate.slice_index, merge, hard),
            lambda error: hard(error.message),
        )

    def _ask_refine(
        self,
        made: tuple[NDArray, NDArray],
        current: NDArray | None,
        axis: int,
        index: int,
        then: Callable[[NDArray[np.float32]], None],
        failed: Callable[[str], None],
    ) -> None:
        document = self._document
        if document.project is None or document.series is None:
            return
        project, series_id, window = document.project, document.proposed_series_id, document.window

        def write() -> str:
            path = project.cache_dir / f"trimap-{uuid.uuid4().hex}.npz"
            if current is not None:
                np.savez(path, trimap=made[0], keep=made[1], current=current)
            else:
                np.savez(path, trimap=made[0], keep=made[1])
            return str(path)

        def ask(path: str) -> None:
            self._bridge.submit(
                RefineRequest(
                    project=str(project.path),
                    series_id=series_id,
                    slice_index=index,
                    axis=axis,
                    window_center=window.center,
                    window_width=window.width,
                    trimap_path=path,
                ),
                is_quiet=True,
                on_done=lambda result: self._background.run(lambda: _read_alpha(result), then),
                on_failed=lambda outcome: failed(getattr(outcome, "message", "")),
            )

        self._background.run(write, ask, lambda error: failed(error.message))

    def _merge(self, matte_id: str, candidate: Candidate, alpha: NDArray[np.float32], mode: AcceptMode) -> None:
        annotation = self._document.annotation
        if annotation is None or matte_id not in annotation:
            return
        matte = annotation.matte(matte_id)
        old = matte.slice_stored(candidate.slice_index, candidate.axis)
        new = to_stored(alpha)
        if old.shape != new.shape:
            return
        if mode == "add":
            new = np.maximum(old, new)
        elif mode == "subtract":
            new = np.minimum(old, FULL - new)
        strokes = []
        patch = plane_patch(matte, new, candidate.slice_index, candidate.axis)
        verb = {"add": "Accept", "replace": "Replace with", "subtract": "Subtract"}[mode]
        text = f"{verb} {candidate.note or 'region'}"
        if patch is not None:
            strokes.append(Stroke(matte_id, (patch,), text))
        for other in annotation.others_in_group(matte_id):
            if other.is_locked:
                continue
            theirs = np.minimum(other.slice_stored(candidate.slice_index, candidate.axis), FULL - new)
            lowered = plane_patch(other, theirs, candidate.slice_index, candidate.axis)
            if lowered is not None:
                strokes.append(Stroke(other.matte_id, (lowered,), text))
        edit = one_edit(strokes, text)
        if edit is not None:
            self._document.apply(edit)
        else:
            self._messages.say("The region is in this matte already; nothing was changed.")

    def refine(self) -> None:
        """Solve α inside the unknown band of the active matte on the slice on screen."""
        document = self._document
        matte = document.active_matte
        if matte is None or document.series is None:
            return
        axis = document.active_axis
        index = document.matte_position_zyx[axis]
        spacing = self._spacing(axis)
        stored = matte.slice_stored(index, axis)
        unknown = matte.slice_stored(index, axis, "unknown").astype(bool)
        keep = matte.slice_stored(index, axis, "keep").astype(bool)
        if matte.is_locked:
            self._messages.say(f"“{matte.name}” is locked; nothing was changed.", hint="Unlock it in the layer list.")
            return
        if not stored.any() and not unknown.any():
            self._messages.say("There is nothing to refine on this slice. Paint or accept a region first.")
            return

        def make() -> tuple[NDArray, NDArray]:
            trimap = refine_trimap(stored, unknown, spacing)
            return np.rint(trimap * 255).astype(np.uint8), keep

        def merge(alpha: NDArray[np.float32]) -> None:
            annotation = document.annotation
            if annotation is None or matte.matte_id not in annotation:
                return
            target = annotation.matte(matte.matte_id)
            patches = [
                plane_patch(target, to_stored(alpha), index, axis),
                plane_patch(target, np.zeros(unknown.shape, np.uint8), index, axis, "unknown"),
            ]
            kept = tuple(patch for patch in patches if patch is not None)
            if kept:
                document.apply(Stroke(matte.matte_id, kept, "Refine unknown band"))

        def failed(reason: str) -> None:
            self._messages.say(f"The band could not be refined; the matte is unchanged. {reason}", kind="warning")

        self._background.run(
            make,
            lambda made: self._ask_refine(made, stored, axis, index, merge, failed),
            lambda error: failed(error.message),
        )


def refine_trimap(
    stored: NDArray, unknown: NDArray[np.bool_], spacing: tuple[float, float] | None
) -> NDArray[np.float32]:
    """The painted unknown band; without one the soft pixels, and for a hard mask a band around its border."""
    from medapp.annotation.trimap import trimap_from_alpha, trimap_from_mask, widened

    alpha = to_alpha(stored)
    if unknown.any():
        return widened((alpha >= 0.5).astype(np.float32), unknown)
    trimap = trimap_from_alpha(alpha)
    return trimap if (trimap == 0.5).any() else trimap_from_mask(alpha >= 0.5, spacing)


def plane_patch(matte: Matte, values: NDArray, index: int, axis: int, layer: str = "alpha") -> Patch | None:
    """The patch that sets one plane of a matte to stored values; None when nothing changes."""
    start, shape = plane_box(matte.shape_zyx, index, axis)
    return matte.make_patch(layer, start, values.reshape(shape))  # type: ignore[arg-type]


def candidates_of(tree: RegionTree, prompts: list[Prompt]) -> tuple[list[Candidate], int]:
    """The regions that answer prompts, smallest first, and which of them to show."""
    first = prompts[0]
    axis, index = first.axis, first.slice_index
    include = [xy for p in prompts if p.is_include and p.kind != "box" for xy in p.points_xy]
    exclude = [xy for p in prompts if not p.is_include for xy in p.points_xy]
    box = next((p for p in prompts if p.kind == "box"), None)
    if len(prompts) == 1 and first.kind == "point" and first.is_include:
        point = first.points_xy[0]
        nodes = tree.path(point)
        found = [
            Candidate(tree.mask_of([int(node)]), None, TREE_ORIGIN, axis, index, level)
            for level, node in enumerate(nodes[:-1] if len(nodes) > 1 else nodes)
        ]
        return found, min(tree.best_level(point), len(found) - 1)  # the whole slice is nobody's answer
    if box is not None and not include and not exclude:
        (x0, y0), (x1, y1) = box.points_xy[0], box.points_xy[-1]
        mask = tree.region_for_box((x0, y0, x1, y1))
    elif box is not None:
        (x0, y0), (x1, y1) = box.points_xy[0], box.points_xy[-1]
        mask = tree.region_for_box((x0, y0, x1, y1))
        if include:
            mask |= tree.region_for_scribble(include, exclude)
        elif exclude:
            mask &= ~tree.region_for_scribble(exclude)
    else:
        mask = tree.region_for_scribble(include, exclude)
    return ([Candidate(mask, None, TREE_ORIGIN, axis, index)] if mask.any() else []), 0


def salient(tree: RegionTree, axis: int, index: int) -> list[Candidate]:
    """The regions that look most like one thing, best first; they do not overlap."""
    pixels = tree.leaf.size
    fits = (tree.area >= _SMALLEST * pixels) & (tree.area <= _LARGEST * pixels)
    order = np.argsort(-np.where(fits, tree.score, -np.inf))
    taken = np.zeros(tree.leaf_count, dtype=bool)
    found: list[Candidate] = []
    for node in order[: int(fits.sum())]:
        run = slice(int(tree.first[node]), int(tree.last[node]))
        if taken[run].any():
            continue
        taken[run] = True
        found.append(Candidate(tree.mask_of([int(node)]), None, TREE_ORIGIN, axis, index))
        if len(found) == _PROPOSALS:
            break
    return found


def _thinned(prompt: Prompt, most: int = 8) -> tuple[tuple[float, float], ...]:
    points = prompt.points_xy
    step = max(1, -(-len(points) // most))
    return points[::step]


def _read_tree(path: Path) -> RegionTree:
    from medapp.annotation.region_tree import RegionTree

    try:
        return RegionTree.from_bytes(path.read_bytes())
    except OSError as error:
        raise MedappError("The region tree went missing.", "Click again; it is built anew.") from error


def _read_candidates(result: PromptResult, prompt: Prompt) -> list[Candidate]:
    path = Path(result.path)
    with np.load(path) as arrays:
        masks = arrays["masks"]
    path.unlink(missing_ok=True)
    return [
        Candidate(mask.astype(bool), float(score), result.model, prompt.axis, prompt.slice_index)
        for mask, score in zip(masks, result.scores, strict=True)
    ]


def _read_alpha(result: AlphaResult) -> NDArray[np.float32]:
    path = Path(result.path)
    alpha = np.load(path).astype(np.float32) / FULL
    path.unlink(missing_ok=True)
    return alpha
