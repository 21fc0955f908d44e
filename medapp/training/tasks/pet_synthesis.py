"""PET synthesis: full-dose slices from low-dose ones, of several simulated centres, judged at a tenth of the counts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medapp.errors import TrainingError
from medapp.networks.architectures.sgsgan import Discriminator, Segmenter
from medapp.networks.registry import architecture
from medapp.progress import Progress
from medapp.restoration.metrics import judging_of, psnr_db
from medapp.training.degradations.pet_centres import (
    DOSE,
    PetCentre,
    at_centre,
    centre_of,
    drifted,
    low_doses,
    mask_at_centre,
    spacing_at,
)
from medapp.training.leakage import check
from medapp.training.losses.adversarial import Coupling, LossWeights, critic_loss, generator_loss, segmentation_loss
from medapp.training.losses.pet import hottest_error, uptake_error
from medapp.training.patches import Cropper, Derive, PatchSet, StoredSlice
from medapp.training.recipe import PetRecipe, Recipe
from medapp.training.references import Reference, References
from medapp.training.sources import MANIFEST, find_references
from medapp.training.tasks.restoration import SAMPLES
from medapp.training.tasks.starting import starting_network
from medapp.training.tasks.task import DataFacts, Judgement, Sample, marked, own_samples
from medapp.training.tumours import tumour_beside

Scanners = Mapping[str, PetCentre]
"""On which scanner a patient was."""
LEAST_SIDE_PX = 16
"""Smaller slices are left out; those smaller than a crop are mirrored at their edges."""
_HIGHEST_SUV = 1000.0
"""No tissue takes up so much: larger numbers are of another unit."""
_TUNING_SLICES = 5
_PER_PERCENT_DB = 0.05
"""What one percent of bias of SUVmax costs in the score that chooses the checkpoint."""
_HOTTEST = 5.0
"""Of the logarithm of an uptake: e^5 = 148 SUV; keeps a young network's numbers finite."""


def pet_synthesis(recipe: Recipe, data: Path, cache: Path, progress: Progress) -> PetTask:
    """The task on the PET scans of a place; see ``task_of``."""
    assert isinstance(recipe, PetRecipe)
    has_manifest = (data / MANIFEST).is_file()
    split, under = ("train", "pet/") if has_manifest else (None, "")
    return pet_task(recipe, find_references(data, "PT", split, progress, under), data, cache, progress)


def pet_task(recipe: PetRecipe, references: References, data: Path, cache: Path, progress: Progress) -> PetTask:
    """The task on references.

    Args:
        recipe: Centres, doses, crops, network.
        references: PET in SUV; a part of the patients is held out to choose the best checkpoint.
        data: Where they were found; masks of tumours lie beside them.
        cache: Folder for slices and simulated noise.
        progress: Counts series and slices.

    Raises:
        TrainingError: The scans are not in SUV or cannot be, fewer than two patients, equal slices on both sides, or no
            slice large enough.
        Cancelled: The user stopped it; finished slices stay in the cache.
    """
    if references.unit != "SUV":
        raise TrainingError(
            f"These PET scans are not in SUV but in {references.unit}; nothing was trained",
            "SUV needs the patient's weight, the dose and the times in the files",
        )
    held_out = recipe.held_out(references.patients)
    trained = references.of_patients([patient for patient in references.patients if patient not in held_out])
    check(trained, references.of_patients(held_out))
    tumours = {entry.source: tumour_beside(data, entry) for entry in references}
    croppers: list[Cropper] = []
    tuning: list[PetTuning] = []
    sizes: list[tuple[float, float]] = []
    kept: Counter[str] = Counter()
    for centre in (centre_of(name) for name in recipe.centres):
        exact = dict.fromkeys(references.patients, centre)
        whole = _stored_at(exact, references, tumours, recipe, cache, progress)
        own = whole.of_patients(trained.patients)
        if not own.slices:
            raise TrainingError("No PET slice is large enough to learn from", f"Slices need {LEAST_SIDE_PX} px a side")
        croppers.append(_cropper(own, exact, recipe, str(centre), progress))
        if recipe.drift:
            like = {one: drifted(centre, recipe.drift, _seed(one, centre.name)) for one in trained.patients}
            there = _stored_at(like, trained, tumours, recipe, cache, progress)
            croppers.append(_cropper(there, like, recipe, f"{centre}, {recipe.drift} drifted", progress))
        tuning += _tuning(whole.of_patients(tuple(held_out)), centre)
        kept = Counter(entry.source.rpartition(" ")[0] for entry in own.slices)
        sizes += [(entry.spacing_mm, max(entry.shape) * entry.spacing_mm) for entry in own.slices]
    spacings = [spacing for spacing, _ in sizes]
    facts = DataFacts(
        references.sha256,
        tuple(entry.source for entry in references),
        len(trained.patients),
        References(trained.place, tuple(replace(e, shape=(kept[e.source],)) for e in trained)).collections(),
        (round(min(spacings), 3), round(max(spacings), 3)),
        extent_mm=round(max(extent for _, extent in sizes), 1),
    )
    return PetTask(recipe, PetPairs(croppers, recipe), tuning, facts)


def _seed(patient: str, centre: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{patient}, {centre}".encode()).digest()[:6], "big")


def _stored_at(
    scanners: Scanners,
    references: References,
    tumours: Mapping[str, NDArray[np.bool_] | None],
    recipe: PetRecipe,
    cache: Path,
    progress: Progress,
) -> PatchSet:
    """The references as each patient's scanner shows them at full dose."""
    there = tuple(_at(entry, tumours[entry.source], scanners[entry.patient]) for entry in references)
    return PatchSet.build(References(references.place, there), cache, progress, recipe.slices_per_series, LEAST_SIDE_PX)


def _cropper(patches: PatchSet, scanners: Scanners, recipe: PetRecipe, name: str, progress: Progress) -> Cropper:
    key = f"{name}/{recipe.fractions}/{recipe.draws}/{recipe.seed}"
    noisy = patches.derived("low_dose", key, _low_dose_maker(recipe, scanners), progress)
    return Cropper(noisy, ("low_dose", "region_map"))


def _at(reference: Reference, tumour: NDArray[np.bool_] | None, centre: PetCentre) -> Reference:
    """A reference as the centre shows it, with its tumour as a region map."""
    spacing_mm = reference.mean_spacing_mm
    there = spacing_at(spacing_mm, centre)

    def load() -> NDArray[np.float32]:
        return np.stack([at_centre(one, spacing_mm, centre) for one in reference.load()])

    def mask_of(z: int) -> NDArray[np.int32]:
        mask = np.zeros(reference.shape[1:], bool) if tumour is None else tumour[z]
        return mask_at_centre(mask, spacing_mm, centre).astype(np.int32)

    return replace(reference, spacing_mm=(there, there), load=load, region_map=mask_of)


def _low_dose_maker(recipe: PetRecipe, scanners: Scanners) -> Derive:
    def make(entry: StoredSlice) -> NDArray:
        highest = float(entry.values.max(initial=0.0))
        if highest > _HIGHEST_SUV:
            raise TrainingError(
                f"{entry.source} holds values up to {highest:.0f}, which are no SUV; nothing was trained",
                "Say the unit in MANIFEST.csv, such as 'PET (Bq/ml)', or leave the scan out",
            )
        random = np.random.default_rng([entry.seed, recipe.seed])
        low, high = np.log(recipe.fractions)
        # one dose from each part of the range, so that few draws still cover it
        shares = (np.arange(recipe.draws) + random.random(recipe.draws)) / recipe.draws
        doses = [float(dose) for dose in np.exp(low + shares * (high - low))]
        there = scanners[entry.patient]
        return low_doses(entry.values, entry.spacing_mm, there, doses, entry.seed + recipe.seed).astype(np.float16)

    return make


class PetPairs:
    """Crops with their tumours, centres in turn, patients alike.

    Args:
        croppers: One a centre, and one for scanners like it, with the layers ``low_dose`` and ``region_map``.
        recipe: Crops, seed, and by how much uptake is scaled.
    """

    def __init__(self, croppers: Sequence[Cropper], recipe: PetRecipe) -> None:
        self._croppers, self._recipe = tuple(croppers), recipe

    def batch(self, step: int, rank: int, world: int) -> tuple[dict[str, NDArray], bool]:
        """``degraded`` and ``reference`` float32 in SUV, ``tumour`` bool, each ``(B, 1, S, S)``; do they count."""
        seed, crops = self._recipe.seed, self._recipe.crops
        side, count = crops[int(np.random.default_rng([seed, step]).integers(len(crops)))]
        own, is_own = own_samples(count, rank, world)
        found: dict[str, list[NDArray]] = {"degraded": [], "reference": [], "tumour": []}
        for index in own:
            random = np.random.default_rng([seed, step, index])
            layers = self._croppers[(index + step) % len(self._croppers)].crop(side, random).layers
            low, high = np.log(self._recipe.uptake)
            scale = np.float32(np.exp(random.uniform(low, high)))
            found["degraded"].append(layers["low_dose"].astype(np.float32) * scale)
            found["reference"].append(layers["reference"].astype(np.float32) * scale)
            found["tumour"].append(layers["region_map"] > 0)
        return {name: np.stack(parts)[:, None] for name, parts in found.items()}, is_own


@dataclass(frozen=True, eq=False)
class PetTuning:
    """A whole held-out slice of a centre at a tenth of the counts; all in SUV, ``(Y, X)``."""

    lesion: str
    degraded: NDArray[np.float32]
    reference: NDArray[np.float32]
    tumour: NDArray[np.bool_]


def _tuning(patches: PatchSet, centre: PetCentre) -> list[PetTuning]:
    """A few slices of each held-out patient, those through the tumour where it is known."""
    found: list[PetTuning] = []
    for patient in patches.patients:
        entries = patches.of_patients((patient,)).slices
        through = [entry for entry in entries if np.any(entry.layer("region_map"))] or list(entries)
        for i in np.unique(np.linspace(0, len(through) - 1, _TUNING_SLICES + 2)[1:-1].round().astype(int)):
            entry = through[int(i)]
            low = low_doses(entry.values, entry.spacing_mm, centre, (DOSE,), entry.seed + 1)[0]
            tumour = np.array(entry.layer("region_map")) > 0
            found.append(PetTuning(f"{centre.name} {patient}", low, entry.values, tumour))
    return found


class PetTask:
    """Trains a network on low-dose PET; with ``adversarial`` or ``segmentation`` as the SGSGAN-style one is.

    The segmenter learns from full-dose images until ``guidance_from`` of the budget is spent; then it is frozen and its
    error on synthetic images guides the network. The critic learns from then on, and is heard a little later.

    Args:
        recipe: Network, ranges, losses.
        pairs: Crops to train on.
        tuning: Whole held-out slices; the first five are the samples.
        data: What pairs and slices were made of.
    """

    def __init__(self, recipe: PetRecipe, pairs: PetPairs, tuning: Sequence[PetTuning], data: DataFacts) -> None:
        self._recipe, self._pairs, self._tuning, self.data = recipe, pairs, tuple(tuning), data
        self.network = starting_network(recipe)
        self._parts: dict[str, nn.Module] = {}
        if recipe.segmentation:
            self._parts["segmenter"] = Segmenter(2, dims=2)
            # it learns from full-dose images alone, in the loss below; what it says of synthetic ones never changes it
            self._coupling = Coupling(self._parts["segmenter"], "joint")
        if recipe.adversarial:
            self._parts["critic"] = Discriminator(dims=2, channels=recipe.critic_channels)
        self._weights = LossWeights(0.0, recipe.adversarial, recipe.segmentation)

    def parts(self) -> Mapping[str, nn.Module]:
        """Segmenter and critic, where the recipe asks for them."""
        return self._parts

    def batch(self, step: int, rank: int, world: int, share: float) -> Mapping[str, Tensor]:
        """See ``PetPairs.batch``."""
        arrays, is_own = self._pairs.batch(step, rank, world)
        return marked({name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in arrays.items()}, is_own)

    def loss(self, batch: Mapping[str, Tensor], share: float) -> tuple[Tensor, Mapping[str, float]]:
        """Error of the uptake and of its highest value, and what segmenter and critic say."""
        recipe, tumour = self._recipe, batch["tumour"]
        low_dose = to_network(batch["degraded"], recipe)
        made = self.network(low_dose).float()
        suv = from_network(made, recipe)
        of_uptake = uptake_error(suv, batch["reference"], tumour, recipe.tumour_weight)
        of_hottest = hottest_error(suv, batch["reference"], tumour)
        loss = of_uptake + recipe.hottest_weight * of_hottest
        figures = {"uptake": float(of_uptake.detach()), "hottest": float(of_hottest.detach())}
        if self._parts:
            further, more = self._guidance(low_dose, to_network(batch["reference"], recipe), made, tumour[:, 0], share)
            return loss + further, {**figures, **more}
        return loss, figures

    def _guidance(
        self, low_dose: Tensor, reference: Tensor, made: Tensor, tumour: Tensor, share: float
    ) -> tuple[Tensor, Mapping[str, float]]:
        segmenter, critic = self._parts.get("segmenter"), self._parts.get("critic")
        is_guided = share >= self._recipe.guidance_from
        figures: dict[str, float] = {}
        loss = made.new_zeros(())
        if segmenter is not None and not is_guided:
            learning = segmentation_loss(segmenter(reference), tumour)
            figures["segmenter"] = float(learning.detach())
            loss = loss + learning
        is_heard = share >= self._recipe.critic_heard_from
        coupling = self._coupling if segmenter is not None and is_guided else None
        if coupling is not None or (critic is not None and is_heard):
            told = generator_loss(
                made, low_dose, reference, critic if is_heard else None, coupling, tumour, self._weights
            )
            figures["segmentation"] = float(told.segmentation.detach())
            loss = loss + told.total
        if critic is not None and is_guided:
            of_critic = critic_loss(critic, low_dose, reference, made)
            figures["critic"] = float(of_critic.detach())
            loss = loss + of_critic
        return loss, {key: figures.get(key, 0.0) for key in ("segmenter", "segmentation", "critic")}

    def judge(self, network: nn.Module) -> Judgement:
        """PSNR inside the body less what a bias of SUVmax costs, at a tenth of the counts, where it was trained.

        The bias is that of each centre: too much at one does not make up for too little at another.
        """
        if not self._tuning:
            return Judgement(None)
        made = [self._restored(network, one.degraded) for one in self._tuning]
        before = [one.degraded for one in self._tuning]
        psnr, input_psnr = (
            float(np.mean([_psnr(x, p) for x, p in zip(of, self._tuning, strict=True)])) for of in (made, before)
        )
        highest, mean = suv_biases(made, self._tuning)
        figures = {"psnr_db": psnr, "input_psnr_db": input_psnr, "suvmax_bias": highest, "suvmean_bias": mean}
        shown = [_sample(pair, values) for values, pair in zip(made[:SAMPLES], self._tuning, strict=False)]
        of_centre = {
            centre: [i for i, one in enumerate(self._tuning) if one.lesion.startswith(centre)]
            for centre in self._recipe.centres
        }
        biases = {
            f"suvmax_bias_{centre.lower()}": suv_biases([made[i] for i in own], [self._tuning[i] for i in own])[0]
            for centre, own in of_centre.items()
            if own
        }
        figures |= biases
        cost = _PER_PERCENT_DB * float(np.mean(np.abs(np.nan_to_num(list(biases.values())))))
        return Judgement(psnr - cost, {k: v for k, v in figures.items() if np.isfinite(v)}, shown)

    def _restored(self, network: nn.Module, degraded: NDArray[np.float32]) -> NDArray[np.float32]:
        height, width = degraded.shape
        multiple = architecture(self._recipe.architecture).size_multiple
        padded = np.pad(degraded, ((0, -height % multiple), (0, -width % multiple)), mode="reflect")[None, None]
        with torch.no_grad():
            values = to_network(torch.from_numpy(padded).to(next(network.parameters()).device), self._recipe)
            made = from_network(network(values).float(), self._recipe)
        return made[0, 0, :height, :width].cpu().numpy()


def suv_biases(made: Sequence[NDArray], tuning: Sequence[PetTuning]) -> tuple[float, float]:
    """Mean bias of SUVmax and of SUVmean over tumours, in percent; nan without a tumour."""
    inside: dict[str, tuple[list[NDArray], list[NDArray]]] = {}
    for values, pair in zip(made, tuning, strict=True):
        ours, theirs = inside.setdefault(pair.lesion, ([], []))
        ours.append(values[pair.tumour])
        theirs.append(pair.reference[pair.tumour])
    pairs = [(np.concatenate(a), np.concatenate(b)) for a, b in inside.values()]
    pairs = [(a, b) for a, b in pairs if b.size and b.max() > 0]
    if not pairs:
        return float("nan"), float("nan")
    biases = [(a.max() / b.max() - 1, a.mean() / b.mean() - 1) for a, b in pairs]
    highest, mean = (100 * float(value) for value in np.mean(biases, axis=0))
    return highest, mean


def to_network(suv: Tensor, recipe: PetRecipe) -> Tensor:
    """SUV to what the network sees: its logarithm, or its share of the range."""
    (low, high), (bottom, top) = recipe.value_range, recipe.network_range
    clipped = suv.clamp(low, high) - low
    share = clipped.log1p() / float(np.log1p(high - low)) if recipe.curve == "log" else clipped / (high - low)
    return bottom + share * (top - bottom)


def from_network(values: Tensor, recipe: PetRecipe) -> Tensor:
    """The way back; what a card with the same range and curve does."""
    (low, high), (bottom, top) = recipe.value_range, recipe.network_range
    share = (values - bottom) / (top - bottom)
    if recipe.curve == "log":
        return low + (share * float(np.log1p(high - low))).clamp(max=_HOTTEST).expm1()
    return low + share * (high - low)


def _psnr(values: NDArray, pair: PetTuning) -> float:
    judging = judging_of(pair.reference, "PT")
    return psnr_db(values, pair.reference, judging.limits, judging.body)


def _sample(pair: PetTuning, restored: NDArray[np.float32]) -> Sample:
    high = np.float32(max(1.0, float(pair.reference.max())))
    return Sample(pair.degraded / high, restored / high, pair.reference / high)
