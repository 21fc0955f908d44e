"""That nobody is on both sides of a split: neither a patient nor a picture."""

from __future__ import annotations

from medapp.errors import TrainingError
from medapp.training.references import Reference, References


def check(train: References, held_out: References) -> None:
    """Make sure that training and hold-out have nothing in common.

    Raises:
        TrainingError: They share patients, or slices with equal values (turned or flipped ones too); it says how many.
    """
    patients = set(train.patients) & set(held_out.patients)
    if patients:
        number = f"{len(patients)} patients are" if len(patients) > 1 else "1 patient is"
        raise TrainingError(
            f"{number} both in training and in the hold-out", "Divide by patient: check the patient groups"
        )
    slices = _hashes(train) & _hashes(held_out)
    if slices:
        number = f"{len(slices)} slices are" if len(slices) > 1 else "1 slice is"
        raise TrainingError(
            f"{number} equal in training and in the hold-out though the patient groups differ",
            "Give both copies the same patient group, or remove one",
        )


def without_copies(train: References, held_out: References) -> tuple[References, int]:
    """Training without the series that hold a slice of the hold-out, and how many series that removed."""
    judged = _hashes(held_out)
    kept = tuple(entry for entry in train if not judged & set(entry.slice_sha256))
    return References(train.place, kept, train.notes), len(train) - len(kept)


def _hashes(references: References) -> set[str]:
    return {digest for entry in references for digest in _of(entry)}


def _of(entry: Reference) -> tuple[str, ...]:
    return tuple(digest for digest in entry.slice_sha256 if digest)
