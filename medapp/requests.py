"""Everything slow that one can ask for, and what comes back, as frozen data.

Requests and outcomes cross the pipe between the window and its workers, so they hold plain data only: ids, paths,
numbers, text. Large arrays stay in the project or in a file whose path travels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Lane = Literal["reader", "prompts", "batch"]


@dataclass(frozen=True)
class Request:
    """Something slow that a worker does.

    Attributes:
        LANE: The worker that runs it: ``reader`` parses foreign bytes and never imports torch, ``prompts`` answers
            clicks, ``batch`` runs volumes.
        TITLE: What the task row says.
    """

    LANE: ClassVar[Lane] = "batch"
    TITLE: ClassVar[str] = ""

    @property
    def lane(self) -> Lane:
        """Which worker runs it."""
        return self.LANE

    @property
    def title(self) -> str:
        """What the task row says."""
        return self.TITLE


@dataclass(frozen=True)
class ReaderRequest(Request):
    """A request that parses foreign bytes.

    Attributes:
        refused: Files on which an earlier worker hung or died, with the reason: never opened again.
    """

    LANE: ClassVar[Lane] = "reader"

    refused: tuple[tuple[str, str], ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class SliceRequest(Request):
    """A request about one plane of a series as a person sees it.

    Attributes:
        project: Folder of the project.
        slice_index, axis: The plane, and the axis it is perpendicular to.
        window_center, window_width: The display window: what the person sees is what is worked on.
    """

    project: str
    series_id: str
    slice_index: int
    axis: int
    window_center: float
    window_width: float


@dataclass(frozen=True)
class InspectRequest(ReaderRequest):
    """Say what is in files and folders; result: list of the JSON lines of ``medapp inspect``."""

    TITLE: ClassVar[str] = "Look at files"

    paths: tuple[str, ...]
    modality: str | None = None


@dataclass(frozen=True)
class ImportRequest(ReaderRequest):
    """Copy every readable series into the project; result: ``ImportResult``.

    While it runs, ``detail["series"]`` of a progress event is a ``FoundSeries`` whose voxel file can be looked at, and
    ``detail["slice"]`` = ``(partial voxel file, z)`` says that a slice of it is there.
    """

    TITLE: ClassVar[str] = "Open images"

    project: str
    paths: tuple[str, ...]
    modality: str | None = None


@dataclass(frozen=True)
class ImportMasksRequest(ReaderRequest):
    """Import masks, alphas, SEG or RTSTRUCT onto a series; result: ``MasksResult``."""

    TITLE: ClassVar[str] = "Import masks"

    project: str
    series_id: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class RegionTreeRequest(SliceRequest):
    """Build the region tree of one slice; result: path of an ``.npz`` file in the project's cache."""

    LANE: ClassVar[Lane] = "reader"
    TITLE: ClassVar[str] = "Find regions"


@dataclass(frozen=True)
class RegionMapRequest(SliceRequest):
    """Divide a slice into the regions a network attends within; stored as a revision. Result: ``RegionMapResult``.

    Attributes:
        model_id: A SAM of the library; empty = the region tree.
    """

    TITLE: ClassVar[str] = "Find regions"

    model_id: str = ""

    @property
    def lane(self) -> Lane:
        """The tree needs no torch, and should not wait behind a volume."""
        return "batch" if self.model_id else "reader"


@dataclass(frozen=True)
class RefineRequest(SliceRequest):
    """Solve the unknown band of a trimap; result: ``AlphaResult``.

    Attributes:
        trimap_path: ``.npz`` with ``trimap`` (H, W) uint8 0, 128, 255 and ``keep`` (H, W) bool, written by the asker in
            the project's cache folder; deleted by the worker.
    """

    LANE: ClassVar[Lane] = "reader"  # scipy only: no waiting for torch
    TITLE: ClassVar[str] = "Refine matte"

    trimap_path: str
    ticket: int = 0


@dataclass(frozen=True)
class PromptRequest(SliceRequest):
    """Ask SAM for the region at some prompts; result: ``PromptResult``.

    Attributes:
        include_xy, exclude_xy: Points in pixels of the slice.
        box_xyxy: A box in pixels, or None.
        ticket: Latest wins: an answer with an old ticket is dropped.
    """

    LANE: ClassVar[Lane] = "prompts"
    TITLE: ClassVar[str] = "Segment at the click"

    model_id: str
    include_xy: tuple[tuple[float, float], ...] = ()
    exclude_xy: tuple[tuple[float, float], ...] = ()
    box_xyxy: tuple[float, float, float, float] | None = None
    ticket: int = 0


@dataclass(frozen=True)
class MattingRequest(SliceRequest):
    """Ask a matting model for several masks, their disagreement and an alpha at a click or box; result:
    ``MattingResult``.

    Attributes:
        point_xy: A click in pixels of the slice; used where there is no box.
        box_xyxy: A box in pixels, or None.
        rough_path: ``.npy`` (H, W) bool with a rough mask of what is meant, written by the asker in the project's cache
            and removed by the worker; empty = none.
        count: Masks to draw, 1 to 32.
        seed: Of the draws; -1 = from the pixels, so that the same click always gives the same answer.
        mean_first: The first mask, and with it the alpha, comes from the most likely draw.
        ticket: Latest wins: an answer with an old ticket is dropped.
    """

    LANE: ClassVar[Lane] = "prompts"
    TITLE: ClassVar[str] = "Propose mattes"

    model_id: str
    point_xy: tuple[float, float] | None = None
    box_xyxy: tuple[float, float, float, float] | None = None
    rough_path: str = ""
    count: int = 8
    seed: int = -1
    mean_first: bool = False
    ticket: int = 0


@dataclass(frozen=True)
class RestoreRequest(Request):
    """Restore a series; result: ``RestoreResult``.

    While it runs, ``detail["slice"]`` = ``(partial voxel file, z)`` says that a slice can be looked at; before that,
    ``detail["series"]`` = ``FoundSeries`` and ``detail["grid"]`` say how to map the file, which may have finer slices.

    Attributes:
        model_id: A model of the library, or ``filter-nlm`` for non-local means.
        first_slice: The slice on screen; it is restored first, then its neighbours outward.
        strength: 0..1, blend with the original in native units.
        only_first: True for the preview of the visible slice: nothing is added to the project.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        tile_px: 0 = automatic.
        region_model_id: A SAM of the library that finds the regions for models that need them; empty = region tree.
        region_window: Display window ``(center, width)`` in which regions are found; None = the range of the values.
        keep_measured: Models that bring MR slices onto a finer grid put the measured frequencies back.
        trust: Make a trust map too, from eight answers: eight times the work.
    """

    project: str
    series_id: str
    model_id: str
    first_slice: int = 0
    strength: float = 1.0
    only_first: bool = False
    device: str = "auto"
    tile_px: int = 0
    region_model_id: str = ""
    region_window: tuple[float, float] | None = None
    keep_measured: bool = True
    trust: bool = False

    @property
    def title(self) -> str:
        """What the task row says."""
        return "Preview restoration" if self.only_first else "Restore series"


@dataclass(frozen=True)
class DepthFileRequest(ReaderRequest):
    """Read a depth file by the scale that is stated for it; result: ``DepthFileResult``.

    Attributes:
        path: PNG, TIFF or NPY file.
        scale: A preset's name, ``unit=mm,scale=0.02`` and the like, or empty where a side-car states it.
    """

    TITLE: ClassVar[str] = "Read depth file"

    project: str
    path: str
    scale: str = ""


@dataclass(frozen=True)
class DepthRequest(Request):
    """Complete the depth of one colour frame; kept as derived series. Result: ``DepthResult``.

    Attributes:
        slice_index: The frame.
        model_id: A model that serves depth, or ``fill-nearest`` or ``fill-linear``.
        points: ``(x, y, depth in mm)`` that a person placed; they win over the file.
        sparse_path: ``.npy`` float32 (H, W) in mm of a ``DepthFileResult``; empty = none.
        sparse_record: Its record, kept in the provenance.
        camera: ``fx, fy, cx, cy, width, height`` in pixels, kept in the provenance; None = unknown.
        keep_points: Put the measured depths back into the result.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    TITLE: ClassVar[str] = "Estimate depth"

    project: str
    series_id: str
    slice_index: int
    model_id: str
    points: tuple[tuple[float, float, float], ...] = ()
    sparse_path: str = ""
    sparse_record: dict[str, Any] = field(default_factory=dict)
    camera: dict[str, Any] | None = None
    keep_points: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class DepthExportRequest(Request):
    """Write a depth series as 16-bit PNG with its side-car, and as float TIFF; result: tuple of paths.

    Attributes:
        camera: Intrinsics for the side-car; None = those kept with the series.
    """

    LANE: ClassVar[Lane] = "reader"  # no torch
    TITLE: ClassVar[str] = "Write depth files"

    project: str
    series_id: str
    out: str
    camera: dict[str, Any] | None = None


@dataclass(frozen=True)
class PrepareModelRequest(Request):
    """Load a model before it is asked for, so that the first restoration does not wait for it; result: None."""

    TITLE: ClassVar[str] = "Load model"

    model_id: str
    device: str = "auto"


@dataclass(frozen=True)
class ModelsRequest(Request):
    """List the models and how each fits a series; result: tuple of dicts (``id``, ``title``, ``fit``, ``reason``)."""

    LANE: ClassVar[Lane] = "reader"  # reads cards only: no torch
    TITLE: ClassVar[str] = "List models"

    project: str = ""
    series_id: str = ""


@dataclass(frozen=True)
class ImportModelRequest(Request):
    """Check a foreign weights file and add it to the library; result: the model id.

    Attributes:
        architecture: Empty = told by the card beside the file, or by the weights.
        modality, unit, value_range: What it was trained on, where the publication does not tell; a modality alone
            narrows a model that was published for several.
    """

    TITLE: ClassVar[str] = "Import model"

    path: str
    architecture: str = ""
    modality: str = ""
    unit: str = ""
    value_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class ExportRequest(Request):
    """Plan (``dry_run``) or write a data set of the chosen series; result: ``ExportResult``."""

    project: str
    series_ids: tuple[str, ...]
    out: str
    formats: tuple[str, ...] = ("seg", "seg-binary", "derived", "nifti", "png")
    dry_run: bool = False
    deidentify: bool = True
    alpha_means: Literal["occupancy", "probability"] = "occupancy"
    split_seed: int = 0
    split_fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)

    @property
    def title(self) -> str:
        """What the task row says."""
        return "Check export" if self.dry_run else "Export data set"


@dataclass(frozen=True)
class VerifyRequest(Request):
    """Hash an exported folder again; result: dict with ``ok``, ``changed``, ``missing``, ``surplus``."""

    TITLE: ClassVar[str] = "Verify folder"

    folder: str


@dataclass(frozen=True)
class SampleRequest(ReaderRequest):
    """Add the built-in sample scans to a project; result: ``ImportResult``."""

    TITLE: ClassVar[str] = "Make the sample"

    project: str


@dataclass(frozen=True)
class TrainingSetRequest(Request):
    """Count what a model could be retrained from, without training; result: ``TrainingSetResult``.

    Attributes:
        model_id: A matting model, or a restoration model whose card has a ``degradation``.
    """

    LANE: ClassVar[Lane] = "reader"  # reads rows and journal texts only: no torch
    TITLE: ClassVar[str] = "Count corrections"

    project: str
    model_id: str


@dataclass(frozen=True)
class RetrainRequest(Request):
    """Fine-tune the model in use from corrections and compare the two; result: ``RetrainResult``.

    The model in use stays in use until an ``AdoptRequest``. While it runs, ``detail["run"]`` of a progress event is the
    run folder, as soon as it exists; the notes name the phases ``gathering``, ``training``, ``comparing``.

    Attributes:
        model_id: The model to begin from; the adopted successor of it where there is one.
        minutes: Budget of training time.
        data_set: Name of a data set version of the project; empty = freeze what is accepted now as a new one.
        run: A run folder to go on with; its model and data set count.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    TITLE: ClassVar[str] = "Train"

    project: str
    model_id: str
    minutes: float
    data_set: str = ""
    run: str = ""
    device: str = "auto"


@dataclass(frozen=True)
class AdoptRequest(Request):
    """Let the challenger of a run serve from now on; nothing is overwritten. Result: ``AdoptResult``."""

    TITLE: ClassVar[str] = "Adopt model"

    run: str


@dataclass(frozen=True)
class RollBackRequest(Request):
    """Let the model before the adopted one serve again; the adopted files stay. Result: ``AdoptResult``.

    Attributes:
        model_id: The first model of the line, or any of its successors.
    """

    LANE: ClassVar[Lane] = "reader"  # one small file: no torch
    TITLE: ClassVar[str] = "Roll back model"

    model_id: str


# ------------------------------------------------------------------------------------------------------------ results


@dataclass(frozen=True)
class FoundSeries:
    """A series whose header is known and whose slices are arriving.

    Attributes:
        voxel_path: Voxel file under way: ``shape`` and ``dtype`` say how to map it.
        first_slice: The slice that is decoded first.
    """

    voxel_path: str
    shape: tuple[int, ...]
    dtype: str
    slope: float
    intercept: float
    title: str
    modality: str | None
    unit: str
    first_slice: int
    window_center: float | None = None
    window_width: float | None = None
    is_inverted: bool = False


@dataclass(frozen=True)
class ImportResult:
    """What an import did: new series, files refused ``(path, message, hint)`` and skipped ``(path, message)``."""

    series_ids: tuple[str, ...]
    refused: tuple[tuple[str, str, str], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    already_there: tuple[str, ...] = ()


@dataclass(frozen=True)
class MasksResult:
    """Imported masks as files the window turns into mattes.

    Attributes:
        masks: One dict each: ``name``, ``label``, ``colour`` or None, ``path`` (``.npz`` with ``alpha`` (Z, Y, X)
            uint16), ``notes``.
    """

    masks: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AlphaResult:
    """An alpha for one slice: ``.npy`` file (H, W) uint16 in the project's cache, and the asker's ticket."""

    path: str
    ticket: int
    seconds: float


@dataclass(frozen=True)
class PromptResult:
    """Candidate regions for a prompt: ``.npz`` with ``masks`` (N, H, W) bool, best first, and their scores."""

    path: str
    scores: tuple[float, ...]
    ticket: int
    model: str


@dataclass(frozen=True)
class RegionMapResult:
    """A region map that was stored.

    Attributes:
        region_map_id: Its number in the project.
        engine: As shown, such as ``region tree`` or ``SAM · vit_b``.
        regions: How many regions it shows.
        mattes: How many accepted masks were painted in.
    """

    region_map_id: int
    engine: str
    regions: int
    mattes: int
    seconds: float


@dataclass(frozen=True)
class MattingResult:
    """What a matting model proposes.

    Attributes:
        path: ``.npz`` in the project's cache with float32 ``masks`` (K, h, w) probabilities, ``uncertainty`` (h, w)
            bits and ``alpha`` (h, w), all of the crop.
        box_xyxy: The crop in the slice, upper ends exclusive.
        seed: Of the draws.
        model: Name and version.
        is_guided: The model looked at the rough mask; others take no more of it than where it lies.
    """

    path: str
    box_xyxy: tuple[int, int, int, int]
    seed: int
    ticket: int
    model: str
    seconds: float
    is_guided: bool = False


@dataclass(frozen=True)
class RestoreResult:
    """What a restoration did.

    Attributes:
        series_id: The derived series; empty for a preview.
        preview_path: ``.npy`` float32 (H, W) in native units for a preview; empty otherwise.
        report: ``mean_shift``, ``noise_change_percent``, ``voxels_outside_range``, ``seconds``, ``device``,
            ``tile_px``, ``model``, ``unit``, ``strength``; on a finer grid ``grid`` = ``{"factor", "keeps_centres"}``
            and ``keeps_measured`` or ``keeps_light``; with a trust map ``trust`` = ``{"answers", "median", "high"}``.
        trust_series_id: The trust map; empty for a preview, or where none was asked for.
        trust_path: Of a preview, like ``preview_path``.
    """

    series_id: str
    preview_path: str
    report: dict[str, Any]
    trust_series_id: str = ""
    trust_path: str = ""


@dataclass(frozen=True)
class DepthFileResult:
    """A depth file that was read.

    Attributes:
        path: ``.npy`` float32 (H, W) in the project's cache: z-depth in mm, NaN = unknown.
        size: ``(H, W)``.
        points: Pixels that have a depth.
        record: Unit, scale, offset, kind, invalid values and camera; plain data.
        notes: What a person should know.
    """

    path: str
    size: tuple[int, int]
    points: int
    record: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DepthResult:
    """A completed depth map.

    Attributes:
        series_id: Derived series of z-depth in mm.
        sigma_series_id: Derived series of its uncertainty in mm; empty for fills.
        report: ``points``, ``least_mm``, ``median_mm``, ``most_mm``, ``sigma_median_mm``, ``seconds``, ``device``,
            ``working_size``, ``notes``, ``model``.
    """

    series_id: str
    sigma_series_id: str
    report: dict[str, Any]


@dataclass(frozen=True)
class ExportResult:
    """The dry-run sheet, or the report of a written export.

    Attributes:
        files: ``(relative path, bytes, note)``.
        largest_alpha_error: After re-reading; None for a dry run.
    """

    folder: str
    files: tuple[tuple[str, int, str], ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    identifiers: tuple[str, ...]
    largest_alpha_error: float | None = None


@dataclass(frozen=True)
class TrainingSetResult:
    """What there is to retrain a model from.

    Attributes:
        model_id: The model in use, from which a retraining begins.
        kind: ``matting`` or ``restoration``.
        cases: Accepted mattes, or slices of series marked as reference, hold-out included.
        patients: Patient groups among them.
        hold_out: Cases that only judge and are never trained on.
        recommended, missing: Cases that are recommended, and how many of them are not there.
        versions: Data set versions of the project for this kind, oldest first.
        notes: What a person should know, one line each.
        effort: ``mattes``, ``strokes_per_matte`` and ``seconds_per_matte`` for ``before`` (every matte of this project
            begun before the model was adopted), ``since`` (after), ``with_alpha`` and ``with_masks`` (by what was
            accepted) and ``by_hand``; values are None where there is no matte of that kind.
    """

    model_id: str
    kind: Literal["matting", "restoration"]
    cases: int
    patients: int
    hold_out: int
    recommended: int
    missing: int
    versions: tuple[str, ...]
    notes: tuple[str, ...]
    effort: dict[str, Any]


@dataclass(frozen=True)
class RetrainResult:
    """A retraining that ended by its budget.

    Attributes:
        run: Run folder.
        model_id: The champion: the model in use.
        challenger_id: The id that the fine-tuned model gets when it is adopted.
        scorecard: Path of ``scorecard.json``.
        iteration, seconds: What was trained in all.
        is_done: False when there is more to train in this run.
    """

    run: str
    model_id: str
    challenger_id: str
    scorecard: str
    iteration: int
    seconds: float
    is_done: bool


@dataclass(frozen=True)
class AdoptResult:
    """Which model serves from now on, and which one did until now."""

    model_id: str
    replaced: str


# ----------------------------------------------------------------------------------------------------------- outcomes


@dataclass(frozen=True)
class Done:
    """It worked."""

    result: Any


@dataclass(frozen=True)
class Stopped:
    """The user cancelled; nothing was changed."""


@dataclass(frozen=True)
class Refused:
    """The world is in the way: one line and a hint.

    Attributes:
        needs_new_run: A training run can never go on; see ``RunUnusableError``.
    """

    message: str
    hint: str = ""
    needs_new_run: bool = False


@dataclass(frozen=True)
class Crashed:
    """Our bug: a report to copy, without identifiers."""

    report: str


Outcome = Done | Stopped | Refused | Crashed
