"""The report's parts on numbers known by hand: what a claim's row says, and how seeds are put together."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from page.claims import claim_fields, seeds_fields
from page.runs import run_rows, seeds_by_run
from page.story import markdown_claim
from records import Study
from verdicts.decide import Decision
from verdicts.judge import Evidence, Numbers, judge, verdict_of
from verdicts.rules import Claim, Common, Part, Rules

COMMON = Common(0.05, 3, (0, 1), (2, 3, 4, 5), {"text": 0.005, "tasks": 0.005}, 1 / 3)
RULES = Rules(COMMON, (), who="The paper")
SEEDS = [2, 3, 4, 5]


def part(name: str, rule: str = "above", **fields) -> Part:
    fields = {"smallest": 0.005, "unit": "bits per byte", **fields} if rule in ("above", "all_above") else fields
    return Part(name, f"what {name} says", rule, "f", **fields)


def numbers(center: float, columns: tuple[str, ...] = ("x",), seeds=tuple(SEEDS)) -> Numbers:
    values = {column: [center + i / 10 + (seed - 3.5) / 500 for seed in seeds] for i, column in enumerate(columns)}
    return Numbers(pd.DataFrame(values, index=pd.Index(seeds, name="seed")))


@pytest.fixture
def decision() -> Decision:
    """a holds and is contradicted, b fails at one of two sizes, c is shown alone."""
    parts = part("a"), part("b", "all_above"), part("c", "report", unit="share")
    evidence = [
        Evidence("C1", parts[0], numbers(0.1), {"tasks": numbers(-0.2)}, numbers(0.5, seeds=(0,))),
        Evidence("C1", parts[1], numbers(-0.1, ("moe_main", "moe_3b_30b")), {}, None),
        Evidence("C1", parts[2], numbers(0.6)),
    ]
    judged = tuple(judge(evidence, COMMON))
    claim = Claim("C1", "Figure 1", "A merge is better", "It is", ("figure_1",), parts, "How it is measured", "Small")
    return Decision(claim, verdict_of(judged), parts=judged, seconds=600.0)


def test_a_claim_shows_every_part_with_letter_number_outcome_and_contradiction(decision):
    fields = claim_fields(decision, "cpu", ["figure_1"], RULES)
    a, b, c = fields["parts"]
    assert fields["verdict"] == "partly" and fields["figures"] == [("cpu-figure_1", "Figure 1")]
    assert (a["letter"], a["outcome"], a["number"]) == ("a", "holds", "+0.100 [+0.096, +0.104]")
    assert a["contradictions"] == ["but tasks: -0.200 [-0.204, -0.196]"] and a["seeds"] == "4: 2 to 5"
    assert (b["outcome"], b["least"]) == ("fails", "least of 2: 1.3B/13B") and b["number"].startswith("-0.100 [")
    assert (c["outcome"], c["unit"], c["p"]) == ("shown", "share", "")
    assert (fields["measure"], fields["limits"]) == ("How it is measured", "Small")
    assert fields["command"] == "make reproduce-figure-1" and fields["cost"] == "10 min a seed on 2 cores"


def test_every_number_stands_there_by_seed_and_what_does_not_count_in_parentheses(decision):
    head, *rows = claim_fields(decision, "cpu", [], RULES)["seeds"]
    assert head == ["part", "(0)", "2", "3", "4", "5"]
    assert rows[0] == ["a", "+0.493", "+0.097", "+0.099", "+0.101", "+0.103"]
    assert [row[0] for row in rows] == ["a", "b: 1.3B/13B", "b: 3B/30B", "c"] and rows[1][1] == ""


def test_a_claim_unfolds_to_a_row_of_dots_for_each_number(decision):
    strips = claim_fields(decision, "cpu", [], RULES)["strips"]
    assert len(strips["panels"]) == 2  # bits per byte, and a share
    assert strips["panels"][0]["strip"] > strips["panels"][1]["strip"] > 0  # a row each for a, and b's two sizes


def test_a_claim_whose_condition_was_not_reached_says_what_was_tried():
    claim = Claim("C13", "Figure 7", "A restart gets past it", "It does", ("figure_7",), tried="Six ways. None did")
    fields = claim_fields(Decision(claim, "condition not reached", claim.tried), "gpu", [], RULES)
    assert fields["why"] == "Six ways. None did" and fields["parts"] == [] and fields["strips"] is None
    assert fields["anchor"] == "C13-gpu" and fields["command"].endswith(" SCALE=gpu") and fields["cost"] == ""


def test_partly_never_stands_without_its_parts(decision):
    assert markdown_claim(decision) == "**C1, partly** (a holds, but tasks: -0.200 [-0.204, -0.196]; b fails)"


def test_the_page_says_which_seeds_count():
    fields = seeds_fields(COMMON, [0, 2, 3, 5, 100])
    assert (fields["count"], fields["counted"], fields["hollow"]) == (3, "2, 3, 5", "0")
    assert seeds_fields(COMMON, [0])["count"] == 0


def test_runs_stand_in_one_row_with_their_seeds(tmp_path: Path):
    for seed, seconds in ((0, 60.0), (2, 120.0), (3, 180.0), (4, 120.0)):
        folder = tmp_path / f"moe_main-seed{seed}"
        folder.mkdir()
        counts = {"parameters": {"total": 576_000, "active": 281_000}, "tokens": 4096, "device": "cpu"}
        (folder / "manifest.json").write_text(json.dumps({**counts, "seconds": seconds}))
    (row,) = run_rows(Study(tmp_path))
    assert (row["name"], row["seeds"], row["minutes"]) == ("moe_main", "0, 2 to 4", "2.0")
    assert row["parameters"] == "576k (281k)" and row["tokens"] == "4,096"


def test_a_run_is_known_by_its_name_whatever_number_its_seed_has():
    assert seeds_by_run(["b-seed10", "a-seed2", "b-seed9", "a-seed0"]) == {"a": [0, 2], "b": [9, 10]}
