"""What people call the architectures; for processes that never load torch."""

from __future__ import annotations

from collections.abc import Mapping

TITLES: Mapping[str, str] = {
    "amir": "AMIR",
    "drmc": "DRMC",
    "rat": "RAT",
    "restore_rwkv": "Restore-RWKV",
    "nafnet": "NAFNet-style",
    "restormer": "Restormer-style",
    "sgsgan": "SGSGAN-style",
    "medical_matting": "Medical Matting",
    "pddm": "PDDM-style",
    "sam": "Segment Anything",
}
"""By the name of the registry; SAM is built by its own package."""
