"""The plan: its sums, what it covers, what it refuses, and when it writes a document."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from smoke_runs import call

from pma.config import CONF_DIR, register
from pma.plan.__main__ import main
from pma.plan.experiments import plans
from pma.plan.job import PlanJob, check, overrides
from pma.plan.runs import disk_bytes
from pma.plan.show import BEGIN, END, text, write_section
from pma.reproduce.experiment import expand
from pma.reproduce.job import ReproduceJob
from pma.reproduce.runs import runs_of

register(PlanJob, ReproduceJob)


def job(**changes: object) -> DictConfig:
    return OmegaConf.structured(PlanJob(**changes))


@pytest.fixture(scope="module")
def paper() -> tuple:
    return plans(job(experiment="figure_4"))


@pytest.fixture(scope="module")
def cpu() -> tuple:
    return plans(job(scale="cpu"))


def rows_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_totals_are_the_sums_of_the_rows(cpu):
    tables = re.findall(r"(?:^\|.*\n?)+", text(job(scale="cpu"), *cpu), re.M)
    checked = 0
    for table in map(rows_of, tables):
        if table[-1][0] != "total":
            continue
        for column, total in enumerate(table[-1]):
            if column and total:
                numbers = [float(row[column].replace(",", "")) for row in table[2:-1]]
                half = len(numbers) * 0.5 * 10.0 ** -len(table[2][column].partition(".")[2])
                assert float(total.replace(",", "")) == pytest.approx(sum(numbers), rel=5e-3, abs=half), table[0][
                    column
                ]
                checked += 1
    assert checked >= 8


def test_all_runs_and_experiments_of_a_scale_are_named(cpu):
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        reproduction = compose("reproduce", ["scale=cpu", "experiment=all"])
        experiments = expand(reproduction)
    needed = {f"{run}-seed{seed}" for e in experiments for run, seed in runs_of(reproduction, e)}
    runs, planned = cpu
    assert needed <= {run.run for run in runs} and [e.experiment for e in planned] == [e.name for e in experiments]
    shown = text(job(scale="cpu"), *cpu)
    assert all(f"| {name} |" in shown for name in needed | {e.name for e in experiments})
    assert sorted(name for e in planned for name in e.runs) == sorted(run.run for run in runs)


def test_a_gpu_plan_fits_and_follows_from_its_rates(paper):
    (run,), (experiment,) = paper
    options = PlanJob()
    assert run.layout.memory.total <= options.gpu_memory * (1 - options.headroom)
    assert run.hours <= 24 * options.days
    assert run.gpu_hours * 3600 * options.peak_flops * options.mfu_moe == pytest.approx(run.flops)
    assert experiment.alone == pytest.approx(run.gpu_hours + experiment.scoring)


def test_hours_without_text_to_train_on_are_named(cpu):
    line = "for figure_6, which is left out of experiment=all until"
    assert line not in text(job(scale="cpu"), *cpu)
    assert line in text(job(experiment="figure_6"), *plans(job(experiment="figure_6")))


def test_what_cannot_fit_is_refused_with_the_mend():
    with pytest.raises(ValueError, match=r"moe_main-seed0.*gpu_memory=BYTES"):
        plans(job(experiment="figure_4", gpu_memory=8e9))
    with pytest.raises(ValueError, match="days=0.001"):
        plans(job(experiment="figure_4", days=0.001))
    with pytest.raises(ValueError, match="gpus=7: give a divisor"):
        plans(job(experiment="figure_4", gpus=7))


def test_the_command_ends_in_one_line_for_a_user_error():
    result = call("-m", "pma.plan", "experiment=figure_4", "gpus=7")
    assert result.returncode == 1 and result.stderr.startswith("error: gpus=7"), result.stderr


@pytest.mark.parametrize("changes", [{"mfu_moe": 0.0}, {"mfu_dense": 1.5}, {"headroom": 1.0}, {"gpu_memory": 0.0}])
def test_impossible_options_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        check(job(**changes))


def test_disk_counts_what_training_keeps():
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", ["scale=smoke", "run=moe_main"])
    cfg.stop = 40 * cfg.scale.merge_interval
    cfg.train.fork_points = [20 * cfg.scale.merge_interval]
    assert disk_bytes(cfg, 10) == 10 * (4 * 80 + 12 * (cfg.train.checkpoints_kept + 1))
    cfg.train.snapshots_at = [0, 512, 1024, 41 * 512]
    assert disk_bytes(cfg, 10) == 10 * (4 * 2 + 12 * (cfg.train.checkpoints_kept + 1))


def test_a_plan_is_written_only_where_docs_says(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    main(job(experiment="figure_4", price=9.0))
    assert not list((tmp_path / "docs").iterdir()) and "written" not in capsys.readouterr().out
    main(job(experiment="figure_4", price=9.0, docs=str(tmp_path / "docs")))
    document = (tmp_path / "docs" / "plan.md").read_text()
    assert f"`python -m pma.plan experiment=figure_4 price=9.0 docs={tmp_path / 'docs'}` wrote what follows" in document
    assert (tmp_path / "docs" / "plan.svg").exists() and "written" in capsys.readouterr().out


def test_the_defaults_are_those_of_make_plan():
    assert overrides(job()) == "" and overrides(job(docs="docs")) == ""
    assert overrides(job(scale="gpu", gpus=8)) == "scale=gpu gpus=8"


def test_docs_change_between_the_markers_only(tmp_path: Path):
    path = tmp_path / "plan.md"
    write_section(path, "first")
    path.write_text(f"# Title\n\nbefore\n{path.read_text().partition('## The plan')[2]}after\n")
    write_section(path, "second")
    assert re.sub(r"\s+", " ", path.read_text()) == f"# Title before {BEGIN} second {END} after "
    path.write_text(f"{BEGIN}\n")
    with pytest.raises(ValueError, match="only one of the markers"):
        write_section(path, "third")
