"""Tests of medapp.annotation."""
