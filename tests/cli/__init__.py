"""Tests of medapp.cli."""
