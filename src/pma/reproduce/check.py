"""Refuse a reproduction that cannot end well, before any work starts."""

from __future__ import annotations

import shutil

from omegaconf import DictConfig

from pma.reproduce.job import MEASUREMENTS, METHODS, SUITES


def check_job(job: DictConfig) -> None:
    """Refuse impossible options of the command.

    Raises:
        ValueError: naming the option, its value and the mend.
    """
    if job.minutes is not None and job.minutes <= 0:
        raise ValueError(f"minutes={job.minutes}: give more than 0, or null for no limit")
    if job.jobs < 1 or not job.seeds:
        raise ValueError(f"seeds={job.seeds} jobs={job.jobs}: give at least one seed and one job")
    if twice := sorted({seed for seed in job.seeds if list(job.seeds).count(seed) > 1}):
        raise ValueError(f"seeds={list(job.seeds)}: {twice[0]} stands there twice; give each seed once")
    if job.launcher not in (None, "slurm", "local"):
        raise ValueError(f"launcher={job.launcher}: choose slurm, local, or null for processes of this machine")
    if job.merges_per_job < 1:
        raise ValueError(f"merges_per_job={job.merges_per_job}: give at least 1")
    if job.launcher is not None and job.minutes is not None:
        raise ValueError("minutes: goes without launcher; jobs have the scheduler's time (timeout_min)")
    if job.scale.name == "paper" and not job.dry_run and job.launcher != "slurm":
        raise ValueError("scale=paper needs a cluster: add launcher=slurm, or dry_run=true, or take scale=cpu")


def check_experiment(experiment: DictConfig) -> None:
    """Refuse a recipe, suite or measurement that does not exist, which would only show after training.

    Raises:
        ValueError: naming the experiment, the key, its value and the mend.
    """

    def refuse(key: str, value: object, mend: str) -> None:
        raise ValueError(f"experiment {experiment.name}: {key}={value}: {mend}")

    for part in experiment.parts:
        if part.suite not in SUITES:
            refuse("suite", part.suite, f"choose one of {', '.join(SUITES)}")
        for recipe in part.recipes:
            if recipe.method not in METHODS:
                refuse("method", recipe.method, f"choose one of {', '.join(METHODS)}")
            if (recipe.alpha is not None) != (recipe.method in ("ema", "online_ema")):
                refuse("alpha", recipe.alpha, "goes with method: ema or online_ema, and only with them")
            if recipe.n < 1 or (recipe.method in ("last", "online_ema") and recipe.n != 1):
                refuse("n", recipe.n, "give at least 1 snapshot, and 1 with method: last or online_ema")
            scored = {run for each in experiment.parts for run in each.runs if set(part.points) <= set(each.points)}
            if recipe.others and (recipe.method == "last" or recipe.n != 1 or not set(recipe.others) <= scored):
                refuse("others", list(recipe.others), "they go with n: 1, and are runs scored at the same points")
            if unknown := set(recipe.points or []) - set(part.points):
                refuse("points", sorted(unknown), f"those of a recipe are among the part's, {list(part.points)}")
    for measurement in experiment.measurements:
        if measurement.kind not in MEASUREMENTS:
            refuse("measurements.kind", measurement.kind, f"choose one of {', '.join(MEASUREMENTS)}")
        if measurement.kind == "landscape" and (measurement.reference is None or len(measurement.windows) != 1):
            refuse("measurements.kind", "landscape", "give it one window, and the annealed run as reference")


def check_scoring(job: DictConfig) -> None:
    """Refuse what scoring would find missing only after days of training.

    Raises:
        ValueError: for an interpreter that is not there, no vLLM, or what the paper suite needs.
    """
    if job.scoring_python is not None:  # that environment brings its own packages
        if job.launcher is None or shutil.which(job.scoring_python) is None:
            raise ValueError(f"scoring_python={job.scoring_python}: give a Python interpreter, together with launcher")
        return
    if job.scale.scoring == "vllm":
        from pma.evaluate import vllm_class  # takes seconds to import, and most reproductions go without

        vllm_class()
    if job.scale.suite == "paper":
        from pma.evaluate.suites import check_paper_needs

        check_paper_needs()
