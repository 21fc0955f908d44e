"""medapp: restore, segment, matte and curate medical images; retrain the models from the corrections."""

__version__ = "0.1.0"
