"""Evidence of curves, fine-tuning and weight space, on small studies whose numbers are known by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from records import Missing, Study
from small_study import SEEDS, values
from verdicts import evidence

# ---- curves ----


def test_loss_saved_after_the_warm_up_and_at_the_end(small):
    # 40 steps of 10 tokens, 2 of them warm-up: start is steps 3 and 4, the end is the last 4.
    saved = {2: [9, 9, 1, 2, 9] + [9] * 31 + [0, 0, 1, 1], 3: [0] * 40, 4: [0, 0, -1, -1] + [0] * 36}
    small.run("continued_baseline", loss={seed: [10.0] * 40 for seed in SEEDS})
    small.run("continued_pma", loss={seed: [10.0 - s for s in saved[seed]] for seed in SEEDS})
    study, runs = small.study(), {"run": "continued_pma", "baseline": "continued_baseline"}
    assert values(evidence.loss_saved(study, "nats", SEEDS, **runs, steps="start")) == [1.5, 0.0, -1.0]
    assert values(evidence.loss_saved(study, "nats", SEEDS, **runs, steps="end")) == [0.5, 0.0, 0.0]


def test_curves_of_other_steps_are_refused(small):
    small.run("continued_baseline", loss={seed: [10.0] * 40 for seed in SEEDS})
    small.run("continued_pma", loss={seed: [10.0] * 39 for seed in SEEDS})
    runs = {"run": "continued_pma", "baseline": "continued_baseline"}
    with pytest.raises(Missing, match="seed 2: 40 and 39 logged steps"):
        evidence.loss_saved(small.study(), "nats", SEEDS, **runs, steps="end")


def test_gradient_norms_in_mean_scatter_and_spikes(small):
    calm = [1.0 + 0.1 * (i % 3 - 1) for i in range(60)]  # running median 1, deviations .1, 0, .1
    wild = [2.0 + 0.4 * (i % 3 - 1) for i in range(60)]
    wild[11] = wild[50] = 9.0  # two that were high already: neither median moves
    small.run("sft_baseline", gradient_norm={2: wild, 3: calm, 4: [2 * x for x in calm]})
    small.run("sft_pma", gradient_norm={seed: calm for seed in SEEDS})
    study = small.study()
    mean = evidence.norm_ratio(study, "text", SEEDS, of="mean")
    expected = [np.log(np.mean(wild)), 0.0, np.log(2)]  # the calm norm is 1 in the mean
    assert values(mean) == np.round(expected, 9).tolist()
    scatter = np.round([np.log(4), 0.0, np.log(2)], 9).tolist()
    assert values(evidence.norm_ratio(study, "text", SEEDS, of="scatter")) == scatter
    assert values(evidence.norm_ratio(study, "text", SEEDS, of="spikes")) == [2.0, 0.0, 0.0]


# ---- fine-tuning ----


def test_columns_of_fine_tuning(small):
    axes = [("instruct", axis) for axis in ("math", "reasoning", "knowledge", "dialogue", "ood")] + [("proxy", "code")]
    for i, (suite, axis) in enumerate(axes):
        column = (suite, axis, "bits_per_byte")
        small.score("table_1", "sft_baseline", 67.5, 2.0, column=column)
        # Seed 2: six better by .6; seed 3: two better by .3, four level; seed 4: three better by 1, three worse by 1.
        steps = [0.6, 0.3 if i < 2 else 0.0, 1.0 if i < 3 else -1.0]
        small.score("table_1", "sft_pma", 67.5, [2.0 - step for step in steps], column=column)
    study = small.study()
    assert values(evidence.tuned_over_baseline(study, "tasks", SEEDS, runs=["sft_pma"])) == [0.6, 0.1, 0.0]
    found = values(evidence.columns_better(study, "tasks", SEEDS, run="sft_pma"))
    assert found == [0.5, round(2 / 6 - 0.5, 9), 0.0]
    with pytest.raises(ValueError, match="measure=text"):
        evidence.columns_better(study, "text", SEEDS, run="sft_pma")


# ---- weight space ----


def test_snapshots_farther_from_the_optimum_than_the_merge(small):
    rows = []
    for seed, merged in zip(SEEDS, (1.0, 3.0, 9.0), strict=True):
        rows.append((seed, "optimum", 0, 0.0, "loss", 0.5))
        for tokens, level in ((0, merged), (100, 2.0), (200, 2.5), (300, 4.0), (400, 5.0)):
            rows += [(seed, "line", tokens, along, "loss", level - along) for along in (0.0, 0.5)]
    columns = ["seed", "role", "tokens", "along", "metric", "value"]
    small.table("figure_8", "landscape", pd.DataFrame(rows, columns=columns).assign(run="moe_main"))
    assert values(evidence.farther_share(small.study(), "text", SEEDS)) == [0.5, 0.0, -0.5]


def test_equation_15_room_and_prediction(small):
    # Two snapshots at 200 and 100, and windows {200, 100}, {200, 150}: H terms by hand, diagonal 1, cross c.
    # Room = (2 - 2c) / 2 = 1 - c; predicted gain = (2 - 2c) / 8. Least room: the larger cross term.
    terms, losses = [], []
    for seed, slope in zip(SEEDS, (1.0, 2.0, -1.0), strict=True):
        cross = {(100, 150): 0.0, (100, 200): 0.2, (150, 200): 0.6}
        for i in (100, 150, 200):
            for j in (100, 150, 200):
                value = 1.0 if i == j else cross[min(i, j), max(i, j)]
                terms.append((seed, "hessian", i, j, value))
            losses.append((seed, "snapshot", 1, 0, i, 3.0))
        for interval, c in ((100, 0.2), (50, 0.6)):
            losses.append((seed, "merged", 2, interval, 200, 3.0 - slope * (2 - 2 * c) / 8))
    run = {"run": "moe_main"}
    terms_table = pd.DataFrame(terms, columns=["seed", "term", "i", "j", "value"]).assign(**run)
    losses_table = pd.DataFrame(losses, columns=["seed", "what", "n", "interval", "tokens", "value"]).assign(**run)
    small.table("equation_15", "curvature_terms", terms_table)
    small.table("equation_15", "curvature_losses", losses_table)
    study = small.study()
    assert values(evidence.inequality_room(study, "text", SEEDS)) == [0.4] * 3
    expected = np.round([0.0, np.log(2), np.log(0.01)], 9).tolist()  # a slope below .01 counts as .01
    assert values(evidence.prediction_slope(study, "text", SEEDS)) == expected


def test_measurements_of_an_earlier_version_or_of_other_seeds_are_named(small):
    old = pd.DataFrame({"run": ["moe_main"], "role": ["grid"], "metric": ["loss"], "value": [1.0]})
    small.table("figure_8", "landscape", old)
    with pytest.raises(Missing, match="figure_8: landscape.csv is of an earlier version"):
        evidence.farther_share(Study(small.root), "text", SEEDS)
    small.table("figure_8", "landscape", old.assign(seed=2))
    with pytest.raises(Missing, match="figure_8: no landscape of moe_main seed 3"):
        evidence.farther_share(Study(small.root), "text", [3])
