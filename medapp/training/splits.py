"""Who is the patient of a file, and which patients are held out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from medapp.errors import TrainingError

_COLLECTIONS = re.compile(
    r"(?P<tcga>TCGA-\w+-\w+)_\d+$"  # one slice of a TCIA patient
    r"|(?P<sts>STS_\d+)_\w+$"  # CT, MR, PET and contours of one patient
    r"|(?P<ms>ms\d+)_s\d+_\w+$|(?P<mni>ms_mni\d+)_\w+$"  # several studies and sequences of one patient
    r"|(?P<ptbp>ptbp\d+)_\w+$"
    r"|(?P<sparse>\w+?)_sparse$"
    r"|(?P<marrow>bmgraz\d+)_\w+$|(?P<slide>cmu\d+)_\w+$|(?P<tumour>tcgacr\d+)_\w+$|(?P<lab>histolab)_\S+$"  # tiles
    r"|(?P<eyes>Image_\d+)[LR]\w*$"  # both eyes
    r"|(?P<bids>sub-[A-Za-z0-9]+)_\S+$"
)
_SEQUENCES = re.compile(
    r"[_-](t1|t1w|t1c|t1ce|t1gd|t2|t2w|flair|pd|pdw|dwi|adc|swi|pet|pt|mr|mri|sag|cor|axial)$", re.I
)


def patient_of(path: str) -> str:
    """Patient group of a data file, from its name: what was measured of one person stays together.

    Known collections go by their own rule; otherwise the stem without the words for a sequence at its end.
    """
    stem = PurePosixPath(path).name.split(".")[0]
    known = _COLLECTIONS.match(stem)
    if known:
        return next(group for group in known.groups() if group)
    while (shorter := _SEQUENCES.sub("", stem)) != stem:
        stem = shorter
    return stem


def hashed_patient(identifier: str) -> str:
    """A patient group that does not give the patient away."""
    return "patient-" + hashlib.sha256(f"medapp patient\0{identifier}".encode()).hexdigest()[:12]


def split_by_patient(
    patients: Iterable[str], share: float, seed: int = 0, locked: Collection[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Deal patients out to training and hold-out, the same way whenever and in whatever order they come.

    Each patient's place is a hash of seed and name: nobody changes sides when others are added. With few patients one
    side could be empty; then the patient nearest to it changes over. Whoever must never come back into training is
    named in ``locked``.

    Args:
        patients: Patient groups; repetitions count once.
        share: To hold out, above 0 and below 1.
        seed: Another seed gives another split.
        locked: Held out whatever the hash says.

    Returns:
        Training and held-out patients, each sorted and not empty.

    Raises:
        TrainingError: There are fewer than two patients.
        ValueError: The share is not above 0 and below 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be above 0 and below 1, not {share}")
    everyone = sorted(set(patients))
    if len(everyone) < 2:
        found = "only one patient" if everyone else "no patients"
        raise TrainingError(
            f"The data set has {found}, so nobody can be held out to judge the result",
            "Add data of more patients, or set the patient groups in Curate",
        )
    ranks = {patient: _rank(patient, seed) for patient in everyone}
    by_rank = sorted(everyone, key=lambda patient: (ranks[patient], patient))
    held_out = {patient for patient in everyone if ranks[patient] < share or patient in locked}
    if not held_out:
        held_out = {by_rank[0]}
    if len(held_out) == len(everyone):
        free = [patient for patient in by_rank if patient not in locked]
        if not free:
            raise TrainingError(
                "Every patient of the data set is held out, so nobody is left to train on", "Add data of more patients"
            )
        held_out.remove(free[-1])
    return tuple(patient for patient in everyone if patient not in held_out), tuple(sorted(held_out))


def _rank(patient: str, seed: int) -> float:
    """A number from 0 up to 1 that depends on seed and name alone."""
    digest = hashlib.sha256(f"{seed}\0{patient}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
