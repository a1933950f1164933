"""Every figure and the table, drawn from synthetic records: they say nothing but that the drawing works."""

from __future__ import annotations

import importlib
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pma.config import CONF_DIR, ROOT
from pma.records import COLUMNS

sys.path.insert(0, str(ROOT / "analysis"))
style = importlib.import_module("style")

V = 32768
AXES = {"proxy": ["code", "reasoning", "knowledge", "math"]}
AXES["instruct"] = ["knowledge", "math", "reasoning", "dialogue", "ood"]
DOMAINS = ["heldout_code", "heldout_bible", "heldout_dictionary"]
SIZES = {
    "moe_main": (576_320, "1.3B/13B"), "moe_3b_30b": (1_399_904, "3B/30B"), "moe_10b_100b": (2_398_912, "10B/100B"),
    "moe_20b_200b": (4_392_864, "20B/200B"), "dense_411m": (181_776, "411M"), "dense_2b": (425_936, "2B"),
    "dense_8b": (822_288, "8B"), "dense_70b": (1_513_680, "70B"),
}  # fmt: skip
FORKS = {"spike", "spike_pma", "spike_last"}
RATES = {"lr_quarter": 0.25, "lr_half": 0.5, "lr_double": 2, "lr_quadruple": 4, "sft_pma_half": 0.025}
RATES |= {"sft_baseline": 0.05, "sft_pma": 0.05, "sft_pma_double": 0.1, "continued_pma_half": 0.5}


def _rng(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def _size(run: str) -> tuple[int, str]:
    base = run.removeprefix("annealed_")
    return SIZES.get(base, SIZES["dense_411m" if run.startswith("lr_") else "moe_main"])


def _items(run: str, seed: int, tokens: int, recipe: dict, task: str, metric: str) -> np.ndarray:
    """Falls with size and tokens, noise shared by all merges, a gain that grows with N V."""
    n, merged = recipe.get("n", 1), recipe["method"] != "last"
    gain = 0.05 * np.log1p(n * recipe.get("interval", 1)) * (1.2 - 0.2 * recipe.get("interval", 1)) * merged
    scatter = 0.01 * _rng(run, seed, tokens).normal()
    bits = 3.2 - 0.1 * np.log10(_size(run)[0]) - 0.25 * np.log1p(tokens / V) / 2 - gain + scatter
    bits += _rng(task).normal(0, 0.8, 60) + _rng(str(recipe), task).normal(0, 0.05, 60)
    return bits if metric == "bits_per_byte" else (bits < 2.6).astype(float)


def _experiment(folder: Path, experiment: dict) -> None:
    records, items = [], []
    for part in experiment.get("parts", []):
        suite = part.get("suite", "proxy")
        points = {
            (p, json.dumps(r)) for p in part.get("points", []) for r in part["recipes"] if p in r.get("points", [p])
        }
        points |= {(max(part["points"]) - i, '{"method": "last"}') for i in range(part.get("noise_points", 0))}
        for run in part["runs"]:
            for seed in range(part.get("seeds", 1)):
                for point, recipe in sorted(points):
                    _score(folder, experiment["name"], run, seed, point, json.loads(recipe), suite, records, items)
    out = folder / experiment["name"]
    out.mkdir()
    pd.DataFrame(records, columns=COLUMNS).to_csv(out / "records.csv", index=False)
    pd.DataFrame(items).to_parquet(out / "items.parquet")


def _score(folder, name, run, seed, point, recipe, suite, records, items) -> None:
    tokens, alpha = round(point * V), recipe.get("alpha")
    key = {
        "run": run, "seed": seed, "tokens": tokens, "n": recipe.get("n", 1), "suite": suite,
        "method": recipe["method"] + (f"_{alpha:g}" if alpha else ""), "interval": round(recipe.get("interval", 1) * V),
    }  # fmt: skip
    means = {}
    for task in AXES[suite] + (DOMAINS if suite == "proxy" else []):
        for metric in ("acc", "bits_per_byte")[task in DOMAINS :]:
            values = _items(run, seed, tokens, recipe, task, metric)
            means[task, metric] = values.mean()
            items.append({**key, "task": task, "metric": metric, "values": values.tolist()})
    for metric in ("acc", "bits_per_byte"):
        means["average", metric] = np.mean([means[task, metric] for task in AXES[suite]])
    if suite == "proxy":
        means["heldout", "bits_per_byte"] = np.mean([means[task, "bits_per_byte"] for task in DOMAINS])
    rest = {"scale": folder.name, "experiment": name, "stderr": 0.02, "config_hash": "0"}
    records += [{**key, **rest, "task": t, "metric": m, "value": v} for (t, m), v in means.items()]


def _run(folder: Path, run: str, seed: int) -> None:
    out = folder / f"{run}-seed{seed}"
    out.mkdir()
    total, stands_for = _size(run)
    peak, n = 4e-3 * RATES.get(run, 1), 3 if run == "spike_pma" else 10
    config = {
        "scale": {"batch_tokens": 4096, "merge_interval": V},
        "model": {"stands_for": stands_for, "kind": "moe" if "/" in stands_for else "dense"},
        "schedule": {"peak_lr": peak, "end_lr": peak / 10},
        "train": {"total_tokens": 20 * V},
        "init": {"parent": {"run": "moe_main", "tokens": 125 * V, "n": n, "interval": V}},
    }  # fmt: skip
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    (out / "manifest.json").write_text(json.dumps({"parameters": {"total": total}}))
    rng, steps = _rng(run, seed), np.arange(1, 161)
    loss = 2.4 - 0.0005 * steps + 0.02 * _rng("batches").normal(size=160) + 0.003 * rng.normal(size=160)
    loss -= 0.04 * np.exp(-steps / 40) * ("pma" in run)
    loss += 3 * (steps > 80) * (run == "spike")
    norm = np.exp(0.15 * rng.normal(size=160)) * (0.8 if "pma" in run else 1) * np.where(rng.random(160) < 0.03, 3, 1)
    rows = zip(steps * 4096, loss, norm, strict=True)
    lines = [json.dumps({"tokens": int(t), "loss": a, "lr": peak, "gradient_norm": g}) for t, a, g in rows]
    (out / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def _landscape(folder: Path) -> None:
    rows = []
    for plane, centre, step in (("weights", 1.0, 0.01), ("principal", 0.0, 3.0)):

        def value(x: float, y: float, centre: float = centre, step: float = step) -> float:
            return 2 + 0.02 * (((x - centre) / step - 0.2) ** 2 + ((y - centre) / step + 0.1) ** 2)

        points = [("grid", 0, centre + step * i / 2, centre + step * j / 2) for i in range(-4, 5) for j in range(-4, 5)]
        around = _rng(plane).normal(size=(10, 2)) * step
        points += [
            (role, i, *(centre + p)) for i, p in enumerate(around, 1) for role in ("snapshot", "snapshot_in_plane")
        ]
        points.append(("merged", 0, centre, centre))
        rows += [("moe_main", plane, *p, "bits_per_byte", value(*p[2:]), 0.5, 0.2) for p in points]
    columns = ["run", "plane", "role", "snapshot", "x", "y", "metric", "value", "explained_x", "explained_y"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "figure_8" / "landscape.csv", index=False)


def _curvature(folder: Path) -> None:
    terms, losses = [], []
    annealed = "annealed_moe_main"
    for run, reference in (("moe_main", annealed), ("moe_main", "mean"), (annealed, annealed)):
        d = _rng(run, reference).normal(size=(10, 30)) * (0.1 if run == annealed else 1) + 0.3 * (reference != "mean")
        matrix = d @ d.T / 1000
        terms += [(run, reference, "hessian", i + 1, j + 1, matrix[i, j]) for i in range(10) for j in range(10)]
        terms += [(run, reference, "gradient", i + 1, 0, 0.0) for i in range(10)]
        losses += [(run, reference, f"snapshot_{i}", 2.5) for i in range(1, 11)]
        losses += [(run, reference, "merged", 2.48), (run, reference, "reference", 2.45)]
    out = folder / "equation_15"
    pd.DataFrame(terms, columns=["run", "reference", "term", "i", "j", "value"]).to_csv(out / "curvature_terms.csv")
    pd.DataFrame(losses, columns=["run", "reference", "name", "value"]).to_csv(out / "curvature_losses.csv")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """RUNS/synthetic with every experiment of conf/experiment."""
    folder = tmp_path_factory.mktemp("runs") / "synthetic"
    folder.mkdir()
    runs = {(run, 0) for run in FORKS}
    for path in sorted((CONF_DIR / "experiment").glob("*.yaml")):
        experiment = yaml.safe_load(path.read_text(encoding="utf-8"))
        parts = experiment.get("parts", [])
        runs |= {(run, seed) for part in parts for run in part["runs"] for seed in range(part.get("seeds", 1))}
        _experiment(folder, experiment)
    for run, seed in sorted(runs):
        _run(folder, run, seed)
    _landscape(folder)
    _curvature(folder)
    return style.Source(folder)


NAMES = [*(f"figure_{i}" for i in range(1, 10)), "table_1", "equation_15", "interval_by_size", "learning_rate"]


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_draws(source, name, tmp_path):
    module = importlib.import_module(name)
    style.save_all(module.draw(source), tmp_path, name)
    assert (tmp_path / f"{name}.png").stat().st_size > 20_000 and (tmp_path / f"{name}.pdf").stat().st_size > 5_000
    assert not list(tmp_path.glob(".*"))


def test_the_table_stands_as_text_too(source, tmp_path):
    table = importlib.import_module("table_1")
    table.save_text(source, tmp_path)
    cells = pd.read_csv(tmp_path / "table_1.csv")
    accuracy = cells[cells["tuned"] & (cells["metric"] == "acc") & (cells["column"] == "math")]
    best = f"**{accuracy['value'].max():.1f} ± "
    text = (tmp_path / "table_1.md").read_text(encoding="utf-8")
    assert best in text and "**87.2**" in text and "LiveBench and GPQA have no counterpart" in text


def test_gains_are_paired_over_items_and_over_seeds_where_there_are_several(source):
    table = style.scores(source, "figure_1")
    items = source.items("figure_1")
    here = {"task": "math", "metric": "bits_per_byte", "run": "moe_10b_100b"}
    last, merged = (style.pick(items, **here, method=m)["values"].iloc[0] for m in ("last", "sma"))
    row = style.pick(table, **here, method="sma").iloc[0]
    assert row["gain"] == pytest.approx(np.mean(last - merged))
    assert row["gain_error"] == pytest.approx(np.std(last - merged, ddof=1) / np.sqrt(len(last)))
    here["run"] = "moe_main"
    records = style.pick(source.records("figure_1"), **here)
    by_seed = records.pivot(index="seed", columns="method", values="value")
    row = style.pick(table, **here, method="sma").iloc[0]
    assert row["seeds"] == 2 and row["gain_error"] == pytest.approx((by_seed["last"] - by_seed["sma"]).sem())
    # Of an average: from the axes, which share no items.
    here = {"run": "moe_20b_200b", "metric": "bits_per_byte", "method": "sma"}
    axes = [style.pick(table, task=axis, **here)["gain_error"].item() for axis in style.AXES]
    average = style.pick(table, task="average", **here)["gain_error"].item()
    assert average == pytest.approx(np.sqrt(np.sum(np.square(axes))) / 4)


def test_spikes_stand_above_twice_the_median_of_the_steps_before():
    spikes = importlib.import_module("figure_7").gradient_spikes
    norms = pd.Series([1.0] * 30)
    norms[5], norms[25], norms[26] = 9.0, 2.1, 1.9
    assert spikes(norms).to_numpy().nonzero()[0].tolist() == [25]  # step 5 has no 20 steps before it


def test_what_is_missing_is_said_in_one_line(source, tmp_path):
    with pytest.raises(ValueError, match="records.csv: not there; python -m pma.reproduce"):
        importlib.import_module("figure_3").draw(style.Source(tmp_path))
    with pytest.raises(ValueError, match="no records with run=annealed_moe_main"):
        style.pick(style.scores(source, "figure_4"), run="annealed_moe_main")
