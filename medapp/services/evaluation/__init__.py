"""Measuring: every method of a task on the same held-out cases, one table a task."""
