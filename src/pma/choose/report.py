"""What the user reads of a search: the table's head, the gain, why, and the command."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from omegaconf import DictConfig

from pma.choose.candidates import Candidate
from pma.choose.halves import Halves
from pma.merge import Policy
from pma.merge.check import open_sources
from pma.merge.checkpoints import Run
from pma.merge.diagnose import diagnostics
from pma.merge.options import Options, Part, select
from pma.merge.plan import plan
from pma.words import print_next

_HEAD = 10  # rows
_CLOUD, _PATH = 0.2, 0.6  # cosine of successive updates: below the one and above the other
_DIGITS = 4


def report(
    job: DictConfig, run: Run, end: int, scored: Mapping[Candidate, Sequence[float]], halves: Halves
) -> Candidate:
    """Print table, gains, reason and command; return the best candidate.

    Args:
        end: position of the newest checkpoint.
        scored: bits of every document by candidate.
    """
    order = sorted(scored, key=lambda candidate: halves.choosing(scored[candidate]))
    singles = [candidate for candidate in order if candidate.method == "single"]
    newest = next(candidate for candidate in singles if candidate.window == (end,))
    print("\n".join(table(order[:_HEAD], scored, newest, halves)))
    best = next((candidate for candidate in order if candidate.method != "single"), None)
    if best is None:
        print("no merge is scored yet; give a larger budget")
        return newest
    baselines = {newest: "the last checkpoint"} | {singles[0]: "the best single checkpoint"}
    if singles[0] == newest:
        baselines = {newest: "the last checkpoint, the best single one"}
    for other, words in baselines.items():
        gain, half = halves.gain(scored[best], scored[other])
        at = f"{words}, at {other.window[0]:,}"
        print(f"the best merge saves {gain:+.{_DIGITS}f} ± {half:.{_DIGITS}f} bits per byte over {at}")
    print("gains are of the half of the documents that did not choose; ± is half a paired 95 % interval")
    gain, half = halves.gain(scored[best], scored[newest])
    if gain - half <= 0:
        print("so the text cannot tell the merge from the last checkpoint; more of it can, or do not merge")
    print(reason(job, run, best))
    more = [f"{key}={job[key]}" for key in ("assets", "prefix", "state", "key") if job[key] is not None]
    more += ["suspicious=warn"] if job.suspicious == "warn" else []
    print_next(" ".join([best.command(job.run_dir, end), *more]))
    return best


def table(
    rows: Sequence[Candidate], scored: Mapping[Candidate, Sequence[float]], newest: Candidate, halves: Halves
) -> list[str]:
    """The best candidates, one a line, in bits per byte; lower is better, and a gain is over the last checkpoint."""
    lines = [f"{'method':8} {'n':>4} {'every':>5} {'oldest':>12} {'chosen by':>10} {'reported':>10} {'gain':>8}"]
    for candidate in rows:
        bits = scored[candidate]
        gain, _ = halves.gain(bits, scored[newest])
        lines.append(
            f"{candidate.method:8} {candidate.n:4} {candidate.every:5} {candidate.window[0]:12,} "
            f"{halves.choosing(bits):10.{_DIGITS}f} {halves.reporting(bits):10.{_DIGITS}f} {gain:+8.{_DIGITS}f}"
        )
    return lines


def reason(job: DictConfig, run: Run, best: Candidate) -> str:
    """Whether the checkpoints of the best window lie like a cloud or along a path, in words."""
    if best.n < 3:
        return "two checkpoints say nothing of how the run moves; save more of them"
    cosine = statistics.fmean(update_cosines(job, [str(run.checkpoints[at]) for at in best.window]))
    lead = f"successive updates of this window have a mean cosine of {cosine:.2f}"
    if cosine < _CLOUD:
        return f"{lead}: the checkpoints lie like a cloud, whose middle is better than any of them"
    if cosine > _PATH:
        return f"{lead}: the run still moves along a path, and old checkpoints pull a merge back"
    return f"{lead}: between a cloud, where merging pays, and a path, where it does not"


def update_cosines(job: DictConfig, folders: Sequence[str]) -> list[float]:
    """Cosine between each update of a window and the one before it."""
    options = Options(threads=job.threads, **asdict(select(Part, job)))
    weights = [[1.0 / len(folders)] * len(folders)]
    with open_sources(folders, options) as sources:
        result = plan(sources, weights, options, Policy(suspicious="warn")).run(lambda *block: None, ["the window"])
    assert result is not None, "a process that is alone is the first"
    seen, _ = result
    return diagnostics(seen.grams, seen.counts)["update_cosines"]
