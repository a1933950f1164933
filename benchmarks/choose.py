"""`pma.choose` against making each merge with `pma.merge` and scoring it with `pma.evaluate`.

    python benchmarks/choose.py                 # about 5 minutes on 2 cores, after `make reproduce` has trained the run
    python benchmarks/choose.py --run runs/cpu/moe_main-seed0 --rounds 5 --calls 6

Whole processes, wall-clock. `pma.choose` scores 60 candidates: all windows over the last ten checkpoints of a run that
stand `--every` apart, with three kinds of weights, and nine single checkpoints. The other way takes 60 calls of
`pma.merge` and 60 of `pma.evaluate` on the same text. Of these only `--calls` are made in each round, for candidates
spread over the table, and their mean time stands for all; the scores are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pma.json_files import read_manifest
from pma.layout import snapshots

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS, SINGLES, CANDIDATES = 10, 9, 60


def timed(*command: str) -> float:
    """Wall-clock seconds of a command of pma."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return time.perf_counter() - began


def link_run(run: Path, every: int, folder: Path) -> Path:
    """A run whose only checkpoints are the last ten of another's that stand `every` apart."""
    for path in list(snapshots(run).values())[::-1][::every][:CHECKPOINTS]:
        (folder / "snapshots").mkdir(parents=True, exist_ok=True)
        (folder / "snapshots" / path.name).symlink_to(path.resolve())
    return folder


def text_of(run: Path, path: Path, documents: int) -> Path:
    """The first held-out documents of every domain of the run's corpus, as one file."""
    newest = list(snapshots(run).values())[-1]
    heldout = sorted((ROOT / read_manifest(newest)["corpus"] / "heldout").glob("*.jsonl"))
    lines = [line for domain in heldout for line in domain.read_text(encoding="utf-8").splitlines()[:documents]]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def both_halves(output: Path) -> list[dict]:
    """Candidates that are scored on both halves, by the last rows of candidates.jsonl, with their sources and score."""
    rows: dict[tuple, list[dict]] = {}
    for row in map(json.loads, (output / "candidates.jsonl").read_text().splitlines()):
        rows.setdefault((row["method"], *row["window"]), []).append(row)
    if len(rows) != CANDIDATES:
        raise RuntimeError(f"{len(rows)} candidates, not {CANDIDATES}: take a run with more checkpoints")
    return [halves[0] | {"halves": halves} for halves in rows.values() if len(halves) == 2 and halves[0]["n"] > 1]


def one_at_a_time(row: dict, run: Path, text: Path, work: Path, threads: int) -> float:
    """Seconds to make and score one candidate; its score must lie between those of the halves."""
    merged, scores = work / "merged", work / "scores.json"
    recipe = [f"last={row['n']}", f"every={row['every']}", f"method={row['method']}", f"output={merged}"]
    seconds = timed("pma.merge", f"run_dir={run}", *recipe, f"threads={threads}")
    more = [f"cache_dir={work / 'cache'}", f"output={scores}", f"threads={threads}", "device=cpu"]
    seconds += timed("pma.evaluate", f"model={merged}", f"text={text}", *more)
    value = json.loads(scores.read_text())["scores"][0]["value"]
    halves = sorted(statistics.fmean(half["values"][0]) for half in row["halves"])
    if not halves[0] - 1e-4 <= value <= halves[1] + 1e-4:
        raise RuntimeError(f"{row['method']} of {row['n']}: {value} alone, {halves} on the halves of pma.choose")
    return seconds


def main() -> None:
    """Read the command line, time both ways round by round, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "cpu" / "moe_main-seed0")
    parser.add_argument("--every", type=int, default=2, help="the run's snapshots from one checkpoint to the next")
    parser.add_argument("--documents", type=int, default=20, help="held-out documents of each domain of the corpus")
    parser.add_argument("--text", type=Path, help="another text, JSON Lines")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=3, help="candidates that are made one at a time in each round")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads of each command")
    args = parser.parse_args()
    if len(snapshots(args.run)) <= (CHECKPOINTS - 1) * args.every:
        raise SystemExit(
            f"error: {args.run}: {len(snapshots(args.run))} snapshots there, too few for ten that stand {args.every} "
            f"apart; make reproduce-figure-4 trains the run, or give another, --run DIR"
        )
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        run = link_run(args.run, args.every, work / "run")
        text = args.text or text_of(args.run, work / "text.jsonl", args.documents)
        size = text.stat().st_size
        print(f"{CANDIDATES} candidates of {args.run.name}, {size / 1000:.0f} KB of text, {args.threads} threads")
        print(f"{'round':>5}  {'choose, s':>9}  {'one merge and evaluate, s':>25}  {'ratio':>6}")
        ratios = []
        for number in range(args.rounds):
            output = work / f"choose{number}"
            options = [f"output={output}", f"singles={SINGLES}", f"threads={args.threads}", "device=cpu"]
            together = timed("pma.choose", f"run_dir={run}", f"text={text}", *options)
            rows = both_halves(output)
            step = max(1, len(rows) // args.calls)
            alone = []
            for i, row in enumerate(rows[::step][: args.calls]):
                (folder := work / f"alone{number}-{i}").mkdir()
                alone.append(one_at_a_time(row, run, text, folder, args.threads))
            ratios.append(CANDIDATES * statistics.fmean(alone) / together)
            print(f"{number + 1:5}  {together:9.1f}  {statistics.fmean(alone):25.1f}  {ratios[-1]:6.1f}", flush=True)
        print(f"median: {statistics.median(ratios):.1f} times as fast as {CANDIDATES} calls of each, same scores")


if __name__ == "__main__":
    main()
