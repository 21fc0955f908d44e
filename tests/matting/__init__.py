"""Tests of medapp.matting."""
