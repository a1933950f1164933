"""Try the settings of docs/beyond.md on seed 100: rates, lengths of decays, windows, alphas. Writes dev/trials.csv.

    python dev/trials.py                 # about 90 minutes on 2 cores; goes on where it stopped
    python dev/trials.py --scale smoke   # the same in a minute, into --out

Each arm has four trials. All are judged by held-out text (bits per byte, mean over the domains; lower is better) of the
model that the arm would hand over, never by a gain over another arm. Seed 100 counts nowhere else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from transformers import AutoTokenizer

from pma.config import CONF_DIR, register
from pma.evaluate import Scorer, load_suite
from pma.files import write_text
from pma.json_files import read_manifest
from pma.layout import average_dir, run_window, snapshots
from pma.merge import Policy
from pma.merge.memory import averages
from pma.merge.weights import method_weights
from pma.model.build import load_pretrained, load_weights

ROOT = Path(__file__).resolve().parents[1]
SEED = 100
BUDGETS = (25, 50, 100, 200)  # V
RATES = (0.5, 1, 2, 4)  # times the constant run's
FREE_RATES = (1, 2, 4, 8)  # schedule-free AdamW is said to want higher ones
SHARES = (0.08, 0.16, 0.32, 0.48)  # of the tokens that a decay takes
ALPHAS = (0.07, 0.03, 0.015, 0.0075)  # of an average of every step
# N and V of windows over a share of the tokens seen, by budget; the last is the paper's.
WINDOWS = {
    "5 %": {25: (3, 0.5), 50: (5, 0.5), 100: (10, 0.5), 200: (10, 1)},
    "10 %": {25: (5, 0.5), 50: (10, 0.5), 100: (10, 1), 200: (10, 2)},
    "20 %": {25: (10, 0.5), 50: (10, 1), 100: (10, 2), 200: (10, 4)},
    "N = 10, 1 V": dict.fromkeys(BUDGETS, (10, 1)),
}
METHODS = {"SMA": "sma", "cosine weights": "cosine", "1-sqrt weights": "1-sqrt"}
INSIDE = {"last quarter": 0.25, "last half": 0.5, "whole": 1.0}  # of a decay, merged


@dataclass(frozen=True)
class Trial:
    """A model that one setting of an arm hands over at a budget: a merge of snapshots of a run, or one of them."""

    arm: str
    setting: str
    budget: float  # V
    run: Path
    method: str = "last"
    n: int = 1
    interval: float = 1  # V
    alpha: float | None = None


def training(cfg: DictConfig, runs_dir: Path) -> dict[str, list[str]]:
    """Overrides of every run, by run_id, from the main run's config; forks come after what they are forked off."""
    scale, unit, rate = cfg.scale.name, cfg.scale.merge_interval, cfg.schedule.peak_lr
    common = [f"scale={scale}", f"seed={SEED}", "threads=1", "tracking=off", f"runs_dir={runs_dir}"]
    forks = sorted({round(budget * (1 - share) * unit) for budget in BUDGETS for share in SHARES})
    runs = {
        "moe_main-seed100": ["run=moe_main", f"train.fork_points={forks}"],
        "averaged": [
            "run=moe_main",
            f"train.online_ema={list(ALPHAS)}",
            f"train.snapshots_at={[budget * unit for budget in BUDGETS]}",
            "train.fork_points=[]",
        ],
    }
    for factor in FREE_RATES:
        runs[f"free-{factor:g}"] = ["run=schedule_free", f"schedule.peak_lr={factor * rate:g}"]
    for budget in reversed(BUDGETS):
        for factor in RATES:
            runs[f"cosine_{budget}-{factor:g}"] = [f"run=cosine_{budget}", f"schedule.peak_lr={factor * rate:g}"]
    for budget in reversed(BUDGETS):
        for share in SHARES:
            length = round(share * budget * unit)
            at = [f"init.parent.tokens={budget * unit - length}", f"schedule.decay_tokens={length}"]
            runs[f"wsd_{budget}-{share:g}"] = [f"run=wsd_{budget}", *at]
    return {name: [*overrides, *common, f"run_id={name}"] for name, overrides in runs.items()}


def trials(folder: Path) -> Iterator[Trial]:
    """Every model to score."""
    for budget in BUDGETS:
        for factor in RATES:
            yield Trial("cosine", f"{factor:g} x", budget, folder / f"cosine_{budget}-{factor:g}")
        for share in SHARES:
            yield Trial("annealing", f"{share:.0%}", budget, folder / f"wsd_{budget}-{share:g}")
        for factor in FREE_RATES:
            yield Trial("schedule-free", f"{factor:g} x", budget, folder / f"free-{factor:g}")
        for alpha in ALPHAS:
            yield Trial("online EMA", f"{alpha:g}", budget, folder / "averaged", "online_ema", alpha=alpha)
        for arm, method in METHODS.items():
            for window, by_budget in WINDOWS.items():
                yield Trial(arm, window, budget, folder / "moe_main-seed100", method, *by_budget[budget])
        yield Trial("last", "-", budget, folder / "moe_main-seed100")
        for share in SHARES:
            for name, part in INSIDE.items():
                n = max(2, round(part * share * budget * 2))  # snapshots V / 2 apart
                run = folder / f"wsd_{budget}-{share:g}"
                yield Trial(f"inside a decay of {share:.0%}", name, budget, run, "sma", n, 0.5)


def score(every: list[Trial], unit: int, cache: Path) -> pd.DataFrame:
    """Held-out text of every trial, bits per byte."""
    snapshot = next(iter(snapshots(every[0].run).values()))
    corpus = ROOT / read_manifest(snapshot)["corpus"]
    model, tokenizer = load_pretrained(snapshot), AutoTokenizer.from_pretrained(snapshot)
    scorer = Scorer(load_suite("proxy", corpus), model, tokenizer, cache, "cpu", 2)
    rows = []
    for trial in every:
        end = round(trial.budget * unit)
        if trial.alpha is not None:
            folders, weights = [average_dir(trial.run, trial.alpha, end)], [1.0]
        else:
            folders = run_window(trial.run, trial.n, round(trial.interval * unit), end)
            weights = [1.0] if trial.method == "last" else method_weights(trial.method, trial.n)
        merged = averages(folders, [weights], Policy(suspicious="warn"))[0]  # a decay begins with long steps
        scores = scorer.score(
            merged.content.rpartition(":")[2], lambda tensors=merged.tensors: load_weights(model, tensors)
        )
        text = next(s.value for s in scores if (s.task, s.metric) == ("heldout", "bits_per_byte"))
        rows.append({"arm": trial.arm, "setting": trial.setting, "budget": trial.budget, "text": round(text, 6)})
        print(f"{trial.arm:28} {trial.setting:14} {trial.budget:5g} V  {text:.4f}", flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    """Train what is missing, two runs at a time, score everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs" / "trials")
    parser.add_argument("--out", type=Path, default=ROOT / "dev" / "trials.csv")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg: DictConfig = compose("config", [f"scale={options.scale}"])
    unit = cfg.scale.merge_interval
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PMA_NEXT": "no"}

    def train(overrides: list[str]) -> None:
        command = [sys.executable, "-m", "pma.train", *overrides]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
        print(done.stdout.strip().splitlines()[-1], flush=True)

    runs = training(cfg, options.runs_dir.resolve())
    with ThreadPoolExecutor(options.jobs) as pool:
        trunk = pool.submit(train, runs.pop("moe_main-seed100"))
        first = [pool.submit(train, run) for name, run in runs.items() if not name.startswith("wsd")]
        trunk.result()
        for future in [*first, *(pool.submit(train, run) for name, run in runs.items() if name.startswith("wsd"))]:
            future.result()
    table = score(list(trials(options.runs_dir / options.scale)), unit, options.runs_dir / "scores")
    write_text(options.out, table.to_csv(index=False))


if __name__ == "__main__":
    main()
