"""Tests of medapp.ui.canvas."""
