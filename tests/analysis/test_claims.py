"""The claims from records to tables and the terminal, on a made-up world whose truth is known."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from markdown_files import ROOT, blocks
from records import Study
from synthetic_world import SEEDS, World, write_world
from verdicts.decide import Decisions, decide
from verdicts.screen import screen
from verdicts.tables import counts_text, estimate_text, part_line, parts_text, result_table

CLAIMS = [f"C{i}" for i in range(1, 22)]


def verdicts(decisions: Decisions) -> dict[str, str]:
    return {decision.claim.name: decision.verdict for decision in decisions}


# ---- verdicts of whole worlds


def test_a_world_as_the_paper_says_replicates_every_claim(decided):
    tested = {name: verdict for name, verdict in verdicts(decided).items() if decided[name].parts}
    assert {name for name, verdict in tested.items() if verdict != "replicated"} == set()
    assert set(tested) | {"C13"} == set(CLAIMS)
    assert all(judged.seeds == list(SEEDS[1:]) for decision in decided for judged in decision.parts)


def test_the_numbers_are_the_truth(decided):
    truth, world = decided["C5"].parts[0], World()
    expected = np.mean(
        [
            world.bits("figure_3", "annealed_moe_main", seed, 172, "last", 1, 1)
            - world.bits("figure_3", "moe_main", seed, 172, "sma", 10, 1)
            for seed in SEEDS[1:]
        ]
    )
    assert truth.headline.mean == pytest.approx(expected, abs=3e-4)


def test_absent_effects_are_not_replicated_and_their_opposites_neither(tmp_path, rules):
    absent = verdicts(decide(write_world(tmp_path / "absent", World(heat=0.0), range(2, 6)), rules))
    for claim in ("C1", "C2", "C6", "C7", "C8", "C10", "C12", "C17"):
        assert absent[claim] == "not replicated", claim
    # Without a gain of annealing there is nothing to take a share of; and nothing is no harm.
    assert absent["C3"] == "open"
    opposite = verdicts(decide(write_world(tmp_path / "opposite", World(heat=-0.1), range(2, 6)), rules))
    for claim in ("C1", "C2", "C6", "C10", "C12", "C14", "C15"):
        assert opposite[claim] == "not replicated", claim


def test_questions_that_say_the_opposite_are_shown_with_the_part(tmp_path, rules):
    decisions = decide(write_world(tmp_path / "cpu", World(tasks_sign=-1), range(2, 6)), rules)
    assert decisions["C1"].verdict == "replicated"
    assert re.match(r"a holds, but tasks: -0\.\d+ \[-.*\]; b holds, but tasks", parts_text(decisions["C1"]))
    table = result_table(decisions, "cpu").set_index(["claim", "part"])
    assert table.loc[("C1", "a"), "contradiction"].startswith("but tasks: -0.")
    assert "but tasks" in part_line(decisions["C1"].parts[0])


# ---- tables


def test_claims_csv_has_a_row_a_part_and_what_a_verdict_rests_on(decided, rules):
    table = result_table(decided, "cpu")
    assert len(table) == sum(max(1, len(claim.parts)) for claim in rules.claims)
    row = table.set_index(["claim", "part"]).loc[("C5", "c")]
    judged = decided["C5"].parts[2]
    assert (row["rule"], row["n"], row["outcome"], row["command"]) == ("level", 8, "holds", "make reproduce-figure-3")
    assert row["margin"] == pytest.approx(judged.margin, rel=1e-5)
    assert (row["low"], row["high"]) == pytest.approx(judged.headline.interval(), rel=1e-5)
    assert row["prediction_low"] < row["low"] < row["mean"] < row["high"] < row["prediction_high"]
    assert (table.loc[table["rule"] == "above", "smallest"] >= 0).all()
    assert table.loc[table["rule"] == "level", "smallest"].isna().all()


def test_words_of_parts(decided):
    a, b = decided["C1"].parts
    assert re.fullmatch(r"\+0\.\d{3} \[\+0\.\d{3}, \+0\.\d{3}\]", estimate_text(a))
    assert part_line(a) == f"a holds: on average over the sizes, {estimate_text(a)} bits per byte"
    assert part_line(b).endswith(", the least of 4: 1.3B/13B")
    failing = replace(b, outcome="fails", reason="below 0: 1.3B/13B")
    failed = replace(decided["C1"], parts=(a, failing), verdict="partly")
    assert parts_text(failed) == "a holds; b fails"
    assert "b fails (below 0: 1.3B/13B): at every size" in part_line(failing)
    assert counts_text([failed, decided["C2"], decided["C3"]]) == "2 replicated, 1 partly"
    assert estimate_text(decided["C18"].parts[2])[0] != "+"  # a share that a bound judges has no sign


def test_the_example_of_the_protocol_gives_the_published_interval(decided, tmp_path, monkeypatch, capsys):
    example = next(block.text for block in blocks(ROOT / "docs" / "protocol.md") if block.language == "python")
    folder = tmp_path / "runs" / "cpu" / "published"
    folder.mkdir(parents=True)
    decided.seeds_table().to_csv(folder / "seeds.csv", index=False)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    mean, low, high, t = map(float, capsys.readouterr().out.split())
    headline = decided["C1"].parts[0].headline
    assert (mean, low, high) == pytest.approx((headline.mean, *headline.interval()), rel=1e-4)
    assert t > 1.895 and headline.p_above < 0.05


# ---- the terminal


def test_the_screen_shows_every_part(decided, nine_seeds, rules):
    text = " ".join(screen(decided, rules, Study(nine_seeds)).split())
    assert "judged over seeds 2 to 9" in text and text.endswith("In all: 20 replicated.") or "condition" in text
    for decision in decided:
        for judged in decision.parts:
            assert " ".join(part_line(judged).split()) in text


def test_too_few_seeds_are_said_in_one_sentence(own, rules):
    root = own(0, 2) / "cpu"
    text = screen(decide(root, rules), rules, Study(root))
    assert "C1" not in text and text.count("at least 3") == 1
    assert "SEEDS=0,2,3,4" in " ".join(text.split())
