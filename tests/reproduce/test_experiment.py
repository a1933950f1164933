"""Which experiments there are, in which order, and which merges they score."""

from __future__ import annotations

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from pma.config import CONF_DIR, ROOT
from pma.reproduce import experiment as planning
from pma.reproduce.check import check_experiment
from pma.reproduce.experiment import Recipe, all_experiments, deciding, definition, expand, in_order, merges_of, recipes
from pma.reproduce.job import ExperimentConfig, MeasurementConfig, PartConfig, RecipeConfig


def named(name: str, **values: object):
    return OmegaConf.structured(ExperimentConfig(name=name, title=name, **values))


def part(**values: object):
    return OmegaConf.structured(PartConfig(**values))


def test_experiment_all_is_every_file_in_the_order_of_the_paper(compose_job):
    names = [experiment.name for experiment in expand(compose_job("experiment=all"))]
    figures = [f"figure_{number}" for number in range(1, 10)]
    after_5, others = ("interval_by_size", "duration"), ("annealing_forecast", "equation_15", "learning_rate")
    assert names == [*figures[:5], *after_5, *figures[5:], "table_1", *others]
    assert {*names, "all", "beyond"} == {path.stem for path in (CONF_DIR / "experiment").glob("*.yaml")}


def test_experiment_beyond_is_every_file_of_its_folder(compose_job):
    names = [experiment.name for experiment in expand(compose_job("experiment=beyond"))]
    assert names[:2] == ["anytime", "averages"]
    assert {*names} == {path.stem for path in (CONF_DIR / "experiment" / "beyond").glob("*.yaml")}


def test_a_merge_of_several_runs_takes_one_snapshot_of_each():
    merged = part(runs=["a"], points=[2], recipes=[RecipeConfig("sma", others=["b", "c"])])
    assert recipes(merged, 512) == [Recipe("sma", 3, 0, 1024, None, ("b", "c"))]
    scored = part(runs=["a", "b"], points=[2], recipes=[RecipeConfig("last")])
    with pytest.raises(ValueError, match=r"others=\['b', 'c'\]: they go with n: 1, and are runs scored at the same"):
        check_experiment(named("study", parts=[merged, scored]))
    check_experiment(named("study", parts=[merged, part(runs=["b", "c"], points=[1, 2])]))


def test_an_experiment_without_others_is_defined_as_before_there_were_any(compose_job):
    recipe = definition(compose_job("experiment=figure_3").experiment)["parts"][0]["recipes"][0]
    assert set(recipe) == {"method", "n", "interval", "alpha", "points"}


def test_a_study_of_ones_own_joins_experiment_all_by_its_file_alone(compose_job, monkeypatch, tmp_path):
    (tmp_path / "experiment" / "beyond").mkdir(parents=True)
    for name in ("figure_2", "my_study", "all", "beyond/other"):
        (tmp_path / "experiment" / f"{name}.yaml").touch()
    files = {"figure_2": named("figure_2"), "my_study": named("my_study"), "all": named("all", includes=["*"])}
    monkeypatch.setattr(planning, "CONF_DIR", tmp_path)
    monkeypatch.setattr(planning, "_experiment", files.__getitem__)
    assert [experiment.name for experiment in all_experiments()] == ["figure_2", "my_study"]
    files["my_study"].name = "figure_2"
    with pytest.raises(ValueError, match=r"my_study\.yaml: name=figure_2: give the name of the file"):
        all_experiments()


def test_figures_and_tables_stand_by_number_and_others_by_name():
    names = ["zeta", "figure_10", "table_2", "figure_2", "alpha", "figure_2b"]
    assert [e.name for e in in_order(map(named, names))] == [
        "figure_2", "figure_10", "table_2", "alpha", "figure_2b", "zeta",
    ]  # fmt: skip
    placed = in_order([named("figure_1"), named("figure_2"), named("early", after="figure_1")])
    assert [e.name for e in placed] == ["figure_1", "early", "figure_2"]
    with pytest.raises(ValueError, match=r"experiment lost: after=figure_9: choose of figure_1"):
        in_order([named("figure_1"), named("lost", after="figure_9")])
    # The place of an experiment decides none of its records, so it is no part of their stamp.
    assert definition(named("x", after="figure_1")) == definition(named("x"))
    assert deciding(named("x", claims=["C1"])) == deciding(named("x")) != deciding(named("y"))


def test_experiment_names_in_includes_are_taken_in_the_order_given(compose_job):
    job = compose_job("experiment=all", "experiment.includes=[table_1,figure_4]")
    assert [experiment.name for experiment in expand(job)] == ["table_1", "figure_4"]


def test_recipes_are_in_tokens_each_once_ordered_by_end():
    merges = recipes(
        part(
            runs=["moe_main"],
            points=[25.5, 10],
            recipes=[
                RecipeConfig("last"),
                RecipeConfig("ema", n=3, interval=0.5, alpha=0.1, points=[10]),
                RecipeConfig("last"),
            ],
            noise_points=2,
        ),
        512,
    )
    assert merges == [
        Recipe("last", 1, 512, 5120),
        Recipe("ema", 3, 256, 5120, 0.1),
        Recipe("last", 1, 512, 12544),
        Recipe("last", 1, 512, 13056),
    ]
    assert merges[1].name == "ema_0.1" and merges[1].window == [5120, 4864, 4608]


def test_a_merge_that_two_parts_share_is_scored_once(compose_job):
    job = compose_job("experiment=figure_4", "seeds=[0,3]")
    last, sma = RecipeConfig("last"), RecipeConfig("sma", n=3)
    parts = [PartConfig(["moe_main"], points=[10], recipes=r) for r in ([last], [last, sma])]
    first, second = (named(name, parts=[p]) for name, p in zip("ab", parts, strict=True))
    merges = list(merges_of(job, [first, second]))
    assert [(m.run, m.seed, m.suite, len(m.recipes)) for m in merges] == [
        ("moe_main", seed, "proxy", 1) for seed in (0, 3, 0, 3)
    ]
    assert merges[2].recipes == (Recipe("sma", 3, 512, 5120),)


@pytest.mark.parametrize(
    "values,message",
    [
        ({"recipes": [RecipeConfig("smaa")]}, r"experiment mine: method=smaa: choose one of last, sma, wma, ema"),
        ({"recipes": [RecipeConfig("ema", n=3)]}, "alpha=None: goes with method: ema"),
        ({"recipes": [RecipeConfig("last", n=2)]}, "n=2: give at least 1"),
        ({"recipes": [RecipeConfig("sma", points=[7])]}, r"points=\[7.0\]: those of a recipe"),
        ({"suite": "mmlu"}, "suite=mmlu: choose one of proxy"),
    ],
)
def test_a_mistake_in_an_experiment_shows_before_training(values, message):
    with pytest.raises(ValueError, match=message):
        check_experiment(named("mine", parts=[PartConfig(["moe_main"], points=[10], **values)]))


def test_an_unknown_measurement_shows_before_training():
    with pytest.raises(ValueError, match="measurements.kind=volume: choose one of landscape"):
        check_experiment(named("mine", measurements=[MeasurementConfig("volume", "moe_main", 10)]))


def test_planning_imports_nothing_heavy():
    code = "import sys, pma.reproduce.progress, pma.reproduce.check; print({'torch', 'transformers'} & {*sys.modules})"
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
