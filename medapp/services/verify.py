"""Hash an exported folder again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medapp.export.manifest import verify_folder
from medapp.progress import Progress
from medapp.requests import VerifyRequest


def verify(request: VerifyRequest, workspace: Any, progress: Progress) -> dict[str, Any]:
    """Compare every file of an exported folder with its manifest.

    Args:
        request: Names the folder.
        workspace: Not needed; every service takes one.
        progress: Counts files.

    Returns:
        ``ok``, ``folder``, ``files`` (how many the manifest names), ``changed``, ``missing``, ``surplus``.

    Raises:
        UnreadableFileError: There is no usable manifest.
        Cancelled: The user stopped it.
    """
    found = verify_folder(Path(request.folder), progress)
    return {
        "ok": found.is_sound,
        "folder": request.folder,
        "files": found.files,
        "changed": list(found.changed),
        "missing": list(found.missing),
        "surplus": list(found.surplus),
    }
