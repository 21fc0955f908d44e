"""Tests of medapp."""
