"""Score the candidates of one run, those that an earlier call left open, and report the best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from pma.choose.candidates import Candidate, candidates
from pma.choose.kept import Kept
from pma.choose.measure import Measure, load_measure
from pma.choose.report import ROWS, as_text, command, gains, reason, refusals, table
from pma.choose.result import Result
from pma.layout import gaps, last
from pma.merge import Policy
from pma.merge.checkpoints import RunCheckpoints, warn
from pma.merge.options import Options, Part, select
from pma.words import count, duration, print_next

if TYPE_CHECKING:
    from pma.choose.judge import Judge


def search(job: DictConfig) -> None:
    """Score what is open and the budget allows, then report: in words, as a picture and as a page.

    Raises:
        ValueError: as `python -m pma.choose`.
    """
    began = time.monotonic()
    part = select(Part, job)
    Options(**asdict(part), assets=job.assets).check()
    Policy(suspicious=job.suspicious).check()
    run = RunCheckpoints(job.run_dir)
    positions = last(run.checkpoints, None, end=job.end)
    wanted, across = candidates(positions, list(job.methods), job.longest, job.singles)
    measure = load_measure(job)
    # Both slow to import, and matplotlib, which draws the page, had better be missed now than in an hour.
    import pma.choose.page  # noqa: F401
    from pma.choose.judge import Judge

    judge = Judge(job, run, positions[-1], measure)
    warn(run.left_out(positions))
    if across:
        holes = [f"from {before:,} to {after:,}" for before, after in gaps(positions)[-2:]]
        where = f" ({'gap' if len(holes) == 1 else 'gaps'} {' and '.join(holes)})" if holes else ""
        warn([f"{count(across, 'window')} left out, whose checkpoints do not stand evenly{where}"])
    used = {at: run.checkpoints[at] for at in positions}
    kept = Kept(Path(job.output), [measure.metrics, asdict(part)], used, job.assets)
    scored = len(kept.known(wanted, measure.halves[0].version))
    print(
        f"{count(len(positions), 'checkpoint')} up to {positions[-1]:,}, {count(len(wanted), 'candidate')} "
        f"({scored} scored before), {count(measure.documents, 'document')}",
        flush=True,
    )
    until = float("inf") if job.budget is None else began + 60 * job.budget
    result = _score(kept, judge, wanted, measure, until)
    if result.left:
        left = f"{count(result.left, 'candidate')} open, the same command goes on"
        print(f"the budget of {job.budget:g} minutes is over; {left}")
    print(f"scored in {duration(time.monotonic() - began)}")
    _report(job, run, result)


def _score(kept: Kept, judge: Judge, wanted: Sequence[Candidate], measure: Measure, until: float) -> Result:
    """Score candidates on the half that chooses, until a time, then the best of them on the half that reports."""
    choosing, reporting = (half.version for half in measure.halves)
    _fill(kept, judge, wanted, choosing, until)
    result = Result.of(wanted, kept.known(wanted, choosing), measure)
    head = result.head(ROWS)
    _fill(kept, judge, head, reporting, float("inf"))
    return replace(result, reported={c: scored.values for c, scored in kept.known(head, reporting).items()})


def _fill(kept: Kept, judge: Judge, wanted: Sequence[Candidate], half: str, until: float) -> None:
    """Score those that are not yet, until a time; at least one, for without the newest there is nothing to report."""
    known = kept.known(wanted, half)
    for candidate, scored in judge.scores([c for c in wanted if c not in known], half):
        kept.add(candidate, half, scored)
        if time.monotonic() > until:
            break


def _report(job: DictConfig, run: RunCheckpoints, result: Result) -> None:
    from pma.choose.page import write_page

    rows, best = table(result), result.best
    if best is None:
        print("\n".join([*as_text(rows), *gains(result), *refusals(result)]))
        return
    lines = [*gains(result), reason(result), *refusals(result)]
    page = write_page(Path(job.output), run, result, rows, lines, command(job, best))
    print("\n".join([*as_text(rows), *lines, f"heat map and table: {page}"]))
    print_next(command(job, best))
