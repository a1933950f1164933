"""The questions that the paper left open, decided in made-up worlds whose answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawing.find import describe
from records import Study
from synthetic_world import World, experiments, write_world
from verdicts.decide import Decisions, decide
from verdicts.evidence.beyond import BATCHES, BUDGETS, CONSTANT_RUNS, DECAYS, ORDERS
from verdicts.rules import BEYOND, CLAIMS, load_rules

SEEDS = range(2, 6)


def _world(folder: Path, world: World) -> Path:
    return write_world(folder / "cpu", world, SEEDS, "experiment/beyond")


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    """Of a world where everything is as its source says."""
    return _world(tmp_path_factory.mktemp("beyond"), World())


@pytest.fixture(scope="module")
def true_world(records) -> Decisions:
    """That world, decided."""
    return decide(records, load_rules(BEYOND))


def test_where_the_sources_are_right_every_part_holds(true_world):
    outcomes = {f"{p.claim}{p.part.name}": p.outcome for d in true_world for p in d.parts if p.counted}
    assert set(outcomes.values()) == {"holds"}, outcomes


def test_where_everything_is_the_other_way_round_no_effect_holds(tmp_path):
    decisions = decide(_world(tmp_path, World(heat=-0.1)), load_rules(BEYOND))
    outcomes = {f"{p.claim}{p.part.name}": p.outcome for d in decisions for p in d.parts if p.counted}
    assert {name: outcomes[name] for name in ("B2a", "B3a", "B3b", "B4a", "B4b")} == dict.fromkeys(
        ("B2a", "B3a", "B3b", "B4a", "B4b"), "fails"
    )


def test_the_numbers_are_those_of_the_world(true_world):
    heat = {seed: 0.1 * (1 + 0.2 * (-1) ** seed) for seed in SEEDS}
    gains = true_world["B3"].parts[0].evidence.numbers.values
    falls = true_world["B3"].parts[1].evidence.numbers.values
    for seed in SEEDS:
        assert gains.loc[seed, "16 V"] == pytest.approx(2 * 0.1 / 16, abs=1e-3)
        assert falls.loc[seed].item() == pytest.approx(2 * 0.1 * (1 / 8 - 1 / 32), abs=1e-3)
        over = true_world["B2"].parts[0].evidence.numbers.values.loc[seed, "200 V"]
        assert 0.05 * heat[seed] < over < 0.15 * heat[seed]


def test_the_rules_are_judged_as_the_claims_are():
    claims, beyond = load_rules(CLAIMS), load_rules(BEYOND)
    assert beyond.common == claims.common
    assert not {c.name for c in claims.claims} & {c.name for c in beyond.claims}


def test_the_decays_and_runs_are_those_of_the_experiments():
    by_name = {experiment["name"]: experiment for experiment in experiments("experiment/beyond")}
    forks = [(part["runs"][0], part["points"][0]) for part in by_name["averaged_decay"]["parts"]]
    assert forks == [fork for of_length in DECAYS.values() for fork in of_length]
    assert tuple(m["run"] for m in by_name["predicted_gain"]["measurements"]) == CONSTANT_RUNS
    assert tuple(m["run"] for m in by_name["batch_size"]["measurements"]) == tuple(BATCHES)
    assert tuple(by_name["merged_orders"]["parts"][0]["runs"]) == ORDERS
    assert by_name["anytime"]["parts"][0]["points"] == by_name["averages"]["parts"][0]["points"] == [*BUDGETS]


NAMES = [experiment["name"] for experiment in experiments("experiment/beyond")]


@pytest.mark.parametrize("name", NAMES)
def test_every_question_has_a_figure_of_its_own(records, name):
    figure = describe(Study(records), name)
    assert figure.see and all(len(series.x) for panel in figure.panels for series in panel.series)


def test_a_point_a_run_lies_where_it_was_predicted(records):
    (panel,) = describe(Study(records), "predicted_gain").panels
    points = [series for series in panel.series if series.marker]
    assert sum(len(series.x) for series in points) == len(CONSTANT_RUNS)
    for series in points:
        assert series.y == pytest.approx(series.x, rel=0.02)
