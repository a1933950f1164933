"""Records of a made-up world whose truth is known, as pma.reproduce leaves them: what the claims are tested on."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from pma.config import CONF_DIR
from pma.records import COLUMNS

V = 1024  # tokens
AXES = {"proxy": ["code", "reasoning", "knowledge", "math"], "instruct": ["knowledge", "math", "ood"]}
SIZE = {"moe_3b_30b": 2, "moe_10b_100b": 4, "moe_20b_200b": 8, "dense_2b": 2, "dense_8b": 4, "dense_70b": 8}
RATE = {"lr_quarter": 0.25, "lr_half": 0.5, "lr_double": 2, "lr_quadruple": 4}
FORK = {"annealed_moe_main": (168, 200), "annealed_moe_3b_30b": (40, 50), "annealed_moe_10b_100b": (40, 50)}
ITEMS = 40


@dataclass(frozen=True)
class World:
    """What is true in it; the defaults are what the paper says."""

    heat: float = 0.1  # what a constant learning rate costs, bits per byte; merging takes most of it away
    noise: float = 0.03  # of an item's score between two models
    recovers: bool = True  # the run resumed from a mean of snapshots
    control_recovers: bool = False
    collapses: bool = True
    accuracy_sign: int = 1  # -1: accuracy falls where bits per byte improve
    items: int = ITEMS

    def bits(self, run: str, point: float, method: str, n: int, interval: float) -> float:
        """True score of a model."""
        sign = math.copysign(1, self.heat) if self.heat else 0
        if run.startswith("sft_"):
            return 2.2 - 0.01 * point - 0.02 * sign * ("pma" in run)
        if run.startswith("continued"):
            return 2.4
        heat, level = self.heat * RATE.get(run, 1) ** 0.5, 3 - 0.05 * math.log(point)
        if run in FORK:
            fork, end = FORK[run]
            heat *= 1 - (point - fork) / (end - fork)
        if method == "last":
            return level + heat
        if method != "sma":
            early = {"wma": 0.5, "ema_0.2": 0.7, "ema_0.1": 1.2}[method] if point < 30 else 1.0
            return level + early * (heat / n + self._stale(point, 9, sign))
        best = SIZE.get(run, 1) / 2
        mismatch = 0.01 * sign * math.log2(interval / best) ** 2 if n == 6 and run != "moe_main" else 0.0
        return level + heat / n + self._stale(point, (n - 1) * interval, sign) * (run == "moe_main") + mismatch

    def _stale(self, point: float, window: float, sign: float) -> float:
        return 0.4 * sign * (window / point) ** 2


def rng_of(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def _write_experiment(folder: Path, experiment: dict, world: World) -> None:
    records, items = [], []
    for part in experiment.get("parts", []):
        suite, recipes = part.get("suite", "proxy"), part.get("recipes", [])
        models = [(p, r) for p in part.get("points", []) for r in recipes if p in r.get("points", [p])]
        models += [(max(part["points"]) - i, {"method": "last"}) for i in range(1, part.get("noise_points", 0))]
        for run in part["runs"]:
            for seed in range(part.get("seeds", 1)):
                for point, recipe in models:
                    rows, values = _score(run, seed, point, recipe, suite, world)
                    records += [{**row, "scale": "cpu", "experiment": experiment["name"]} for row in rows]
                    items += values
    out = folder / experiment["name"]
    out.mkdir()
    if records:
        pd.DataFrame(records).assign(stderr=0.0, config_hash="0")[COLUMNS].to_csv(out / "records.csv", index=False)
        pd.DataFrame(items).to_parquet(out / "items.parquet")
    runs = [f"{run}-seed0" for part in experiment.get("parts", []) for run in part["runs"]]
    manifest = {"runs": dict.fromkeys(runs, "0"), "merge_interval": V, "seconds": 6.0}
    (out / "manifest.json").write_text(json.dumps(manifest))


def _score(run: str, seed: int, point: float, recipe: dict, suite: str, world: World) -> tuple[list, list]:
    n, interval, alpha = recipe.get("n", 1), recipe.get("interval", 1), recipe.get("alpha")
    method = recipe["method"] + (f"_{alpha:g}" if alpha else "")
    key = {"run": run, "seed": seed, "tokens": round(point * V), "method": method, "n": n}
    key |= {"interval": round(interval * V), "suite": suite}
    truth = world.bits(run, point, method, n, interval)
    rows, items, means = [], [], {"acc": [], "bits_per_byte": []}
    for task in AXES[suite]:
        difficulty = rng_of("item", suite, task).normal(0, 0.8, world.items)
        noise = rng_of(run, seed, point, method, n, interval, suite, task).normal(0, world.noise, world.items)
        bits = truth + difficulty + noise
        side = truth - 2.8 if world.accuracy_sign > 0 else 2.8 - truth
        right = (difficulty + 4 * side + noise < 0).astype(float)
        for metric, values in (("acc", right), ("bits_per_byte", bits)):
            items.append({**key, "task": task, "metric": metric, "values": values.astype(np.float32)})
            means[metric].append(values.mean())
    for metric, of_tasks in means.items():
        rows.append({**key, "task": "average", "metric": metric, "value": np.mean(of_tasks)})
    return rows, items


def write_run(folder: Path, run: str, world: World) -> None:
    out = folder / f"{run}-seed0"
    out.mkdir()
    fork, end = FORK.get(run, (0, 50))
    config = {
        "model": {"name": f"cpu/{run}", "kind": "moe", "stands_for": run},
        "schedule": {"peak_lr": 4e-3 * RATE.get(run, 1)},
        "init": {"parent": {"tokens": fork * V}},
        "train": {"total_tokens": end * V},
    }
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    manifest = {"parameters": {"total": 500_000 * SIZE.get(run, 1), "active": 250_000}, "seconds": 60.0}
    (out / "manifest.json").write_text(json.dumps(manifest))
    steps, rng = np.arange(1, 161), rng_of(run, "curve")
    sign = math.copysign(1, world.heat) if world.heat else 0
    loss = 2.4 - 0.0005 * steps + 0.02 * rng_of("batches").normal(size=160) + 0.003 * rng.normal(size=160)
    loss -= 0.1 * sign * np.exp(-steps / 20) * ("pma" in run)
    stays = {"spike": not world.collapses, "spike_pma": world.recovers, "spike_last": world.control_recovers}.get(
        run, True
    )
    loss += 3 * (steps > 80) * (not stays)
    norm = np.exp((0.15 - 0.05 * sign * ("pma" in run)) * rng.normal(size=160)) * (1 - 0.2 * sign * ("pma" in run))
    rows = list(zip(steps, loss, norm, strict=True))[60 if run in ("spike_pma", "spike_last") else 0 :]
    lines = [json.dumps({"tokens": int(s) * 64, "loss": a, "lr": 1e-3, "gradient_norm": g}) for s, a, g in rows]
    (out / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def _write_measurements(folder: Path, world: World) -> None:
    rows, sign = [], math.copysign(1, world.heat) if world.heat else 0
    for plane in ("principal", "weights"):
        angles = 2 * np.pi * np.arange(10) / 10
        dots = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        optimum = (0.25, 0.0) if sign > 0 else (1.0, 0.0)
        points = [("grid", i / 4, j / 4) for i in range(-6, 7) for j in range(-6, 7)]
        points += [("snapshot", *dot) for dot in dots] + [("merged", 0.0, 0.0)]
        far = 0.0 if sign > 0 else 3.0  # then the merged model lies outside the snapshots
        for role, x, y in points:
            x += far if role == "merged" else 0.0
            value = 2 + (x - optimum[0]) ** 2 + (y - optimum[1]) ** 2
            rows.append(("moe_main", "mean", plane, role, 0, x, y, "bits_per_byte", value))
    columns = ["run", "reference", "plane", "role", "snapshot", "x", "y", "metric", "value"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "figure_8" / "landscape.csv", index=False)
    terms, losses, annealed = [], [], "annealed_moe_main"
    for run, reference in (("moe_main", annealed), ("moe_main", "mean"), (annealed, annealed)):
        d = rng_of(run, reference).normal(size=(10, 60)) + (reference != "mean")
        signs = np.where(np.arange(60) < (60 if sign > 0 else 20), 1.0, -1.0)  # of the curvature
        matrix = (d * signs) @ d.T / 1000
        terms += [(run, reference, "hessian", i + 1, j + 1, matrix[i, j]) for i in range(10) for j in range(10)]
        losses += [(run, reference, f"snapshot_{i}", 2.5) for i in range(1, 11)] + [(run, reference, "merged", 2.47)]
    out = folder / "equation_15"
    pd.DataFrame(terms, columns=["run", "reference", "term", "i", "j", "value"]).to_csv(out / "curvature_terms.csv")
    pd.DataFrame(losses, columns=["run", "reference", "name", "value"]).to_csv(out / "curvature_losses.csv")


def write_world(folder: Path, world: World) -> Path:
    """Records of every experiment of conf/experiment, as pma.reproduce leaves them."""
    folder.mkdir(parents=True)
    runs = set()
    for path in sorted((CONF_DIR / "experiment").glob("*.yaml")):
        experiment = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not experiment.get("includes"):
            _write_experiment(folder, experiment, world)
            runs |= {run for part in experiment.get("parts", []) for run in part["runs"]}
    for run in sorted(runs):
        write_run(folder, run, world)
    _write_measurements(folder, world)
    return folder
