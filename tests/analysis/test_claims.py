"""The claims on synthetic records whose truth is known."""

from __future__ import annotations

import shutil
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import claims
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import verify
from records import Study
from synthetic_world import ITEMS, World, rng_of, write_run, write_world
from verdicts.decide import decide
from verdicts.document import claims_sections
from verdicts.readme import claims_block
from verdicts.resampling import holm, interval, over_blocks, p_value, trend, weights
from verdicts.rules import Rules, Test, judge, load_rules
from verdicts.sample import Sample
from verdicts.tables import compare, ours, result_table, screen, shortfall
from verdicts.words import plain_words

BLOCKS = {
    "README.md": ("finding", "cost", "claims", "sizes", "deviations"),
    "docs/claims.md": ("claims",),
    "docs/choosing.md": ("windows", "methods", "rates"),
    "docs/deviations.md": ("largest",),
}


@pytest.fixture(scope="module")
def rules() -> Rules:
    rules = load_rules()
    return replace(rules, common=replace(rules.common, draws=4999))


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("paper") / "cpu", World())


@pytest.fixture(scope="module")
def decided(paper, rules) -> list:
    return decide(paper, rules)


def verdicts(decisions: list) -> dict[str, str]:
    return {decision.claim.name: decision.verdict for decision in decisions}


def test_a_world_as_the_paper_says_replicates_every_claim(decided):
    failed = {d.claim.name: d.sentence for d in decided if d.verdict != "replicated"}
    assert not failed
    assert [d.claim.name for d in decided] == [f"C{i}" for i in range(1, 18)]


def test_estimates_are_the_truth_and_intervals_hold_it(decided):
    gains = {j.test.statistic: j for d in decided if d.claim.name == "C5" for j in d.judged}
    early = gains["PMA against annealing, first point"]
    world = World()
    stands = world.bits("annealed_moe_main", 172, "last", 1, 1) - world.bits("moe_main", 172, "sma", 10, 1)
    assert early.test.estimate == pytest.approx(stands, abs=0.01)
    assert early.low < stands < early.high
    assert early.test.items == 4 * ITEMS


def test_absent_effects_are_not_replicated(tmp_path, rules):
    outcome = verdicts(decide(write_world(tmp_path / "cpu", World(heat=0.0, noise=0.015)), rules))
    for claim in ("C1", "C2", "C6", "C7", "C8", "C10", "C12", "C15", "C17"):
        assert outcome[claim] == "not replicated", claim
    # No gain, no margin: whether it shrinks with size is not a question then.
    assert outcome["C3"] == "not testable here"
    # Starting no lower but ending level is one of its two statements; and nothing is no harm.
    assert (outcome["C11"], outcome["C14"]) == ("partly", "replicated")


def test_reversed_effects_are_not_replicated(tmp_path, rules):
    decisions = decide(write_world(tmp_path / "cpu", World(heat=-0.1)), rules)
    outcome = verdicts(decisions)
    for claim in ("C1", "C2", "C6", "C10", "C12", "C14", "C16", "C17"):
        assert outcome[claim] == "not replicated", claim
    gain = next(d for d in decisions if d.claim.name == "C1").judged[0]
    assert gain.high < 0 and gain.test.estimate < 0


def test_noise_leaves_the_question_open(tmp_path, rules):
    outcome = verdicts(decide(write_world(tmp_path / "cpu", World(heat=0.02, noise=2.0)), rules))
    assert {outcome[claim] for claim in ("C1", "C2", "C7", "C9", "C14", "C17")} <= {"partly", "not testable here"}


def test_missing_records_are_not_run_and_leave_the_others_alone(paper, tmp_path, rules, decided):
    root = shutil.copytree(paper, tmp_path / "cpu")
    for gone in ("figure_9", "equation_15", "sft_pma-seed0", "spike_pma-seed0"):
        shutil.rmtree(root / gone)
    decisions = decide(root, rules)
    missing = {d.claim.name: d.why for d in decisions if d.verdict == "not run"}
    assert set(missing) == {"C2", "C3", "C12", "C13", "C16"}
    assert missing["C2"] == "figure_9: no records of dense_411m"
    kept = {claim: verdict for claim, verdict in verdicts(decisions).items() if claim not in missing}
    assert kept == {claim: verdict for claim, verdict in verdicts(decided).items() if claim not in missing}
    empty = decide(tmp_path / "nothing", rules)
    assert set(verdicts(empty).values()) == {"not run"}
    assert "17 not run" in screen(empty, Study(tmp_path))
    assert list(result_table(empty, "cpu")["claim"]) == [d.claim.name for d in empty]


def test_accuracy_can_take_a_verdict_back(tmp_path, rules):
    root = write_world(tmp_path / "cpu", World(accuracy_sign=-1, items=200))
    assert Sample(Study(root), rules.common).accuracy_moves
    c1 = decide(root, rules)[0]
    assert c1.verdict == "partly" and "Accuracy contradicts" in c1.sentence
    for figure in ("figure_4", "figure_5"):  # then nothing says that it moves
        (root / figure / "records.csv").unlink()
    assert decide(root, rules)[0].verdict == "replicated"


@pytest.mark.parametrize(
    ("world", "verdict", "says"),
    [
        (World(control_recovers=True), "replicated", "so averaging is not what saves the run"),
        (World(control_recovers=False), "replicated", "0 of 2 hold"),
        (World(recovers=False), "not replicated", "Against it"),
    ],
)
def test_the_collapse_is_judged_beside_its_control(tmp_path, rules, world, verdict, says):
    for run in ("spike", "spike_pma", "spike_last"):
        write_run(tmp_path, run, world)
    c13 = next(d for d in decide(tmp_path, rules) if d.claim.name == "C13")
    assert c13.verdict == verdict and says in c13.sentence


def test_a_run_that_did_not_collapse_decides_nothing(tmp_path, rules):
    for run in ("spike", "spike_pma", "spike_last"):
        write_run(tmp_path, run, World(collapses=False))
    c13 = next(d for d in decide(tmp_path, rules) if d.claim.name == "C13")
    assert c13.verdict == "not testable here" and "did not collapse" in c13.why


def test_an_effect_too_small_to_name_fails_however_sure_its_sign_is():
    # Sure to be above 0, and sure to be below the smallest effect: the written rule asks the second first.
    values = 0.02 + 0.003 * rng_of("small").normal(size=5000)
    small, large = (Test("gain", "above", values, smallest=smallest) for smallest in (0.05, 0.005))
    outcomes = {judged.test.smallest: judged for judged in judge([small, large], 0.05, accuracy_moves=False)}
    assert outcomes[0.05].p_holm < 0.05 and outcomes[0.05].high < 0.05
    assert outcomes[0.05].outcome == "fails" and outcomes[0.005].outcome == "holds"


def test_what_was_judged_does_not_change(decided):
    judged = decided[0].judged[0]
    for frozen, name in ((judged, "outcome"), (judged.test, "margin"), (decided[0], "verdict")):
        with pytest.raises(FrozenInstanceError):
            setattr(frozen, name, None)


def test_the_same_numbers_each_time_and_in_any_company(paper, rules, decided, tmp_path):
    again = result_table(decide(paper, rules), "cpu")
    pd.testing.assert_frame_equal(again, result_table(decided, "cpu"))
    alone = shutil.copytree(paper, tmp_path / "cpu")
    for folder in alone.glob("figure_[3-9]"):
        shutil.rmtree(folder)
    first, second = decided[0], decide(alone, rules)[0]
    assert [(j.test.estimate, j.low, j.high, j.p) for j in first.judged] == [
        (j.test.estimate, j.low, j.high, j.p) for j in second.judged
    ]


# ---- documents and the published records


@pytest.fixture
def published(published_cpu, tmp_path, monkeypatch, rules) -> tuple[Path, Path]:
    """A runs folder with published records, and a folder whose documents are written from them."""
    runs, root = tmp_path / "runs", tmp_path / "repository"
    (runs / "cpu" / "published").mkdir(parents=True)
    for folder in filter(Path.is_dir, published_cpu.iterdir()):
        (runs / "cpu" / "published" / folder.name).symlink_to(folder)
    for name, names in BLOCKS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        markers = "".join(f"<!-- {block}:begin -->\n<!-- {block}:end -->\n" for block in names)
        (root / name).write_text(f"# Title\n{markers}the rest\n")
    monkeypatch.setattr(claims, "load_rules", lambda: rules)
    monkeypatch.setattr(verify, "load_rules", lambda: rules)
    for other in ("stale", "stale_sample"):  # pictures and report have tests of their own
        monkeypatch.setattr(verify, other, lambda *_: [])
    call(monkeypatch, "--readme", f"--runs-dir={runs}", f"--readme-path={root / 'README.md'}")
    return runs, root


def call(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["claims.py", *arguments])
    claims.main()


def test_verify_passes_what_was_written_and_names_every_drift(published, monkeypatch, capsys):
    runs, root = published
    text = (root / "README.md").read_text()
    assert text.startswith("# Title\n") and text.endswith("the rest\n") and text.count("](docs/claims.md#c") == 17
    assert verify.verify(runs, root) == []

    drifts = (
        ("README.md", "mean gain of 4 sizes: +0.", "mean gain of 4 sizes: +9."),
        ("docs/claims.md", "| gain, 576k MoE | +0.", "| gain, 576k MoE | +9."),
        ("docs/choosing.md", "| WMA (linear) | **-0.", "| WMA (linear) | **-9."),
        ("docs/deviations.md", "- Sizes: ", "- Sizes of "),
    )
    for name, was, wrong in drifts:
        document = (root / name).read_text()
        assert was in document, name
        (root / name).write_text(document.replace(was, wrong, 1))
    table = pd.read_csv(runs / "cpu" / "published" / "claims.csv")
    table.loc[3, "estimate"] += 1e-4
    table.to_csv(runs / "cpu" / "published" / "claims.csv", index=False)
    monkeypatch.setattr(sys, "argv", ["verify.py", f"--runs-dir={runs}", f"--readme-path={root / 'README.md'}"])
    with pytest.raises(SystemExit) as stop:
        verify.main()
    found = capsys.readouterr().out.splitlines()
    assert stop.value.code == 1 and len(found) == 2 * len(drifts) + 1
    for (name, was, wrong), drift, right in zip(drifts, found[::2], found[1::2], strict=False):
        assert name in drift and wrong in drift and was in right
    assert "C1" in found[-1] and "estimate" in found[-1]


def test_documents_without_markers_and_unpublished_records_are_errors(published, tmp_path, monkeypatch):
    runs, root = published
    arguments = ["--readme", f"--readme-path={root / 'README.md'}"]
    before = (root / "README.md").read_text()
    (root / "docs" / "claims.md").write_text("no markers\n")
    with pytest.raises(SystemExit, match="claims.md: no lines <!-- claims:begin"):
        call(monkeypatch, *arguments, f"--runs-dir={runs}")
    (root / "docs" / "claims.md").unlink()
    with pytest.raises(SystemExit, match="claims.md: not there; it holds the blocks claims"):
        call(monkeypatch, *arguments, f"--runs-dir={runs}")
    assert (root / "README.md").read_text() == before
    with pytest.raises(SystemExit, match="no records published"):
        call(monkeypatch, *arguments, f"--runs-dir={tmp_path}")


def test_fresh_verdicts_are_compared_with_the_published_ones(paper, decided, rules, monkeypatch, tmp_path, capsys):
    runs = tmp_path / "runs"
    shutil.copytree(paper, runs / "cpu")
    (runs / "cpu" / "published").mkdir()
    result_table(decided, "cpu").to_csv(runs / "cpu" / "published" / "claims.csv", index=False)
    monkeypatch.setattr(claims, "load_rules", lambda: rules)
    arguments = ["--compare", f"--runs-dir={runs}", f"--out-dir={tmp_path / 'out'}"]
    call(monkeypatch, *arguments)
    assert "same verdicts as published" in capsys.readouterr().out
    shutil.rmtree(runs / "cpu" / "figure_9")
    call(monkeypatch, *arguments)
    assert "C2: not run here, replicated published" in capsys.readouterr().out
    assert compare([], tmp_path / "none.csv").startswith("No verdicts are published")
    markdown = (tmp_path / "out" / "cpu" / "claims.md").read_text()
    assert "## Every test" in markdown and "nan" not in markdown


def test_every_scale_has_its_numbers(decided, published_cpu):
    scales, studies = {"cpu": decided, "gpu": decided}, dict.fromkeys(("cpu", "gpu"), Study(published_cpu))
    block = claims_block(scales, studies)
    assert "scale cpu | verdict" in block and "scale gpu | verdict" in block
    assert {line.count(" | ") for line in block.splitlines() if line.startswith("| C")} == {3}
    sections = claims_sections(scales, studies)
    assert sections.count("**Scale gpu: replicated.**") == 17 == sections.count('<a id="c')
    assert "4 of 4 tests hold" in ours(decided[0])


def test_names_of_tests_are_in_plain_words(published_cpu, rules):
    plain = plain_words(Study(published_cpu))
    assert (
        plain("gain, moe_main (0.576M); gain of sma at 0.63M tokens") == "gain, 576k MoE; gain of SMA at 0.63M tokens"
    )
    assert plain("loss saved at the end, continued_pma_half_end") == "loss saved at the end, half the rate, higher end"
    names = [j.test.statistic for decision in decide(published_cpu, rules) for j in decision.judged]
    assert len(set(map(plain, names))) == len(set(names))
    assert not [name for name in map(plain, names) if "_" in name or "PMA" in name]


def test_what_did_not_hold_is_named_once(decided):
    judged = decided[0].judged[-1]
    failed = [replace(judged, test=replace(judged.test, statistic=f"gain, {size}"), outcome="fails") for size in "abc"]
    assert shortfall(replace(decided[0], judged=tuple(failed))) == "does not hold: gain, a and b and 1 more"
    assert shortfall(decided[0]) == ""


# ---- resampling


def test_holm_is_the_published_procedure():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_the_bootstrap_is_scipys():
    values = rng_of("values").normal(0.3, 1, 120)
    mean = weights(120, 9999, 1, "items") @ values
    reference = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=1)
    assert mean[0] == pytest.approx(values.mean())
    assert interval(mean, 0.05) == pytest.approx(reference.confidence_interval, abs=0.01)
    assert p_value(mean) == pytest.approx(2 * (reference.bootstrap_distribution <= 0).mean(), abs=8e-3)
    assert p_value(np.zeros(100)) == 1.0


def test_blocks_keep_neighbours_together_and_few_of_them_are_not_trusted():
    steps, seen = 125, []
    over_blocks(lambda index: seen.append(index) or index.mean(axis=1), steps, 50, 1, "steps")
    (index,) = seen
    assert index.shape == (51, steps) and (index[0] == np.arange(steps)).all()
    assert (np.diff(index[1:]) == 1).mean() > 0.79  # four of five within blocks of 5
    rejected = 0
    for number in range(200):
        curve = rng_of("curve", number).normal(size=8)
        rejected += p_value(over_blocks(lambda i, c=curve: c[i].mean(axis=1), 8, 999, number, "null")) < 0.05
    assert rejected <= 20


def test_a_trend_is_the_change_over_the_range():
    x = np.array([0.0, 1.0, 3.0])
    assert trend(x, [np.array([2 * v, 5.0]) for v in x]) == pytest.approx([6.0, 0.0])
