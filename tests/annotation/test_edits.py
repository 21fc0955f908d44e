import numpy as np
import pytest

from medapp.annotation.annotation import Annotation
from medapp.annotation.edits import (
    AddMatte,
    ChangeDepthPoints,
    ChangeMarks,
    ChangeMatte,
    Compound,
    MoveMatte,
    RemoveMatte,
    Stroke,
    one_edit,
)
from medapp.annotation.groups import grouped
from medapp.annotation.matte import FULL, Matte, MatteProps
from medapp.store.codec import decode_edit, encode_edit

SHAPE = (4, 150, 140)


@pytest.fixture
def annotation():
    made = Annotation("s", SHAPE)
    for name in ("Liver", "Spleen"):
        matte = Matte(name.lower(), SHAPE, name)
        matte.paste(matte.make_patch("alpha", (1, 10, 10), np.full((2, 130, 20), 30000, np.uint16)))
        made.add(matte)
    return made


def some_edits(annotation):
    liver = annotation.matte("liver")
    patch = liver.make_patch("alpha", (2, 100, 15), np.full((1, 40, 30), FULL, np.uint16))
    unknown = liver.make_patch("unknown", (1, 0, 0), np.ones((1, 3, 3), np.uint8))
    stroke = Stroke("liver", (patch, unknown))
    other = Matte("kidney", SHAPE, "Kidney")
    other.paste(other.make_patch("alpha", (0, 0, 0), np.full((1, 128, 128), FULL, np.uint16)))
    props = MatteProps("Leber", 7, "#112233", "L", False, True, "organs", "model 1 abc", "Bob")
    return [
        stroke,
        AddMatte(other, 1),
        RemoveMatte(annotation.matte("spleen").copy(), 1),
        ChangeMatte("liver", liver.props, props),
        MoveMatte("liver", 0, 1),
        ChangeMarks({1: None, 3: None}, {1: "annotated", 3: "doubtful"}),
        ChangeDepthPoints(1, (), ((3.0, 4.5, 31.25), (9.0, 2.0, 40.0)), "Measure a depth"),
        Compound((stroke, ChangeMatte("liver", liver.props, props), MoveMatte("liver", 0, 1)), "Accept proposal"),
    ]


@pytest.mark.parametrize("number", range(8))
def test_every_edit_is_undone_exactly_and_survives_the_disk(annotation, number):
    edit = some_edits(annotation)[number]
    before = annotation.copy()
    edit.apply(annotation)
    after = annotation.copy()
    assert not after.equals(before)
    again = decode_edit(encode_edit(edit))
    assert (again.text, again.where, type(again)) == (edit.text, edit.where, type(edit))
    again.reversed().apply(annotation)
    assert annotation.equals(before)
    again.apply(annotation)
    assert annotation.equals(after)
    edit.reversed().apply(annotation)
    assert annotation.equals(before)


def test_edits_say_where_they_are_and_what_they_are(annotation):
    stroke, add, _, change, *_, compound = some_edits(annotation)
    assert (stroke.where, stroke.text) == (("liver", 1), "Brush stroke")
    assert stroke.nbytes == sum(p.before.nbytes + p.after.nbytes for p in stroke.patches)
    assert add.where == ("kidney", 0)
    assert change.where == ("liver", None)
    assert (compound.where, compound.text) == (("liver", 1), "Accept proposal")
    assert one_edit([], "x") is None
    assert one_edit([stroke], "x") is stroke
    assert len(one_edit([stroke, change], "x").edits) == 2


def test_an_added_matte_is_a_copy_of_its_snapshot(annotation):
    snapshot = Matte("kidney", SHAPE)
    edit = AddMatte(snapshot)
    edit.apply(annotation)
    annotation.matte("kidney").paste(snapshot.make_patch("alpha", (0, 0, 0), np.ones((1, 5, 5), np.uint16)))
    edit.reversed().apply(annotation)
    edit.apply(annotation)
    assert not annotation.matte("kidney").volume().any()


def test_a_fill_in_an_exclusive_group_leaves_room_for_locked_layers_and_lowers_the_others(annotation):
    third = Matte("kidney", SHAPE, "Kidney")
    annotation.add(third)
    third.paste(third.make_patch("alpha", (1, 10, 10), np.full((2, 130, 20), 20000, np.uint16)))
    for matte in annotation:
        locked = matte.matte_id == "kidney"
        matte.props = MatteProps(matte.name, group="organs", is_locked=locked)
    patch = annotation.matte("liver").make_patch("alpha", (1, 20, 5), np.full((1, 10, 40), FULL, np.uint16))
    before = annotation.copy()
    edit = grouped(annotation, Stroke("liver", (patch,), "Fill"))
    edit.apply(annotation)

    total = sum(m.volume().astype(int) for m in annotation)
    assert total[1, 20:30, 5:45].max() <= FULL
    liver, spleen, kidney = (m.slice_stored(1)[25] for m in annotation)
    assert (liver[7], liver[15], spleen[15], kidney[15]) == (FULL, FULL - 20000, 0, 20000)
    assert np.array_equal(annotation.matte("spleen").slice_stored(2), before.matte("spleen").slice_stored(2))
    edit.reversed().apply(annotation)
    assert annotation.equals(before)
