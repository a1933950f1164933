"""Evidence in common, and over sizes and rates, on small studies whose numbers are known by hand."""

from __future__ import annotations

import pytest
import yaml
from records import Missing, Study
from small_study import SEEDS, Small, values
from verdicts import evidence
from verdicts.evidence.gains import best_of_parabola
from verdicts.evidence.trends import FAMILIES
from verdicts.rules import BEYOND, CLAIMS

DENSE_LADDER = FAMILIES["dense"]


def test_every_name_in_the_rules_is_a_function_and_nothing_else_is():
    files = [yaml.safe_load(path.read_text()) for path in (CLAIMS, BEYOND)]
    claims = [claim for file in files for claim in file["claims"].values()]
    parts = [part for claim in claims for part in claim.get("parts", {}).values()]
    named = {part[key] for part in parts for key in ("evidence", "margin_of") if key in part}
    assert named == set(evidence.__all__)
    assert all(callable(getattr(evidence, name)) for name in named)


def test_a_measure_reads_its_own_records_and_accuracy_is_turned(small):
    for metric, task in (("bits_per_byte", "heldout"), ("bits_per_byte", "average"), ("choice", "average")):
        step = {"heldout": 1, "average": 2}[task] + (metric == "choice")
        small.score("figure_3", "moe_main", 172, 9.0 + step, column=("proxy", task, metric))
        small.sma("figure_3", "moe_main", 172, 9.0, column=("proxy", task, metric))
    small.score("figure_3", "moe_main", 172, 0.3, column=("proxy", "average", "acc"))
    small.sma("figure_3", "moe_main", 172, 0.7, column=("proxy", "average", "acc"))
    found = {
        measure: values(evidence.merge_over(small.study(), measure, SEEDS, other="moe_main", at=172))
        for measure in ("text", "tasks", "choice", "accuracy")
    }
    assert found == {"text": [1.0] * 3, "tasks": [2.0] * 3, "choice": [3.0] * 3, "accuracy": [0.4] * 3}
    with pytest.raises(ValueError, match="measure=nats: no score"):
        evidence.merge_over(small.study(), "nats", SEEDS, other="moe_main", at=172)


def test_what_lacks_is_named(small):
    small.score("figure_3", "moe_main", 172, 2.0)
    small.sma("figure_3", "moe_main", 172, 1.0)
    study = small.study()
    with pytest.raises(Missing, match="figure_3: no proxy heldout/bits_per_byte of moe_main seed 9, last at 172 V"):
        evidence.merge_over(study, "text", [2, 9], other="moe_main", at=172)
    with pytest.raises(Missing, match="figure_3: no proxy average/choice in its records"):
        evidence.merge_over(study, "choice", SEEDS, other="moe_main", at=172)
    with pytest.raises(Missing, match="needs at least 2"):
        evidence.forecast_skill(study, "text", [2])


def test_a_seed_that_stands_twice_is_refused(small):
    small.score("figure_3", "moe_main", 172, 2.0)
    small.score("figure_3", "moe_main", 172, 2.1, interval=0.5)  # one snapshot, whatever interval stands beside it
    with pytest.raises(ValueError, match="figure_3: moe_main seed 2 stands twice"):
        evidence.merge_over(small.study(), "text", SEEDS, other="moe_main", at=172)


# ---- sizes and rates ----


def test_gain_of_each_size_and_their_mean(small):
    for i, run in enumerate(DENSE_LADDER):
        small.score("figure_9", run, 50, [2.0, 3.0, 4.0])
        small.sma("figure_9", run, 50, [2.0 - i, 3.0 - i, 4.0 - i - 0.4], n=6 + i, interval=0.5)
    study = small.study()
    found = evidence.gain_by_size(study, "text", SEEDS, experiment="figure_9")
    assert list(found.columns) == list(DENSE_LADDER)
    assert values(found) == [[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0], [0.4, 1.4, 2.4, 3.4]]
    assert values(evidence.gain_by_size(study, "text", SEEDS, experiment="figure_9", mean=True)) == [1.5, 1.5, 1.9]


def ladder(small: Small, curves: dict[str, list[list[float]]]) -> Study:
    """interval_by_size: scores over V = 1/2, 1, 2, 4, a list a seed, of the dense family; last snapshots score 10."""
    for i, run in enumerate(DENSE_LADDER):
        small.run(run, parameters=1000 * 2**i)
        small.score("interval_by_size", run, 50, 10.0)
        for j, interval in enumerate((0.5, 1, 2, 4)):
            small.sma("interval_by_size", run, 50, [seed[j] for seed in curves[run]], n=6, interval=interval)
    return small.study()


def test_slope_of_the_gain_is_its_change_over_the_family(small):
    # Gains at V: 1, 2, 3, 4 over sizes that double: the change is 3. Then level, and 4 to 1.
    at_v = {run: [[0, 10 - g, 0, 0] for g in (i + 1, 2, 4 - i)] for i, run in enumerate(DENSE_LADDER)}
    study = ladder(small, at_v)
    assert values(evidence.gain_slope(study, "text", SEEDS, kind="dense", n=6, interval=1)) == [3.0, 0.0, -3.0]
    assert values(evidence.mean_gain(study, "text", SEEDS, kind="dense", n=6, interval=1)) == [2.5, 2.0, 2.5]


def test_best_interval_is_the_least_point_of_a_parabola_and_grows_in_doublings(small):
    # Parabolas about log2 V = 0, 1/2, 1, 3/2; then all about 1; then about 9, which is kept at 2.5.
    def curve(best: float) -> list[float]:
        return [(x - best) ** 2 for x in (-1, 0, 1, 2)]

    study = ladder(small, {run: [curve(i / 2), curve(1), curve(9)] for i, run in enumerate(DENSE_LADDER)})
    assert values(evidence.best_interval_growth(study, "text", SEEDS, kind="dense", n=6)) == [1.5, 0.0, 0.0]
    assert best_of_parabola([-1, 0, 1, 2], curve(9)) == 2.5
    assert best_of_parabola([-1, 0, 1, 2], [1, 3, 4, 4]) == -1.5  # opens downwards: the lower end


def test_slope_over_rates_leaves_out_those_that_train_badly(small):
    runs = ("lr_quarter", "lr_half", "dense_411m", "lr_double", "lr_quadruple")
    for i, run in enumerate(runs):
        final = 4.0 if run == "lr_quadruple" else 3.0 + 0.05 * i
        losses = {seed: [8.0] * 18 + [final, final] for seed in SEEDS}
        small.run(run, peak_lr=0.25 * 2**i, loss=losses)
        small.score("learning_rate", run, 50, 10.0)
        small.sma("learning_rate", run, 50, 10.0 - (i if i < 4 else 0), interval=0.5)
    study = small.study()
    # Gains 0, 1, 2, 3 over three doublings; 3.15 lies within .15 of 3. With the fifth, 0: slope .2, over four of them.
    assert values(evidence.rate_slope(study, "text", SEEDS, within=0.1501)) == [3.0] * 3
    assert values(evidence.rate_slope(study, "text", SEEDS)) == [0.8] * 3
    with pytest.raises(Missing, match="lr_quarter alone trains within 0.01 nats"):
        evidence.rate_slope(study, "text", SEEDS, within=0.01)


# ---- choosing N and V ----


def test_regret_of_an_interval_chosen_on_the_smallest_size_and_other_seeds(small):
    best = {"half": [1, 2, 3, 4], "one": [2, 1, 3, 4]}
    # On the smallest size seed 2 prefers V, seeds 3 and 4 V/2: chosen for seed 2 is V/2; for 3 and 4 the two tie, and
    # the smaller V comes first. Larger sizes: the dense ones prefer V, which costs 1, the MoE ones V/2.
    for kind, runs in FAMILIES.items():
        for i, run in enumerate(runs):
            small.run(run, parameters=1000 * 2**i)
            large = best["one"] if kind == "dense" else best["half"]
            for j, interval in enumerate((0.5, 1, 2, 4)):
                of_seeds = [best["one"][j], best["half"][j], best["half"][j]] if i == 0 else large[j]
                small.sma("interval_by_size", run, 50, of_seeds, n=6, interval=interval)
    found = values(evidence.regret_over_sizes(small.study(), "text", SEEDS))
    assert found == [round(0.005 - 0.5, 9)] * 3


def test_regret_of_a_window_chosen_on_other_seeds(small):
    # The others of seed 2 prefer (10, 1), as it does; those of 3 too, where (15, 1) is better by .5; and of 4.
    small.sma("figure_5", "moe_main", 200, [1.0, 2.0, 1.0], 10, 1)
    small.sma("figure_5", "moe_main", 200, [3.0, 1.5, 1.75], 15, 1)
    small.sma("figure_5", "moe_main", 200, [9.0, 9.0, 9.0], 3, 1)
    found = values(evidence.regret_over_seeds(small.study(), "text", SEEDS))
    assert found == [0.005, round(0.005 - 0.5, 9), 0.005]
