"""Records of a made-up world whose truth is known, as pma.reproduce leaves them: what the claims are tested on.

write_world(tmp_path / "cpu", World(), seeds=[0, 2, 3])
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pma.config import CONF_DIR
from pma.records import COLUMNS

V = 1024  # tokens
BATCH = 64  # tokens of a step
SEEDS = (0, *range(2, 10))  # as published
ITEMS = 6
STEPS = 120  # of the runs whose curves decide something
SIZE = {"moe_3b_30b": 2, "moe_10b_100b": 4, "moe_20b_200b": 8, "dense_2b": 2, "dense_8b": 4, "dense_70b": 8}
BATCH_SIZE = {"batch_half": 0.5, "batch_double": 2, "batch_quadruple": 4}
RATE = {"lr_quarter": 0.25, "lr_half": 0.5, "lr_double": 2, "lr_quadruple": 4}
AXES = {
    "proxy": ("code", "reasoning", "knowledge", "math"),
    "instruct": ("math", "reasoning", "knowledge", "dialogue", "ood"),
    "reward": ("reasoning",),
}
CURVES = ("continued_", "sft_", "lr_", "dense_411m")
EARLY = {"wma": 0.5, "ema_0.2": 0.7, "ema_0.1": 1.2}  # how much of SMA's excess a method has at the first point


@dataclass(frozen=True)
class World:
    """What is true in it; the defaults are what the paper says."""

    heat: float = 0.1  # what a constant learning rate costs, bits per byte; merging and annealing take most of it away
    noise: float = 2e-4  # of one model's score
    between: float = 0.2  # share by which the heat of odd seeds lies above that of even ones, and below
    tasks_sign: int = 1  # -1: on the questions, what helps held-out text hurts

    @property
    def sign(self) -> float:
        """Whose side all effects are on."""
        return math.copysign(1, self.heat) if self.heat else 0.0

    def bits(self, experiment: str, run: str, seed: int, point: float, method: str, n: int, interval: float) -> float:
        """True score of a model."""
        heat = self.heat * (1 + self.between * (-1) ** seed)
        level = 3 - 0.05 * math.log(point + 1)
        if experiment == "post_training":  # a merge is as much better than its last model as it is rewarded less
            return level - 0.02 * self.sign * (method != "last")
        if experiment == "merged_orders":
            return level - 0.02 * self.sign * (method != "last")
        if experiment == "overwritten" and run == "moe_main_overwritten":
            method, n = "sma", 10  # as good as the merge aside
        if run.startswith("sft_"):
            return level - 0.02 * self.sign * (("pma" in run) - ("annealed" in run))
        if run.startswith("continued"):
            return level
        if experiment in ("anytime", "averages") and (run != "moe_main" or method == "1-sqrt"):
            return level + heat * (0.02 if method == "1-sqrt" else 0.1)
        heat *= RATE.get(run, 1) ** 0.5 / BATCH_SIZE.get(run, 1) * (1 - 0.9 * self._annealed(run, point))
        if method == "last":
            return level + heat
        if experiment == "averaged_decay":
            return level + heat - 2 * self.heat / _fork(run)[1]
        if experiment == "duration":
            return level + heat / (n * interval)
        if experiment == "interval_by_size":  # the best V doubles with the size
            best = SIZE.get(run, 1) / 2
            return level + heat / 6 + 0.0008 * self.sign * math.log2(interval / best) ** 2
        stale = 0.4 * self.sign * ((n - 1) * interval / point) ** 2 * (run == "moe_main")
        return level + (heat / n + stale) * (EARLY.get(method, 1.0) if point < 30 else 1.0)

    @staticmethod
    def _annealed(run: str, point: float) -> float:
        """How far a run's annealing has come, 0 to 1."""
        fork = _fork(run)
        return 0.0 if fork is None else (point - fork[0]) / fork[1]


def _fork(run: str) -> tuple[float, float] | None:
    """Where a run forks off and over how many V it anneals."""
    if run.startswith("annealed_"):
        return 168, 32
    if run.startswith("decay_"):
        _, length, _, position = run.split("_")
        return int(position), int(length)
    return None


def _parent(run: str) -> str | None:
    if run.startswith(("decay_", "continued_", "sft_")) or run == "annealed_moe_main":
        return "moe_main"
    return "moe_3b_30b" if run == "annealed_moe_3b_30b" else None


def rng_of(*key: object) -> np.random.Generator:
    """The same numbers for the same key, on every machine."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


@cache
def experiments(below: str = "experiment") -> tuple[dict[str, Any], ...]:
    """The files of a folder of conf, without those that only include others."""
    read = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((CONF_DIR / below).glob("*.yaml")))
    return tuple(experiment for experiment in read if not experiment.get("includes"))


def write_world(
    folder: Path, world: World, seeds: Sequence[int] = SEEDS, below: str = "experiment", only: Collection[str] = ()
) -> Path:
    """Records of every experiment in a folder of conf, or only of some, as pma.reproduce leaves them."""
    folder.mkdir(parents=True)
    runs: set[str] = set()
    for experiment in (each for each in experiments(below) if not only or each["name"] in only):
        runs |= _write_experiment(folder, experiment, world, seeds)
    for run in sorted(runs):
        for seed in seeds:
            write_run(folder, run, seed, world)
    return folder


# ---- experiments


def _write_experiment(folder: Path, experiment: dict[str, Any], world: World, seeds: Sequence[int]) -> set[str]:
    out, name = folder / experiment["name"], experiment["name"]
    out.mkdir()
    records: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    for suite, run, point, recipe in _models(experiment):
        for seed in seeds:
            rows, values = _score(name, run, seed, point, recipe, suite, world)
            records += rows
            items += values
    if records:
        rest = {"scale": "cpu", "experiment": name, "stderr": 0.01, "config_hash": "0"}
        table = pd.DataFrame(records).assign(**rest)[COLUMNS]
        table.drop_duplicates(COLUMNS[2:11]).to_csv(out / "records.csv", index=False)
        pd.DataFrame(items).to_parquet(out / "items.parquet")
    runs = {run for part in experiment.get("parts", []) for run in part["runs"]}
    for measurement in experiment.get("measurements", []):
        runs |= {measurement["run"], measurement.get("reference", measurement["run"])}
        write = _write_landscape if measurement["kind"] == "landscape" else _write_curvature
        write(out, seeds, world, measurement)
    folders = {f"{run}-seed{seed}": "0" for run in sorted(runs) for seed in seeds}
    manifest = {"experiment": experiment, "runs": folders, "merge_interval": V, "seconds": 6.0 * len(seeds)}
    (out / "manifest.json").write_text(json.dumps(manifest))
    return runs


def _models(experiment: dict[str, Any]) -> Iterator[tuple[str, str, float, dict[str, Any]]]:
    for part in experiment.get("parts", []):
        points, recipes = part.get("points", []), part.get("recipes", [])
        models = [(p, r) for p in points for r in recipes if p in r.get("points", [p])]
        models += [(max(points) - i, {"method": "last"}) for i in range(1, part.get("noise_points", 0))]
        for run in part["runs"]:
            for point, recipe in models:
                yield part.get("suite", "proxy"), run, point, recipe


def _score(
    experiment: str, run: str, seed: int, point: float, recipe: dict[str, Any], suite: str, world: World
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    n, interval, alpha = recipe.get("n", 1), recipe.get("interval", 1), recipe.get("alpha")
    if others := recipe.get("others"):
        n, interval = 1 + len(others), 0
    method = recipe["method"] + (f"_{alpha:g}" if alpha else "")
    key = {"run": run, "seed": seed, "tokens": round(point * V), "method": method, "n": n}
    key |= {"interval": round(interval * V), "suite": suite}
    noise = rng_of(run, seed, point, method, n, interval).normal(0, world.noise)
    bits = world.bits(experiment, run, seed, point, method, n, interval) + noise
    tasks = bits if world.tasks_sign > 0 else 6 - bits
    values = {("average", "bits_per_byte"): tasks, ("average", "choice"): bits, ("average", "acc"): 0.9 - tasks / 6}
    if suite == "reward":
        values = {("average", "reward"): bits - 2.5}
        return [{**key, "task": task, "metric": metric, "value": value} for (task, metric), value in values.items()], []
    values |= {(axis, metric): values["average", metric] for axis in AXES[suite] for metric in ("bits_per_byte", "acc")}
    if suite == "proxy":
        values |= {("heldout", "bits_per_byte"): bits, ("heldout_code", "bits_per_byte"): bits}
    rows = [{**key, "task": task, "metric": metric, "value": value} for (task, metric), value in values.items()]
    scatter = np.linspace(-0.1, 0.1, ITEMS)
    items = [
        {**key, "task": task, "metric": metric, "values": (value + scatter).astype(np.float32)}
        for (task, metric), value in values.items()
        if task not in ("average", "heldout")
    ]
    return rows, items


def _write_landscape(out: Path, seeds: Sequence[int], world: World, measurement: dict[str, Any]) -> None:
    """A bowl with its optimum at (1, 0); lines to it from ten snapshots and from their merge, which is the nearest."""
    rows = []
    for seed in seeds:
        for metric in ("loss", "bits_per_byte"):
            rows += [
                (seed, "grid", 0, x, y, 0.0, metric, 2 + (x - 1) ** 2 + y**2) for x in range(4) for y in range(-2, 3)
            ]
            rows.append((seed, "optimum", 0, 1, 0, 0.0, metric, 2.0))
            rows += [(seed, "snapshot", i * V, 0.1 * i, 1, 0.0, metric, 2.5) for i in range(1, 11)]
            rows += [(seed, role, 0, 0.5, 0.5, 0.0, metric, 2.4) for role in ("merged", "annealed")]
        rows += [(seed, "outside", i, 0, -0.2 * i, 0.0, "loss", math.nan) for i in range(10)]
        for i in range(11):  # 0 is the merge
            excess = 0.5 if i else 0.5 - 0.3 * world.sign
            rows += [(seed, "line", i * V, 0, 0, 1 - left, "loss", 2.0 + excess * left) for left in (1.0, 0.5)]
    table = pd.DataFrame(rows, columns=["seed", "role", "tokens", "x", "y", "along", "metric", "value"])
    table.assign(run=measurement["run"], share=0.1).to_csv(out / "landscape.csv", index=False)


def _write_curvature(out: Path, seeds: Sequence[int], world: World, measurement: dict[str, Any]) -> None:
    """Hessian terms of 1 on the diagonal and less beside it, and merges that gain what these predict.

    Both are in proportion to the size and the learning rate of the run.
    """
    run = measurement["run"]
    factor = SIZE.get(run, 1) * RATE.get(run, 1) / BATCH_SIZE.get(run, 1)
    end, windows = measurement["end"] * V, [(w["n"], round(w["interval"] * V)) for w in measurement["windows"]]
    points = sorted({end - i * interval for n, interval in windows for i in range(n)})
    cross = 1 - 0.5 * world.sign
    terms, losses = [], []
    for seed in seeds:
        terms += [(seed, "hessian", i, j, factor * (1.0 if i == j else cross)) for i in points for j in points]
        losses += [(seed, "snapshot", 1, 0, point, 3.0) for point in points]
        for n, interval in windows:
            gain = factor * (n - 1) * n * (1 - cross) / (2 * n**2)  # (right - left) / (2 k^2)
            losses.append((seed, "merged", n, interval, end, 3.0 - gain * (1 + 0.01 * (-1) ** seed)))
    of_run = {"run": run}
    terms_table = pd.DataFrame(terms, columns=["seed", "term", "i", "j", "value"]).assign(**of_run)
    _add_rows(terms_table, out / "curvature_terms.csv")
    losses_table = pd.DataFrame(losses, columns=["seed", "what", "n", "interval", "tokens", "value"]).assign(**of_run)
    _add_rows(losses_table, out / "curvature_losses.csv")


def _add_rows(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, mode="a", header=not path.exists())


# ---- runs


def _stands_for(model: str) -> str:
    """The paper's size: 3B/30B of moe_3b_30b."""
    return "1.3B/13B" if model == "moe_main" else "/".join(model.upper().split("_")[1:])


def write_run(folder: Path, run: str, seed: int, world: World) -> None:
    """Config, manifest and curve of a run."""
    out = folder / f"{run}-seed{seed}"
    out.mkdir()
    kind = "dense" if run.startswith(("dense", "lr", "batch")) else "moe"
    model = run if run in SIZE else _parent(run) or ("dense_411m" if kind == "dense" else "moe_main")
    parent = _parent(run)
    config = {
        "model": {"name": f"cpu/{model}", "kind": kind, "stands_for": _stands_for(model)},
        "schedule": {"peak_lr": 4e-3 * RATE.get(run, 1), "end_lr": 1e-4, "warmup_tokens": 6 * BATCH},
        "scale": {"merge_interval": V, "batch_tokens": BATCH, "sequence_length": 16, "micro_batches": 1},
        "data": {"name": "made-up"},
        "seed": seed,
        "init": {"parent": {"run": parent, "seed": seed, "tokens": 0, "n": 10, "interval": V}},
        "train": {"total_tokens": 200 * V},
    }
    if fork := _fork(run):
        config["schedule"]["decay_tokens"] = fork[1] * V
    (out / "config.yaml").write_text(json.dumps(config))
    counts = {"total": 500_000 * SIZE.get(run, 1), "active": 250_000}
    manifest = {
        "parameters": counts,
        "seed": seed,
        "config_hash": "0",
        "tokens": BATCH * _steps(run),  # where its curve ends
        "seconds": 60.0,
        "device": "cpu",
    }
    (out / "manifest.json").write_text(json.dumps(manifest))
    (out / "metrics.jsonl").write_text(_curve(run, seed, world))


def _steps(run: str) -> int:
    return STEPS if run.startswith(CURVES) else 4


def _curve(run: str, seed: int, world: World) -> str:
    """Loss and gradient norm; runs from a merge start lower, and have smaller and steadier norms."""
    steps = np.arange(1, _steps(run) + 1)
    merged, rng = world.sign * ("pma" in run), rng_of(run, seed, "curve")
    loss = 2.4 - 5e-4 * steps + 0.02 * rng_of("batches", seed).normal(size=len(steps))
    loss += 1e-4 * rng.normal(size=len(steps)) - 0.1 * merged * np.exp(-steps / 12)
    norm = (1 - 0.2 * merged) * (1 + (0.15 - 0.05 * merged) * rng.normal(size=len(steps)))
    rows = zip(steps, loss, norm, strict=True)
    lines = (json.dumps({"tokens": int(s) * BATCH, "loss": a, "lr": 1e-3, "gradient_norm": g}) for s, a, g in rows)
    return "\n".join(lines) + "\n"
