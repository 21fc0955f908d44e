"""Tests of medapp.jobs."""
