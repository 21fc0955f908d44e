"""The region tree of one slice, so that clicks become look-ups."""

from __future__ import annotations

from uuid import uuid4

from medapp.progress import Progress
from medapp.regions.region_tree_builder import build_region_tree
from medapp.requests import RegionTreeRequest
from medapp.scan.scan import Window
from medapp.services.slices import plane_values
from medapp.services.workspace import Workspace


def build_tree(request: RegionTreeRequest, workspace: Workspace, progress: Progress) -> str:
    """Build the tree, or find it in the project's cache; returns the path of the file that ``RegionTree`` reads.

    Raises:
        ProjectError: The series cannot be read.
        Cancelled: The user stopped it.
    """
    name = (
        f"tree-{request.series_id}-{request.axis}-{request.slice_index}"
        f"-{request.window_center:g}-{request.window_width:g}.npz"
    )
    path = workspace.cache_folder(request.project) / name
    if not path.is_file():
        scan = workspace.project(request.project).scan(request.series_id)
        values = plane_values(scan, request.slice_index, request.axis)
        tree = build_region_tree(values, Window(request.window_center, request.window_width), progress)
        beside = path.with_suffix(f".{uuid4().hex}.tmp")
        beside.write_bytes(tree.to_bytes())
        beside.replace(path)
    return str(path)
