"""A training recipe: everything that decides what comes out, as JSON beside the card of the model it makes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from medapp.errors import TrainingError, WeightsError
from medapp.networks.card import FIRST_FILTERS
from medapp.networks.registry import architecture
from medapp.training.rough_masks import RoughPlan
from medapp.training.splits import split_by_patient

LOSSES = ("log_error", "focal_region")
_HINT = "Compare it with a recipe in models/"


@dataclass(frozen=True)
class Recipe:
    """What to train and how; what all tasks share. Tasks add entries of their own.

    Attributes:
        name: Of the model; also its file name.
        title: What people read; empty = the task's own.
        version: Of the model.
        task: One of ``TASKS``.
        architecture: Name in the registry, with its constructor arguments in ``config``.
        start_from: Id of a model of the library, or a weights file, to begin with; empty = at random.
        crops: ``(side in px, batch)`` pairs drawn in turn at random. A mix, because whatever pools over the image sees
            another image in a crop than in a whole slice.
        iterations: Budget in batches; 0 = by time alone.
        minutes: Budget in minutes beside it, whichever is spent first; 0 = by iterations alone.
        learning_rate: At its highest.
        warm_up: Iterations of linear rise.
        schedule: ``cosine`` falls over the whole budget; ``flat`` stays, and falls linearly over ``cool_down``.
        cool_down: Iterations of the fall of ``flat``.
        least_rate: Part of the learning rate that is left at the end.
        optimiser: ``adamw``, or ``adam`` as some papers have it.
        betas, weight_decay: Of the optimiser.
        gradient_limit: Gradients are scaled down to this norm.
        average_decay: Of the running average of the weights, which is what is judged and kept.
        precision: ``float32``, ``bf16``, ``fp16``; ``auto`` = float32 on the CPU, bf16 on a GPU that has it, else fp16.
        check_every: Iterations between two judgements on held-out images.
        tuning_patients: Held out of the training rows to choose the best checkpoint.
        tuning_share: Part of the patients that is held out where none is named.
        seed: Of weights and data.
        hold_out_seed: Decides who is held out where nobody is named; None = ``seed``, in every stage that of the
            recipe, since who chose a checkpoint must not have been trained on by the stage before.
        stages: Entries that change from stage to stage; each stage is a run that starts from the weights of the one
            before. Empty = one stage.
        full: Entries of the full-size model, for a machine with a large GPU; see ``full_size``.
    """

    name: str
    title: str = ""
    version: str = "1"
    task: str = "ct-denoise"
    architecture: str = "restore_rwkv"
    config: dict[str, Any] = field(default_factory=dict)
    start_from: str = ""
    crops: tuple[tuple[int, int], ...] = ((96, 7), (128, 4), (192, 2), (256, 1))
    iterations: int = 0
    minutes: float = 0.0
    learning_rate: float = 1e-3
    warm_up: int = 100
    schedule: Literal["cosine", "flat"] = "cosine"
    cool_down: int = 0
    least_rate: float = 0.01
    optimiser: Literal["adamw", "adam"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    gradient_limit: float = 1.0
    average_decay: float = 0.999
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    check_every: int = 250
    tuning_patients: tuple[str, ...] = ()
    tuning_share: float = 0.1
    seed: int = 0
    hold_out_seed: int | None = None
    stages: tuple[dict[str, Any], ...] = ()
    full: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Readable JSON text."""
        return json.dumps(asdict(self), indent=2)

    def spent(self, iteration: int, seconds: float) -> float:
        """Part of the budget that is gone, 0..1."""
        by_iterations = iteration / self.iterations if self.iterations else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_iterations, by_time))

    def rate(self, iteration: int, share: float) -> float:
        """Learning rate of an iteration.

        Args:
            iteration: From 0.
            share: Spent part of the budget.
        """
        rise = min(1.0, (iteration + 1) / max(1, self.warm_up))
        if self.schedule == "flat":
            # a budget of time has no last iteration: its fall is the last third
            left = (self.iterations - iteration) / max(1, self.cool_down) if self.iterations else 1.0
            fall = min(1.0, left, 3 * (1 - share) if self.minutes else 1.0)
            return self.learning_rate * max(self.least_rate, min(rise, fall))
        fall = 0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))
        return self.learning_rate * rise * (self.least_rate + (1 - self.least_rate) * fall)

    def held_out(self, patients: Iterable[str]) -> frozenset[str]:
        """Who is held out of training to choose the best checkpoint: those named who are there, else a fixed part.

        Raises:
            TrainingError: There are fewer than two patients.
        """
        everyone = frozenset(patients)
        named = everyone.intersection(self.tuning_patients)
        # a shipped recipe names patients of the shared data; other data have others
        seed = self.seed if self.hold_out_seed is None else self.hold_out_seed
        return named or frozenset(split_by_patient(everyone, self.tuning_share, seed)[1])

    def check_architecture(self) -> None:
        """Refuse what nobody can build.

        Raises:
            WeightsError: The architecture is not known.
        """
        architecture(self.architecture)

    def problem(self) -> str:
        """The first entry that cannot work, in words; empty when all can."""
        if not (self.iterations > 0 or self.minutes > 0):
            return "it needs iterations or minutes"
        if not self.learning_rate > 0 or not self.gradient_limit > 0:
            return "learning_rate and gradient_limit are above 0"
        if not 0 <= self.average_decay < 1 or not 0 <= self.least_rate <= 1 or not 0 < self.tuning_share < 1:
            return "average_decay, least_rate and tuning_share lie between 0 and 1"
        if not self.crops or not all(side > 0 and side % 8 == 0 and count > 0 for side, count in self.crops):
            return "sides of crops are multiples of 8, batches above 0"
        if self.check_every <= 0 or self.warm_up < 0 or self.cool_down < 0:
            return "check_every, warm_up and cool_down are counts"
        choices = {
            "schedule": ("cosine", "flat"),
            "optimiser": ("adamw", "adam"),
            "precision": ("auto", "float32", "bf16", "fp16"),
        }
        for key, known in choices.items():
            if getattr(self, key) not in known:
                return f"{key} is one of {', '.join(known)}"
        return ""


@dataclass(frozen=True)
class RestorationRecipe(Recipe):
    """A restorer: CT denoising, MR super-resolution.

    Attributes:
        value_range: Range of native values ``(low, high)`` that the network is made for; HU for CT, thousandths of the
            spread between percentiles for MR (``limits``).
        network_range: What the network sees for that range; the map is linear.
        limits: ``fixed``, or ``percentiles``: of each degraded slice, 0.5 and 99.5 % stand for 0 and 1000.
        factor: Of super-resolution.
        first_filter: ``nlm`` or ``tv``: takes turns with the measured k-space before the network sees the slice; empty
            = the network sees the zero-filled slice.
        noise_sigma: Noise levels ``(low, high)`` in native units, drawn uniformly in their logarithm, so that light
            noise is trained as much as heavy.
        doses: Fractions of the full dose ``(low, high)`` at which noise is simulated before it is scaled to a level.
        noise_fields: Realisations per slice.
        reference_noise_limit: Slices noisier than this (native units, high-pass estimate) are no reference.
        focus: Native values ``(low, high)`` that matter most, the display window with a margin; None = all alike.
        outside_weight: Weight of errors outside of ``focus``.
        loss: ``log_error``, or ``focal_region`` for networks with region maps.
        focal_beta: Additional weight of the worst region in ``focal_region``.
        own_loss_weight: Weight of what a network adds to the loss by itself, such as the balance of AMIR's routers.
        patient_shares: Patients whose group begins so are drawn so many times as often as the others.
    """

    value_range: tuple[float, float] = (-1024.0, 3072.0)
    network_range: tuple[float, float] = (-8.0, 24.0)
    limits: Literal["fixed", "percentiles"] = "fixed"
    factor: int = 1
    first_filter: str = ""
    noise_sigma: tuple[float, float] = (4.0, 120.0)
    doses: tuple[float, float] = (0.05, 1.0)
    noise_fields: int = 3
    reference_noise_limit: float = 9.0
    focus: tuple[float, float] | None = (-200.0, 280.0)
    outside_weight: float = 0.1
    loss: str = "log_error"
    focal_beta: float = 1e-3
    own_loss_weight: float = 1e-3
    patient_shares: dict[str, int] = field(default_factory=dict)

    def problem(self) -> str:
        """As ``Recipe.problem``."""
        if not all(isinstance(often, int) and often > 0 for often in self.patient_shares.values()):
            return "patient_shares are whole numbers above 0"
        if not all(low < high for low, high in (self.value_range, self.network_range, self.noise_sigma)):
            return "value_range, network_range and noise_sigma rise"
        if self.focus is not None and not self.focus[0] < self.focus[1]:
            return "focus rises"
        if not 0 < self.doses[0] <= self.doses[1] or not self.noise_sigma[0] > 0 or not self.noise_fields > 0:
            return "doses, noise_sigma and noise_fields are above 0"
        if self.loss not in LOSSES:
            return f"loss is one of {', '.join(LOSSES)}"
        if self.loss == "focal_region" and "region_map" not in architecture(self.architecture).inputs:
            return "focal_region needs a network with regions"
        if self.limits not in ("fixed", "percentiles"):
            return "limits is fixed or percentiles"
        if self.task == "mr-super-resolution" and self.factor not in (2, 3, 4):
            return "factor is 2, 3 or 4"
        if self.first_filter and (self.first_filter not in FIRST_FILTERS or self.factor not in (2, 4)):
            return f"first_filter is one of {', '.join(FIRST_FILTERS)}, with a factor of 2 or 4"
        return super().problem()


@dataclass(frozen=True)
class PetRecipe(Recipe):
    """Full-dose PET from low-dose PET of simulated centres.

    Attributes:
        value_range: SUV ``(low, high)`` that the network is made for.
        network_range: What the network sees for that range.
        curve: ``log``: the network sees the logarithm of 1 + SUV, since noise grows with uptake; or ``linear``.
        centres: Letters of the centres to train on; see ``degradations.pet_centres``.
        fractions: Parts of the counts ``(low, high)`` that are left, drawn uniformly in their logarithm.
        draws: Realisations of the noise per slice and centre.
        slices_per_series: Evenly spread; neighbours are alike.
        drift: Every second crop is of a scanner that differs so much from its centre, another one for each patient; see
            ``degradations.pet_centres.drifted``. 0 = the centres alone.
        uptake: Factors ``(low, high)`` by which both images of a pair are scaled.
        tumour_weight: Weight of the error in tumours; 1 elsewhere.
        hottest_weight: Weight of the error of the highest uptake in the tumour; see ``losses.pet``.
        segmentation: Weight of the segmenter's error on synthetic images; 0 = no segmenter.
        adversarial: Weight of the critic's opinion; 0 = no critic.
        critic_channels: Widths of the critic.
        guidance_from: Part of the budget after which the segmenter guides, and the critic begins to learn.
        critic_heard_from: Part of the budget after which the critic is heard.
    """

    task: str = "pet-synthesis"
    architecture: str = "drmc"
    crops: tuple[tuple[int, int], ...] = ((48, 8),)
    value_range: tuple[float, float] = (0.0, 80.0)
    network_range: tuple[float, float] = (0.0, 4.394449154672439)
    curve: Literal["linear", "log"] = "log"
    centres: tuple[str, ...] = ("A", "B", "C", "D")
    fractions: tuple[float, float] = (0.05, 0.3)
    draws: int = 3
    slices_per_series: int = 10
    drift: float = 0.0
    uptake: tuple[float, float] = (0.7, 1.4)
    tumour_weight: float = 1.0
    hottest_weight: float = 0.5
    segmentation: float = 0.0
    adversarial: float = 0.0
    critic_channels: tuple[int, ...] = (64, 128, 256, 512)
    guidance_from: float = 0.3
    critic_heard_from: float = 0.4

    def problem(self) -> str:
        """As ``Recipe.problem``."""
        if not all(low < high for low, high in (self.value_range, self.network_range)):
            return "value_range and network_range rise"
        if self.curve not in ("linear", "log"):
            return "curve is linear or log"
        if not 0 < self.fractions[0] <= self.fractions[1] <= 1 or not 0 < self.uptake[0] <= self.uptake[1]:
            return "fractions lie between 0 and 1, uptake is above 0"
        if not self.centres or not self.draws > 0 or not self.slices_per_series > 0:
            return "centres, draws and slices_per_series are at least one"
        if not 0 <= self.drift <= 1:
            return "drift lies between 0 and 1"
        if min(self.tumour_weight, self.hottest_weight, self.segmentation, self.adversarial) < 0:
            return "weights are not negative"
        if (self.segmentation or self.adversarial) and self.architecture != "sgsgan":
            return "segmentation and adversarial belong to sgsgan"
        if self.adversarial and any(side < 32 for side, _ in self.crops):
            return "a critic needs crops of 32 px"
        if not 0 <= self.guidance_from <= self.critic_heard_from <= 1:
            return "guidance_from and critic_heard_from rise from 0 to 1"
        return super().problem()


@dataclass(frozen=True)
class MattingRecipe(Recipe):
    """Medical Matting.

    Attributes:
        kl_scale: Weight of the divergence; the published 10 beside a mean of the reconstruction lets the masks of a
            small network fall together into one.
        gradient_scale: Weight of the alpha's gradients; the published 1 keeps the alpha of a short run flat.
        band_scale: Weight of the alpha's error around borders and wherever it is soft; 0 as published.
        square_scale: Weight of the alpha's squared error, which asks for the mean of what an edge may be where L1 asks
            for the likeliest; 0 as published.
        matte_prior: The matting net is trained on draws of the prior; see ``MedicalMatting.forward``.
        strategy: How segmentation and matting are weighed: ``OAWS``, ``UWS`` or ``None``.
        epochs: What the budget counts as, for the swing of the weights.
        shares: How often each source is drawn.
        augmentation: Entries of ``CropPlan`` that differ from its own.
        rough: How often each kind of rough mask is shown beside the image, see ``RoughPlan``; empty = the network sees
            none. Otherwise the last of ``input_channels`` is its picture.
        rough_px: Largest displacement of its border, low and high, in pixels of a crop of 128.
        crop_order: ``mixed`` draws of ``crops`` at random; ``growing`` takes one after the other, each for an equal
            part of the budget.
        crop_px: Side that inference brings every box to.
        crop_of_box: Crop side over the longer side of a box, in inference.
        crop_within: In inference the crop ends where the slice does; see ``medapp.matting.proposer.CropRule``. For
            networks that are trained on crops as narrow as the thing itself.
        views: Mirrored views that inference averages: 1, 4, or 8 with rows and columns exchanged as well.
        finish: What inference does to the alpha at the end; see ``medapp.matting.finish.Finish``.
    """

    task: str = "matting"
    architecture: str = "medical_matting"
    crops: tuple[tuple[int, int], ...] = ((64, 8), (64, 8), (96, 4))
    warm_up: int = 30
    optimiser: Literal["adamw", "adam"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-5
    gradient_limit: float = 5.0
    average_decay: float = 0.998
    kl_scale: float = 10.0
    gradient_scale: float = 1.0
    band_scale: float = 0.0
    square_scale: float = 0.0
    matte_prior: bool = False
    strategy: Literal["OAWS", "UWS", "None"] = "OAWS"
    epochs: int = 40
    shares: dict[str, float] = field(
        default_factory=lambda: {"cut-out": 0.27, "skin": 0.25, "vessels": 0.16, "brain": 0.16, "tumour": 0.16}
    )
    augmentation: dict[str, Any] = field(default_factory=dict)
    rough: dict[str, float] = field(default_factory=dict)
    rough_px: tuple[float, float] = (0.5, 7.5)
    crop_order: Literal["mixed", "growing"] = "mixed"
    crop_px: int = 64
    crop_of_box: float = 1.5
    crop_within: bool = False
    views: int = 1
    finish: dict[str, Any] = field(default_factory=dict)

    def problem(self) -> str:
        """As ``Recipe.problem``."""
        if self.strategy not in ("OAWS", "UWS", "None"):
            return "strategy is one of OAWS, UWS, None"
        if not all(count > 1 for _, count in self.crops):
            return "batches of crops hold two or more"
        if problem := RoughPlan(self.rough, self.rough_px).problem():
            return problem
        if self.rough and int(self.config.get("input_channels", 1)) not in (2, 4):
            return "input_channels is 2 or 4 with a rough mask"
        if self.crop_order not in ("mixed", "growing"):
            return "crop_order is mixed or growing"
        if not self.crop_px > 0 or self.crop_px % 8:
            return "crop_px is a multiple of 8"
        if not self.crop_of_box >= 1 or not self.epochs > 0:
            return "crop_of_box is 1 or more, epochs above 0"
        if self.views not in (1, 4, 8):
            return "views is 1, 4 or 8"
        if not self.shares or not all(share >= 0 for share in self.shares.values()) or not sum(self.shares.values()):
            return "shares are above 0"
        return super().problem()


@dataclass(frozen=True)
class CompletionRecipe(Recipe):
    """Depth completion from a colour frame and a few measured depths.

    Attributes:
        points: Fewest and most measured points, log-uniform.
    """

    task: str = "depth-completion"
    architecture: str = "pddm"
    crops: tuple[tuple[int, int], ...] = ((192, 4),)
    warm_up: int = 20
    least_rate: float = 0.001
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    average_decay: float = 0.998
    points: tuple[int, int] = (5, 2000)

    def problem(self) -> str:
        """As ``Recipe.problem``."""
        return super().problem() or ("" if 0 < self.points[0] < self.points[1] else "points rise")


PART_TASKS = {"CT": "ct-denoise", "MR": "mr-super-resolution", "PT": "pet-synthesis"}
"""What an all-in-one network does with scans of a modality."""


@dataclass(frozen=True)
class AllInOneRecipe(Recipe):
    """One restorer of several kinds of scans, which is not told which kind it sees.

    Attributes:
        parts: By DICOM code (``CT``, ``MR``, ``PT``): entries of ``RestorationRecipe`` for its scans.
        shares: By the same codes: whole parts of each batch that its crops make up.
        floors: Errors below it count as none, in native units of each code; what is not named has 1.
        fractions: Parts of the counts ``(low, high)`` at which PET is simulated.
        most_slices: Of a PET series, evenly spread; neighbours are alike.
        own_loss_weight: Weight of what a network adds to the loss by itself, such as the balance of AMIR's routers.
        frozen: Beginnings of the names of parameters that stay as they were drawn.
        first_step: Crops are drawn as from this iteration on, so that a later stage sees others of the same simulated
            noise; another ``seed`` would simulate it anew.
    """

    task: str = "all-in-one"
    architecture: str = "amir"
    crops: tuple[tuple[int, int], ...] = ((48, 12), (64, 6))
    parts: dict[str, dict[str, Any]] = field(default_factory=lambda: {"CT": {}, "MR": {}, "PT": {}})
    shares: dict[str, int] = field(default_factory=lambda: {"CT": 1, "MR": 1, "PT": 1})
    floors: dict[str, float] = field(default_factory=lambda: {"PT": 0.01})
    fractions: tuple[float, float] = (0.05, 0.3)
    most_slices: int = 24
    own_loss_weight: float = 1e-3
    frozen: tuple[str, ...] = ()
    first_step: int = 0

    def part(self, modality: str) -> RestorationRecipe:
        """What the scans of one modality are trained as, with their share of each batch.

        Raises:
            TypeError: The part has unknown entries.
        """
        whole = sum(self.shares.values())
        crops = tuple((side, count * self.shares[modality] // whole) for side, count in self.crops)
        usual = {"MR": _MR, "PT": _PET}.get(modality, {})
        own = {key: _tuples(value) for key, value in {**usual, **self.parts[modality]}.items()}
        return RestorationRecipe(
            name=self.name,
            task=PART_TASKS[modality],
            architecture=self.architecture,
            config=self.config,
            crops=crops,
            iterations=self.iterations,
            minutes=self.minutes,
            seed=self.seed,
            hold_out_seed=self.hold_out_seed,
            tuning_patients=self.tuning_patients,
            tuning_share=self.tuning_share,
            **own,
        )

    def problem(self) -> str:
        """As ``Recipe.problem``."""
        if not self.parts or not set(self.parts) <= set(PART_TASKS) or set(self.shares) != set(self.parts):
            return f"parts and shares name the same modalities, out of {', '.join(PART_TASKS)}"
        if not all(isinstance(share, int) and share > 0 for share in self.shares.values()):
            return "shares are whole numbers above 0"
        if any(count % sum(self.shares.values()) for _, count in self.crops):
            return "batches of crops can be divided by the sum of the shares"
        if not set(self.floors) <= set(PART_TASKS) or not all(floor > 0 for floor in self.floors.values()):
            return "floors are above 0, of modalities"
        if not 0 < self.fractions[0] <= self.fractions[1] <= 1 or self.most_slices < 1:
            return "fractions lie between 0 and 1, most_slices is 1 or more"
        return next((told for one in self.parts if (told := self.part(one).problem())), "") or super().problem()


@dataclass(frozen=True)
class RegionsRecipe(Recipe):
    """A small ``segment_anything.Sam``, asked by simulated clicks and boxes.

    Attributes:
        things: Drawn from each crop; a thing may come twice where there are fewer.
        clicks: Fewest and most clicks of the second round.
        shares: How often each source is drawn; what is not named is left out.
        crop_order: ``mixed`` draws of ``crops`` at random; ``growing`` takes one after the other, each for an equal
            part of the budget.
        focal_weight, dice_weight, overlap_weight: Of the three losses.
    """

    task: str = "regions"
    architecture: str = "sam"
    crops: tuple[tuple[int, int], ...] = ((128, 12), (128, 12), (256, 4))
    warm_up: int = 50
    weight_decay: float = 0.02
    average_decay: float = 0.995
    things: int = 3
    clicks: tuple[int, int] = (2, 5)
    shares: dict[str, float] = field(default_factory=dict)
    crop_order: Literal["mixed", "growing"] = "growing"
    focal_weight: float = 20.0
    dice_weight: float = 1.0
    overlap_weight: float = 1.0

    def problem(self) -> str:
        """As ``Recipe.problem``."""
        if self.architecture != "sam":
            return "architecture is sam"
        if not all(share >= 0 for share in self.shares.values()) or not sum(self.shares.values()):
            return "shares are above 0"
        if self.crop_order not in ("mixed", "growing"):
            return "crop_order is mixed or growing"
        side = self.config.get("image_size", 256)
        if not all(crop % 32 == 0 and crop <= side for crop, _ in self.crops):
            return "sides of crops are multiples of 32, at most image_size"
        if not self.things > 0 or not 2 <= self.clicks[0] <= self.clicks[1]:
            return "things are above 0, clicks rise from 2"
        return super().problem()

    def check_architecture(self) -> None:
        """As ``Recipe.check_architecture``; SAM is built by ``medapp.regions``."""


@dataclass(frozen=True)
class PathologyRecipe(Recipe):
    """Pictures of stained tissue from a lower magnification, in colour.

    Attributes:
        factor: 2 or 4; the network's own ``scale``.
        cutoffs: Where the transfer of the simulated optics reaches zero, in cycles per coarse pixel ``(low, high)``.
        photons: Of a white coarse pixel; 0 = no noise.
        realisations: Coarse pictures of each picture, each with its own optics and noise.
        contrasts: Each realisation is of the picture with its contrast times so much ``(low, high)``.
        halves: Pictures are shown at half their size too: at another magnification texture is finer.
        focal_beta: Additional weight of the region with the largest error.
        colour_weight: Of the mean shift of each colour over a crop, beside the error of its pixels.
        patient_shares: Patients whose group begins so are drawn so many times as often as the others.
    """

    task: str = "pathology-super-resolution"
    architecture: str = "rat"
    config: dict[str, Any] = field(default_factory=lambda: {"img_channel": 3, "scale": 2})
    crops: tuple[tuple[int, int], ...] = ((64, 8), (96, 4), (128, 2))
    factor: int = 2
    cutoffs: tuple[float, float] = (0.85, 1.2)
    photons: float = 10_000.0
    realisations: int = 3
    contrasts: tuple[float, float] = (1.0, 1.0)
    halves: bool = False
    focal_beta: float = 1e-3
    colour_weight: float = 0.1
    patient_shares: dict[str, int] = field(default_factory=dict)

    def problem(self) -> str:
        """As ``Recipe.problem``."""
        if self.factor not in (2, 4):
            return "factor is 2 or 4"
        if self.architecture != "rat" or self.config.get("scale") != self.factor or self.config.get("img_channel") != 3:
            return "the architecture is rat, with img_channel 3 and the factor as its scale"
        if not all(side % 16 == 0 for side, _ in self.crops):
            return "sides of crops are multiples of 16"
        if not 0 < self.cutoffs[0] <= self.cutoffs[1] or not self.photons >= 0 or not self.realisations > 0:
            return "cutoffs rise, photons are 0 or more, realisations above 0"
        if not 0 < self.contrasts[0] <= self.contrasts[1]:
            return "contrasts rise"
        if not self.focal_beta >= 0 or not self.colour_weight >= 0:
            return "focal_beta and colour_weight are 0 or more"
        if not all(isinstance(often, int) and often > 0 for often in self.patient_shares.values()):
            return "patient_shares are whole numbers above 0"
        return super().problem()


TASKS: Mapping[str, type[Recipe]] = {
    "ct-denoise": RestorationRecipe,
    "mr-super-resolution": RestorationRecipe,
    "all-in-one": AllInOneRecipe,
    "pet-synthesis": PetRecipe,
    "matting": MattingRecipe,
    "depth-completion": CompletionRecipe,
    "regions": RegionsRecipe,
    "pathology-super-resolution": PathologyRecipe,
}
"""What can be trained, and the entries that its recipe has."""
_MR: dict[str, Any] = {
    "value_range": [0, 1000],
    "network_range": [0, 4],
    "limits": "percentiles",
    "factor": 4,
    "focus": None,
}

_PET: dict[str, Any] = {"value_range": [0, 80], "network_range": [0, 16], "focus": None, "outside_weight": 1.0}


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe file.

    Raises:
        TrainingError: The file is missing, is not JSON, or has unknown or unusable entries.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainingError(
            "There is no recipe file at this place", "Recipes lie beside the cards in models/"
        ) from error
    except (OSError, ValueError) as error:
        raise TrainingError("The recipe is not readable JSON", _HINT) from error
    return recipe_of(entries)


def recipe_of(entries: Any) -> Recipe:
    """Check the entries of a recipe.

    Raises:
        TrainingError: They are not a usable recipe.
    """
    if not isinstance(entries, dict) or not isinstance(entries.get("name"), str) or not entries["name"]:
        raise TrainingError("The recipe needs a name", _HINT)
    task = entries.get("task", "ct-denoise")
    if task not in TASKS:
        raise TrainingError(f"The task of the recipe cannot be trained: {str(task)[:40]}", f"Tasks: {', '.join(TASKS)}")
    if task == "mr-super-resolution":
        entries = {**_MR, **entries}
    known = {entry.name for entry in fields(TASKS[task])}
    surplus = sorted(set(entries) - known)
    if surplus:
        raise TrainingError(f"The recipe has unknown entries: {', '.join(surplus[:5])}", "Remove or rename them")
    _check_kinds(TASKS[task], entries)
    try:
        recipe = TASKS[task](**{key: _tuples(value) for key, value in entries.items()})
        problem = next((found for stage in stages_of(recipe) if (found := stage.problem())), "")
        recipe.check_architecture()
    except WeightsError as error:
        raise TrainingError(f"The recipe cannot work: {error.message}", error.hint) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise TrainingError("The recipe has an entry of the wrong kind", _HINT) from error
    if problem:
        raise TrainingError(f"The recipe has an entry that cannot work: {problem}", _HINT)
    return recipe


def _check_kinds(task: type[Recipe], entries: dict[str, Any]) -> None:
    """Compare each entry with what it is where a recipe leaves it out.

    Raises:
        TrainingError: Names the first that is something else.
    """
    for entry in fields(task):
        if entry.default is MISSING and entry.default_factory is MISSING:
            continue
        usual = entry.default if entry.default_factory is MISSING else entry.default_factory()
        kind, given = _kind(usual), _kind(entries.get(entry.name))
        if kind and given and kind != given:
            raise TrainingError(f"The recipe's entry '{entry.name}' is {given}, not {kind}", _HINT)


def _kind(value: Any) -> str:
    """In words; empty for what may be anything."""
    kinds = ((bool, "true or false"), ((int, float), "a number"), (str, "a text"), ((list, tuple), "a list"))
    return next((said for kind, said in kinds if isinstance(value, kind)), "" if value is None else "an object")


def stages_of(recipe: Recipe) -> tuple[Recipe, ...]:
    """The runs a recipe asks for, one after the other; most ask for one. All hold the same patients out.

    Raises:
        TrainingError: A stage has unknown entries.
    """
    if not recipe.stages:
        return (recipe,)
    try:
        changes = [{key: _tuples(value) for key, value in stage.items()} for stage in recipe.stages]
        return tuple(replace(recipe, **{**_same_hold_out(recipe, change), "stages": ()}) for change in changes)
    except (TypeError, AttributeError) as error:
        raise TrainingError("A stage of the recipe has unknown entries", _HINT) from error


def _same_hold_out(recipe: Recipe, change: dict[str, Any]) -> dict[str, Any]:
    """A stage that draws by a seed of its own, with the hold-out of the others."""
    if change.get("seed", recipe.seed) == recipe.seed or recipe.hold_out_seed is not None:
        return change
    return {"hold_out_seed": recipe.seed, **change}


def full_size(recipe: Recipe) -> Recipe:
    """The recipe of the full-size model, named ``<name>-full``; one stage, from the beginning, unless it says more.

    Raises:
        TrainingError: The recipe has none, or an entry of it cannot work.
    """
    if not recipe.full:
        raise TrainingError("This recipe has no full size", "Train it without --full")
    entries = {
        **asdict(recipe),
        "name": f"{recipe.name}-full",
        "stages": [],
        "start_from": "",
        **recipe.full,
        "full": {},
    }
    return recipe_of(entries)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
