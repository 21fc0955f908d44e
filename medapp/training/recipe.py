"""A training recipe: everything that decides what comes out, as JSON beside the card of the model it makes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from medapp.errors import TrainingError
from medapp.networks.registry import architecture

LOSSES = ("log_error", "focal_region")


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, and how.

    Attributes:
        name: Of the model; also its file name.
        version: Of the model.
        task: ``ct-denoise``.
        architecture: Name in the registry, with its constructor arguments in ``config``.
        value_range: Range of native values ``(low, high)`` that the network is made for; HU for CT.
        network_range: What the network sees for that range; the map is linear.
        crops: ``(side in px, batch)`` pairs drawn in turn at random. A mix, because whatever pools over the image sees
            another image in a crop than in a whole slice.
        noise_sigma: Noise levels ``(low, high)`` in native units, drawn uniformly in their logarithm, so that light
            noise is trained as much as heavy.
        doses: Fractions of the full dose ``(low, high)`` at which noise is simulated before it is scaled to a level.
        noise_fields: Realisations per slice.
        reference_noise_limit: Slices noisier than this (native units, high-pass estimate) are no reference.
        focus: Native values ``(low, high)`` that matter most, the display window with a margin.
        outside_weight: Weight of errors outside of ``focus``.
        loss: ``log_error``, or ``focal_region`` for networks with region maps.
        focal_beta: Additional weight of the worst region in ``focal_region``.
        own_loss_weight: Weight of what a network adds to the loss by itself, such as the balance of AMIR's routers.
        learning_rate, iterations, warm_up, cool_down: AdamW; constant rate, linear rise and fall at the ends.
        tuning_patients: Held out of the training rows to choose the best checkpoint.
    """

    name: str
    version: str = "1"
    task: str = "ct-denoise"
    architecture: str = "restore_rwkv"
    config: dict[str, Any] = field(default_factory=dict)
    value_range: tuple[float, float] = (-1024.0, 3072.0)
    network_range: tuple[float, float] = (-8.0, 24.0)
    crops: tuple[tuple[int, int], ...] = ((96, 7), (128, 4), (192, 2), (256, 1))
    noise_sigma: tuple[float, float] = (4.0, 120.0)
    doses: tuple[float, float] = (0.05, 1.0)
    noise_fields: int = 3
    reference_noise_limit: float = 9.0
    focus: tuple[float, float] = (-200.0, 280.0)
    outside_weight: float = 0.1
    loss: str = "log_error"
    focal_beta: float = 1e-3
    own_loss_weight: float = 1e-3
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    gradient_limit: float = 1.0
    average_decay: float = 0.999
    iterations: int = 6000
    warm_up: int = 100
    cool_down: int = 1500
    check_every: int = 250
    tuning_patients: tuple[str, ...] = ()
    seed: int = 0

    def to_json(self) -> str:
        """Readable JSON text."""
        return json.dumps(asdict(self), indent=2)

    def rate(self, iteration: int) -> float:
        """Learning rate of an iteration."""
        rise = min(1.0, (iteration + 1) / max(1, self.warm_up))
        fall = min(1.0, (self.iterations - iteration) / max(1, self.cool_down))
        return self.learning_rate * max(0.01, min(rise, fall))


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
        raise TrainingError("The recipe is not readable JSON", "Compare it with a recipe in models/") from error
    return recipe_of(entries)


def recipe_of(entries: Any) -> Recipe:
    """Check the entries of a recipe.

    Raises:
        TrainingError: They are not a usable recipe.
    """
    if not isinstance(entries, dict) or not isinstance(entries.get("name"), str):
        raise TrainingError("The recipe needs a name", "Compare it with a recipe in models/")
    known = {entry.name for entry in fields(Recipe)}
    surplus = sorted(set(entries) - known)
    if surplus:
        raise TrainingError(f"The recipe has unknown entries: {', '.join(surplus[:5])}", "Remove or rename them")
    try:
        recipe = Recipe(**{key: _tuples(value) for key, value in entries.items()})
        usable = (
            recipe.iterations > 0
            and recipe.learning_rate > 0
            and all(side % 8 == 0 and side > 0 and batch > 0 for side, batch in recipe.crops)
            and all(low < high for low, high in (recipe.value_range, recipe.network_range, recipe.noise_sigma))
            and 0 < recipe.doses[0] <= recipe.doses[1]
            and recipe.noise_sigma[0] > 0
            and recipe.noise_fields > 0
            and recipe.loss in LOSSES
            and (recipe.loss != "focal_region" or "region_map" in architecture(recipe.architecture).inputs)
        )
    except (TypeError, ValueError) as error:
        raise TrainingError(
            "The recipe has an entry of the wrong kind", "Compare it with a recipe in models/"
        ) from error
    if not usable:
        raise TrainingError(
            "The recipe has an entry that cannot work",
            "Crops are multiples of 8; ranges rise; counts are positive; focal_region needs a network with regions",
        )
    return recipe


def _tuples(value: Any) -> Any:
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value
