"""Tests of medapp.services."""
