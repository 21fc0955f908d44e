"""Slice and prompt to regions."""
