"""Tests of medapp.restoration."""
