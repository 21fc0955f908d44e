"""Tests of medapp.store."""
