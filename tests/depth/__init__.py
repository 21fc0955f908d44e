"""Tests of medapp.depth."""
