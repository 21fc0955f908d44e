"""Tests of medapp.regions."""
