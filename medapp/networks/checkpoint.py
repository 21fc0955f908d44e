"""Weights files from anywhere, read as if they meant harm; kept as safetensors beside a card."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from medapp.errors import WeightsError
from medapp.networks.card import Card
from medapp.networks.device import free_memory_bytes
from medapp.networks.registry import architecture, build_network

_log = logging.getLogger(__name__)

MAX_MEMBERS = 100_000
MEMORY_SHARE = 0.6
WRAPPERS = ("state_dict", "params", "model", "ema")
_REFUSED_HINT = "Ask for the weights as .safetensors, or as a state dict saved with torch.save"


def read_tensors(path: Path) -> dict[str, Any]:
    """Everything in a weights file, checked: tensors, numbers, text, lists and dicts only.

    Args:
        path: ``.safetensors`` or a zip ``.pth``/``.pt``; told apart by content, not by name.

    Raises:
        WeightsError: The file is damaged, holds code, or would not fit in memory.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError("The weights file cannot be opened", "Check that it exists and may be read") from error
    if size == 0:
        raise WeightsError("The weights file is empty", "Copy or download it again")
    if start[:2] == b"PK":
        content = _read_zip(path, size)
    elif len(start) > 8 and start[8:9] == b"{":
        content = _read_safetensors(path)
    elif start[:1] == b"\x80":
        raise WeightsError("The weights file is a plain pickle, which can hold code; it was not opened", _REFUSED_HINT)
    else:
        raise WeightsError("This is not a weights file medapp knows", _REFUSED_HINT)
    _walk(content)
    return content


def read_weights(path: Path, architecture_name: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights that fit a network exactly, whatever they were wrapped in.

    Raises:
        WeightsError: As ``read_tensors``; or keys are missing, surplus or mis-shaped (the first five of each listed).
    """
    return fitting_weights(read_tensors(path), architecture_name, config)


def fitting_weights(content: Mapping[str, Any], architecture_name: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights in what was read, unwrapped, with our keys, and in the network's types.

    Raises:
        WeightsError: Keys are missing, surplus or mis-shaped (the first five of each listed).
    """
    expected = expected_tensors(architecture_name, config)
    adapt = architecture(architecture_name).adapt
    tried = [adapt(candidate) for candidate in candidates(content)]
    fitting = [weights for weights in tried if not _mismatch(weights, expected)]
    if len(fitting) > 1:
        raise WeightsError("The file holds several sets of weights that fit", "Save the wanted set alone")
    if not fitting:
        closest = min(tried, key=lambda weights: len(set(expected) ^ set(weights)))
        raise WeightsError(
            f"The weights do not fit {architecture_name}: {_mismatch(closest, expected)}",
            "Check architecture and configuration in the card",
        )
    return {key: value.to(expected[key].dtype).contiguous() for key, value in fitting[0].items()}


def load_checked(path: Path, card: Card) -> nn.Module:
    """The network of a card with its weights, in evaluation mode on the CPU.

    Raises:
        WeightsError: The file is not the one the card was written for, or does not fit.
    """
    if file_sha256(path) != card.sha256:
        raise WeightsError(
            f"The weights of '{card.name}' have changed since the card was written; they were not loaded",
            "Install medapp again, or import the model again",
        )
    weights = read_weights(path, card.architecture, card.config)
    network = build_network(card.architecture, card.config)
    network.load_state_dict(weights, strict=True)
    return network.eval().requires_grad_(False)


def keep_weights(weights: Mapping[str, Tensor], card: Card, folder: Path) -> Card:
    """Write ``<id>.safetensors`` and ``<id>.json`` into a folder; the weights first, so no card lacks its file.

    Returns:
        The card with the hash of the file.

    Raises:
        WeightsError: The folder cannot be written.
    """
    partial = folder / f"{card.id}.{os.getpid()}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in weights.items()}, partial)
        partial.chmod(0o644)  # safetensors writes for the owner only
        kept = replace(card, sha256=file_sha256(partial))
        partial.replace(folder / f"{card.id}.safetensors")
        partial.write_text(kept.to_json(), encoding="utf-8")
        partial.replace(folder / f"{card.id}.json")
    except OSError as error:
        raise WeightsError("The model cannot be kept: the folder cannot be written", "Free disk space") from error
    finally:
        partial.unlink(missing_ok=True)
    return kept


def import_weights(path: Path, card: Card, folder: Path) -> Card:
    """Check a foreign weights file against a card and keep it; returns the card with the new hash.

    Raises:
        WeightsError: See ``read_weights`` and ``keep_weights``.
    """
    return keep_weights(read_weights(path, card.architecture, card.config), card, folder)


def candidates(content: Mapping[str, Any]) -> list[dict[str, Tensor]]:
    """What may be the weights in a file: all of it, or one of the usual wrappings."""
    wrapped = (content[key] for key in WRAPPERS if isinstance(content.get(key), dict))
    return [_bare(candidate) for candidate in (content, *wrapped)]


def expected_tensors(architecture_name: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Names, shapes and types of a network's weights, without memory for them."""
    with torch.device("meta"):
        return build_network(architecture_name, config).state_dict()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal text.

    Raises:
        WeightsError: The file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError("The weights file of this model is missing", "Install or import the model again") from error


def _read_zip(path: Path, size: int) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, size)
            damaged = archive.testzip()  # torch.load does not check the CRCs: a flipped byte would load
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise WeightsError("The weights file is damaged", "Copy or download it again") from error
    if damaged is not None:
        raise WeightsError("The weights file is damaged: a checksum is wrong", "Copy or download it again")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)", str(error))
        what = f" ('{next(g for g in name.groups() if g)[:80]}')" if name else ""
        raise WeightsError(f"The weights file holds code{what}; it was not run", _REFUSED_HINT) from error
    except Exception as error:  # torch raises whatever its reader stumbled upon; the file is foreign
        raise WeightsError("The weights file is damaged or not a state dict", _REFUSED_HINT) from error
    if not isinstance(content, dict):
        raise WeightsError("The weights file holds no dictionary of tensors", _REFUSED_HINT)
    return content


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise WeightsError("The weights file has too many parts; it was not opened", _REFUSED_HINT)
    for member in members:
        parts = member.filename.replace("\\", "/").split("/")
        if member.filename.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise WeightsError("The weights file points outside of itself; it was not opened", _REFUSED_HINT)
        if "code" in parts[1:-1] or parts[-1] == "constants.pkl":
            raise WeightsError("The weights file is a TorchScript program; it was not run", _REFUSED_HINT)
        if member.compress_type != zipfile.ZIP_STORED:
            raise WeightsError("The weights file is compressed inside; it was not opened", _REFUSED_HINT)
    if sum(member.file_size for member in members) > size:
        raise WeightsError("The weights file claims more bytes than it has; it was not opened", _REFUSED_HINT)


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise WeightsError("The weights file is damaged", "Copy or download it again") from error


def _walk(content: Any) -> None:
    """Refuse anything but plain data, views larger than their storage, and numbers that are not finite."""
    budget = MEMORY_SHARE * free_memory_bytes()
    total = 0
    waiting: list[tuple[Any, int]] = [(content, 0)]
    while waiting:
        item, depth = waiting.pop()
        if depth > 20:
            raise WeightsError("The weights file is nested too deeply", _REFUSED_HINT)
        if isinstance(item, Tensor):
            total += item.numel() * item.element_size()
            if total > budget:
                raise WeightsError("The weights do not fit in memory", "Close other programs, or use a smaller model")
            _check_tensor(item)
        elif isinstance(item, dict):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list | tuple):
            waiting += [(part, depth + 1) for part in item]
        elif not isinstance(item, int | float | str | bool | type(None)):
            raise WeightsError(f"The weights file holds a {type(item).__name__[:40]}", _REFUSED_HINT)


def _check_tensor(tensor: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise WeightsError("The weights file holds sparse or quantised tensors", _REFUSED_HINT)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise WeightsError("The weights file declares a tensor larger than its data", "Do not trust this file")
    is_real = tensor.is_floating_point() or tensor.is_complex()
    if is_real and not bool(tensor.float().isfinite().all()):
        raise WeightsError("The weights hold numbers that are not finite", "The training of this model went wrong")


def _bare(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Only the tensors, without the prefix that data-parallel training adds to every key."""
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors and all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def _mismatch(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The first five missing, surplus and mis-shaped keys in one line; empty when everything fits."""
    missing = sorted(set(expected) - set(weights))
    surplus = sorted(set(weights) - set(expected))
    shared = sorted(set(expected) & set(weights))
    shaped = [
        f"{key} {list(weights[key].shape)} for {list(expected[key].shape)}"
        for key in shared
        if weights[key].shape != expected[key].shape
    ]
    typed = [
        f"{key} {weights[key].dtype}"
        for key in shared
        if weights[key].is_floating_point() != expected[key].is_floating_point()
    ]
    named = (("missing", missing), ("surplus", surplus), ("other shape", shaped), ("other type", typed))
    return "; ".join(f"{label} ({len(keys)}): {', '.join(keys[:5])}" for label, keys in named if keys)
