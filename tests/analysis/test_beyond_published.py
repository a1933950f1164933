"""What the paper left open, published beside its claims: tables, documents, page, and a newcomer's numbers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import claims
import documents
import pandas as pd
import pictures
import pytest
import verify
from page import build, story
from publish import publish
from records import OPEN_EXPERIMENTS, Study
from run_script import call
from synthetic_world import World, write_world
from verdicts.decide import Family, families, of_scales
from verdicts.frozen import published_hash
from verdicts.rules import BEYOND as RULES
from verdicts.rules import all_rules, load_rules
from verdicts.tables import seeds_csv

SEEDS = range(2, 7)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Records of two figures and of all questions, published one after the other."""
    paper, runs = (tmp_path_factory.mktemp(name) / "runs" for name in ("paper", "both"))
    write_world(paper / "cpu", World(), SEEDS, only=("figure_1", "figure_3"))
    write_world(runs / "cpu", World(), SEEDS, "experiment/beyond")
    shutil.copytree(publish(paper, "cpu"), runs / "cpu" / "published")
    publish(runs, "cpu")
    return runs


@pytest.fixture(scope="module")
def decided(runs) -> tuple[Family, Family]:
    """The paper's claims and the questions."""
    return families(runs)


def test_both_are_published_and_the_others_kept(runs, decided):
    study = Study(runs / "cpu" / "published")
    assert study.experiments() == ["figure_1", "figure_3", *OPEN_EXPERIMENTS]
    claims, beyond = decided
    assert {decision.verdict for decision in beyond.decided["cpu"]} == {"replicated"}
    assert beyond.decided["cpu"].seeds == [*SEEDS] and len(of_scales([claims, beyond])["cpu"]) == 31


def test_records_under_other_rules_do_not_stay(runs, tmp_path, monkeypatch):
    """Of the questions alone: the claims were made under theirs."""
    shutil.copytree(runs, tmp_path / "runs")
    manifest = tmp_path / "runs" / "cpu" / "published" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(published_hash(manifest.parent, RULES), "1" * 64))
    for folder in (tmp_path / "runs" / "cpu").iterdir():
        if folder.name not in ("published", "steady_gain", *(f"moe_main-seed{seed}" for seed in SEEDS)):
            shutil.rmtree(folder)
    left = set(Study(publish(tmp_path / "runs", "cpu")).experiments())
    assert left == {"steady_gain", "figure_1", "figure_3"}


def test_documents_hold_them_and_verify_recomputes_them(runs, decided, tmp_path, monkeypatch):
    for module in (claims, verify):
        monkeypatch.setattr(module, "families", lambda _: decided)
    root = tmp_path / "repository"
    monkeypatch.setattr(documents.readme, "blocks", lambda *_: {})
    monkeypatch.setattr(documents.readme, "largest_deviations", lambda *_: "")
    monkeypatch.setattr(documents, "choosing_blocks", lambda *_: {})
    for name, blocks in documents.contents(runs, decided).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(f"<!-- {b}:begin -->\n<!-- {b}:end -->\n" for b in blocks))
    for other in ("stale", "stale_sample"):
        monkeypatch.setattr(verify, other, lambda *_: [])
    call(monkeypatch, claims, "--readme", f"--runs-dir={runs}", f"--readme-path={root / 'README.md'}")
    assert verify.verify(runs, root) == []
    text = (root / "docs" / "beyond.md").read_text()
    assert "| B5: The mean of three decays" in text and "**Others** (OLMo 2, arXiv 2501.00656)" in text
    assert "`make reproduce-merged-orders`" in text and "| cosine | 4 x |" in text
    table = pd.read_csv(runs / "cpu" / "published" / "claims.csv")
    assert list(dict.fromkeys(table["claim"])) == [claim.name for rules in all_rules() for claim in rules.claims]
    seeds = pd.read_csv(runs / "cpu" / "published" / "seeds.csv")
    assert sorted(seeds.loc[seeds["claim"] == "B10", "seed"].unique()) == [2, 3, 4]  # its own seeds

    # A gap is drift once every seed that decides is there (the questions), not while some are to come (the claims).
    with monkeypatch.context() as patch:
        patch.setattr(verify, "check", lambda *_: ["a gap"])
        assert verify.verify(runs, root) == [f"{runs / 'cpu' / 'published'}: a gap"]
    (root / "docs" / "beyond.md").write_text(text.replace("a holds", "a fails", 1))
    assert any("beyond.md" in line for line in verify.verify(runs, root))


def test_page_report_and_pictures_show_them_apart_from_the_claims(runs, decided, tmp_path, monkeypatch):
    shown = {"figure_1", "overwritten", "averaged_decay"}  # drawing all of them takes long
    names = [name for name in Study(runs / "cpu" / "published").experiments() if name in shown]
    monkeypatch.setattr(Study, "experiments", lambda _: names)
    monkeypatch.setattr(build, "families", lambda _: decided)
    monkeypatch.setattr(story, "families", lambda _: decided)
    by_rules = {family.rules.path: family.decided["cpu"] for family in decided}
    monkeypatch.setattr(pictures, "decide", lambda _, rules: by_rules[rules.path])
    text = build.build(runs)
    assert "10 questions that the paper left open" in text and "21 claims, all but a few" in text
    row = text.partition('id="B8"')[2].partition("</tr>\n<tr role")[0]
    assert '<span class="label">Others: </span>' in row and 'href="#cpu-overwritten"' in row
    (report,) = story.stories(runs)
    heads = [chapter.title for chapter in report.chapters if chapter.level == 1]
    assert heads.index("What the paper left open") == heads.index("The paper's claims") + 1
    drawn = {path.stem for path in pictures.pictures(Study(runs / "cpu" / "published"), tmp_path)}
    assert {"B1", "B10", "C1", *shown} <= drawn


def test_a_newcomer_sees_those_questions_that_the_records_are_about(runs, decided, tmp_path, monkeypatch, capsys):
    own = tmp_path / "own"
    write_world(own / "cpu", World(), [0], "experiment/beyond")
    shutil.copytree(runs / "cpu" / "published", own / "cpu" / "published")
    (own / "cpu" / "published" / "seeds.csv").write_text(seeds_csv(of_scales(decided)["cpu"]))
    call(monkeypatch, claims, f"--runs-dir={own}", f"--out-dir={tmp_path}", "--compare")
    text = capsys.readouterr().out
    assert "What the paper left open: verdicts need at least 3 of the seeds 2 to 6" in " ".join(text.split())
    assert "make reproduce-beyond SCALE=cpu SEEDS=0,2,3,4" in " ".join(text.split())
    assert "C1 a" not in text and "B3 b" in text and "numbers lie within" in text
    assert "Nothing is published of seed 0, so there are no bits to compare." in text


def test_a_changed_rule_is_named_with_its_file(runs, monkeypatch):
    changed = replace(load_rules(RULES), sha256="2" * 64)
    assert "changed_after_data in beyond.yaml" in verify.change_text(changed, runs / "cpu" / "published")
