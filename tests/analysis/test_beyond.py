"""The questions that the paper left open, decided in made-up worlds whose answer is known."""

from __future__ import annotations

import pytest
from synthetic_world import World, write_world
from verdicts.decide import Decisions, decide
from verdicts.evidence.beyond import CONSTANT_RUNS, DECAYS
from verdicts.rules import BEYOND, CLAIMS, load_rules

SEEDS = range(2, 6)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Decide the questions in a world."""

    def judge(world: World) -> Decisions:
        folder = tmp_path_factory.mktemp("beyond") / "cpu"
        return decide(write_world(folder, world, SEEDS, "experiment/beyond"), load_rules(BEYOND))

    return judge


@pytest.fixture(scope="module")
def true_world(judged) -> Decisions:
    """Everything is as its source says."""
    return judged(World())


def test_where_the_sources_are_right_every_part_holds(true_world):
    outcomes = {f"{p.claim}{p.part.name}": p.outcome for d in true_world for p in d.parts if p.counted}
    assert set(outcomes.values()) == {"holds"}, outcomes


def test_where_everything_is_the_other_way_round_no_effect_holds(judged):
    decisions = judged(World(heat=-0.1))
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


def test_the_decays_and_runs_are_those_of_the_experiments(true_world):
    assert [len(of_length) for of_length in DECAYS.values()] == [5, 5, 5]
    assert len(CONSTANT_RUNS) == 12
    (slope,) = true_world["B10"].parts[:1]
    assert slope.headline.mean == pytest.approx(0, abs=0.02)
