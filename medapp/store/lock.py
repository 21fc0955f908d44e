"""Who may write: one window at a time, known by process, computer and boot."""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import uuid
from pathlib import Path
from typing import Any

from medapp.errors import ProjectLockedError
from medapp.store.database import explained

log = logging.getLogger(__name__)


class WriterLock:
    """The lock file of a project; taken when made.

    A lock whose process is gone (killed, or the computer was started again) is taken over. A lock of another computer
    cannot be judged from here and is respected.

    Raises:
        ProjectLockedError: Another window has the project open.
        SaveFailedError: The folder cannot be written.
    """

    def __init__(self, path: Path, take_over: bool = False) -> None:
        self.path = path
        self._me = {**_identity(), "token": uuid.uuid4().hex}
        for _ in range(20):
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                self._clear_dead(take_over)
                continue
            except OSError as error:
                raise explained(error) from error
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(self._me, file)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                path.unlink(missing_ok=True)
                raise explained(error) from error
            return
        raise ProjectLockedError("The project is being opened by another window.", "Try again in a moment.")

    def release(self) -> None:
        """Let others write."""
        if _read(self.path).get("token") == self._me["token"]:
            self.path.unlink(missing_ok=True)

    def _clear_dead(self, take_over: bool) -> None:
        holder = _read(self.path)
        if holder and not take_over:
            me = _identity()
            if holder.get("host") != me["host"]:
                raise ProjectLockedError(
                    "The project is open on another computer.", "Open it read-only, or close it there first."
                )
            if holder.get("boot") == me["boot"] and _is_alive(holder):
                raise ProjectLockedError(
                    "The project is open in another window.", "Show that window, or open it read-only here."
                )
        # Renaming succeeds for one of several who find the same dead lock.
        aside = self.path.with_name(f"{self.path.name}.dead-{uuid.uuid4().hex}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise explained(error) from error
        if _read(aside).get("token") != holder.get("token"):  # someone else was quicker: give it back
            try:
                os.link(aside, self.path)
            except OSError:
                log.warning("a lock changed hands while it was taken over")
        aside.unlink(missing_ok=True)
        log.info("took over the lock of a window that is gone")


def _identity() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": platform.node(), "boot": _boot_id(), "started": _started(os.getpid())}


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks: tells a process from a later one with the same number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def _is_alive(holder: dict[str, Any]) -> bool:
    pid = int(holder.get("pid", 0) or 0)
    if pid <= 0:
        return False
    if sys.platform == "win32":
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    started = _started(pid)
    return not started or not holder.get("started") or started == holder["started"]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
