"""Tests of medapp.export."""
