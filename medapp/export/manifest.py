"""``manifest.json``: what an exported folder holds, and whether it still does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medapp.errors import ExportError, UnreadableFileError
from medapp.export.files import hash_file, write_bytes
from medapp.progress import Progress

NAME = "manifest.json"
SCHEMA = 1
_LARGEST = 256 << 20  # formats.md 1: one JSON document
_DEEPEST = 64


@dataclass(frozen=True)
class Verification:
    """How a folder compares with its manifest; relative paths, sorted.

    Attributes:
        changed: Files with other bytes.
        missing: Files of the manifest that are gone, or are no plain files any more.
        surplus: Files that the manifest does not know.
        files: How many files the manifest names.
    """

    changed: tuple[str, ...]
    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    files: int

    @property
    def is_sound(self) -> bool:
        """True when nothing changed, is missing or was added."""
        return not (self.changed or self.missing or self.surplus)


def to_json(document: Mapping[str, Any]) -> bytes:
    """UTF-8, sorted keys, no NaN.

    Raises:
        ExportError: A number is not finite.
    """
    try:
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ExportError("A number of the manifest is not finite; nothing was exported.", "") from error
    return (text + "\n").encode("utf-8")


def write_manifest(folder: Path, document: Mapping[str, Any]) -> None:
    """Write the manifest; always the last file of a folder."""
    write_bytes(folder / NAME, to_json({**document, "schema": SCHEMA}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read a manifest and check its form.

    Raises:
        UnreadableFileError: There is none, it is not one of ours, or it points outside the folder.
    """
    path = folder / NAME
    if not folder.is_dir() or not path.is_file():
        raise UnreadableFileError(
            "No manifest.json in this folder, so there is nothing to compare with.", "Choose a folder medapp exported."
        )
    hint = "Restore the file from a copy, or export the data set again."
    if path.stat().st_size > _LARGEST:
        raise UnreadableFileError("manifest.json is larger than 256 MiB.", hint)
    try:
        raw = path.read_bytes()
        if _depth(raw) > _DEEPEST:
            raise UnreadableFileError("manifest.json is nested more than 64 levels deep.", hint)
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, OSError) as error:
        raise UnreadableFileError("manifest.json is not readable JSON.", hint) from error
    entries = document.get("files") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not isinstance(document.get("schema"), int):
        raise UnreadableFileError("manifest.json is not a manifest of medapp.", hint)
    if document["schema"] > SCHEMA:
        raise UnreadableFileError(
            f"The manifest has schema {document['schema']}; this medapp knows {SCHEMA}.", "Update."
        )
    for entry in entries:
        is_entry = isinstance(entry, dict) and isinstance(entry.get("path"), str)
        if not is_entry or not re.fullmatch(r"[0-9a-f]{64}", str(entry.get("sha256", ""))):
            raise UnreadableFileError("manifest.json is not a manifest of medapp.", hint)
        if not _is_inside(folder, entry["path"]):
            raise UnreadableFileError("A path of manifest.json points outside the folder.", hint)
    return document


def verify_folder(folder: Path, progress: Progress | None = None) -> Verification:
    """Hash every file of an exported folder again and compare with its manifest.

    Raises:
        UnreadableFileError: There is no usable manifest.
        Cancelled: The user stopped it.
    """
    progress = progress or Progress()
    entries = {str(entry["path"]): entry for entry in read_manifest(folder)["files"]}
    progress.start(len(entries), "files")
    changed, missing = [], []
    for name, entry in sorted(entries.items()):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            missing.append(name)
        else:
            try:
                if hash_file(path) != (entry.get("bytes"), entry["sha256"]):
                    changed.append(name)
            except OSError:
                missing.append(name)
        progress.step()
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    surplus = sorted(present - entries.keys() - {NAME})
    return Verification(tuple(changed), tuple(missing), tuple(surplus), len(entries))


def _is_inside(folder: Path, name: str) -> bool:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in path.parts[0]:
        return False
    return (folder / name).resolve().is_relative_to(folder.resolve()) or (folder / name).is_symlink()


def _depth(raw: bytes) -> int:
    """Deepest nesting of a JSON text; brackets inside strings do not count."""
    depth = deepest = 0
    for bracket in re.findall(rb"[\[\]{}]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
