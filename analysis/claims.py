"""Decide the paper's claims C1-C17 from records, by the rules of claims.yaml.

python analysis/claims.py --scale cpu             fresh records: a table, and claims.md and claims.csv in OUT/SCALE
python analysis/claims.py --scale cpu --compare   the same, then where the verdicts differ from the published ones
python analysis/claims.py --readme                the README's block and published claims.csv, from published records
"""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import evidence
import numpy as np
import pandas as pd
import yaml
from evidence import Test
from resampling import Statistic, holm, interval, p_value
from study import Missing, NotTestable, Study

from pma.files import write_text

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"
REPLICATED, PARTLY, NOT, NOT_TESTABLE, NOT_RUN = VERDICTS = (
    "replicated",
    "partly",
    "not replicated",
    "not testable here",
    "not run",
)


@dataclass
class Judged:
    """A test with its numbers: what one row of claims.csv holds."""

    test: Test
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    outcome: str = ""  # holds | fails | open | shown
    accuracy: tuple[float, float, float] = (math.nan, math.nan, math.nan)  # estimate, low, high
    accuracy_p: float = math.nan
    contradicted: bool = False

    @property
    def estimate(self) -> float:
        return float(self.test.values[0])

    @property
    def counted(self) -> bool:
        return self.test.rule != "report" and not self.test.control


@dataclass
class Decision:
    """A claim at one scale."""

    claim: str
    about: dict[str, Any]  # from claims.yaml
    verdict: str = NOT_RUN
    why: str = ""
    judged: list[Judged] = field(default_factory=list)
    seconds: float = math.nan

    @property
    def counted(self) -> list[Judged]:
        return [j for j in self.judged if j.counted]

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        if not self.judged:
            return f"{self.about['text']}: {self.verdict}: {self.why}."
        held = sum(j.outcome == "holds" for j in self.counted)
        parts = [f"{held} of {len(self.counted)} tests hold"]
        for outcome, word in (("fails", "Against it"), ("open", "Undecided")):
            names = [j.test.statistic for j in self.counted if j.outcome == outcome]
            if names:
                more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
                parts.append(f"{word}: {'; '.join(names[:3])}{more}")
        parts += self._control()
        if any(j.contradicted for j in self.counted):
            parts.append("Accuracy contradicts")
        return ". ".join([*parts, *dict.fromkeys(j.test.note for j in self.counted if j.test.note)]) + "."

    def _control(self) -> list[str]:
        outcomes = [j.outcome for j in self.judged if j.test.control]
        if not outcomes:
            return []
        control, kept = self.about["control"], outcomes.count("holds")
        text = f"Control, {control['what']}: {kept} of {len(outcomes)} hold"
        return [f"{text}: {control['if_all_hold']}" if kept == len(outcomes) else text]


def load_claims(path: Path = HERE / "claims.yaml") -> dict[str, Any]:
    """claims.yaml."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# ---- judging


def _one_sided(test: Test) -> list[Statistic]:
    """Statistics that are all above 0 when the test holds."""
    if test.rule == "above":
        return [test.values]
    if test.rule == "at_least":
        return [test.values + test.margin]
    return [test.margin - test.values, test.margin + test.values]  # level


def _measure(test: Test, study: Study) -> Judged:
    judged, alpha = Judged(test), study.common["alpha"]
    if test.interval is not None:
        judged.low, judged.high = test.interval
    elif len(test.values) > 1:
        judged.low, judged.high = interval(test.values, alpha)
    if test.rule in ("above", "at_least", "level"):
        judged.p = max(p_value(statistic) for statistic in _one_sided(test))
    if test.accuracy is not None:
        judged.accuracy = (float(test.accuracy[0]), *interval(test.accuracy, alpha))
        judged.accuracy_p = p_value(test.accuracy + test.accuracy_margin)
    return judged


def _outcome(judged: Judged, alpha: float) -> str:
    """holds | fails | open | shown, by the rules at the head of claims.yaml."""
    test, estimate, low, high = judged.test, judged.estimate, judged.low, judged.high
    if test.rule == "report":
        return "shown"
    if test.undecidable:
        return "open"
    if test.rule == "bound":
        return (
            "holds"
            if max(estimate, high if high == high else estimate) < test.margin
            else ("fails" if estimate >= test.margin else "open")
        )
    if test.rule == "most":
        return "holds" if low > 0.5 else "fails" if estimate <= 0.5 else "open"
    sides = _one_sided(test)
    sure = judged.p_holm < alpha
    if sure and all(side[0] > 0 for side in sides):
        return "holds"
    if test.rule == "level":
        return "fails" if any(interval(side, alpha)[1] < 0 for side in sides) else "open"
    if sure or (test.rule == "above" and high < test.smallest):
        return "fails"
    return "open"


def _has_no_margin(judged: Judged, alpha: float) -> bool:
    # A margin that is a share of an effect says nothing where the effect is not there.
    margin = judged.test.margin
    return isinstance(margin, np.ndarray) and interval(margin, alpha)[0] <= 0


def _verdict(decision: Decision) -> str:
    outcomes = [judged.outcome for judged in decision.counted]
    if all(outcome == "holds" for outcome in outcomes):
        return PARTLY if any(judged.contradicted for judged in decision.counted) else REPLICATED
    if "holds" in outcomes:
        return PARTLY
    return NOT if "fails" in outcomes else NOT_TESTABLE


def decide(root: Path, claims: dict[str, Any]) -> list[Decision]:
    """All claims from the records below `root`; a claim whose records are missing is not run."""
    study = Study(root, claims["common"])
    alpha = claims["common"]["alpha"]
    decisions = []
    for name, about in claims["claims"].items():
        decision = Decision(name, about)
        decisions.append(decision)
        try:
            tests = getattr(evidence, about["evidence"])(study, **about["settings"])
            decision.judged = [_measure(test, study) for test in tests]
            decision.seconds = study.cost(about["experiments"])
        except Missing as missing:
            decision.why = str(missing)
        except NotTestable as reason:
            decision.verdict, decision.why = NOT_TESTABLE, str(reason)
    everything = [judged for decision in decisions for judged in decision.judged]
    family = [judged for judged in everything if judged.counted and not math.isnan(judged.p)]
    for judged, adjusted in zip(family, holm([judged.p for judged in family]), strict=True):
        judged.p_holm = adjusted
    # Accuracy is a second family: it can only take a verdict back.
    second = [judged for judged in family if judged.test.accuracy is not None]
    for judged, adjusted in zip(second, holm([judged.accuracy_p for judged in second]), strict=True):
        below = (judged.test.accuracy + judged.test.accuracy_margin)[0] < 0
        judged.contradicted = bool(study.accuracy_moves and adjusted < alpha and below)
    for judged in everything:
        if not judged.counted and not math.isnan(judged.p):
            judged.p_holm = judged.p  # a control is shown as it is
        if _has_no_margin(judged, alpha):
            judged.test.undecidable = "the effect that the margin is a share of is not there"
        judged.outcome = _outcome(judged, alpha)
    for decision in decisions:
        if decision.judged:
            decision.verdict = _verdict(decision)
    return decisions


# ---- tables

_NUMBERS = ["estimate", "low", "high", "accuracy", "accuracy_low", "accuracy_high"]


def result_table(decisions: Sequence[Decision], scale: str) -> pd.DataFrame:
    """One row a test; a claim without tests has one row."""
    rows = []
    for decision in decisions:
        about = decision.about
        shared = {
            "verdict": decision.verdict,
            "sentence": decision.sentence,
            "experiments": " ".join(about["experiments"]),
            "command": about["command"],
            "seconds": decision.seconds,
        }
        for judged in decision.judged or [None]:
            row: dict[str, Any] = {"claim": decision.claim, "scale": scale}
            if judged is not None:
                test = judged.test
                row |= {
                    "statistic": test.statistic,
                    "rule": "control" if test.control else test.rule,
                    "unit": test.unit,
                    "estimate": judged.estimate,
                    "low": judged.low,
                    "high": judged.high,
                    "margin": float(np.atleast_1d(test.margin)[0]),
                    "items": test.items,
                    "seeds": test.seeds,
                    "snapshots": test.snapshots,
                    "steps": test.steps,
                    "p": judged.p,
                    "p_holm": judged.p_holm,
                    "outcome": judged.outcome,
                    **dict(zip(_NUMBERS[3:], judged.accuracy, strict=True)),
                    "note": "; ".join(filter(None, [test.undecidable, test.note])),
                }
            rows.append(row | shared)
    columns = list(dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row))
    return pd.DataFrame(rows, columns=columns).round(6)


def _interval(judged: Judged) -> str:
    form = "{:.2f}" if judged.test.rule in ("most", "bound") else "{:+z.3f}"
    # "z" of Python's format: what rounds to zero has no sign
    estimate, low, high = (form.format(x) for x in (judged.estimate, judged.low, judged.high))
    return estimate if math.isnan(judged.low) else f"{estimate} [{low}, {high}]"


def _count(judged: Judged) -> str:
    test = judged.test
    parts = [(test.items, "items"), (test.steps, "steps"), (test.seeds, "seed" if test.seeds == 1 else "seeds")]
    counts = [f"{n} {word}" for n, word in parts if n]
    return ", ".join(counts + [f"N = {test.snapshots}"] * (test.snapshots > 1))


def ours(decision: Decision) -> str:
    """The first statistic with its interval and n, and how many tests hold."""
    if not decision.judged:
        return decision.why
    first = decision.judged[0]
    margin = float(np.atleast_1d(first.test.margin)[0])
    margin_text = f" (margin {margin:.3f})" if first.test.rule in ("at_least", "level") else ""
    held = sum(judged.outcome == "holds" for judged in decision.counted)
    return (
        f"{first.test.statistic}: {_interval(first)} {first.test.unit}{margin_text} ({_count(first)}); "
        f"{held} of {len(decision.counted)} tests hold"
    )


def minutes(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds / 60:.1f} min"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def claims_markdown(decisions: Sequence[Decision], scale: str) -> str:
    """claims.md: the claims, then every test."""
    lines = [f"# The claims at scale {scale}", "", "Rules and thresholds: `analysis/claims.yaml`.", ""]
    header = ["claim", "paper", "ours, 95 % interval (n)", "verdict", "in words", "command", "cost"]
    rows = [
        [f"{d.claim} ({d.about['source']}): {d.about['text']}", d.about["paper"], ours(d), f"**{d.verdict}**"]
        + [d.sentence, f"`{d.about['command']}`", minutes(d.seconds)]
        for d in decisions
    ]
    lines += [*_markdown(header, rows), "", "## Every test", ""]
    header = ["claim", "statistic", "rule", "estimate [95 %]", "unit", "n", "p (Holm)", "outcome", "accuracy, points"]
    tests = [[d.claim, *_test_cells(judged)] for d in decisions for judged in d.judged]
    limits = [f"- {d.claim}: {d.about['limits']}" for d in decisions if "limits" in d.about]
    return "\n".join([*lines, *_markdown(header, tests), "", "## Limits", "", *limits, ""])


def _test_cells(judged: Judged) -> list[str]:
    test = judged.test
    p = "-" if math.isnan(judged.p) else f"{judged.p:.4f} ({judged.p_holm:.3f})"
    accuracy = "-"
    if test.accuracy is not None:
        scale = 1 if test.unit == "doublings" else 100
        estimate, low, high = (scale * number for number in judged.accuracy)
        accuracy = f"{estimate:+.1f} [{low:+.1f}, {high:+.1f}]" + (" contradicts" if judged.contradicted else "")
    margin = float(np.atleast_1d(test.margin)[0])
    rule = f"{'control: ' if test.control else ''}{test.rule}" + (f" ({margin:.3f})" if margin else "")
    return [test.statistic, rule, _interval(judged), test.unit, _count(judged), p, judged.outcome, accuracy]


def screen(decisions: Sequence[Decision], scale: str) -> str:
    """The compact table for a terminal."""
    lines = [f"The paper's claims at scale {scale}"]
    for d in decisions:
        lines.append(f"{d.claim:4} {d.verdict:18} {d.about['text']}")
        lines += textwrap.wrap(ours(d), 112, initial_indent=" " * 24, subsequent_indent=" " * 26)
    counts = [f"{sum(d.verdict == verdict for d in decisions)} {verdict}" for verdict in VERDICTS]
    return "\n".join([*lines, ", ".join(counts)])


# ---- published records and the README


def published_scales(runs_dir: Path) -> list[str]:
    """Scales with published records, the default one first."""
    found = sorted(path.parent.name for path in runs_dir.glob("*/published") if path.is_dir())
    return sorted(found, key=lambda scale: scale != "cpu")


def readme_block(decided: dict[str, list[Decision]]) -> str:
    """What stands between the README's markers: the claims, one column a scale, and what the numbers are."""
    header = ["claim", "paper"]
    for scale in decided:
        header += [f"ours, {scale}: estimate [95 % interval] (n)", f"verdict, {scale}"]
    header += ["command", "cost" if len(decided) == 1 else f"cost ({', '.join(decided)})"]
    rows = []
    for same in zip(*decided.values(), strict=True):
        about = same[0].about
        row = [f"{same[0].claim} ({about['source']}) {about['text']}", about["paper"]]
        for decision in same:
            row += [ours(decision), f"**{decision.verdict}**"]
        rows.append([*row, f"`{about['command']}`", ", ".join(minutes(decision.seconds) for decision in same)])
    notes = []
    for scale, decisions in decided.items():
        counts = [f"{sum(d.verdict == verdict for d in decisions)} {verdict}" for verdict in VERDICTS]
        family = sum(not math.isnan(judged.p) for d in decisions for judged in d.counted)
        notes.append(f"Scale {scale}: {', '.join(counts)}; {family} tests share one Holm correction.")
    notes.append(
        "Cost: minutes of training of the runs that are scored, one core each, and of merging and scoring on two; a "
        "run that several claims share counts in each of them."
    )
    return "\n".join([*_markdown(header, rows), "", *notes])


def readme_text(readme: Path) -> tuple[str, str, str]:
    """A README before, between and after its markers.

    Raises:
        ValueError: when a marker is missing.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN + "\n")
    block, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme}: no lines {BEGIN} and {END}; put them where the claims table belongs")
    return before + begin, block, end + after


def decide_published(runs_dir: Path, claims: dict[str, Any]) -> dict[str, list[Decision]]:
    """Every published scale decided anew.

    Raises:
        ValueError: when nothing is published.
    """
    scales = published_scales(runs_dir)
    if not scales:
        raise ValueError(f"{runs_dir}: no records published there (SCALE/published)")
    return {scale: decide(runs_dir / scale / "published", claims) for scale in scales}


def published_table(runs_dir: Path, scale: str) -> Path:
    """Where the published verdicts of a scale stand."""
    return runs_dir / scale / "published" / "claims.csv"


def compare(decisions: Sequence[Decision], published: Path) -> str:
    """Where verdicts differ from the published ones."""
    if not published.exists():
        return f"no published verdicts to compare with ({published})"
    theirs = pd.read_csv(published).groupby("claim")["verdict"].first()
    lines = [
        f"{d.claim}: {d.verdict} here, {theirs.get(d.claim, 'missing')} published"
        for d in decisions
        if d.verdict != theirs.get(d.claim)
    ]
    return (
        "\n".join(["verdicts that differ from the published ones:", *lines])
        if lines
        else ("same verdicts as published")
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Decide the paper's claims from records.")
    parser.add_argument("--scale", default="cpu")
    parser.add_argument("--runs-dir", type=Path, default=HERE.parent / "runs")
    parser.add_argument("--out-dir", type=Path, default=HERE / "out")
    parser.add_argument(
        "--compare", action="store_true", help="print where the verdicts differ from the published ones"
    )
    parser.add_argument("--readme", action="store_true", help="write the README's block from the published records")
    parser.add_argument("--readme-path", type=Path, default=HERE.parent / "README.md")
    options = parser.parse_args()
    try:
        run(options)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


def run(options: argparse.Namespace) -> None:
    """Do what the command line says.

    Raises:
        ValueError: when there is nothing published to write a README from, or nowhere to write it.
    """
    claims = load_claims()
    if options.readme:
        decided = decide_published(options.runs_dir, claims)
        for scale, decisions in decided.items():
            table = result_table(decisions, scale)
            write_text(published_table(options.runs_dir, scale), table.to_csv(index=False))
        before, _, after = readme_text(options.readme_path)
        write_text(options.readme_path, before + readme_block(decided) + "\n" + after)
        return
    decisions = decide(options.runs_dir / options.scale, claims)
    out = options.out_dir / options.scale
    write_text(out / "claims.csv", result_table(decisions, options.scale).to_csv(index=False))
    write_text(out / "claims.md", claims_markdown(decisions, options.scale))
    print(screen(decisions, options.scale))
    print(f"every test: {out / 'claims.md'}")
    if options.compare:
        print(compare(decisions, published_table(options.runs_dir, options.scale)))


if __name__ == "__main__":
    main()
