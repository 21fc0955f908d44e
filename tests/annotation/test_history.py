import numpy as np

from medapp.annotation.annotation import Annotation
from medapp.annotation.edits import Stroke
from medapp.annotation.history import History
from medapp.annotation.matte import Matte

SHAPE = (2, 64, 64)


def painted(annotation, number):
    matte = annotation.matte("m")
    after = np.full((1, 8, 8), number + 1, np.uint16)
    edit = Stroke("m", (matte.make_patch("alpha", (0, number % 50, 0), after),), f"Stroke {number}")
    edit.apply(annotation)
    return edit


def make(series_id):
    annotation = Annotation(series_id, SHAPE)
    annotation.add(Matte("m", SHAPE))
    return annotation


def test_one_stack_goes_back_over_all_series_in_order():
    series = {"a": make("a"), "b": make("b")}
    history, states = History(), []
    for number in range(20):
        name = "ab"[number % 3 == 0]
        states.append({key: value.copy() for key, value in series.items()})
        history.push(name, painted(series[name], number))
    assert history.undo_text == "Stroke 19"
    for number in reversed(range(20)):
        assert history.peek_undo()[0] == "ab"[number % 3 == 0]
        name, edit = history.undo()
        edit.apply(series[name])
        assert all(series[key].equals(states[number][key]) for key in series)
    assert not history.can_undo
    assert history.undo() is None
    assert history.redo_text == "Stroke 0"


def test_a_new_stroke_ends_what_could_be_redone():
    annotation, history = make("a"), History()
    for number in range(3):
        history.push("a", painted(annotation, number))
    history.undo()[1].apply(annotation)
    assert history.can_redo
    history.push("a", painted(annotation, 7))
    assert not history.can_redo
    assert history.redo() is None
    assert len(history) == 3


def test_memory_is_capped_but_two_hundred_steps_stay():
    annotation = make("a")
    history = History(limit_bytes=50_000)
    for number in range(400):
        history.push("a", painted(annotation, number))
    assert len(history) == 200
    assert history.undo_text == "Stroke 399"
    small = History(limit_bytes=10_000, min_steps=5)
    for number in range(400):
        small.push("a", painted(annotation, number))
    assert small.nbytes <= 10_000
    assert len(small) > 5


def test_two_hundred_large_steps_stay_within_the_memory():
    annotation = Annotation("a", (1, 512, 512))
    annotation.add(Matte("m", (1, 512, 512)))
    yy, xx = np.mgrid[:512, :512]
    history = History(limit_bytes=20 * 2**20)
    states = []
    for number in range(210):
        matte = annotation.matte("m")
        soft = np.clip((120 + number - np.hypot(yy - 256, xx - 256)) / 9, 0, 1)
        states.append(matte.volume() if number in (10, 150, 209) else None)
        edit = Stroke("m", (matte.make_patch("alpha", (0, 0, 0), soft[None]),))
        edit.apply(annotation)
        history.push("a", edit)
    assert len(history) == 200
    assert history.nbytes <= 20 * 2**20
    for number in reversed(range(10, 210)):
        history.undo()[1].apply(annotation)
        if states[number] is not None:
            assert np.array_equal(annotation.matte("m").volume(), states[number])
    for _ in range(200):
        history.redo()[1].apply(annotation)
    assert history.nbytes <= 20 * 2**20
    assert len(history) == 200


def test_stacks_are_rebuilt_from_a_journal_that_begins_in_the_middle():
    annotation = make("a")
    edits = [painted(annotation, n) for n in range(4)]
    history = History()
    events = [
        ("undo", "a", edits[0]),  # of a step that the journal no longer holds
        ("redo", "a", edits[0]),
        ("do", "a", edits[1]),
        ("undo", "a", edits[1].reversed()),
        ("undo", "a", edits[0]),
        ("redo", "a", edits[0]),
        ("redo", "a", edits[1]),
        ("do", "a", edits[2]),
        ("do", "a", edits[3]),
        ("undo", "a", edits[3].reversed()),
    ]
    history.replay(events)
    assert (len(history), history.undo_text, history.redo_text) == (2, "Stroke 2", "Stroke 3")
