"""Follow a live run: at every checkpoint bring each merge up to date, score it beside the checkpoint, write a row.

OUT holds metrics.jsonl (one row a checkpoint, which is also what a restart goes on from), records.csv,
merged/RECIPE/POSITION, and with hold=true held/POSITION.
"""

from __future__ import annotations

import signal
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from omegaconf import DictConfig

from pma import cli
from pma.files import sweep, write_json
from pma.json_files import read_rows
from pma.layout import gaps, positions
from pma.merge import Options, Policy
from pma.merge.card import add_scores
from pma.merge.checkpoints import complete
from pma.merge.formats import open_source
from pma.merge.options import Part, select
from pma.records import Record
from pma.tracking import Tracker
from pma.watch.anneals import Estimate
from pma.watch.check import check_numbers, open_anneals
from pma.watch.hold import held, hold, release
from pma.watch.kept import KeptMerge
from pma.watch.report import Axis, estimate_text, estimates, merge_text, score_text, shown_scores
from pma.watch.scores import FolderScorer, Scores, add_records, gain, records_of

TRIES = 3  # of a checkpoint; a trainer may be deleting it, a disk may be full for a moment


class Watch:
    """The state of one `python -m pma.watch`.

    Args:
        job: a WatchJob.

    Raises:
        ValueError: for a folder that is missing, an empty or impossible list of recipes, a suite without what it
            needs, or checkpoints without the part that is asked for; before any work.
    """

    def __init__(self, job: DictConfig) -> None:
        self.job = job
        self.run_dir, self.output = Path(job.run_dir), Path(job.output)
        self.run_name = self.run_dir.resolve().name
        if not self.run_dir.is_dir():
            raise ValueError(f"run_dir={job.run_dir}: no such folder; give the folder that the trainer writes into")
        self.recipes = [KeptMerge(recipe.method, recipe.n, recipe.alpha) for recipe in job.recipes]
        if not self.recipes:
            raise ValueError("recipes: give at least one, as recipes=[{method: sma, n: 10}]")
        check_numbers(job)
        self.part = select(Part, job)
        self.options = Options(**asdict(self.part), dtype=job.dtype, threads=job.threads, assets=job.assets)
        self.options.check()
        self.policy = Policy(suspicious=job.suspicious)
        self.policy.check()
        metrics = self.output / "metrics.jsonl"
        self.rows = read_rows(metrics, position=int)
        self.failures: dict[int, int] = {}  # tries that failed, by position
        self.axis = Axis(tokens_per_step=job.tokens_per_step)
        self._said: set[Any] = set()  # what is said once
        if job.suite is not None and job.text is not None:
            raise ValueError(f"suite={job.suite} text={job.text}: give one of them")
        self.suite = "text" if job.text is not None else job.suite
        self.anneals = open_anneals(job)
        self.scorer = None if self.suite is None else FolderScorer(job, self.output / "scores")
        now = list(self.checkpoints().values())  # refuses names that do not fit
        if now:
            open_source(now[-1], self.part.prefix, self.part.state, self.part.key).close()  # what every one would lack
        if self.scorer is not None and now:
            self.scorer.require(now[-1])

    @property
    def last(self) -> int:
        """The newest position with a row; -1 without any."""
        return max((row["position"] for row in self.rows), default=-1)

    # ---- which checkpoints ----

    def checkpoints(self) -> dict[int, Path]:
        """Complete checkpoints by position, ascending, with those held for us; without those that are given up.

        Raises:
            ValueError: when names do not fit tokens_per_step, or two checkpoints have one position.
        """
        there = positions(self.run_dir)
        if there:
            self.axis = Axis.of(list(there.values())[-1].name, self.job.tokens_per_step)
        live = {at: path for at, path in there.items() if complete(path)}
        both = live | held(self.output / "held")
        return {at: both[at] for at in sorted(both) if self.failures.get(at, 0) < TRIES}

    def waiting(self) -> list[str]:
        """Names of the checkpoints without a row that are not written completely, or so damaged that they seem so."""
        done = {row["position"] for row in self.rows}
        return [path.name for at, path in positions(self.run_dir).items() if at not in done and not complete(path)]

    def todo(self, checkpoints: dict[int, Path]) -> list[int]:
        """Positions without a row, oldest first: whatever came late or failed before stands ahead of what is newer."""
        done = {row["position"] for row in self.rows}
        return [at for at in checkpoints if at not in done]

    # ---- one checkpoint ----

    def try_step(self, at: int, checkpoints: dict[int, Path], tracker: Tracker) -> bool:
        """`step`; returns whether it succeeded.

        A checkpoint that its trainer deletes meanwhile, or that holds NaN, does not end the watch: it is tried again at
        the next looks, before any later one, and given up after `TRIES` tries until the watch is started anew.
        """
        try:
            self.step(at, checkpoints, tracker)
        except cli.ERRORS as error:
            self.failures[at] = self.failures.get(at, 0) + 1
            left = TRIES - self.failures[at]
            plan = f"{left} more {'try' if left == 1 else 'tries'}"
            if not left:
                plan = f"given up after {TRIES} tries; all merges go on without it"
            self._say(at, f"{cli.message(error)} ({plan})")
            return False
        return True

    def step(self, at: int, checkpoints: dict[int, Path], tracker: Tracker) -> None:
        """Bring every merge up to date with the checkpoint at position `at`, score, and write the row and records.

        Raises:
            ValueError, OSError: when the checkpoint cannot be read, merged or scored; nothing is written then but
                merges, which the next try finds.
        """
        began = time.perf_counter()
        if self.job.hold:
            checkpoints[at] = hold(checkpoints[at], at, self.output / "held", self.part)
        merges: dict[KeptMerge, tuple[Path, int]] = {}
        for recipe in self.recipes:
            folder = self._folder(recipe)
            if recipe.passed(at, folder):  # it became complete late, or succeeded only after a restart
                self._say(at, f"{recipe.name} holds later checkpoints already and goes on without this one")
            else:
                self._warn_of_window(at, recipe, checkpoints)
                merges[recipe] = recipe.update(at, checkpoints, folder, self.options, self.policy)
        row: dict[str, Any] = {"position": at}
        expected: dict[KeptMerge, dict[str, Estimate]] = {}
        if self.scorer is not None:
            row |= self._score(at, checkpoints[at], merges, self.scorer)
            expected = self._estimate(at, merges, row, list(checkpoints))
        tracker.log(at * self.job.tokens_per_step, **row)
        self.rows.append(row)
        for recipe in self.recipes:
            recipe.prune(self._folder(recipe), self.job.keep)
        windows = [r.window(at, list(checkpoints)) for r in self.recipes if not r.running]
        release(self.output / "held", {at}.union(*windows), before=at)
        self._report(at, merges, row, expected, time.perf_counter() - began)

    def _folder(self, recipe: KeptMerge) -> Path:
        return self.output / "merged" / recipe.name

    def _score(
        self, at: int, checkpoint: Path, merges: dict[KeptMerge, tuple[Path, int]], scorer: FolderScorer
    ) -> dict[str, float]:
        """Numbers of a row: raw/TASK/METRIC of the checkpoint, RECIPE/... of each merge, RECIPE/gain/... over it.

        A gain above 0 is better, whatever the metric.
        """
        raw = scorer.score(checkpoint, self.part)
        row = {f"raw/{task}/{metric}": score.value for (task, metric), score in raw.items()}
        records = self._records("last", 1, at, raw)
        for recipe, (folder, n) in merges.items():
            scores = scorer.score(folder)
            add_scores(folder, self.suite, [(s.task, s.metric, s.value, s.stderr) for s in scores.values()])
            records += self._records(recipe.name, n, at, scores)
            for key, score in scores.items():
                row[f"{recipe.name}/{'/'.join(key)}"] = score.value
                row[f"{recipe.name}/gain/{'/'.join(key)}"] = gain(key[1], score.value, raw[key].value)
        add_records(self.output / "records.csv", records)
        return row

    def _estimate(
        self, at: int, merges: dict[KeptMerge, tuple[Path, int]], row: dict[str, Any], available: list[int]
    ) -> dict[KeptMerge, dict[str, Estimate]]:
        """What annealing would have given, which also goes into the row.

        There is nothing to say of a merge of one checkpoint, or where the decay would be longer than the run.
        """
        if self.anneals is None or self.job.anneal > at * self.job.tokens_per_step:
            return {}
        expected: dict[KeptMerge, dict[str, Estimate]] = {}
        for recipe in (recipe for recipe, (_, n) in merges.items() if n > 1):
            window = recipe.window(at, available)
            expected[recipe] = estimates(self.anneals, recipe, window, row, self.job.anneal, self.axis)
            for score, annealed in expected[recipe].items():
                row[f"{recipe.name}/annealed/{score}"] = annealed.value
                for end, value in zip(("low", "high"), annealed.interval or (), strict=False):
                    row[f"{recipe.name}/annealed_{end}/{score}"] = value
        return expected

    def _records(self, method: str, n: int, at: int, scores: Scores) -> list[Record]:
        return records_of(self.run_name, self.suite, method, n, at * self.job.tokens_per_step, scores)

    # ---- what the user reads ----

    def _say(self, at: int, text: str) -> None:
        print(f"{self.axis.at(at)}: {text}", flush=True)

    def _warn_of_window(self, at: int, recipe: KeptMerge, checkpoints: dict[int, Path]) -> None:
        """Say once what a window lacks: checkpoints that were deleted, or that never came."""
        window = recipe.window(at, list(checkpoints))
        for a, b in gaps(window):
            if (a, b) not in self._said:
                self._said.add((a, b))
                between = f"{self.axis.at(a)} and {self.axis.at(b)}"
                self._say(at, f"{recipe.name} spans a gap: no checkpoint between {between}")
        known = {row["position"] for row in self.rows} | {at}
        lost = [] if recipe.running else sorted(set(recipe.window(at, sorted(known))) - set(window))
        if lost and not self.job.hold and "hold" not in self._said:
            self._said.add("hold")
            these = ", ".join(map(self.axis.at, lost))
            self._say(at, f"{recipe.name} goes without {these}, deleted since; hold=true keeps a window by hard links")

    def _report(
        self,
        at: int,
        merges: dict[KeptMerge, tuple[Path, int]],
        row: dict[str, Any],
        expected: dict[KeptMerge, dict[str, Estimate]],
        seconds: float,
    ) -> None:
        for recipe, (folder, n) in merges.items():
            line = merge_text(recipe, n, seconds)
            scores = shown_scores(recipe, row)
            if n == 1:
                line += ": the checkpoint itself"
            elif scores:
                line += f": {'; '.join(score_text(recipe, score, row, self.rows) for score in scores)}"
            self._say(at, line)
            for score, annealed in expected.get(recipe, {}).items():
                print(f"  {estimate_text(score, annealed, self.axis.length(self.job.anneal))}", flush=True)
            if not scores and folder.exists():
                print(f"  {folder}", flush=True)


def follow(job: DictConfig) -> None:
    """Keep the merges of a run up to date: until interrupted, or for job.idle seconds without anything new.

    Raises:
        ValueError: for impossible options, before anything is waited for.
    """
    watch = Watch(job)
    watch.output.mkdir(parents=True, exist_ok=True)
    for folder in (watch.output / "held", *(watch.output / "merged" / recipe.name for recipe in watch.recipes)):
        sweep(folder)  # of checkpoints that may be gone, and so never come again
    stop = _Stop()
    last = watch.last
    config = {"run_dir": str(watch.run_dir.resolve()), "recipes": [recipe.name for recipe in watch.recipes]}
    write_json(watch.output / "watch.json", config)
    names = " and ".join(recipe.name for recipe in watch.recipes)
    since = f", after {watch.axis.at(last)}" if last >= 0 else ""
    print(f"looking for checkpoints in {watch.run_dir} every {job.poll:g} s{since}; Ctrl-C ends it", flush=True)
    print(f"merges ({names}) and scores go to {watch.output}", flush=True)
    name = f"watch-{watch.run_name}"
    run = {"id": name, "name": name, "group": job.group or watch.run_name, "job_type": "eval"}
    with Tracker(
        watch.output, last * job.tokens_per_step, job.tracking, tags=["watch"], config=config, **run
    ) as tracker:
        quiet_since = time.monotonic()
        while not stop.asked:
            checkpoints = watch.checkpoints()
            for at in watch.todo(checkpoints):
                succeeded = watch.try_step(at, checkpoints, tracker)
                quiet_since = time.monotonic()
                if stop.asked or not succeeded:
                    break  # a running EMA must not go past a checkpoint that may still succeed
            if job.idle is not None and time.monotonic() - quiet_since > job.idle:
                print(f"nothing new for {job.idle:g} s; done", flush=True)
                break
            stop.sleep(job.poll)
    for name in watch.waiting():
        print(f"{name}: left out, for it is not written completely; the same command looks at it again", flush=True)


class _Stop:
    """Ctrl-C and SIGTERM: finish the checkpoint at hand, then leave."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.asked and time.monotonic() < until:
            time.sleep(min(0.2, seconds))
