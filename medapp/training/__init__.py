"""Data set in, new weights out."""
