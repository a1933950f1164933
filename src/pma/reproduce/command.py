"""Do experiments of the paper from start to end: check, plan, and do what is missing.

Everything done is kept. A second call does nothing; after a killed call, or one that `minutes` ended, the same command
goes on where it stopped. A run is trained only as far as the experiments need it, after the run it starts from.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pma.reproduce.check import check_experiment, check_job, check_scoring
from pma.reproduce.clock import Clock
from pma.reproduce.experiment import expand
from pma.reproduce.progress import check_snapshots, experiment_folder, is_done
from pma.reproduce.runs import keep_needed, required, trainable, training_tasks
from pma.words import experiment_title


def reproduce(job: DictConfig) -> list[Path]:
    """Do what is missing of the job's experiments; return the folders of the records that are there afterwards.

    Raises:
        ValueError: for impossible values, before any work; when a training run or a job fails.
    """
    check_job(job)
    experiments = expand(job)
    for experiment in experiments:
        check_experiment(experiment)
    experiments = trainable(job, experiments)
    configs = required(job, experiments)
    if job.scale.snapshots == "needed":
        keep_needed(job, experiments, configs)
    clock = Clock(job.minutes)
    todo = [experiment for experiment in experiments if not is_done(job, experiment, configs)]
    if todo:
        check_snapshots(job, todo, configs)
        from pma.reproduce.preview import print_preview  # torch takes seconds to import

        seconds = print_preview(job, todo, configs)
    else:
        place = Path(job.runs_dir) / job.scale.name
        print(f"{experiment_title(job.experiment.name)}: nothing to do, the records are in {place} already")
    if job.dry_run:
        print("dry_run=true: nothing was done")
    if todo and not job.dry_run:
        if any(part.points for experiment in todo for part in experiment.parts):
            check_scoring(job)
        from pma.reproduce.work import work  # and lm-eval some more, which a dry run does without

        work(job, todo, configs, training_tasks(job, experiments, configs, seconds), clock)
    return [experiment_folder(job, each) for each in experiments if is_done(job, each, configs)]
