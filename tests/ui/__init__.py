"""Tests of medapp.ui."""
