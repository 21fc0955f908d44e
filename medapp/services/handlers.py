"""Which service answers which request; services load when first asked for, so that the reader never loads torch."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from medapp import requests as ask

_SERVICES: dict[type[ask.Request], str] = {
    ask.InspectRequest: "inspect:inspect",
    ask.ImportRequest: "import_files:import_files",
    ask.SampleRequest: "sample:add_sample",
    ask.ImportMasksRequest: "import_masks:import_masks",
    ask.RegionTreeRequest: "region_trees:build_tree",
    ask.RegionMapRequest: "region_maps:find_regions",
    ask.PromptRequest: "propose:propose",
    ask.MattingRequest: "propose_mattes:propose_mattes",
    ask.RefineRequest: "refine:refine",
    ask.ModelsRequest: "models:list_models",
    ask.ImportModelRequest: "models:import_model",
    ask.RestoreRequest: "restore:restore",
    ask.DepthFileRequest: "depth:read_depth_file",
    ask.DepthRequest: "depth:complete_depth",
    ask.DepthExportRequest: "depth:export_depth",
    ask.PrepareModelRequest: "restore:prepare",
    ask.TrainingSetRequest: "gather:survey",
    ask.RetrainRequest: "retrain:retrain",
    ask.AdoptRequest: "adoption:adopt",
    ask.RollBackRequest: "adoption:roll_back",
    ask.ExportRequest: "export:export",
    ask.VerifyRequest: "verify:verify",
}


def handler_of(request: ask.Request) -> Callable[..., Any]:
    """The service function ``(request, workspace, progress) -> result`` of a request."""
    module, function = _SERVICES[type(request)].split(":")
    return getattr(import_module(f"medapp.services.{module}"), function)
