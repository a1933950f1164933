"""Try the settings of docs/beyond.md on seed 100: rates, lengths of decays, windows, alphas. Writes dev/trials.csv.

    python dev/trials.py                 # some hours on 2 cores; trials in the table are not made again
    python dev/trials.py --scale smoke   # the same in minutes, into --out

Each arm has four trials, and a fifth where the best of four rates was the highest or the lowest: the cosines, the long
fine-tuning and the policy. All are judged by the model that the arm would hand over, never by a gain over another arm:
by held-out text (bits per byte, mean over the domains; lower is better), fine-tuning by the right answers of suite
instruct (likewise), policies by their reward (higher is better). Seed 100 counts nowhere else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from transformers import AutoTokenizer, PreTrainedModel

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
RATES = (0.5, 1, 2, 4, 8)  # times the constant run's
BATCH_RATES = (0.5, 1, 2, 4)  # times the rate of the default batch
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
MEASURES = {  # suite, task and metric
    "text": ("proxy", "heldout", "bits_per_byte"),
    "tasks": ("instruct", "average", "bits_per_byte"),
    "reward": ("reward", "average", "reward"),
}
BATCHES = {"half": "1/2 x batch", "double": "2 x batch", "quadruple": "4 x batch"}
POST = {  # arm, length in V, measure
    "sft_long": ("fine-tuning", 135, "tasks"),
    "reinforced": ("reinforcement learning", 100, "reward"),
}
POST_RATES = {"sft_long": (0.5, 1, 2, 4, 8), "reinforced": (0.25, 0.5, 1, 2, 4)}  # times 0.05 x the constant run's
COLUMNS = ("arm", "setting", "budget", "measure", "value")
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
    measure: str = "text"


def training(cfg: DictConfig, runs_dir: Path) -> dict[str, list[str]]:
    """Overrides of every run, by run_id, from the main run's config; forks come after what they are forked off."""
    scale, unit, rate = cfg.scale.name, cfg.scale.merge_interval, cfg.schedule.peak_lr
    dense = cfg.scale.peak_lrs.get("dense_411m", cfg.scale.peak_lr)
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
    runs["sft_baseline-seed100"] = ["run=sft_baseline"]
    for factor in BATCH_RATES:
        for batch in BATCHES:
            runs[f"batch_{batch}-{factor:g}"] = [f"run=batch_{batch}", f"schedule.peak_lr={factor * dense:g}"]
    for run, factors in POST_RATES.items():
        for factor in factors:
            runs[f"{run}-{factor:g}"] = [f"run={run}", f"schedule.peak_lr={factor * 0.05 * rate:g}"]
    for budget in reversed(BUDGETS):
        for share in SHARES:
            length = round(share * budget * unit)
            at = [f"init.parent.tokens={budget * unit - length}", f"schedule.decay_tokens={length}"]
            run = f"wsd_{budget}" if budget < BUDGETS[-1] else "annealed_moe_main"
            runs[f"wsd_{budget}-{share:g}"] = [f"run={run}", *at]
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

    for factor in BATCH_RATES:
        for batch, name in BATCHES.items():
            yield Trial(name, f"{factor:g} x", 50, folder / f"batch_{batch}-{factor:g}", interval=2)
    for run, (arm, end, measure) in POST.items():
        for factor in POST_RATES[run]:
            yield Trial(arm, f"{factor:g} x", end, folder / f"{run}-{factor:g}", measure=measure)


def score(every: list[Trial], unit: int, cache: Path) -> pd.DataFrame:
    """The score of every trial by its measure."""
    scorers: dict[tuple[bool, str], tuple[Scorer, PreTrainedModel]] = {}
    rows = []
    for trial in every:
        suite, task, metric = MEASURES[trial.measure]
        dense = trial.run.name.startswith("batch")
        if (dense, suite) not in scorers:
            snapshot = next(iter(snapshots(trial.run).values()))
            model, tokenizer = load_pretrained(snapshot), AutoTokenizer.from_pretrained(snapshot)
            items = load_suite(suite, ROOT / read_manifest(snapshot)["corpus"])
            scorers[dense, suite] = Scorer(items, model, tokenizer, cache, "cpu", 2), model
        scorer, model = scorers[dense, suite]
        end = round(trial.budget * unit)
        if trial.alpha is not None:
            folders, weights = [average_dir(trial.run, trial.alpha, end)], [1.0]
        else:
            folders = run_window(trial.run, trial.n, round(trial.interval * unit), end)
            weights = [1.0] if trial.method == "last" else method_weights(trial.method, trial.n)
        merged = averages(folders, [weights], Policy(suspicious="warn"))[0]  # a decay begins with long steps
        scores = scorer.score(merged.content.rpartition(":")[2], partial(load_weights, model, merged.tensors))
        value = round(next(s.value for s in scores if (s.task, s.metric) == (task, metric)), 6)
        rows.append((trial.arm, trial.setting, trial.budget, trial.measure, value))
        print(f"{trial.arm:28} {trial.setting:14} {trial.budget:5g} V  {trial.measure:6} {value:.4f}", flush=True)
    return pd.DataFrame(rows, columns=COLUMNS)


def needed(every: list[Trial]) -> set[str]:
    """Runs that these trials want, with those that they are forked off, by run_id."""
    names = {trial.run.name for trial in every}
    if any(name.startswith("reinforced") for name in names):
        names.add("sft_baseline-seed100")
    return names | {"moe_main-seed100"} if any(stage(name) for name in names) else names


def stage(name: str) -> int:
    """When a run can be trained: 0 at once, 1 after the main run, 2 after the fine-tuning."""
    return 2 if name.startswith("reinforced") else int(name.startswith(("wsd", "sft")))


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
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PMA_NEXT": "no"}

    def train(overrides: list[str]) -> None:
        command = [sys.executable, "-m", "pma.train", *overrides]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
        print(done.stdout.strip().splitlines()[-1], flush=True)

    known = pd.read_csv(options.out) if options.out.is_file() else pd.DataFrame(columns=COLUMNS)
    done = set(zip(known["arm"], known["setting"], known["budget"], strict=True))
    every = list(trials(options.runs_dir / options.scale))
    new = [trial for trial in every if (trial.arm, trial.setting, trial.budget) not in done]
    wanted = needed(new)
    runs = {name: o for name, o in training(cfg, options.runs_dir.resolve()).items() if name in wanted}
    with ThreadPoolExecutor(options.jobs) as pool:
        for due in range(3):
            list(pool.map(train, [overrides for name, overrides in runs.items() if stage(name) == due]))
    scored = score(new, cfg.scale.merge_interval, options.runs_dir / "scores")
    table = pd.concat([known, scored]).set_index(["arm", "setting", "budget"])
    in_order = table.loc[[(trial.arm, trial.setting, trial.budget) for trial in every]].reset_index()
    write_text(options.out, in_order[list(COLUMNS)].to_csv(index=False))


if __name__ == "__main__":
    main()
