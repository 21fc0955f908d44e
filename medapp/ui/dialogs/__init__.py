"""Sheets that ask or tell."""
