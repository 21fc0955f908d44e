"""Tests of medapp.training."""
