"""A promptable segmenter: outlined things in crops, asked for by simulated clicks and boxes.

Reference:
    Kirillov et al., "Segment Anything", ICCV 2023, appendix A (training algorithm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medapp.errors import TrainingError, WeightsError
from medapp.progress import Progress
from medapp.regions.clicks import next_click, overlap
from medapp.regions.prompts import Prompts
from medapp.regions.sam import SamEngine, shown_pixels
from medapp.regions.sam_checkpoint import read_sam_weights
from medapp.regions.small_sam import drawn_prompts, make_small_sam, predict_each, with_mask
from medapp.training.losses.regions import cut_target, prompted_loss
from medapp.training.recipe import Recipe, RegionsRecipe
from medapp.training.region_crops import RegionCrops
from medapp.training.region_data import CUT_OUTS, RegionData, RegionPicture, load_region_data
from medapp.training.tasks.starting import weights_file
from medapp.training.tasks.task import DataFacts, Judgement, Sample, marked, own_samples

_BOX_STEPS, _MASK_STEPS = 0.25, 0.2
_JUDGED_PICTURES, _JUDGED_THINGS, _JUDGED_CLICKS = 4, 2, 3
SAMPLES = 5


def regions(recipe: Recipe, data: Path, cache: Path, progress: Progress) -> RegionsTask:
    """The task on the ``train`` rows of a folder with ``MANIFEST.csv``; see ``task_of``."""
    assert isinstance(recipe, RegionsRecipe)
    return RegionsTask(recipe, load_region_data(data, "train", progress))


class RegionsTask:
    """Trains a small ``Sam``.

    Args:
        recipe: Network, crops, clicks.
        data: Pictures with outlined things; a part of the patients is held out to choose the best checkpoint.

    Raises:
        TrainingError: There are fewer than two patients, the recipe draws from none of the sources, or the start of
            the recipe cannot be read.
    """

    def __init__(self, recipe: RegionsRecipe, data: RegionData) -> None:
        self._recipe = recipe
        held_out = recipe.held_out(picture.patient for each in data.pictures.values() for picture in each)
        kept = {s: [p for p in each if p.patient not in held_out] for s, each in data.pictures.items()}
        judged = {s: [p for p in each if p.patient in held_out] for s, each in data.pictures.items()}
        if not any(kept[source] and recipe.shares.get(source, 0) > 0 for source in kept):
            raise TrainingError("The recipe draws from no source of these data", "Name their sources in shares")
        drawn = [s for s in judged if judged[s] and recipe.shares.get(s, 0) > 0]
        self._tuning = {s: _spread(judged[s], _JUDGED_PICTURES) for s in drawn if s != CUT_OUTS}  # those lie on nothing
        self.network: nn.Module = _starting(recipe)
        self._crops = RegionCrops(kept, recipe.shares, self._sam.image_encoder.img_size, recipe.seed)
        self._weights = torch.tensor([recipe.focal_weight, recipe.dice_weight, recipe.overlap_weight])
        self.data = DataFacts(
            data.sha256,
            data.files,
            len({picture.patient for each in kept.values() for picture in each}),
            tuple({"name": "shared data, outlines", "licence": name, "files": n} for name, n in data.licences.items()),
        )

    @property
    def _sam(self) -> Any:
        return self.network

    def parts(self) -> Mapping[str, nn.Module]:
        """Nothing beside the network."""
        return {}

    def batch(self, step: int, rank: int, world: int, share: float) -> Mapping[str, Tensor]:
        """See ``RegionCrops.batch``; ``plan`` ``(N, 3)``: does a box begin, how many clicks, do masks go in."""
        recipe = self._recipe
        random = np.random.default_rng([recipe.seed, step, 1])
        crops = recipe.crops
        place = min(int(share * len(crops)), len(crops) - 1) if recipe.crop_order == "growing" else None
        side, count = crops[int(random.integers(len(crops))) if place is None else place]
        whole = self._crops.batch(step, side, count, recipe.things)
        clicks = int(random.integers(recipe.clicks[0], recipe.clicks[1] + 1))
        plan = torch.tensor([random.random() < _BOX_STEPS, clicks, random.random() < _MASK_STEPS], dtype=torch.int64)
        own, is_own = own_samples(count, rank, world)
        index = torch.tensor(list(own))
        mine = {name: part[index] for name, part in whole.items()}
        return marked({**mine, "plan": plan.expand(len(index), 3).clone()}, is_own)

    def loss(self, batch: Mapping[str, Tensor], share: float) -> tuple[Tensor, Mapping[str, float]]:
        """Two rounds: a click or a box; then further clicks where the first answer was wrong."""
        sam, things = self._sam, batch["masks"].shape[1]
        has_box, clicks, has_mask = (int(n) for n in batch["plan"][0])
        embeddings = sam.image_encoder(batch["pixels"].contiguous(memory_format=torch.channels_last))
        grid = embeddings.shape[-1]
        places = sam.prompt_encoder.get_dense_pe()[0]
        pe = torch.stack(
            [places[:, y // 8 : y // 8 + grid, x // 8 : x // 8 + grid] for x, y in batch["offset"].tolist()]
        )
        embeddings, pe = (part.repeat_interleave(things, dim=0) for part in (embeddings, pe))
        target = cut_target(batch["masks"].flatten(0, 1), 4 * grid)  # (M, h, w)
        shift = batch["offset"].float().repeat_interleave(things, dim=0)  # (M, 2)
        in_crop = batch["boxes"].flatten(0, 1) if has_box else None
        boxes = None if in_crop is None else in_crop + shift.repeat(1, 2)
        points = None if has_box else batch["points"].flatten(0, 1)[:, None]  # (M, P, 2) in the crop
        labels = None if points is None else torch.ones(points.shape[:2], device=points.device)

        def asked(masks: Tensor | None) -> tuple[Tensor, Tensor]:
            given = None if points is None or labels is None else (points + shift[:, None], labels)
            drawn = drawn_prompts(
                None if points is None or labels is None else (points, labels), in_crop, target.shape[-1]
            )
            sparse, dense = sam.prompt_encoder(points=given, boxes=boxes, masks=with_mask(drawn, masks))
            return predict_each(sam.mask_decoder, embeddings, pe, sparse, dense[..., :grid, :grid])

        logits, scores = asked(None)
        first = prompted_loss(logits.float(), scores.float(), target, not has_box, self._weights)
        shown = _shown(logits, scores, is_ambiguous=not has_box)
        more, kinds = _corrections(shown > 0, target >= 0.5, clicks - (0 if has_box else 1))
        more, kinds = more.to(target.device) * (batch["pixels"].shape[-1] / target.shape[-1]), kinds.to(target.device)
        points = more if points is None else torch.cat([points, more], dim=1)
        labels = kinds if labels is None else torch.cat([labels, kinds], dim=1)
        logits, scores = asked(shown.detach()[:, None].clamp(-8, 8) if has_mask else None)
        second = prompted_loss(logits.float(), scores.float(), target, False, self._weights)
        return first + second, {"first": float(first.detach()), "second": float(second.detach())}

    def judge(self, network: nn.Module) -> Judgement:
        """Mean over sources of the IoU after one and after three clicks, as the app answers them."""
        if not self._tuning:
            return Judgement(None)
        parameter = next(network.parameters())
        engine = SamEngine(
            {key: value.cpu() for key, value in network.state_dict().items()},
            "judged",
            device=str(parameter.device),
            encoder_dtype=torch.float32,
        )
        figures: dict[str, float] = {}
        samples: list[Sample] = []
        reached: list[NDArray[np.float64]] = []
        for source, pictures in self._tuning.items():
            found = []
            for picture in pictures:
                things = sorted(picture.things(), key=np.count_nonzero)
                for truth in _spread(things, _JUDGED_THINGS):
                    each, mask = _clicked(engine, picture, truth)
                    found.append(each)
                if len(samples) < SAMPLES and picture is pictures[0]:
                    shown = shown_pixels(picture.values, picture.window) / np.float32(255)
                    samples.append(Sample(shown, mask.astype(np.float32), truth.astype(np.float32)))
            reached.append(np.mean(found, axis=0))
            figures[source] = float(reached[-1][0])
        one, three = np.mean(reached, axis=0)
        return Judgement(float(one + three) / 2, {"iou_1": float(one), "iou_3": float(three), **figures}, samples)


def _clicked(
    engine: SamEngine, picture: RegionPicture, truth: NDArray[np.bool_]
) -> tuple[tuple[float, float], NDArray[np.bool_]]:
    """IoU after the first and the last click, and the last mask."""
    include: list[tuple[float, float]] = []
    exclude: list[tuple[float, float]] = []
    reached: list[float] = []
    found: NDArray[np.bool_] | None = None
    for _ in range(_JUDGED_CLICKS):
        click = next_click(truth, found)
        if click is None:
            break
        (include if click.is_include else exclude).append(click.point_xy)
        answers = engine.propose(picture.values, picture.window, Prompts(tuple(include), tuple(exclude)))
        found = answers[0].mask
        reached.append(overlap(found, truth))
    assert found is not None
    return (reached[0], reached[-1]), found


def _shown(logits: Tensor, scores: Tensor, is_ambiguous: bool) -> Tensor:
    """``(M, h, w)`` logits of what the app would show first."""
    start = 1 if is_ambiguous else 0
    best = scores[:, start:].argmax(dim=1) + start
    chosen: Tensor = logits[torch.arange(len(logits), device=logits.device), best]
    return chosen.detach()


def _corrections(found: Tensor, wanted: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``(M, count, 2)`` points ``x, y`` and ``(M, count)`` labels: the first in the middle of the largest error.

    The others fall anywhere on what is wrong; where nothing is, anywhere, with the label that is right there.
    """
    points, labels = torch.zeros(len(found), count, 2), torch.zeros(len(found), count)
    for m, (seen, truth) in enumerate(zip(found.cpu().numpy(), wanted.cpu().numpy(), strict=True)):
        click = next_click(truth, seen)
        wrong = np.flatnonzero(seen != truth) if click is not None else np.arange(truth.size)
        picks = wrong[torch.randint(len(wrong), (count,)).numpy()]
        rows, cols = np.unravel_index(picks, truth.shape)
        points[m] = torch.from_numpy(np.stack([cols, rows], axis=1).astype(np.float32))
        labels[m] = torch.from_numpy(truth[rows, cols].astype(np.float32))
        if click is not None:
            points[m, 0] = torch.tensor(click.point_xy)
            labels[m, 0] = float(click.is_include)
    return points, labels


def _starting(recipe: RegionsRecipe) -> nn.Module:
    torch.manual_seed(recipe.seed)
    try:
        network = make_small_sam(**recipe.config)
        if recipe.start_from:
            network.load_state_dict(read_sam_weights(weights_file(recipe.start_from)))
    except (TypeError, ValueError) as error:
        raise TrainingError("The configuration does not fit a small SAM", str(error)[:200]) from error
    except WeightsError as error:
        raise TrainingError(f"The training cannot start from these weights: {error.message}", error.hint) from error
    except RuntimeError as error:
        raise TrainingError(
            "The weights to start from belong to another network", "Take config from their card"
        ) from error
    return network


def _spread(entries: Sequence[Any], most: int) -> list[Any]:
    """At most so many of a list, evenly spaced."""
    if len(entries) <= most:
        return list(entries)
    return [entries[int(i)] for i in np.linspace(0, len(entries) - 1, most).round()]
