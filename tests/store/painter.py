"""A window that paints and saves until it is killed; says on stdout what was acknowledged.

    python -m tests.store.painter PROJECT

A nursery: for each line on stdin, the number of the first edit, it forks a window that paints from there on (before
any project is opened, so that no connection crosses the fork) and says ``dead`` when it was killed. The window says
``ready PID``, then ``saved N``, each line with one system call, so that a kill cannot tear it. Edit N is the same in
every run, which is how the test knows what must be there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from medapp.annotation.annotation import Annotation
from medapp.annotation.edits import AddMatte, Edit, Stroke
from medapp.annotation.history import History
from medapp.annotation.matte import Matte
from medapp.store.journal import JournalWriter
from medapp.store.project import Project

SHAPE = (4, 160, 160)


def next_edit(annotation: Annotation, history: History, series_id: str, number: int) -> tuple[Edit, str]:
    """Edit number ``number`` on top of a state: the same edits in the same order, wherever they are made."""
    random = np.random.default_rng(number)
    if number == 0:
        edit: Edit = AddMatte(Matte("liver", SHAPE, "Liver"))
    elif number % 7 == 3 and history.can_undo and len(history) > 1:
        return history.undo()[1], "undo"  # type: ignore[index]
    elif number % 7 == 4 and history.can_redo:
        return history.redo()[1], "redo"  # type: ignore[index]
    else:
        z, y, x = (int(random.integers(0, size - 20 if size > 20 else size)) for size in SHAPE)
        after = random.integers(0, 65536, (1, 20, 20)).astype(np.uint16)
        patch = annotation.matte("liver").make_patch("alpha", (z, y, x), after)
        assert patch is not None
        edit = Stroke("liver", (patch,))
    history.push(series_id, edit)
    return edit, "do"


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def paint(path: Path, start: int) -> None:
    project = Project.open(path, reader="Ann")
    series_id = project.series()[0].series_id
    annotation, history = project.annotation(series_id), project.history()
    acknowledged = start - 1

    def saved(_number: int, count: int) -> None:
        nonlocal acknowledged
        acknowledged += count
        say(f"saved {acknowledged}")

    writer = JournalWriter(project, saved, lambda error, waiting: say(f"failed {error.message}"))
    say(f"ready {os.getpid()}")
    for number in range(start, start + 5000):
        edit, kind = next_edit(annotation, history, series_id, number)
        edit.apply(annotation)
        writer.submit(series_id, edit, kind, view_state={"edit": number})  # type: ignore[arg-type]
        if number % 13 == 5:
            writer.call(lambda: project.save_revision(series_id))
        if writer.pending > 20:
            writer.flush()


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                paint(Path(sys.argv[1]), int(line))
            finally:
                os._exit(1)
        os.waitpid(child, 0)
        say("dead")


if __name__ == "__main__":
    main()
