"""The finding and docs/choosing.md: their numbers are those of the records, and their words follow from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import choosing
import numpy as np
import pandas as pd
import pytest
import yaml
from finding import Finding, finding
from records import Missing, Study
from sizes import label, sizes
from verdicts.decide import Decision
from verdicts.judge import Evidence, Numbers, judge, verdict_of
from verdicts.rules import load_rules

from pma.records import COLUMNS

FORK, FIRST, END, V = 168, 25, 200, 10  # V in tokens, the others in V
SEEDS = (0, 2, 3, 4)
TASKS = ("heldout", "average")


def study(root: Path, seeds: Sequence[int], saved: Mapping[str, float], annealed: float = 0.08) -> Study:
    """Figures 3 and 5 of a main run whose last snapshot scores 2 + seed / 10 everywhere.

    Args:
        saved: by a merge's place (end, early, early best, end best); seed s adds s / 1000.
        annealed: saved by the annealed fork.
    """

    def row(experiment, run, seed, at, score, n=1, interval=1, method="last"):
        key = {"scale": "cpu", "experiment": experiment, "run": run, "seed": seed, "tokens": at * V, "method": method}
        key |= {"n": n, "interval": interval * V, "suite": "proxy", "metric": "bits_per_byte"}
        return [{**key, "task": task, "value": score, "stderr": 0.01, "config_hash": "0"} for task in TASKS]

    rows, items = [], []
    for seed in seeds:
        last = 2 + seed / 10
        gain = {place: last - number - seed / 1000 for place, number in saved.items()}
        for at in (FORK, END):
            rows += row("figure_3", "moe_main", seed, at, last)
        rows += row("figure_3", "moe_main", seed, END, gain["end"], 10, 1, "sma")
        rows += row("figure_3", "annealed_moe_main", seed, END, last - annealed)
        for at, default, best in ((FIRST, "early", "early best"), (END, "end", "end best")):
            rows += row("figure_5", "moe_main", seed, at, last)
            rows += row("figure_5", "moe_main", seed, at, gain[default], 10, 1, "sma")
            rows += row("figure_5", "moe_main", seed, at, gain[best], 3, 2, "sma")
        _write_run(root / f"moe_main-seed{seed}")
    for entry in rows:
        values = entry["value"] + np.array([-0.01, 0.01] * 4) * (1 if entry["method"] == "last" else 2)
        items += [{**entry, "task": task, "values": values} for task in ("heldout_code", "heldout_prose", "math")]
    for experiment in ("figure_3", "figure_5"):
        (root / experiment).mkdir(parents=True)
        table = pd.DataFrame([entry for entry in rows if entry["experiment"] == experiment], columns=COLUMNS)
        table.to_csv(root / experiment / "records.csv", index=False)
        of_figure = pd.DataFrame([item for item in items if item["experiment"] == experiment])
        of_figure.drop(columns=["value", "stderr"]).drop_duplicates(
            ["run", "seed", "tokens", "method", "n", "interval", "task"]
        ).to_parquet(root / experiment / "items.parquet")
    return Study(root)


def _write_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    config = {"scale": {"merge_interval": V}, "model": {"kind": "moe", "stands_for": "1.3B/13B", "name": "m"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    counts = {"total": 576_000, "active": 281_000}
    (folder / "manifest.json").write_text(json.dumps({"parameters": counts, "tokens": END * V, "seconds": 1.0}))


SAVED = {"end": 0.06, "end best": 0.07, "early": -0.1, "early best": -0.02}


@pytest.fixture
def found(tmp_path) -> Finding:
    return finding(study(tmp_path / "cpu", SEEDS, SAVED))


def test_the_finding_is_the_mean_over_the_counted_seeds_with_students_interval(found):
    # seeds 2, 3, 4 save 0.062, 0.063, 0.064: t of 2 degrees of freedom is 4.303, the standard error 0.001 / sqrt(3)
    assert found.seeds == 3  # seed 0 had been looked at before the rules
    assert found.text.merged.saved == pytest.approx(0.063)
    assert found.text.merged.error == pytest.approx(4.303 * 0.001 / 3**0.5, rel=1e-3)
    assert found.text.annealed == pytest.approx(0.08)
    assert found.sentence == (
        "At the end of a constant-learning-rate run of a 576k-parameter mixture-of-experts model (standing for "
        "1.3B/13B), averaging the last 10 snapshots saves 0.063 [0.061, 0.065] bits per byte of held-out text, 79 % of "
        "the 0.080 that annealing over the last 320 tokens saves (mean of 3 training runs; 95 % interval over runs)."
    )
    assert found.second.startswith("On the right answers of four test axes it saves 0.063 [0.061, 0.065], 79 % of")


def test_a_merge_that_costs_is_said_to_cost(found):
    early = found.advice[1]
    assert "at 250 tokens, a merge with the same N and V costs 0.097 [0.095, 0.099]" in early
    assert early.endswith("(N = 3, 20 tokens apart) costs 0.017 [0.015, 0.019].")
    assert "the best of 2 windows is N = 3 snapshots, 20 tokens apart: it saves 0.073" in found.advice[0]


def test_a_single_run_has_its_interval_over_documents_and_says_so(tmp_path):
    found = finding(study(tmp_path / "cpu", [0], SAVED))
    assert found.seeds == 1 and found.text.merged.saved == pytest.approx(0.06)
    assert 0 < found.text.merged.error < 0.02  # over the documents, paired
    assert "one training run; 95 % interval over held-out documents" in found.sentence


@pytest.mark.parametrize(("end", "annealed"), [(-0.03, 0.08), (0.06, -0.01)])
def test_there_is_a_share_only_of_a_gain(tmp_path, end, annealed):
    found = finding(study(tmp_path / "cpu", [0], SAVED | {"end": end}, annealed))
    assert "%" not in found.text.share_text()
    assert ("costs 0.030 [" in found.sentence) == (end < 0)
    assert ("while annealing over the last 320 tokens costs 0.010" in found.sentence) == (annealed < 0)


def test_without_records_it_says_what_is_missing(tmp_path):
    with pytest.raises(Missing, match="figure_3"):
        finding(Study(tmp_path))


def test_models_are_called_by_their_real_size_first(tmp_path):
    of = study(tmp_path / "cpu", [0, 2], SAVED)
    assert label(of, "moe_main") == "576k MoE, standing for 1.3B/13B"
    assert [size.runs for size in sizes(of)] == [("moe_main",)]


# ---- what docs/choosing.md says


def test_windows_are_read_from_the_records(tmp_path):
    text = choosing.windows(study(tmp_path / "cpu", SEEDS, SAVED))
    assert "| 3 | 2 V | 40 | **-0.017 ± 0.002** | **+0.073 ± 0.002** |" in text
    assert "the best window is N = 3, 2 V apart: 40 tokens, 16 % of those seen. 2 of 2 windows are worse" in text
    assert "Each number is the mean of 3 training runs, ± over runs." in text


def test_the_cost_of_a_choice_made_elsewhere_is_the_smallest_effect_minus_the_number_of_c20(tmp_path):
    rules = load_rules()
    (claim,) = (claim for claim in rules.claims if claim.name == "C20")
    smallest = rules.common.smallest["text"]
    values = pd.DataFrame({"x": [smallest - regret for regret in (0.001, 0.002, 0.003)]}, index=[2, 3, 4])
    judged = judge([Evidence("C20", part, Numbers(values)) for part in claim.parts], rules.common)
    text = choosing.transfer(Decision(claim, verdict_of(judged), parts=tuple(judged)))
    first, second, *_ = text.splitlines()
    assert first.startswith("- V chosen on") and second.startswith("- N and V chosen on")
    assert "0.002 [0.000, 0.004] bits per byte worse than the best choice there." in first
    assert f"**{verdict_of(judged)}** (a {judged[0].verb}: {claim.parts[0].says}; b" in text
