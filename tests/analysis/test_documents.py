"""README and docs are written from the published records, and every drift is named."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import claims
import documents
import numpy as np
import pytest
import verify
from records import Study
from run_script import call, change_rows
from verdicts import readme
from verdicts.decide import Decisions, Family
from verdicts.document import claims_sections
from verdicts.frozen import published_hash
from verdicts.readme import claims_block
from verdicts.tables import result_table

from pma.files import write_json

BLOCKS = {
    "README.md": ("finding", "cost", "claims", "sizes", "deviations"),
    "docs/claims.md": ("claims",),
    "docs/beyond.md": ("questions", "beyond", "trials"),
    "docs/choosing.md": ("windows",),
    "docs/deviations.md": ("largest",),
}


CLAIMS = [f"C{i}" for i in range(1, 22)]


@pytest.fixture
def repository(published, decided_families, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A runs folder with published records, and a folder whose documents are written from them."""
    runs, root = tmp_path / "runs", tmp_path / "repository"
    shutil.copytree(published, runs / "cpu" / "published")
    for name, names in BLOCKS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        markers = "".join(f"<!-- {block}:begin -->\n<!-- {block}:end -->\n" for block in names)
        (root / name).write_text(f"# Title\n{markers}the rest\n")
    for other in ("stale", "stale_sample"):  # pictures and report have tests of their own
        monkeypatch.setattr(verify, other, lambda *_: [])
    monkeypatch.setattr(readme, "finding_block", lambda study: "**The finding.**")  # as do these
    monkeypatch.setattr(documents, "choosing_blocks", lambda *_: {"windows": "the best window"})
    with monkeypatch.context() as context:
        context.setattr(claims, "families", lambda *_: decided_families)
        call(context, claims, "--readme", f"--runs-dir={runs}", f"--readme-path={root / 'README.md'}")
    return runs, root


def test_verify_passes_what_was_written_and_names_every_drift(repository, monkeypatch, capsys):
    runs, root = repository
    text = (root / "README.md").read_text()
    assert text.startswith("# Title\n") and text.endswith("the rest\n")
    assert verify.verify(runs, root) == []

    drifts = (("README.md", "a +0.089", "a +9.089"), ("docs/claims.md", "(+0.107)", "(+9.107)"))
    for name, was, wrong in drifts:
        document = (root / name).read_text()
        assert was in document, name
        (root / name).write_text(document.replace(was, wrong, 1))
    folder = runs / "cpu" / "published"
    change_rows(folder / "claims.csv", lambda table: table.assign(mean=table["mean"].where(table.index != 3, 1.0)))
    change_rows(folder / "seeds.csv", lambda table: table.assign(value=table["value"].where(table.index != 3, 1.0)))
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(published_hash(folder), "1" * 64))
    monkeypatch.setattr(sys, "argv", ["verify.py", f"--runs-dir={runs}", f"--readme-path={root / 'README.md'}"])
    with pytest.raises(SystemExit) as stop:
        verify.main()
    found = capsys.readouterr().out.splitlines()
    assert stop.value.code == 1
    assert [line for line in found if "are not those that" in line and "claims.md" not in line]
    assert any("claims.csv: C2 b" in line and "mean 1.0 published" in line for line in found)
    assert any("seeds.csv: C1 a mean over sizes 4: value 1.0 published" in line for line in found)
    for name, was, wrong in drifts:
        assert any(name in line and wrong in line for line in found), name
        assert any(name in line and was in line for line in found), name


def test_documents_without_markers_and_unpublished_records_are_errors(
    repository, decided_families, tmp_path, monkeypatch
):
    runs, root = repository
    arguments = ["--readme", f"--readme-path={root / 'README.md'}"]
    with pytest.raises(SystemExit, match="no records published"):
        call(monkeypatch, claims, *arguments, f"--runs-dir={tmp_path / 'own'}")
    monkeypatch.setattr(claims, "families", lambda *_: decided_families)
    before = (root / "README.md").read_text()
    (root / "docs" / "claims.md").write_text("no markers\n")
    with pytest.raises(SystemExit, match="claims.md: no lines <!-- claims:begin"):
        call(monkeypatch, claims, *arguments, f"--runs-dir={runs}")
    (root / "docs" / "claims.md").unlink()
    with pytest.raises(SystemExit, match="claims.md: not there; it holds the blocks claims"):
        call(monkeypatch, claims, *arguments, f"--runs-dir={runs}")
    assert (root / "README.md").read_text() == before


def test_the_readme_has_four_columns_and_every_verdict_its_parts(decided, rules):
    partly = replace(decided["C1"], parts=(decided["C1"].parts[0], replace(decided["C1"].parts[1], outcome="fails")))
    decisions = Decisions((replace(partly, verdict="partly"), *decided.claims[1:]))
    block = claims_block(Family(rules, {"cpu": decisions}), "docs/claims.md")
    rows = [line for line in block.splitlines() if line.startswith("| C")]
    assert len(rows) == len(decided) and {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert "**partly**<br>a holds: on average over the sizes<br>b fails: at every size |" in rows[0]
    assert "[Figure 1](docs/claims.md#c1)" in rows[0]


def test_the_document_has_every_seeds_number_with_the_exploratory_ones_in_parentheses(decided, published, rules):
    family = Family(rules, {"cpu": decided, "gpu": decided})
    text = claims_sections(family, dict.fromkeys(("cpu", "gpu"), Study(published)))
    section = text.split("## <a id=")[5]
    assert section.startswith('"c5"') and "**Scale gpu: replicated.** a holds; b holds; c holds." in section
    assert "| part | of | (0) | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 |" in section
    assert "| c | margin of annealing gain | (" in section
    row = next(line for line in section.splitlines() if line.startswith("| a | merge over annealing |"))
    values = decided["C5"].parts[0].evidence.numbers.values.iloc[:, 0]
    assert [cell.strip() for cell in row.split("|")][4:-1] == [f"{value:+.3f}" for value in values]
    assert "![C5, every seed, scale cpu](figures/claims/C5.svg)" in section
    assert "`make reproduce-figure-3` (" in section


def test_a_condition_that_was_not_reached_says_what_was_tried(decided, published, rules):
    claim = replace(rules.claims[0], parts=(), tried="twenty rates on seeds 100 to 103", limits="one machine")
    decision = replace(decided["C1"], claim=claim, parts=(), verdict="condition not reached", why=claim.tried)
    tried = Decisions((decision,))
    family = Family(replace(rules, claims=(claim,)), {"cpu": tried})
    text = claims_sections(family, {"cpu": Study(published)})
    assert "**Scale cpu: condition not reached.** twenty rates on seeds 100 to 103." in text
    assert "**Design and limits.** one machine" in text and "claims/C1.svg" not in text
    assert "**condition not reached**: twenty rates" in claims_block(family)
    row = result_table(tried, "cpu").iloc[0]
    assert (row["claim"], row["verdict"], row["reason"]) == ("C1", "condition not reached", claim.tried)


def test_costs_are_wall_clock_minutes_of_one_seed(nine_seeds, published, decided):
    # A minute a run, two at a time; Figure 3's two runs follow each other; six seconds of scoring a seed.
    study = Study(nine_seeds)
    assert study.cost(["figure_1"]) == pytest.approx(4 * 60 / 2 + 6)
    assert study.cost(["figure_3"]) == pytest.approx(2 * 60 + 6)
    assert study.cost(["table_1"]) == pytest.approx(5 * 60 / 2 + 6)  # four runs, and the one that they start from
    assert Study(published).cost(["figure_1"]) == study.cost(["figure_1"]) == decided["C1"].seconds
    assert np.isnan(study.cost(["nowhere"]))


def test_a_seed_that_was_held_up_does_not_change_the_cost(nine_seeds, tmp_path):
    root = tmp_path / "cpu"
    shutil.copytree(nine_seeds, root)
    before = Study(root).cost(["figure_1"])
    for path in root.glob("*-seed3/manifest.json"):
        write_json(path, {**json.loads(path.read_text()), "seconds": 86_400})
    assert Study(root).cost(["figure_1"]) == before
