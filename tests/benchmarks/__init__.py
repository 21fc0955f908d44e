"""Tests of medapp.benchmarks."""
