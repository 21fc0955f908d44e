"""Tests of medapp.networks."""
