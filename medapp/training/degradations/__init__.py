"""How clean data are made worse on purpose: seeded physical functions whose parameters are plain data for the card."""

from medapp.training.degradations.ct import Kernel, Scanner, low_dose, noise_fields, pixel_seed

__all__ = ["Kernel", "Scanner", "low_dose", "noise_fields", "pixel_seed"]
