"""What services share while a worker lives: open projects, the model library, loaded engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medapp import paths

if TYPE_CHECKING:
    from medapp.networks.library import ModelLibrary
    from medapp.store.project import Project


class Workspace:
    """Long-lived things of one worker, made when first asked for, so that the reader never loads torch."""

    def __init__(self) -> None:
        self._projects: dict[str, Project] = {}
        self._library: ModelLibrary | None = None
        self.kept: dict[str, Any] = {}

    def project(self, path: str) -> Project:
        """The project of the window, opened beside it.

        Raises:
            ProjectError: It cannot be opened.
        """
        from medapp.store.project import Project

        key = str(Path(path).resolve())
        if key not in self._projects:
            for other in self._projects.values():
                other.close()
            self._projects = {key: Project.open(Path(path), mode="worker")}
        return self._projects[key]

    def cache_folder(self, project: str) -> Path:
        """Files that cross between window and workers and can be made again."""
        return self.project(project).cache_dir

    @property
    def library(self) -> ModelLibrary:
        """Shipped and own models."""
        if self._library is None:
            from medapp.networks.library import ModelLibrary

            self._library = ModelLibrary(paths.shipped_models_dir(), paths.user_models_dir())
        return self._library

    def close(self) -> None:
        """Close every project."""
        for project in self._projects.values():
            project.close()
        self._projects = {}
