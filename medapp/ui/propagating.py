"""From slice to slice: copying and interpolating the active matte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PySide6.QtCore import QObject

from medapp.annotation.edits import ChangeMarks, Compound, Stroke
from medapp.annotation.matte import to_stored
from medapp.ui.background import Background
from medapp.ui.document import Document
from medapp.ui.messages import Messages
from medapp.ui.proposing import plane_patch

if TYPE_CHECKING:
    from medapp.annotation.matte import Matte, Patch


class Propagating(QObject):
    """Carries the active matte to other slices along z."""

    def __init__(
        self, document: Document, background: Background, messages: Messages, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._document, self._background, self._messages = document, background, messages

    def copy_to_next(self) -> None:
        """Put the active matte of this slice on the next one as well, and go there."""
        document = self._document
        matte = self._ready()
        if matte is None:
            return
        z = document.position_zyx[0]
        if z + 1 >= matte.shape_zyx[0]:
            self._messages.say("This is the last slice.")
            return
        stored = matte.slice_stored(z)
        if not stored.any():
            self._messages.say("The active matte is empty on this slice; there is nothing to copy.")
            return
        patch = plane_patch(matte, np.maximum(stored, matte.slice_stored(z + 1)), z + 1, 0)
        if patch is not None:
            document.apply(Stroke(matte.matte_id, (patch,), "Copy to next slice"))
        document.step_slice(0, 1)

    def interpolate(self) -> None:
        """Fill the slices between those painted by hand; shown first, one undo step when accepted."""
        document = self._document
        matte = self._ready()
        if matte is None or document.annotation is None or document.original is None:
            return
        marks = document.annotation.marks
        keys = [z for z in matte.annotated_slices() if marks.get(z) != "propagated"]
        if len(keys) < 2 or keys[-1] - keys[0] < len(keys):
            self._messages.say(
                "Interpolating needs this matte on two slices with a gap between them.",
                hint="Paint it on a slice further on, then interpolate.",
            )
            return
        alphas = {z: matte.slice_alpha(z) for z in keys}
        spacing, matte_id, version = document.original.in_plane_spacing_mm, matte.matte_id, matte.version
        self._messages.say(f"Interpolating between {len(keys)} slices…")

        def work() -> list[Patch]:
            from medapp.annotation.interpolation import interpolate_between

            patches = (plane_patch(matte, to_stored(alpha), z, 0) for z, alpha in interpolate_between(alphas, spacing))
            return [patch for patch in patches if patch is not None]

        def done(patches: list[Patch]) -> None:
            annotation = document.annotation
            if annotation is None or matte_id not in annotation or annotation.matte(matte_id).version != version:
                self._messages.say("The matte changed meanwhile; interpolate again.")
                return
            if not patches:
                self._messages.say("The slices between are as they would become; nothing changes.")
                return
            slices = [patch.start_zyx[0] for patch in patches]
            before = {z: annotation.marks.get(z) for z in slices}
            change = ChangeMarks(before, dict.fromkeys(slices, "propagated"))
            count = len(patches)
            document.begin_preview(Compound((Stroke(matte_id, tuple(patches)), change), f"Interpolate {count} slices"))

        self._background.run(work, done, self._messages.tell_error)

    def _ready(self) -> Matte | None:
        matte = self._document.active_matte
        if matte is None:
            self._messages.say("There is no matte yet. Add one in Layers and mattes.")
        elif matte.is_locked:
            self._messages.say(f"“{matte.name}” is locked; nothing was changed.", hint="Unlock it in the layer list.")
            return None
        return matte
