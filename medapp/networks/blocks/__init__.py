"""Layers that two or more papers share."""
