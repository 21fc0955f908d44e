"""Torch modules, weights and cards; knows nothing of scans."""
