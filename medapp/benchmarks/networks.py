"""``medapp bench networks``: seconds and peak memory of every network, and of the two attentions that are ours.

Every row is measured in a process of its own, in the environment of the app's workers. A row that has a limit
says in ``ok`` whether it is kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from medapp.benchmarks.timing import row
from medapp.jobs.queue import WORKER_ENVIRONMENT

Row = dict[str, Any]
Runner = Callable[[str, int, Mapping[str, Any]], dict[str, Any]]

THREADS = 2
CASE_LIMIT_S = 3600
MOST_MB = 4000
RAT_MOST_MB = 1300
RAT_RATIO = 1 / 7
WKV_RATIO = 1 / 100
WKV_ERROR = 1e-7
WKV_ACTIVATIONS = 12
GROWTH_PER_STEP = 4.4


@dataclass(frozen=True)
class Subject:
    """A network to be measured, in its default configuration or a small one.

    Attributes:
        name: Of the architecture.
        shape: ``(1, C, ...)``.
        config: Constructor arguments.
        note: What distinguishes it from others of its architecture.
    """

    name: str
    shape: tuple[int, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def title(self) -> str:
        """Name, note and size, for a row."""
        return f"{self.name}{self.note and ' ' + self.note}, {' x '.join(str(side) for side in self.shape[2:])}"


@dataclass(frozen=True)
class Sizes:
    """How large and how often."""

    subjects: tuple[Subject, ...]
    wkv_tokens: int = 128**2
    wkv_channels: int = 48
    growth_sides: tuple[int, ...] = (256, 512, 1024)
    rat_config: Mapping[str, Any] = field(default_factory=dict)
    rat_side: int = 256
    modes_side: int = 256
    repeats: int = 2
    batches: tuple[int, ...] = (1, 8)


def _subjects(side: int, window: int, toys: Mapping[str, Mapping[str, Any]]) -> tuple[Subject, ...]:
    """All of the seven; in three dimensions by their window."""
    flat, colour, cube = (1, 1, side, side), (1, 3, side, side), (1, 1, window, window, window)
    return (
        Subject("restore_rwkv", flat, toys.get("restore_rwkv", {})),
        Subject("amir", flat, toys.get("amir", {})),
        Subject("drmc", flat, {**toys.get("drmc", {}), "dims": 2}, "2-D"),
        Subject("drmc", cube, {**toys.get("drmc", {}), "dims": 3}, "3-D"),
        Subject("rat", flat, toys.get("rat", {})),
        Subject("sgsgan", flat, {**toys.get("sgsgan", {}), "dims": 2}, "2-D generator"),
        Subject("medical_matting", flat, toys.get("medical_matting", {})),
        Subject("pddm", colour, toys.get("pddm", {})),
    )


_TOYS: Mapping[str, Mapping[str, Any]] = {
    "restore_rwkv": {"dim": 4, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1},
    "amir": {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1},
    "drmc": {"n_feats": 16, "res_num": 1},
    "rat": {"width": 8, "middle_blk_num": 3, "enc_blk_nums": (1, 1), "dec_blk_nums": (1, 1)},
    "sgsgan": {"channels": (4, 8, 8, 8), "style_width": 8},
    "medical_matting": {"num_filters": (4, 8), "hidden_channel": 4, "num_sampling": 2},
    "pddm": {"widths": (8, 8, 16, 16), "blocks": (1, 1, 1, 1), "embedding": 16, "seed_bins": 4},
}
FULL = Sizes(_subjects(512, 64, {}))
QUICK = Sizes(
    _subjects(64, 16, _TOYS),
    wkv_tokens=256,
    wkv_channels=4,
    growth_sides=(8, 16),
    rat_config=_TOYS["rat"],
    rat_side=64,
    modes_side=32,
    repeats=1,
    batches=(1,),
)


def run(quick: bool = False) -> Iterator[Row]:
    """Rows as they are measured.

    Args:
        quick: Toy sizes in this process, to see that every row can be made; the figures mean nothing.
    """
    sizes, runner = (QUICK, _in_this_process) if quick else (FULL, _in_own_process)
    yield from _wkv_rows(sizes, runner)
    yield from _region_rows(sizes, runner)
    yield from _network_rows(sizes, runner)
    yield from _mode_rows(sizes, runner)
    yield from _device_rows(sizes, runner)


def _wkv_rows(sizes: Sizes, runner: Runner) -> Iterator[Row]:
    given = {"tokens": sizes.wkv_tokens, "channels": sizes.wkv_channels, "repeats": 15 * sizes.repeats}
    found = runner("wkv", THREADS, given)
    memory = runner("wkv_size", THREADS, given)
    name = f"WKV, {sizes.wkv_tokens:,} tokens x {sizes.wkv_channels} channels"
    speed = row(name, found["ms"], "float32 loop over tokens", found["peer_ms"])
    error, activations = found["max_error_float64"], memory["activations"]
    is_ok = speed["ratio"] <= WKV_RATIO and error < WKV_ERROR and activations <= WKV_ACTIVATIONS
    yield {
        **speed,
        "max_error_float64": error,
        "peer_max_error_float64": found["peer_max_error_float64"],
        "peak_activations": round(activations, 2),
        "ok": is_ok,
    }
    yield from _growing(
        f"WKV, {sizes.wkv_channels} channels, untiled",
        sizes,
        lambda side: runner(
            "wkv_size", THREADS, {"tokens": side**2, "channels": sizes.wkv_channels, "repeats": sizes.repeats}
        ),
    )
    rwkv = sizes.subjects[0]
    yield from _growing(
        f"{rwkv.name}, untiled",
        sizes,
        lambda side: runner(
            "network", THREADS, {"name": rwkv.name, "config": rwkv.config, "shape": (1, 1, side, side), "repeats": 1}
        ),
    )


def _growing(name: str, sizes: Sizes, measure: Callable[[int], dict[str, Any]]) -> Iterator[Row]:
    """A row a side, each with its growth over the side before: of the quickest run, and of the memory it added."""
    before: dict[str, Any] = {}
    for side in sizes.growth_sides:
        found = measure(side)
        line = {**row(f"{name}, {side} x {side}", found["ms"]), "growth_mb": round(found["growth_mb"], 1)}
        if before:
            line["times_longer"] = round(min(found["ms"]) / min(before["ms"]), 2)
            line["times_larger"] = round(found["growth_mb"] / max(before["growth_mb"], 0.1), 2)
            line["ok"] = max(line["times_longer"], line["times_larger"]) <= GROWTH_PER_STEP
        before = found
        yield line


def _region_rows(sizes: Sizes, runner: Runner) -> Iterator[Row]:
    given = {"config": sizes.rat_config, "side": sizes.rat_side, "repeats": sizes.repeats}
    found = runner("regions", THREADS, given)
    name = f"rat, {sizes.rat_side} x {sizes.rat_side}, regions sorted"
    speed = row(name, found["ms"], "the same with an N x N mask", found["peer_ms"])
    extra = {key: found[key] for key in ("max_difference", "fill")}
    yield {**speed, **extra, "ok": speed["ratio"] <= RAT_RATIO}
    check = runner("region_check", THREADS, {"tokens": 1024, "channels": 256, "heads": 8})
    yield {**row("region attention against float64, 1,024 tokens x 256 channels", [0.0]), **check}


def _network_rows(sizes: Sizes, runner: Runner) -> Iterator[Row]:
    for subject in sizes.subjects:
        given = {"name": subject.name, "config": subject.config, "shape": subject.shape, "repeats": sizes.repeats}
        found = runner("network", THREADS, given)
        most = RAT_MOST_MB if subject.name == "rat" else MOST_MB
        yield {
            **row(subject.title, found["ms"]),
            "peak_mb": round(found["peak_mb"]),
            "growth_mb": round(found["growth_mb"]),
            "ok": found["peak_mb"] <= most,
        }


def _mode_rows(sizes: Sizes, runner: Runner) -> Iterator[Row]:
    side = sizes.modes_side
    for subject in sizes.subjects:
        if len(subject.shape) > 4:
            continue
        shape = (*subject.shape[:2], side, side)
        given = {"name": subject.name, "config": subject.config, "shape": shape, "repeats": sizes.repeats}
        found = runner("modes", THREADS, given)
        for mode in ("bf16", "channels-last"):
            title = f"{Subject(subject.name, shape, note=subject.note).title}, {mode}"
            line = row(title, found["ms"][mode], "float32", found["ms"]["float32"])
            yield {**line, "relative_difference": found["difference"][mode]}


def _device_rows(sizes: Sizes, runner: Runner) -> Iterator[Row]:
    """Images per second on a GPU, where there is one; numbers checked there against float64."""
    import torch

    if not torch.cuda.is_available():
        return
    given = {"tokens": sizes.wkv_tokens, "channels": sizes.wkv_channels, "repeats": 15 * sizes.repeats}
    found = runner("wkv", THREADS, {**given, "device": "cuda"})
    speed = row("GPU: WKV", found["ms"], "float32 loop over tokens", found["peer_ms"])
    yield {**speed, "max_error_float64": found["max_error_float64"]}
    check = runner("region_check", THREADS, {"tokens": 1024, "channels": 256, "heads": 8, "device": "cuda"})
    yield {**row("GPU: region attention against float64", [0.0]), **check}
    for subject in sizes.subjects:
        for dtype in ("float32", "bfloat16"):
            for batch in sizes.batches:
                shape = (batch, *subject.shape[1:])
                case = {"name": subject.name, "config": subject.config, "shape": shape, "repeats": 5}
                found = runner("network", THREADS, {**case, "device": "cuda", "dtype": dtype})
                line = row(f"GPU: {subject.title}, {dtype}, batch {batch}", found["ms"])
                per_second = round(1000 * batch / line["p50_ms"], 2)
                yield {
                    **line,
                    "images_per_s": per_second,
                    "peak_mb": round(found["peak_mb"]),
                    "ok": found["is_finite"],
                }


def _in_own_process(case: str, threads: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Run a case in a new process with so many threads, in the workers' environment."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "medapp.benchmarks.network_cases",
            json.dumps({**given, "case": case, "threads": threads}),
        ],
        env={**WORKER_ENVIRONMENT, **os.environ, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=CASE_LIMIT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{case} {dict(given)} failed: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _in_this_process(case: str, threads: int, given: Mapping[str, Any]) -> dict[str, Any]:
    from medapp.benchmarks.network_cases import CASES  # torch: only where it is used

    return CASES[case](**given)
