"""The claims from records to documents, on a made-up world whose truth is known."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import claims
import documents
import numpy as np
import pandas as pd
import publish
import pytest
import verify
from markdown_files import ROOT, blocks
from records import Study
from synthetic_world import SEEDS, World, write_world
from verdicts import readme
from verdicts.decide import Decisions, decide
from verdicts.document import claims_sections
from verdicts.frozen import FROZEN, change_text, frozen_hash, published_hash
from verdicts.newcomer import beside
from verdicts.readme import claims_block
from verdicts.rules import Rules, load_rules
from verdicts.screen import screen
from verdicts.tables import counts_text, estimate_text, part_line, parts_text, result_table

BLOCKS = {
    "README.md": ("finding", "cost", "claims", "sizes", "deviations"),
    "docs/claims.md": ("claims",),
    "docs/choosing.md": ("windows",),
    "docs/deviations.md": ("largest",),
}
CLAIMS = [f"C{i}" for i in range(1, 22)]


@pytest.fixture(scope="module")
def rules() -> Rules:
    return load_rules()


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Records of a world as the paper says, of seed 0 and all confirmatory ones; to be read only."""
    return write_world(tmp_path_factory.mktemp("world") / "cpu", World())


@pytest.fixture(scope="module")
def decided(world, rules) -> Decisions:
    return decide(world, rules)


@pytest.fixture
def own(tmp_path):
    """Make a runs folder of your own, with records of some seeds."""

    def make(*seeds: int, world: World | None = None) -> Path:
        write_world(tmp_path / "own" / "cpu", world or World(), seeds)
        return tmp_path / "own"

    return make


def verdicts(decisions: Decisions) -> dict[str, str]:
    return {decision.claim.name: decision.verdict for decision in decisions}


def call(monkeypatch, module, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()


def change_rows(path: Path, change) -> None:
    """Read a table, change it and write it back."""
    change(pd.read_csv(path)).to_csv(path, index=False)


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
    assert part_line(b).endswith(", the least of 4: moe_main")
    failing = replace(b, outcome="fails", reason="below 0: moe_main")
    failed = replace(decided["C1"], parts=(a, failing), verdict="partly")
    assert parts_text(failed) == "a holds; b fails"
    assert "b fails (below 0: moe_main): at every size" in part_line(failing)
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


def test_the_screen_shows_every_part(decided, world, rules):
    text = " ".join(screen(decided, Study(world), rules.common).split())
    assert "judged over seeds 2 to 9" in text and text.endswith("In all: 20 replicated.") or "condition" in text
    for decision in decided:
        for judged in decision.parts:
            assert " ".join(part_line(judged).split()) in text


def test_too_few_seeds_are_said_in_one_sentence(own, rules):
    root = own(0, 2) / "cpu"
    text = screen(decide(root, rules), Study(root), rules.common)
    assert "C1" not in text and text.count("at least 3") == 1
    assert "SEEDS=0,2,3,4" in " ".join(text.split())


# ---- a newcomer's seed beside the published ones


@pytest.fixture(scope="module")
def published(world, decided, tmp_path_factory) -> Path:
    """A folder of published records, as publish.py and claims.py --readme leave it; to be read only."""
    root = tmp_path_factory.mktemp("published") / "cpu"
    shutil.copytree(world, root)
    folder = publish.publish(root.parent, "cpu")
    decided.seeds_table().to_csv(folder / "seeds.csv", index=False)
    return folder


def test_seed_0_alone_has_a_number_for_every_part_and_the_published_bits(own, published, monkeypatch, capsys, tmp_path):
    runs = own(0)
    shutil.copytree(published, runs / "cpu" / "published")
    call(monkeypatch, claims, "--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    out = capsys.readouterr().out
    assert out.count("seeds 2 to 9") == 1  # there are no verdicts, said once
    lines = [line for line in out.splitlines() if re.match(r"C\d+ [a-z] ", line)]
    table = pd.read_csv(published / "seeds.csv")
    assert len(lines) == len(table[["claim", "part"]].drop_duplicates())
    assert all(re.search(r"(within|outside) \[", line) for line in lines)
    assert "Same bits as the published records of seed 0: Figure 1, " in out and "Other" not in out
    assert "note:" not in out
    assert "lie within" in out


def test_your_number_is_the_one_that_was_published_of_your_seed(own, published, rules):
    study, table = Study(own(0) / "cpu"), pd.read_csv(published / "seeds.csv")
    rows = {(row.claim.name, row.part.name): row for row in beside(study, Study(published), table, rules)}
    before = table[table["seed"] == 0].groupby(["claim", "part"])["value"].agg(list)
    for key, row in rows.items():
        assert any(row.number == pytest.approx(value) for value in before[key]), key
        assert row.others.n == 8
    # Published seeds that are your own are not what you are compared with.
    mine = beside(Study(published), Study(published), table, rules)
    assert all(row.others.n == 0 and row.within is None for row in mine)


def test_another_worlds_numbers_and_bits_differ(own, published, rules, monkeypatch, capsys, tmp_path):
    runs = own(0, world=World(heat=0.3))
    shutil.copytree(published, runs / "cpu" / "published")
    change_rows(runs / "cpu" / "figure_9" / "records.csv", lambda table: table.assign(config_hash="1"))
    call(monkeypatch, claims, "--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    out = capsys.readouterr().out
    assert re.search(r"^C1 a +\+0\.3\d\d  outside \[", out, re.MULTILINE)
    assert "Other bits than the published records of seed 0 (another processor: see dev/LOG.md): Figure 1" in out
    assert "Other runs or points than" in out and "Figure 9" in out.partition("Other runs or points")[2]


def test_a_part_that_cannot_be_computed_says_why_in_one_line(own, published, rules):
    root = own(0) / "cpu"
    shutil.rmtree(root / "figure_9")
    rows = beside(Study(root), Study(published), pd.read_csv(published / "seeds.csv"), rules)
    lines = {f"{row.claim.name} {row.part.name}": row.line for row in rows}
    why = "figure_9: no records of it here; make reproduce-figure-9 SCALE=cpu makes them"
    assert lines["C2 a"].split("-  ")[1] == why
    assert "within" in lines["C1 a"] or "outside" in lines["C1 a"]


def test_seeds_with_gaps_have_the_mean_of_their_numbers(own, published, monkeypatch, capsys, tmp_path):
    runs = own(0, 3, 7)
    shutil.copytree(published, runs / "cpu" / "published")
    call(monkeypatch, claims, "--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    out = " ".join(capsys.readouterr().out.split())
    assert "these records have seed 3, 7." in out and "SEEDS=0,2,3,4,7" in out
    assert "in the mean over your seeds 0, 3, 7" in out
    assert "Same bits as the published records of seed 0, 3, 7:" in out


def test_without_published_records_your_numbers_stand_alone(own, monkeypatch, capsys, tmp_path):
    runs = own(0)
    call(monkeypatch, claims, "--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    out = capsys.readouterr().out
    assert re.search(r"^C1 a +\+0\.1\d\d: on average over the sizes", out, re.MULTILINE)
    assert "Nothing is published at scale cpu" in out
    assert re.search(r"^C18 a +- .*needs at least 2", out, re.MULTILINE)


# ---- bad input


def fails(monkeypatch, runs: Path, tmp_path: Path) -> str:
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, claims, f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    line = str(stop.value)
    assert line.startswith("error: ") and "\n" not in line
    return line


@pytest.mark.parametrize(
    ("experiment", "name", "old", "why"),
    [
        ("figure_3", "records", lambda table: table[table["metric"] != "choice"], "no choice"),
        ("figure_3", "records", lambda table: table[~table["task"].str.startswith("heldout")], "no held-out text"),
        ("figure_8", "landscape", lambda table: table.drop(columns="seed"), "no seeds in landscape.csv"),
    ],
)
def test_records_of_the_first_protocol_are_refused_in_one_line(own, monkeypatch, tmp_path, experiment, name, old, why):
    runs = own(0)
    change_rows(runs / "cpu" / experiment / f"{name}.csv", old)
    line = fails(monkeypatch, runs, tmp_path)
    assert f"records of the first protocol, {experiment} ({why})" in line and "make reproduce" in line


def test_a_seed_that_stands_twice_is_refused_in_one_line(own, monkeypatch, tmp_path):
    runs = own(0, 2)
    change_rows(runs / "cpu" / "figure_3" / "records.csv", lambda table: pd.concat([table, table[table["seed"] == 2]]))
    line = fails(monkeypatch, runs, tmp_path)
    assert "figure_3/records.csv: " in line and "seed 2 stands there twice" in line and "reproduce-figure-3" in line


def test_a_seed_that_an_experiment_lacks_is_named_once(own, monkeypatch, tmp_path, capsys):
    runs = own(0, 2, 3, 4)
    folder = runs / "cpu" / "figure_4"
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"moe_main-seed3": "0", ', ""))
    call(monkeypatch, claims, f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    out = capsys.readouterr().out
    notes = [line for line in out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and "figure_4 lacks seed 3" in notes[0]
    assert "make reproduce-figure-4 SCALE=cpu SEEDS=0,2,3,4" in notes[0]
    table = pd.read_csv(tmp_path / "out" / "cpu" / "claims.csv").set_index(["claim", "part"])
    assert (table.loc[("C7", "a"), "n"], table.loc[("C5", "a"), "n"]) == (2, 3)


def test_records_judged_under_other_rules_say_so(own, published, monkeypatch, capsys, tmp_path):
    runs = own(0)
    shutil.copytree(published, runs / "cpu" / "published")
    manifest = runs / "cpu" / "published" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(published_hash(published), "1" * 64))
    call(monkeypatch, claims, "--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}")
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert (
        len(notes) == 1
        and "are not those that the published records of scale cpu were made under (111111111111)" in notes[0]
    )


# ---- rules before data


def test_the_published_records_were_made_under_the_rules_of_claims_yaml(published_cpu, rules):
    """Or claims.yaml says what changed after data."""
    hashes = {frozen_hash()} | ({published_hash(published_cpu)} if (published_cpu / "seeds.csv").exists() else set())
    assert hashes == {rules.sha256} or rules.changed_after_data


def test_a_change_after_data_is_said_wherever_verdicts_stand(published, decided, rules):
    assert change_text(rules, published) == ""
    changed = replace(rules, sha256="2" * 64)
    assert "say under changed_after_data" in change_text(changed, published)
    said = replace(changed, changed_after_data=("C3 a: margin 0.02 instead of a third",))
    assert change_text(said, published) == "Changed after data: C3 a: margin 0.02 instead of a third."
    assert change_text(said, published) in claims_sections({"cpu": decided}, {"cpu": Study(published)}, said)


def test_publishing_copies_the_frozen_hash_and_needs_one(published, own, tmp_path, monkeypatch):
    assert published_hash(published) == frozen_hash()
    assert FROZEN.is_file()
    with pytest.raises(ValueError, match=r"before data, python analysis/claims.py --freeze writes it"):
        frozen_hash(tmp_path / "none.sha256")


# ---- documents and the published records


@pytest.fixture
def repository(published, decided, tmp_path, monkeypatch) -> tuple[Path, Path]:
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
        context.setattr(claims, "decide_published", lambda *_: {"cpu": decided})
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


def test_documents_without_markers_and_unpublished_records_are_errors(repository, decided, tmp_path, monkeypatch):
    runs, root = repository
    arguments = ["--readme", f"--readme-path={root / 'README.md'}"]
    with pytest.raises(SystemExit, match="no records published"):
        call(monkeypatch, claims, *arguments, f"--runs-dir={tmp_path / 'own'}")
    monkeypatch.setattr(claims, "decide_published", lambda *_: {"cpu": decided})
    before = (root / "README.md").read_text()
    (root / "docs" / "claims.md").write_text("no markers\n")
    with pytest.raises(SystemExit, match="claims.md: no lines <!-- claims:begin"):
        call(monkeypatch, claims, *arguments, f"--runs-dir={runs}")
    (root / "docs" / "claims.md").unlink()
    with pytest.raises(SystemExit, match="claims.md: not there; it holds the blocks claims"):
        call(monkeypatch, claims, *arguments, f"--runs-dir={runs}")
    assert (root / "README.md").read_text() == before


def test_the_readme_has_four_columns_and_every_verdict_its_parts(decided):
    partly = replace(decided["C1"], parts=(decided["C1"].parts[0], replace(decided["C1"].parts[1], outcome="fails")))
    block = claims_block({"cpu": Decisions((replace(partly, verdict="partly"), *decided.claims[1:]))})
    rows = [line for line in block.splitlines() if line.startswith("| C")]
    assert len(rows) == len(decided) and {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    assert "**partly**<br>a holds: on average over the sizes<br>b fails: at every size |" in rows[0]
    assert "[Figure 1](docs/claims.md#c1)" in rows[0]


def test_the_document_has_every_seeds_number_with_the_exploratory_ones_in_parentheses(decided, published, rules):
    text = claims_sections({"cpu": decided, "gpu": decided}, dict.fromkeys(("cpu", "gpu"), Study(published)), rules)
    section = text.split("## <a id=")[5]
    assert section.startswith('"c5"') and "**Scale gpu: replicated.** a holds; b holds; c holds." in section
    assert "| part | of | (0) | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 |" in section
    assert "| c | margin of annealing gain | (" in section
    row = next(line for line in section.splitlines() if line.startswith("| a | merge over annealed"))
    values = decided["C5"].parts[0].evidence.numbers.values.iloc[:, 0]
    assert [cell.strip() for cell in row.split("|")][4:-1] == [f"{value:+.3f}" for value in values]
    assert "![C5, every seed, scale cpu](figures/claims/C5.svg)" in section
    assert "`make reproduce-figure-3` (" in section


def test_a_condition_that_was_not_reached_says_what_was_tried(decided, published, rules):
    claim = replace(rules.claims[0], parts=(), tried="twenty rates on seeds 100 to 103", limits="one machine")
    decision = replace(decided["C1"], claim=claim, parts=(), verdict="condition not reached", why=claim.tried)
    tried, one = Decisions((decision,)), replace(rules, claims=(claim,))
    text = claims_sections({"cpu": tried}, {"cpu": Study(published)}, one)
    assert "**Scale cpu: condition not reached.** twenty rates on seeds 100 to 103." in text
    assert "**Design and limits.** one machine" in text and "claims/C1.svg" not in text
    assert "**condition not reached**: twenty rates" in claims_block({"cpu": tried})
    row = result_table(tried, "cpu").iloc[0]
    assert (row["claim"], row["verdict"], row["reason"]) == ("C1", "condition not reached", claim.tried)


def test_costs_are_wall_clock_minutes_of_one_seed(world, published, decided):
    # A minute a run, two at a time; Figure 3's two runs follow each other; six seconds of scoring a seed.
    study = Study(world)
    assert study.cost(["figure_1"]) == pytest.approx(4 * 60 / 2 + 6)
    assert study.cost(["figure_3"]) == pytest.approx(2 * 60 + 6)
    assert study.cost(["table_1"]) == pytest.approx(5 * 60 / 2 + 6)  # four runs, and the one that they start from
    assert Study(published).cost(["figure_1"]) == study.cost(["figure_1"]) == decided["C1"].seconds
    assert np.isnan(study.cost(["nowhere"]))
