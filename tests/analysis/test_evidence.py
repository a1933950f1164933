"""The numbers behind the verdicts, on small studies whose numbers are known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from records import ROOT, Missing, Study
from verdicts import evidence
from verdicts.evidence.forecast import first_reached
from verdicts.evidence.gains import best_of_parabola
from verdicts.evidence.trends import FAMILIES

from pma.records import COLUMNS

SEEDS = [2, 3, 4]
V = 100  # tokens
DENSE_LADDER = FAMILIES["dense"]


class Small:
    """A study on disk, of seeds 2, 3 and 4, written row by row."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._rows: dict[str, list[dict]] = {}

    def run(self, run: str, parameters: int = 1000, peak_lr: float = 1.0, **columns) -> None:
        """Config and manifest of a run, and its curve: a step of 10 tokens for each value, by seed, of each column."""
        for seed in SEEDS:
            folder = self.root / f"{run}-seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            config = {"scale": {"merge_interval": V}, "schedule": {"peak_lr": peak_lr, "warmup_tokens": 20}}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            (folder / "manifest.json").write_text(json.dumps({"parameters": {"total": parameters}}))
            if columns:
                of_seed = {name: values[seed] for name, values in columns.items()}
                steps = [
                    {"tokens": 10 * (i + 1), **dict(zip(of_seed, row, strict=True))}
                    for i, row in enumerate(zip(*of_seed.values(), strict=True))
                ]
                (folder / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))

    def score(self, experiment, run, at, values, method="last", n=1, interval=1.0, column=None) -> None:
        """Scores of a merge: a number for all seeds, or one a seed; `column` is suite, task, metric (text if None)."""
        if not (self.root / f"{run}-seed2" / "config.yaml").exists():
            self.run(run)
        suite, task, metric = column or ("proxy", "heldout", "bits_per_byte")
        values = [values] * len(SEEDS) if np.isscalar(values) else values
        self._rows.setdefault(experiment, []).extend(
            dict(
                scale="cpu", experiment=experiment, run=run, seed=seed, tokens=round(at * V), method=method, n=n,
                interval=round(interval * V), suite=suite, task=task, metric=metric, value=value, stderr=0.0,
                config_hash="0",
            )
            for seed, value in zip(SEEDS, values, strict=True)
        )  # fmt: skip

    def sma(self, experiment, run, at, values, n=10, interval=1.0, **column) -> None:
        self.score(experiment, run, at, values, "sma", n, interval, **column)

    def table(self, experiment: str, name: str, rows: pd.DataFrame) -> None:
        (self.root / experiment).mkdir(parents=True, exist_ok=True)
        rows.to_csv(self.root / experiment / f"{name}.csv", index=False)

    def study(self) -> Study:
        for experiment, rows in self._rows.items():
            self.table(experiment, "records", pd.DataFrame(rows, columns=COLUMNS))
        return Study(self.root)


@pytest.fixture
def small(tmp_path) -> Small:
    return Small(tmp_path / "cpu")


def values(found: pd.DataFrame | pd.Series, decimals: int = 9) -> list:
    """Numbers by seed, and a check of what every function of evidence promises: a row a seed, in floats."""
    assert list(found.index) == SEEDS and found.index.name == "seed"
    assert all(dtype.kind == "f" for dtype in np.atleast_1d(found.dtypes))
    return found.round(decimals).to_numpy().squeeze().tolist()


# ---- all of it -------------------------------------------------------------------------------------------------------


def test_every_name_in_the_rules_is_a_function_and_nothing_else_is():
    claims = yaml.safe_load((ROOT / "analysis" / "claims.yaml").read_text())["claims"].values()
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


# ---- sizes and rates -------------------------------------------------------------------------------------------------


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


# ---- along the main run ----------------------------------------------------------------------------------------------


def methods(small: Small, at: float, last: float, sma: float, wma: float, ema1: float, ema2: float) -> None:
    small.score("figure_4", "moe_main", at, last)
    for method, score in (("sma", sma), ("wma", wma), ("ema_0.1", ema1), ("ema_0.2", ema2)):
        small.score("figure_4", "moe_main", at, score, method, 10)


def test_methods_against_the_last_snapshot_in_order_and_in_spread(small):
    methods(small, 25.5, 5.0, 4.0, 3.0, 6.0, 5.5)
    methods(small, 200, 2.0, 1.5, 1.25, 1.0, 1.75)
    study = small.study()
    gains = evidence.method_gains(study, "text", SEEDS, at=[25.5, 200])
    assert list(gains.columns[[0, -1]]) == ["sma at 25.5 V", "ema_0.2 at 200 V"]
    assert values(gains) == [[1.0, 2.0, -1.0, -0.5, 0.5, 0.75, 1.0, 0.25]] * 3
    # WMA over SMA, EMA(.1) and EMA(.2); EMA(.2) over EMA(.1).
    assert values(evidence.method_order(study, "text", SEEDS, at=25.5)) == [[1.0, 3.0, 2.5, 0.5]] * 3
    assert values(evidence.method_spread(study, "text", SEEDS, first=25.5, last=200)) == [2.25] * 3  # 3 - .75


def test_intervals_and_numbers(small):
    small.score("figure_5", "moe_main", 25.5, 5.0)
    for n, v, score in (
        (10, 0.5, 4.0),
        (10, 1, 4.5),
        (10, 2, 5.5),
        (6, 4, 7.0),
        (3, 1, 3.0),
        (6, 1, 9.0),
        (15, 1, 8.0),
    ):
        small.sma("figure_5", "moe_main", 25.5, score, n, v)
    for n, v, score in ((10, 0.5, 2.0), (10, 1, 2.5), (10, 2, 2.0), (10, 4, 3.0), (3, 1, 2.7), (15, 1, 2.2)):
        small.sma("figure_5", "moe_main", 200, score, n, v)
    study = small.study()
    assert values(evidence.wide_loses(study, "text", SEEDS, at=25.5, wide=[[10, 2], [6, 4]])) == [[0.5, 2.0]] * 3
    # N = 10, and 6 for the widest V: 7 - 4; then 3 - 2. N = 3, 6 and 15 at 1 V are no part of it.
    assert values(evidence.interval_spread(study, "text", SEEDS, first=25.5, last=200)) == [2.0] * 3
    assert values(evidence.fewer_over_more(study, "text", SEEDS, at=25.5, few=3, many=15)) == [5.0] * 3
    assert values(evidence.fewer_over_more(study, "text", SEEDS, at=200, few=15, many=3)) == [0.5] * 3


def test_length_of_the_window_against_how_it_is_cut(small):
    scores = {
        (10, 0.5): 1.0, (5, 1): 1.2, (3, 1.5): 1.1,  # 5 V: mean 1.1, spread .2
        (20, 0.5): 2.0, (10, 1): 2.2,  # 10 V: 2.1, .2
        (20, 1): 3.0, (5, 4): 3.0,  # 20 V: 3, 0
        (40, 1): 4.0, (5, 8): 4.2,  # 40 V: 4.1, .2
    }  # fmt: skip
    for (n, v), score in scores.items():
        small.sma("duration", "moe_main", 200, score, n, v)
    expected = (4.1 - 1.1) / 3 - 0.6 / 4
    assert values(evidence.duration_decides(small.study(), "text", SEEDS, at=200)) == [round(expected, 9)] * 3


# ---- annealing -------------------------------------------------------------------------------------------------------


def test_merges_over_an_annealing_run(small):
    # By size: annealed snapshots and merges at 172, 180 and 200 V; the constant runs end at 2 and 3.
    for run, constant, last, merged in (
        ("annealed_moe_main", "moe_main", (1.8, 1.7, 1.4), (1.5, 1.45, 1.4)),
        ("annealed_moe_3b_30b", "moe_3b_30b", (2.8, 2.7, 2.2), (2.3, 2.25, 2.1)),
    ):
        for at, single, merge in zip((172, 180, 200), last, merged, strict=True):
            small.score("figure_2", run, at, single)
            small.sma("figure_2", run, at, merge)
        small.score("figure_2", constant, 200, 2.0 if constant == "moe_main" else 3.0)
    study = small.study()
    assert values(evidence.early_merge(study, "text", SEEDS, at=180)) == [-0.05] * 3  # 1.4 - 1.45, 2.2 - 2.25
    assert values(evidence.annealing_gain(study, "text", SEEDS)) == [0.7] * 3  # .6, .8
    assert values(evidence.gain_falls(study, "text", SEEDS, first=172, last=200)) == [0.35] * 3  # .4 - .05
    assert values(evidence.larger_gains_more(study, "text", SEEDS, at=180)) == [0.2] * 3  # .45 - .25


def test_a_merge_of_the_constant_run_against_annealing(small):
    small.score("figure_3", "moe_main", 200, [2.0, 2.0, 2.2])
    small.sma("figure_3", "moe_main", 200, [1.5, 1.9, 1.8])
    small.score("figure_3", "annealed_moe_main", 200, [1.6, 1.8, 1.4])
    study = small.study()
    other = "annealed_moe_main"
    assert values(evidence.merge_over(study, "text", SEEDS, other=other, at=200)) == [0.1, -0.1, -0.4]
    assert values(evidence.merge_over(study, "text", SEEDS, other="moe_main", at=200)) == [0.5, 0.1, 0.4]
    assert values(evidence.annealing_gain(study, "text", SEEDS, other=other)) == [0.4, 0.2, 0.8]
    assert values(evidence.share_recovered(study, "text", SEEDS, at=200)) == [1.25, 0.5, 0.5]


FORKS = [(position, length) for position in (40, 72, 104, 136, 168) for length in (8, 16, 32)]


def forecast(small: Small, annealed: list[float], merged: list[float], last: list[float]) -> Study:
    """Scores, one a seed, that are the same at every point of the constant run and every fork."""
    for at in range(40, 201, 8):
        small.score("annealing_forecast", "moe_main", at, last)
        small.sma("annealing_forecast", "moe_main", at, merged)
    for position, length in FORKS:
        end = position + length
        run = "annealed_moe_main" if end == 200 else f"decay_{length}_at_{position}"
        small.score("annealing_forecast", run, end, annealed)
    return small.study()


def test_forecast_skill_bias_and_margin(small):
    study = forecast(small, annealed=[1.0, 1.0, 1.0], merged=[1.1, 0.8, 1.3], last=[2.0, 2.0, 2.6])
    # Errors: merge .1, .2, .3; last 1, 1, 1.6; last less the others' mean gain (1.3, 1.3, 1): .3, .3, .6.
    assert values(evidence.forecast_skill(study, "text", SEEDS)) == [[0.9, 0.2], [0.8, 0.1], [1.3, 0.3]]
    assert values(evidence.forecast_bias(study, "text", SEEDS)) == [-0.1, 0.2, -0.3]
    assert values(evidence.forecast_gain(study, "text", SEEDS)) == [1.0, 1.0, 1.6]


def test_forecast_coverage_is_calibrated_on_the_other_half(small):
    # Errors of seeds 2, 3, 4: -.1, -.2, -.15. Halves: 2 | 3, 4. Seed 2 is outside [-.2, -.15]; 3 and 4 are not -.1.
    study = forecast(small, annealed=[1.0, 1.0, 1.0], merged=[1.1, 1.2, 1.15], last=[2.0, 2.0, 2.0])
    assert values(evidence.forecast_coverage(study, "text", SEEDS)) == [0.0, 0.0, 0.0]


def test_forecast_coverage_counts_those_inside(small):
    # Errors: -.1; -.2; 0. Seed 2 lies between the other two, half of whose 30 errors are -.2 and half 0.
    study = forecast(small, annealed=[1.0, 1.0, 1.0], merged=[1.125, 1.25, 1.0], last=[2.0, 2.0, 2.0])
    assert values(evidence.forecast_coverage(study, "text", SEEDS)) == [1.0, 0.0, 0.0]


def test_tokens_needed_leaves_out_what_ends_too_late_and_counts_the_end_for_never(small):
    ends = [position + length for position, length in FORKS if 1.2 * (position + length) <= 200]
    assert len(ends) == 11  # of fifteen
    study = forecast(small, annealed=[1.0, 1.0, 1.0], merged=[1.0, 1.5, 0.5], last=[2.0, 2.0, 2.0])
    at_once, never = (1.2 - np.mean([reached / end for end in ends]) for reached in (40, 200))
    expected = np.round([at_once, never, at_once], 9).tolist()
    assert values(evidence.tokens_needed(study, "text", SEEDS, most=1.2)) == expected


def test_a_score_is_reached_linearly_between_points():
    assert first_reached([40, 48, 56], [3.0, 2.0, 1.0], 1.75) == 50
    assert first_reached([40, 48, 56], [3.0, 1.0, 2.0], 1.5) == 46  # the first time, though it is lost again
    assert first_reached([40, 48, 56], [3.0, 2.0, 1.0], 0.5) == 56


# ---- choosing N and V ------------------------------------------------------------------------------------------------


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


# ---- curves ----------------------------------------------------------------------------------------------------------


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


# ---- fine-tuning -----------------------------------------------------------------------------------------------------


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


# ---- weight space ----------------------------------------------------------------------------------------------------


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
