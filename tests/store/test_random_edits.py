"""10,000 random edits, undo, save and reopen: equal to a plain array at every end."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medapp.annotation.brush import BrushSettings, StrokeBuilder
from medapp.annotation.edits import AddMatte, ChangeMatte, Compound, MoveMatte, RemoveMatte, Stroke
from medapp.annotation.history import History
from medapp.annotation.matte import DTYPES, LAYERS, MatteProps
from medapp.store.keeping import JournalEntry
from medapp.store.project import Project
from tests.store.painting import crash, make_scan

SHAPE = (2, 136, 20)  # over a tile edge
EXAMPLES, EDITS = 50, 200
PLACES = ("stroke",) * 8 + ("brush",) * 4 + ("undo",) * 5 + ("redo",) * 2
ACTIONS = (*PLACES * 4, "add", "remove", "change", "move", "several", "several", "save", "close", "crash")

counted = []


class Plain:
    """What a person with nothing but arrays and copies of them would keep."""

    def __init__(self):
        self.layers = {}  # matte id -> layer -> array
        self.props = {}
        self.order = []

    def copy(self):
        twin = Plain()
        twin.layers = {m: {name: a.copy() for name, a in layers.items()} for m, layers in self.layers.items()}
        twin.props, twin.order = dict(self.props), list(self.order)
        return twin

    def do(self, edit):
        match edit:
            case Stroke():
                for patch in edit.patches:
                    box = tuple(slice(s, s + n) for s, n in zip(patch.start_zyx, patch.shape, strict=True))
                    self.layers[edit.matte_id][patch.layer][box] = patch.after
            case AddMatte():
                name = edit.snapshot.matte_id
                self.layers[name] = {layer: np.zeros(SHAPE, DTYPES[layer]) for layer in LAYERS}
                self.props[name] = edit.snapshot.props
                self.order.append(name)
            case RemoveMatte():
                name = edit.snapshot.matte_id
                del self.layers[name], self.props[name]
                self.order.remove(name)
            case ChangeMatte():
                self.props[edit.matte_id] = edit.after
            case MoveMatte():
                self.order.insert(edit.after, self.order.pop(edit.before))
            case Compound():
                for part in edit.edits:
                    self.do(part)

    def must_equal(self, annotation):
        assert [m.matte_id for m in annotation] == self.order
        for matte in annotation:
            assert matte.props == self.props[matte.matte_id]
            for layer in LAYERS:
                assert np.array_equal(matte.volume(layer), self.layers[matte.matte_id][layer])


def make_edit(action, annotation, random):
    mattes = annotation.mattes
    if (action == "add" and len(mattes) < 4) or not mattes:
        return AddMatte(annotation.new_matte())
    matte = mattes[int(random.integers(len(mattes)))]
    match action:
        case "stroke":
            layer = LAYERS[int(random.choice((0, 0, 0, 1, 2)))]
            start = tuple(int(random.integers(0, n)) for n in SHAPE)
            shape = tuple(int(random.integers(1, n - s + 1)) for n, s in zip(SHAPE, start, strict=True))
            top = 2 if layer != "alpha" else int(random.choice((2, 65536)))
            values = random.integers(0, top, shape).astype(DTYPES[layer])
            if layer == "alpha" and top == 2:
                values *= np.uint16(65535)
            patch = matte.make_patch(layer, start, values)
            return Stroke(matte.matte_id, (patch,)) if patch else None
        case "brush":
            brush = BrushSettings(
                radius_px=float(random.uniform(2, 15)),
                hardness=float(random.random()),
                flow=float(random.random()),
                opacity=float(random.random()),
                value=float(random.integers(0, 2)),
                depth_mm=float(random.choice((0, 4))),
            )
            builder = StrokeBuilder(matte, brush, int(random.integers(2)), spacing_mm=(3.0, 1.0, 1.0))
            for _ in range(3):
                builder.add_point((random.uniform(-5, 25), random.uniform(-5, 140)))
            return builder.finish_edit()
        case "remove":
            return RemoveMatte(matte.copy(), annotation.index(matte.matte_id))
        case "change":
            props = MatteProps(f"name {random.integers(99)}", int(random.integers(1, 9)), is_visible=False, group="g")
            return ChangeMatte(matte.matte_id, matte.props, props)
        case "move":
            place = annotation.index(matte.matte_id)
            return MoveMatte(matte.matte_id, place, int(random.integers(len(mattes))))
        case "several":
            parts = [make_edit("stroke", annotation, random), make_edit("change", annotation, random)]
            return Compound(tuple(part for part in parts if part is not None), "Several")
    return None


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=EDITS, max_size=EDITS))
def run_examples(seeds):
    with tempfile.TemporaryDirectory() as folder:
        project = Project.create(Path(folder) / "work")
        series_id = project.add_series(make_scan(SHAPE))
        annotation, history = project.annotation(series_id), History()
        plain = Plain()
        past, future, waiting = [], [], []
        edits = 0

        def write() -> None:
            project.journal_many(waiting)  # as the writer's thread does with strokes that wait
            waiting.clear()

        while edits < EDITS:
            random = np.random.default_rng((seeds[edits % EDITS], edits))
            action = ACTIONS[int(random.integers(len(ACTIONS)))]
            if action in ("save", "close", "crash") or len(waiting) > 8:
                write()
            if action == "undo":
                step = history.undo()
                assert (step is None) == (not past)
                if step is not None:
                    step[1].apply(annotation)
                    waiting.append(JournalEntry(series_id, step[1], "undo"))
                    future.append(plain)
                    plain = past.pop()
            elif action == "redo":
                step = history.redo()
                assert (step is None) == (not future)
                if step is not None:
                    step[1].apply(annotation)
                    waiting.append(JournalEntry(series_id, step[1], "redo"))
                    past.append(plain)
                    plain = future.pop()
            elif action == "save":
                number = project.save_revision(series_id)
                plain.must_equal(project.load_revision(number))
            elif action in ("close", "crash"):
                crash(project) if action == "crash" else project.close()
                project = Project.open(project.path)
                annotation, history = project.annotation(series_id), project.history()
                plain.must_equal(annotation)
                assert (len(history), history.can_redo) == (len(past), bool(future))
            else:
                edit = make_edit(action, annotation, random)
                if edit is not None:
                    edit.apply(annotation)
                    history.push(series_id, edit)
                    waiting.append(JournalEntry(series_id, edit))
                    past.append(plain.copy())
                    future.clear()
                    plain.do(edit)
            edits += 1
        plain.must_equal(annotation)
        while (step := history.undo()) is not None:
            step[1].apply(annotation)
            waiting.append(JournalEntry(series_id, step[1], "undo"))
        write()
        crash(project)
        with Project.open(project.path) as again:
            assert not len(again.annotation(series_id))
            assert again.check() == []
        counted.append(edits)


@pytest.mark.timeout(600)  # half a minute of its own, more beside other work
def test_ten_thousand_random_edits_equal_a_plain_array():
    counted.clear()
    run_examples()
    assert sum(counted) >= 10_000
