"""Which runs experiments need, how far, and in which order they are trained."""

from __future__ import annotations

import pytest

from pma.reproduce.experiment import expand
from pma.reproduce.runs import TrainingTask, labels, longest_first, required, runs_of, trainable, training_tasks


def task(run: str, seconds: float, parent: str | None = None) -> TrainingTask:
    return TrainingTask((run, 0), None if parent is None else (parent, 0), (), seconds)


def test_runs_are_needed_as_far_as_the_farthest_point(compose_job):
    job = compose_job("experiment=figure_3", "seeds=[4]")
    assert runs_of(job, job.experiment) == {("moe_main", 4): 200, ("annealed_moe_main", 4): 200}
    job = compose_job("experiment=equation_15")
    assert runs_of(job, job.experiment)["annealed_moe_main", 0] == float("inf")  # its last snapshot is the reference


@pytest.mark.parametrize("experiment", ["figure_6", "table_1", "figure_7", "figure_8", "figure_2"])
def test_all_that_a_seed_needs_is_of_that_seed(compose_job, experiment):
    job = compose_job(f"experiment={experiment}", "seeds=[7,3]")
    configs = required(job, [job.experiment])
    assert {seed for _, seed in configs} == {7, 3}
    assert all(cfg.init.parent.run is None or cfg.init.parent.seed == seed for (_, seed), cfg in configs.items())


def test_the_run_that_begins_the_longest_chain_is_trained_first():
    tasks = [task("long", 5), task("root", 3), task("child", 4, "root"), task("short", 1)]
    assert [t.run[0] for t in longest_first(tasks)] == ["root", "long", "child", "short"]


def test_tasks_carry_what_the_run_is_for_and_what_it_keeps(compose_job):
    job = compose_job("experiment=figure_6", "overrides=['compile=false']")
    configs = required(job, [job.experiment])
    assert list(configs)[0] == ("moe_main", 0)  # what others start from comes first
    assert labels(job, [job.experiment], configs)["moe_main", 0] == ["figure_6", "C11"]
    configs["moe_main", 0].train.snapshots_at = [512]
    seconds = {key: 0.0 if key[0] == "continued_baseline" else 1.0 for key in configs}
    tasks = training_tasks(job, [job.experiment], configs, seconds)
    assert [t.run[0] for t in tasks] == [
        "moe_main",
        *(f"continued_{name}" for name in ("baseline_half", "pma", "pma_half", "pma_half_end")),
    ]
    assert tasks[1].parent == ("moe_main", 0) and tasks[0].name == "run=moe_main seed=0"
    assert tasks[0].overrides[-4:] == (
        "stop=64000", "group=figure_6", "tracking.tags=[figure_6,C11]", "train.snapshots_at=[512]",
    )  # fmt: skip
    assert "compile=false" in tasks[0].overrides


def test_experiments_without_text_to_train_on_are_left_out_of_a_list_and_refused_alone(compose_job, capsys):
    job = compose_job("experiment=all", "experiment.includes=[figure_6,figure_4]", "scale=paper")
    assert [experiment.name for experiment in trainable(job, expand(job))] == ["figure_4"]
    assert capsys.readouterr().out.startswith("figure_6 is left out: train.part=continued")
    job = compose_job("experiment=figure_6", "scale=paper")
    with pytest.raises(ValueError, match="train.part=continued"):
        trainable(job, expand(job))
