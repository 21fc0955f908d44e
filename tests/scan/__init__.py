"""Tests of medapp.scan."""
