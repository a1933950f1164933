"""The finding's numbers are those of the records, and a model is called by its real size first."""

from pathlib import Path

import pandas as pd
import pytest
from finding import finding
from records import Study
from sizes import label, sizes


@pytest.fixture(scope="module")
def study(published_cpu: Path) -> Study:
    return Study(published_cpu)


def test_the_finding_is_what_the_records_say(study: Study) -> None:
    found = finding(study)
    table = pd.read_csv(study.root / "figure_3" / "records.csv")
    table = table[(table.task == "average") & (table.metric == "bits_per_byte") & (table.tokens == table.tokens.max())]

    def score(run: str, method: str) -> float:
        return table[(table.run == run) & (table.method == method)]["value"].mean()

    last = score("moe_main", "last")
    assert found.merged.saved == pytest.approx(last - score("moe_main", "sma"))
    assert found.annealed == pytest.approx(last - score("annealed_moe_main", "last"))
    assert found.merged.low < found.merged.saved < found.merged.high
    assert f"{found.merged.saved:.3f}" in found.sentence and f"{found.annealed:.3f}" in found.sentence
    assert found.early.saved <= found.best_early.saved and found.best_late.saved >= found.merged.saved


def test_models_are_called_by_their_real_size_first(study: Study) -> None:
    names = [size.label for size in sizes(study)]
    assert label(study, "moe_main") == "576k MoE, standing for 1.3B/13B"
    assert label(study, "moe_main") in names and len(set(names)) == len(names)
