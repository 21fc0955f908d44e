"""How clean data are made worse on purpose: seeded physical functions whose parameters are plain data for the card."""

from medapp.training.degradations.ct import Kernel, Scanner, low_dose, noise_fields, pixel_seed
from medapp.training.degradations.kinds import BY_TASK, check_parameters, degrade

__all__ = [
    "BY_TASK",
    "Kernel",
    "Scanner",
    "check_parameters",
    "degrade",
    "low_dose",
    "noise_fields",
    "pixel_seed",
]
