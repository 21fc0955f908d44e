"""How a model and its version are named, wherever a person reads them."""

from __future__ import annotations


def with_version(name: str, version: str) -> str:
    """Such as ``Soft matting 1``; where the name ends in a number the version stands apart: ``Pathology ×4 v2``."""
    if not version:
        return name
    return f"{name} v{version}" if name[-1:].isdigit() else f"{name} {version}"
