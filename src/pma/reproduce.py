"""One experiment of the paper: train what is missing, score its merges, write its records.

    python -m pma.reproduce experiment=figure_4 scale=cpu seeds=[0]
    python -m pma.reproduce experiment=figure_4 dry_run=true

Everything already done is kept: a second call does nothing, a killed call goes on where it stopped.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from pma import cli
from pma.config import SCORING_VERSION, cpu_threads, hash_json, validate
from pma.files import MANIFEST, read_manifest, write_json
from pma.records import SIGNAL_TO_NOISE_MINIMUM, Record, read_records, signal_to_noise_table, write_records
from pma.run import finished, identity, run_folder


@dataclass(frozen=True)
class Recipe:
    """A merge of one run, in tokens."""

    method: str  # last | sma | wma | ema
    n: int
    interval: int
    end: int
    alpha: float | None = None

    @property
    def name(self) -> str:
        """Method as the records spell it."""
        return self.method if self.alpha is None else f"{self.method}_{self.alpha:g}"


def recipes(experiment: DictConfig, merge_interval: int) -> list[Recipe]:
    """The merges an experiment needs of a run, without repetition, ordered by end."""
    found = [
        Recipe(r.method, r.n, round(r.interval * merge_interval), round(point * merge_interval), r.alpha)
        for point in experiment.points
        for r in experiment.recipes
        if r.points is None or point in r.points
    ]
    last = max(recipe.end for recipe in found)
    found += [Recipe("last", 1, merge_interval, last - i * merge_interval) for i in range(experiment.noise_points)]
    return sorted(dict.fromkeys(found), key=lambda recipe: recipe.end)


def training_command(job: DictConfig, run: str, seed: int, threads: int) -> list[str]:
    """Hydra overrides that make one training run of the experiment."""
    return [
        f"scale={job.scale.name}",
        f"run={run}",
        f"seed={seed}",
        f"threads={threads}",
        f"device={job.device}",
        f"data_dir={job.data_dir}",
        f"runs_dir={job.runs_dir}",
        f"group={job.experiment.name}",
        f"tracking.mode={job.tracking.mode}",
        f"tracking.project={job.tracking.project}",
        *job.overrides,
    ]


def _train_missing(job: DictConfig, missing: list[tuple[str, int]]) -> None:
    """Train runs in processes of their own, `jobs` at a time.

    Raises:
        ValueError: when one fails; the others are let finish, and a second call keeps them.
    """
    at_once = min(job.jobs, len(missing))
    threads = max(1, cpu_threads(job.threads) // at_once)

    def one(run_seed: tuple[str, int]) -> int:
        overrides = training_command(job, *run_seed, threads)
        return subprocess.run([sys.executable, "-m", "pma.train", *overrides], check=False).returncode

    with ThreadPoolExecutor(at_once) as pool:
        failed = [pair for pair, status in zip(missing, pool.map(one, missing), strict=True) if status]
    if failed:
        names = ", ".join(f"run={run} seed={seed}" for run, seed in failed)
        raise ValueError(f"training failed: {names}; see the message above, then call again: what is done is kept")


class MergeScorer:
    """Scores merges of one run with one suite, weights swapped in place."""

    def __init__(self, job: DictConfig, cfg: DictConfig) -> None:
        from transformers import AutoTokenizer

        from pma.corpus import prepare
        from pma.evaluate import Scorer, load_suite
        from pma.model import load_pretrained
        from pma.snapshot import snapshots
        from pma.train import device_of

        self._folder = run_folder(cfg)
        corpus = prepare(cfg.data, Path(cfg.data_dir))
        any_snapshot = next(iter(snapshots(self._folder).values()))
        self._model = load_pretrained(any_snapshot).to(device_of(cfg))
        tokenizer = AutoTokenizer.from_pretrained(any_snapshot)
        suite = load_suite(job.experiment.suite, corpus)
        scores = Path(job.data_dir) / "scores"
        self._scorer = Scorer(suite, self._model, tokenizer, scores, self._model.device, job.threads)

    def score(self, recipe: Recipe) -> list[Any]:
        """Scores of one merge (or of the last snapshot)."""
        from pma.merge.engine import average, content_hash
        from pma.merge.select import run_window
        from pma.merge.weights import method_weights
        from pma.model import load_weights

        folders = run_window(self._folder, recipe.n, recipe.interval, recipe.end)
        weights = [1.0] if recipe.method == "last" else method_weights(recipe.method, recipe.n, recipe.alpha)
        merged = average(folders, weights)
        return self._scorer.score(content_hash(merged), lambda: load_weights(self._model, merged))


def _records(job: DictConfig, run: str, seed: int, cfg: DictConfig) -> Iterator[Record]:
    from tqdm import tqdm

    experiment, config_hash = job.experiment, identity(cfg)
    scorer = MergeScorer(job, cfg)
    todo = recipes(experiment, cfg.scale.merge_interval)
    plain, began = not sys.stderr.isatty(), time.perf_counter()
    for done, recipe in enumerate(tqdm(todo, desc=f"{experiment.name} {cfg.run_id}", unit="merge", disable=plain)):
        for score in scorer.score(recipe):
            yield Record(
                scale=job.scale.name,
                experiment=experiment.name,
                run=run,
                seed=seed,
                tokens=recipe.end,
                method=recipe.name,
                n=recipe.n,
                interval=recipe.interval,
                suite=experiment.suite,
                task=score.task,
                metric=score.metric,
                value=score.value,
                stderr=score.stderr,
                config_hash=config_hash,
            )
        if plain and done % 10 == 9:
            left = (time.perf_counter() - began) / (done + 1) * (len(todo) - done - 1)
            print(f"{experiment.name} {cfg.run_id}: {done + 1} of {len(todo)} merges scored, {left:.0f} s left")


def _plan(job: DictConfig, configs: dict[tuple[str, int], DictConfig], missing: list[tuple[str, int]]) -> None:
    print(f"{job.experiment.name} at scale {job.scale.name}: {job.experiment.title}")
    for (run, seed), cfg in configs.items():
        state = "to train" if (run, seed) in missing else "trained"
        n = len(recipes(job.experiment, cfg.scale.merge_interval))
        snapshots = cfg.train.total_tokens // cfg.train.snapshot_interval
        tokens = f"{cfg.train.total_tokens:,} tokens, {snapshots} snapshots"
        print(f"  {run} seed {seed}: {state}, {tokens}; {n} models to score")


def reproduce(job: DictConfig) -> Path:
    """Do what is missing of one experiment; returns the path of its records.

    Raises:
        ValueError: for impossible values, before any work; when a training run fails.
    """
    if not job.seeds or job.jobs < 1:
        raise ValueError(f"seeds={job.seeds} jobs={job.jobs}: give at least one seed and one job")
    if job.scale.name == "paper" and not job.dry_run:
        raise ValueError("scale=paper needs a cluster and is only planned here: add dry_run=true, or take scale=cpu")
    configs = {
        (run, seed): compose("config", training_command(job, run, seed, 1))
        for run in job.experiment.runs
        for seed in job.seeds
    }
    for cfg in configs.values():
        validate(cfg)
    folder = Path(job.runs_dir) / job.scale.name / job.experiment.name
    records = folder / "records.csv"
    stamp = hash_json(
        {
            "experiment": OmegaConf.to_container(job.experiment, resolve=True),
            "runs": [identity(cfg) for cfg in configs.values()],
            "version": SCORING_VERSION,
        }
    )
    missing = [pair for pair, cfg in configs.items() if not finished(cfg)]
    if records.exists() and (folder / MANIFEST).exists() and read_manifest(folder)["stamp"] == stamp:
        print(f"{job.experiment.name}: nothing to do, the records stand in {records}")
        return records
    _plan(job, configs, missing)
    if job.dry_run:
        return records
    began = time.perf_counter()
    if missing:
        _prepare_corpora(list(configs.values()))
        _train_missing(job, missing)
    trained = time.perf_counter()
    rows = [record for (run, seed), cfg in configs.items() for record in _records(job, run, seed, cfg)]
    write_records(records, rows)
    write_json(
        folder / MANIFEST,
        {
            "stamp": stamp,
            "experiment": OmegaConf.to_container(job.experiment, resolve=True),
            "runs": [run_folder(cfg).as_posix() for cfg in configs.values()],
            "seconds": {"train": round(trained - began, 1), "score": round(time.perf_counter() - trained, 1)},
        },
    )
    _track(job, folder, stamp, rows)
    _print_signal_to_noise(records)
    print(
        f"{job.experiment.name}: {len(rows)} records in {records} "
        f"(training {trained - began:.0f} s, merging and scoring {time.perf_counter() - trained:.0f} s)"
    )
    return records


def _track(job: DictConfig, folder: Path, stamp: str, rows: list[Record]) -> None:
    """Send the suite's averages to W&B, one curve a recipe."""
    from pma.tracking import Tracker

    about = {"name": job.experiment.name, "group": job.experiment.name, "job_type": "eval"}
    config = {"experiment": OmegaConf.to_container(job.experiment, resolve=True), "scale": job.scale.name}
    with Tracker(folder, -1, job.tracking, id=f"{job.experiment.name}-{stamp}", config=config, **about) as tracker:
        for tokens, at_point in groupby(sorted(rows, key=lambda row: row.tokens), key=lambda row: row.tokens):
            averages = (row for row in at_point if row.task in ("average", "heldout"))
            tracker.log(
                tokens,
                **{f"{r.task}/{r.metric}/{r.method}-n{r.n}-v{r.interval}-seed{r.seed}": r.value for r in averages},
            )


def _print_signal_to_noise(records: Path) -> None:
    table = signal_to_noise_table(read_records(records))
    moves = table["signal_to_noise"] >= SIGNAL_TO_NOISE_MINIMUM
    table["verdict"] = moves.map({True: "", False: "does not move at this scale"})
    print("signal to noise: rise over training against scatter over the last snapshots")
    print(table.to_string(index=False, float_format="{:.1f}".format))


def _prepare_corpora(configs: list[DictConfig]) -> None:
    # Once, before several training processes would each find it missing.
    from pma.corpus import prepare

    for cfg in configs:
        prepare(cfg.data, Path(cfg.data_dir))


def main(job: DictConfig) -> None:
    """Entry point of `python -m pma.reproduce`."""
    reproduce(job)


if __name__ == "__main__":
    cli.run(main, "reproduce")
