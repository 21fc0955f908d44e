"""Data sets that other software reads."""
