"""How clean data are made worse on purpose: seeded physical functions whose parameters are plain data for the card."""

from medapp.training.degradations.kinds import check_parameters, degrade

__all__ = ["check_parameters", "degrade"]
