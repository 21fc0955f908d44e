"""Codes of segment labels: SNOMED CT where a label names something known, *Tissue* otherwise."""

from __future__ import annotations

import re

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

ANATOMY: Code = codes.SCT.AnatomicalStructure
ABNORMAL: Code = codes.SCT.MorphologicallyAbnormalStructure
TISSUE: Code = codes.SCT.Tissue

_ANATOMY_WORDS = {
    "liver": codes.SCT.Liver,
    "kidney": codes.SCT.Kidney,
    "spleen": codes.SCT.Spleen,
    "lung": codes.SCT.Lung,
    "heart": codes.SCT.Heart,
    "brain": codes.SCT.Brain,
    "bone": codes.SCT.Bone,
    "bladder": codes.SCT.Bladder,
    "prostate": codes.SCT.Prostate,
    "pancreas": codes.SCT.Pancreas,
    "aorta": codes.SCT.Aorta,
    "stomach": codes.SCT.Stomach,
    "gallbladder": codes.SCT.Gallbladder,
    "muscle": codes.SCT.Muscle,
    "skin": codes.SCT.Skin,
    "blood": codes.SCT.Blood,
    "fat": codes.SCT.AdiposeTissue,
    "hair": codes.SCT.Hair,
    "trachea": codes.SCT.Trachea,
    "oesophagus": codes.SCT.Esophagus,
    "esophagus": codes.SCT.Esophagus,
    "vertebra": codes.SCT.Vertebra,
}
_ABNORMAL_WORDS = {
    "tumour": codes.SCT.Neoplasm,
    "tumor": codes.SCT.Neoplasm,
    "gtv": codes.SCT.Neoplasm,
    "neoplasm": codes.SCT.Neoplasm,
    "lesion": codes.SCT.Lesion,
    "mass": codes.SCT.Mass,
}
KNOWN_WORDS = frozenset(
    {
        *_ANATOMY_WORDS,
        *_ABNORMAL_WORDS,
        "head",
        "neck",
        "chest",
        "thorax",
        "abdomen",
        "pelvis",
        "body",
        "spine",
        "flair",
    }
)


def segment_codes(name: str) -> tuple[Code, Code]:
    """Category and type of a label; abnormal words win, so that *liver lesion* is a lesion."""
    words = [word.rstrip("s") if len(word) > 4 else word for word in re.findall(r"[a-z]+", name.lower())]
    for word in words:
        if word in _ABNORMAL_WORDS:
            return ABNORMAL, _ABNORMAL_WORDS[word]
    for word in words:
        if word in _ANATOMY_WORDS:
            return ANATOMY, _ANATOMY_WORDS[word]
    return codes.SCT.Tissue, TISSUE
