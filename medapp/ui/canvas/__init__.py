"""Viewports, overlays, tools."""
