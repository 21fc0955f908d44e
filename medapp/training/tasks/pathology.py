"""Pathology super-resolution: pictures of stained tissue as a lower magnification shows them, regions found there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medapp.errors import TrainingError
from medapp.networks.registry import architecture
from medapp.progress import Progress
from medapp.regions.region_map import region_map_from_tree
from medapp.regions.region_tree_builder import build_region_tree
from medapp.training.degradations.pathology import CUTOFF, low_magnification, low_picture
from medapp.training.leakage import check
from medapp.training.losses.focal_region import focal_region_loss
from medapp.training.patches import PatchSet, StoredSlice
from medapp.training.recipe import PathologyRecipe, Recipe
from medapp.training.references import References
from medapp.training.sources import MANIFEST, find_references
from medapp.training.tasks.restoration import SAMPLES, facts_of
from medapp.training.tasks.starting import starting_network
from medapp.training.tasks.task import DataFacts, Judgement, Sample, marked, own_samples

FULL = 255.0
_LEAST_SIDE_PX = 64
_MOST_OF_A_SLIDE = 3
"""Pictures of one held-out slide that the best checkpoint is chosen on."""
_HALVING = 2.0
"""Cutoff of the optics that halve a picture: hardly any blur beside the larger pixels."""
_VERSION = "1"


def pathology_super_resolution(recipe: Recipe, data: Path, cache: Path, progress: Progress) -> PathologyTask:
    """The task on the pictures of a place; see ``task_of``."""
    assert isinstance(recipe, PathologyRecipe)
    has_manifest = (data / MANIFEST).is_file()
    split, under = ("train", "pathology/") if has_manifest else (None, "")
    return pathology_task(recipe, find_references(data, "SM", split, progress, under), cache, progress)


def pathology_task(
    recipe: PathologyRecipe, references: References, cache: Path, progress: Progress, network: nn.Module | None = None
) -> PathologyTask:
    """The task on references.

    Args:
        recipe: Factor, optics, crops, network.
        references: Colour pictures, grouped by slide; a part of the slides is held out to choose the best checkpoint.
        cache: Folder for pictures and their coarse ones.
        progress: Counts pictures.
        network: To go on with; None = as the recipe starts.

    Raises:
        TrainingError: Fewer than two slides, equal pictures on both sides, or no colour picture large enough.
        Cancelled: The user stopped it; finished pictures stay in the cache.
    """
    held_out = recipe.held_out(references.patients)
    trained = references.of_patients([patient for patient in references.patients if patient not in held_out])
    check(trained, references.of_patients(held_out))
    stored = PatchSet.build(references, cache, progress)
    pictures = stored.chosen(lambda entry: len(entry.shape) == 3 and min(entry.shape[:2]) >= _LEAST_SIDE_PX)
    kept = pictures.of_patients(trained.patients)
    if not kept.slices:
        raise TrainingError(
            "No colour picture is large enough to learn from", f"Use RGB pictures of {_LEAST_SIDE_PX} px a side or more"
        )
    if recipe.halves:
        kept = _with_halves(kept, progress)
    optics = (recipe.factor, recipe.cutoffs, recipe.photons, recipe.realisations, recipe.contrasts, recipe.seed)
    key = "/".join(str(part) for part in (_VERSION, *optics))

    def coarse(entry: StoredSlice) -> NDArray:
        low, high = np.log(recipe.cutoffs)
        cutoffs = np.exp(np.random.default_rng([entry.seed, recipe.seed]).uniform(low, high, recipe.realisations))
        colours, gains = in_levels(entry.values), _gains(entry, recipe)
        mean = colours.mean(axis=(0, 1))
        made = [
            low_picture(_in_contrast(colours, mean, gains[i]), recipe.factor, float(c), recipe.photons, entry.seed + i)
            for i, c in enumerate(cutoffs)
        ]
        return np.stack(made)

    kept = kept.derived("coarse", key, coarse, progress, on_the_grid=False)
    kept = kept.derived(
        "regions", key, lambda entry: np.stack([regions_of(one) for one in entry.layer("coarse")]), progress, False
    )
    tuning = [_tuning_picture(one, recipe) for one in _few_of_each(pictures.of_patients(tuple(held_out)))]
    return PathologyTask(recipe, PicturePairs(kept, recipe), tuning, facts_of(references, trained, pictures), network)


def in_levels(values: NDArray) -> NDArray[np.float32]:
    """Colours as grey levels 0..255; those of sixteen bits are divided by 257."""
    values = np.asarray(values, np.float32)
    return (values / 257).astype(np.float32) if values.max(initial=0) > FULL else values


def regions_of(coarse: NDArray[np.uint8]) -> NDArray[np.int32]:
    """``(h, w)`` regions of a coarse picture, by the same engine as the app finds them before it restores."""
    return region_map_from_tree(build_region_tree(coarse, None))


@dataclass(frozen=True, eq=False)
class TuningPicture:
    """A whole picture on which the best checkpoint is chosen.

    Attributes:
        coarse: ``(h, w, 3)`` uint8.
        regions: ``(h, w)`` int32.
        reference: ``(h * factor, w * factor, 3)`` float32, 0..255.
    """

    coarse: NDArray[np.uint8]
    regions: NDArray[np.int32]
    reference: NDArray[np.float32]


class PicturePairs:
    """Crops of coarse pictures with their regions and references: slides drawn by their share, turned and mirrored.

    Args:
        pictures: With the layers ``coarse`` and ``regions``, on coarse pixels.
        recipe: Crops, factor, shares and seed.
    """

    def __init__(self, pictures: PatchSet, recipe: PathologyRecipe) -> None:
        self._recipe = recipe
        self._by_slide: dict[str, list[StoredSlice]] = {}
        for entry in pictures.slices:
            self._by_slide.setdefault(entry.patient, []).append(entry)
        self._means = {entry.sha256: in_levels(entry.values).mean(axis=(0, 1)) for entry in pictures.slices}
        shares = recipe.patient_shares
        self._slides = sorted(
            slide
            for slide in self._by_slide
            for _ in range(next((often for start, often in shares.items() if slide.startswith(start)), 1))
        )

    def batch(self, step: int, rank: int, world: int) -> tuple[dict[str, Tensor], bool]:
        """``degraded`` and ``reference`` ``(B, 3, ...)`` 0..1, ``region_map`` ``(B, S, S)``; and whether they count."""
        seed, crops = self._recipe.seed, self._recipe.crops
        side, count = crops[int(np.random.default_rng([seed, step]).integers(len(crops)))]
        own, is_own = own_samples(count, rank, world)
        found = [self._crop(side, np.random.default_rng([seed, step, index])) for index in own]
        coarse, regions, reference = (np.stack(layers) for layers in zip(*found, strict=True))
        batch = {"degraded": to_tensor(coarse), "reference": to_tensor(reference)}
        return {**batch, "region_map": finer(torch.from_numpy(regions), self._recipe.factor)}, is_own

    def _crop(self, side: int, random: np.random.Generator) -> tuple[NDArray, NDArray, NDArray]:
        entries = self._by_slide[self._slides[int(random.integers(len(self._slides)))]]
        entry = entries[int(random.integers(len(entries)))]
        number, factor = int(random.integers(self._recipe.realisations)), self._recipe.factor
        coarse, regions = entry.layer("coarse")[number], entry.layer("regions")[number]
        small = side // factor
        y, x = (int(random.integers(max(1, size - small + 1))) for size in coarse.shape[:2])
        fine = (slice(y * factor, (y + small) * factor), slice(x * factor, (x + small) * factor))
        here = (slice(y, y + small), slice(x, x + small))
        reference = in_levels(entry.layer("reference")[fine])
        reference = _in_contrast(reference, self._means[entry.sha256], _gains(entry, self._recipe)[number])
        reference = reference[: coarse.shape[0] * factor, : coarse.shape[1] * factor]
        is_mirrored, turns = random.random() < 0.5, int(random.integers(4))
        return tuple(  # type: ignore[return-value]
            _turned(_grown(np.asarray(layer), wanted), is_mirrored, turns)
            for layer, wanted in ((coarse[here], small), (regions[here], small), (reference, side))
        )


class PathologyTask:
    """Trains RAT to enlarge pictures.

    Args:
        recipe: Network and loss.
        pairs: Crops to train on.
        tuning: Whole held-out pictures; the first five are the samples.
        data: What pairs and pictures were made of.
        network: To go on with; None = as the recipe starts.

    Raises:
        TrainingError: The start of the network cannot be read.
    """

    def __init__(
        self,
        recipe: PathologyRecipe,
        pairs: PicturePairs,
        tuning: Sequence[TuningPicture],
        data: DataFacts,
        network: nn.Module | None = None,
    ) -> None:
        self._recipe, self._pairs, self._tuning, self.data = recipe, pairs, tuple(tuning), data
        self.network = network if network is not None else starting_network(recipe)

    def parts(self) -> Mapping[str, nn.Module]:
        """Nothing beside the network."""
        return {}

    def batch(self, step: int, rank: int, world: int, share: float) -> Mapping[str, Tensor]:
        """See ``PicturePairs.batch``."""
        batch, is_own = self._pairs.batch(step, rank, world)
        return marked(batch, is_own)

    def loss(self, batch: Mapping[str, Tensor], share: float) -> tuple[Tensor, Mapping[str, float]]:
        """Focal region error, and how far the mean colour of each crop has moved."""
        recipe, reference, regions = self._recipe, batch["reference"], batch["region_map"]
        restored = self.network(batch["degraded"], region_map=regions).float()  # of autocast
        loss = focal_region_loss(restored, reference, regions, recipe.focal_beta)
        shift = (restored - reference).mean(dim=(2, 3)).abs().mean()
        return loss + recipe.colour_weight * shift, {"colour_shift": FULL * float(shift.detach())}

    def judge(self, network: nn.Module) -> Judgement:
        """Mean PSNR over the tuning pictures, beside that of enlarging linearly, and the largest shift of a colour."""
        if not self._tuning:
            return Judgement(None)
        made, before = zip(*(self._restored(network, one) for one in self._tuning), strict=True)
        references = [one.reference for one in self._tuning]
        psnr, input_psnr = (
            float(np.mean([colour_psnr_db(x, y) for x, y in zip(each, references, strict=True)]))
            for each in (made, before)
        )
        shift = max(float(np.abs((x - y).mean(axis=(0, 1))).max()) for x, y in zip(made, references, strict=True))
        shown = zip(before[:SAMPLES], made, references, strict=False)
        samples = [Sample(*(values / np.float32(FULL) for values in three)) for three in shown]
        return Judgement(psnr, {"psnr_db": psnr, "input_psnr_db": input_psnr, "worst_colour_shift": shift}, samples)

    def _restored(self, network: nn.Module, one: TuningPicture) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """``(H, W, 3)`` 0..255: what the network makes, and the picture enlarged linearly."""
        factor, multiple = self._recipe.factor, architecture(self._recipe.architecture).size_multiple
        height, width = one.coarse.shape[:2]
        margins = ((0, -height % multiple), (0, -width % multiple))
        coarse = to_tensor(np.pad(one.coarse, (*margins, (0, 0)), mode="symmetric")[None])
        regions = finer(torch.from_numpy(np.pad(one.regions, margins, mode="edge"))[None], factor)
        device = next(network.parameters()).device
        with torch.no_grad():
            made = network(coarse.to(device), region_map=regions.to(device)).float().cpu()
        before = nn.functional.interpolate(coarse, scale_factor=factor, mode="bilinear", align_corners=False)
        height, width = height * factor, width * factor
        return _shown(made)[:height, :width], _shown(before)[:height, :width]


def colour_psnr_db(restored: NDArray, reference: NDArray) -> float:
    """Peak signal-to-noise ratio in dB over all three colours, of grey levels 0..255."""
    error = float(np.mean(np.square(np.asarray(restored, np.float64) - reference)))
    return float("inf") if error == 0 else float(10 * np.log10(FULL**2 / error))


def to_tensor(pictures: NDArray) -> Tensor:
    """``(B, H, W, 3)`` grey levels to ``(B, 3, H, W)`` float32, 0..1."""
    channels_first = np.ascontiguousarray(np.moveaxis(pictures, -1, 1), dtype=np.float32)
    return torch.from_numpy(channels_first) / FULL


def _shown(pictures: Tensor) -> NDArray[np.float32]:
    """The first of ``(B, 3, H, W)`` 0..1 as ``(H, W, 3)`` grey levels."""
    shown: NDArray[np.float32] = (FULL * pictures[0].permute(1, 2, 0)).clamp(0, FULL).numpy()
    return shown


def finer(regions: Tensor, factor: int) -> Tensor:
    """``(B, h, w)`` regions of coarse pixels on ``factor`` times finer ones."""
    return regions.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def _tuning_picture(entry: StoredSlice, recipe: PathologyRecipe) -> TuningPicture:
    colours = in_levels(entry.values)
    height, width = (side // recipe.factor * recipe.factor for side in entry.shape[:2])
    coarse = low_picture(colours, recipe.factor, CUTOFF, recipe.photons, entry.seed)
    return TuningPicture(coarse, regions_of(coarse), colours[:height, :width])


def _with_halves(pictures: PatchSet, progress: Progress) -> PatchSet:
    """The pictures, and those that are large enough at half their size, hardly blurred: two in one slide."""
    large = pictures.chosen(lambda entry: min(entry.shape[:2]) >= 2 * _LEAST_SIDE_PX)
    halved = large.derived(
        "half", _VERSION, lambda entry: low_magnification(in_levels(entry.values), 2, _HALVING), progress, False
    )
    made = []
    for entry in halved.slices:
        digest = hashlib.sha256(f"{entry.sha256} half".encode()).hexdigest()
        shape = (entry.shape[0] // 2, entry.shape[1] // 2, 3)
        files = {"reference": entry.files["half"]}
        made.append(StoredSlice(entry.patient, f"{entry.source} half", 2 * entry.spacing_mm, shape, digest, files))
    return replace(pictures, slices=(*pictures.slices, *made))


def _gains(entry: StoredSlice, recipe: PathologyRecipe) -> NDArray[np.float64]:
    """The contrast of each realisation of a picture."""
    low, high = np.log(recipe.contrasts)
    gains: NDArray[np.float64] = np.exp(
        np.random.default_rng([entry.seed, recipe.seed, 1]).uniform(low, high, recipe.realisations)
    )
    return gains


def _in_contrast(colours: NDArray[np.float32], mean: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
    """Grey levels farther from a mean, or nearer to it; black and white end them."""
    if gain == 1.0:
        return colours
    return np.clip(mean + np.float32(gain) * (colours - mean), 0, FULL).astype(np.float32)


def _few_of_each(pictures: PatchSet) -> list[StoredSlice]:
    found: dict[str, list[StoredSlice]] = {}
    for entry in pictures.slices:
        found.setdefault(entry.patient, []).append(entry)
    return [entry for entries in found.values() for entry in entries[:_MOST_OF_A_SLIDE]]


def _turned(layer: NDArray, is_mirrored: bool, turns: int) -> NDArray:
    if is_mirrored:
        layer = np.swapaxes(layer, 0, 1)
    return np.ascontiguousarray(np.rot90(layer, turns))


def _grown(layer: NDArray, side: int) -> NDArray:
    """A crop of a picture smaller than the window, mirrored so that coarse and fine pixels stay above each other."""
    while min(layer.shape[:2]) < side:
        missing = [(0, min(side - size, size)) for size in layer.shape[:2]]
        layer = np.pad(layer, missing + [(0, 0)] * (layer.ndim - 2), mode="symmetric")
    return layer
