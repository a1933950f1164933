"""What the user reads of a search: the table's head, the gain, why, and the command."""

from __future__ import annotations

import shlex
from collections import Counter

from omegaconf import DictConfig

from pma.choose.candidates import Candidate
from pma.choose.halves import score
from pma.choose.result import Result
from pma.words import count

ROWS = 10  # of the table
_CLOUD, _PATH = 0.2, 0.6  # cosine of successive updates: below the one and above the other


def table(result: Result) -> list[list[str]]:
    """The best candidates, one a row, below the names of the columns; a gain is over the last checkpoint."""
    number = result.measure.number
    rows = [["method", "N", "every", "oldest", "chosen by", "reported", "gain"]]
    for candidate in list(result.chosen)[:ROWS]:
        gain, half = result.gain(candidate, result.newest)
        rows.append(
            [
                candidate.method,
                str(candidate.n),
                str(candidate.every),
                f"{candidate.window[0]:,}",
                number(score(result.chosen[candidate].values)),
                number(score(result.reported[candidate])),
                f"{number(gain, '+')} ± {number(half)}" if candidate != result.newest else "",
            ]
        )
    return rows


def as_text(rows: list[list[str]]) -> list[str]:
    """A table for a terminal: words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return ["  ".join([row[0].ljust(widths[0]), *rest]).rstrip() for row, (_, *rest) in zip(rows, padded, strict=True)]


def gains(result: Result) -> list[str]:
    """What the best merge gains over the baselines, and whether it can be told from the last checkpoint."""
    best, newest, single = result.best, result.newest, result.singles[0]
    if best is None:
        return ["no merge is scored yet; give a larger budget"]
    baselines = {newest: "the last checkpoint"} | {single: "the best single checkpoint"}
    if single == newest:
        baselines = {newest: "the last checkpoint, the best single one"}
    lines = [
        f"the best merge {result.measure.gain(*result.gain(best, other))} over {words}, at {other.window[0]:,}"
        for other, words in baselines.items()
    ]
    gain, half = result.gain(best, newest)
    lines.append("gains are of the half of the documents that did not choose; ± is half a paired 95 % interval")
    if gain - half <= 0:
        lines.append(
            "so these documents cannot tell the merge from the last checkpoint; more of them can, or do not merge"
        )
    return lines


def reason(result: Result) -> str:
    """Whether the checkpoints of the best window lie like a cloud or along a path, in words.

    Two checkpoints do not tell; where the best window has no more, the best of those that do speaks for it.
    """
    known = {candidate: scored.cosine for candidate, scored in result.chosen.items() if scored.cosine is not None}
    if not known:
        return "two checkpoints say nothing of how the run moves; save more of them"
    window, cosine = next(iter(known.items()))
    which = "the best window" if window == result.best else "the best window of three checkpoints or more"
    lead = f"successive updates of {which} have a mean cosine of {cosine:.2f}"
    if cosine < _CLOUD:
        return f"{lead}: the checkpoints lie like a cloud, whose middle is better than any of them"
    if cosine > _PATH:
        return f"{lead}: the run still moves along a path, and old checkpoints pull a merge back"
    return f"{lead}: between a cloud, where merging pays, and a path, where it does not"


def refusals(result: Result) -> list[str]:
    """Candidates that cannot be merged, and why, by reason."""
    return [f"left out, {count(n, 'candidate')}: {why}" for why, n in Counter(result.refused.values()).most_common(3)]


def command(job: DictConfig, best: Candidate) -> str:
    """The command that makes the best merge."""
    more = [f"{key}={job[key]}" for key in ("assets", "prefix", "state", "key") if job[key] is not None]
    more += ["suspicious=warn"] if job.suspicious == "warn" else []
    return " ".join([best.command(shlex.quote(job.run_dir)), *map(shlex.quote, more)])
