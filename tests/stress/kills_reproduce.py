"""A reproduction killed, or interrupted: its workers end with it, and the same command gives the same records."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import psutil
from campaign import HANG, Outcome
from kills import left_aside
from prepared import prepared

ROOT = Path(__file__).parents[2]
KILLS = 2  # of one trial
_FILES = ("records.csv", "items.parquet")


def _begin(place: Path, runs: Path) -> subprocess.Popen:
    """Start a small experiment whose main run is trained already, with two workers."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    options = ["experiment=figure_3", "scale=smoke", "tracking=off", "threads=1", "jobs=2", f"runs_dir={runs}"]
    data = place / "data"
    if not data.exists():
        data.mkdir()
        (ROOT / "data/corpora").mkdir(parents=True, exist_ok=True)  # a fresh clone has none
        (data / "corpora").symlink_to(ROOT / "data/corpora")
    with open(place / ".log", "w") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *options, f"data_dir={data}"],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


# `python -m pma.reproduce` that Ctrl-C reaches: a shell's background has it ignored.
_COMMAND = (
    "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "runpy.run_module('pma.reproduce', run_name='__main__', alter_sys=True)"
)


def _whole(aside: Path) -> None:
    process = _begin(aside, aside / "runs")
    assert process.wait(4 * HANG) == 0, (aside / ".log").read_text()[-2000:]


def _linked(folder: Path) -> tuple[Path, Path]:
    """Runs to go on from, where the main run is trained; and the folder with the records of a reproduction."""
    whole = prepared(folder, "reproduced", _whole)
    runs = folder / "runs"
    (runs / "smoke").mkdir(parents=True)
    (runs / "smoke/moe_main-seed0").symlink_to(whole / "runs/smoke/moe_main-seed0")
    return runs, whole / "runs/smoke/figure_3"


def _family(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _wait_for_work(process: subprocess.Popen, random: Random, runs: Path) -> bool:
    """Wait until workers are there, and a random time more; whether the command still runs."""
    until = time.monotonic() + HANG
    metrics = runs / "smoke/annealed_moe_main-seed0/metrics.jsonl"
    while process.poll() is None and not metrics.exists() and not _family(process) and time.monotonic() < until:
        time.sleep(0.05)
    pause = random.random() * 8
    while process.poll() is None and pause > 0:
        time.sleep(0.05)
        pause -= 0.05
    return process.poll() is None


def _left_running(workers: list[psutil.Process]) -> list[psutil.Process]:
    return psutil.wait_procs(workers, timeout=30)[1]


def _final(folder: Path, runs: Path, expected: Path, note: str) -> Outcome:
    """What came of the same command in the end."""
    process = _begin(folder, runs)
    try:
        code = process.wait(2 * HANG)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return Outcome("hang", note)
    if code != 0:
        return Outcome("traceback", f"{(folder / '.log').read_text()[-900:]}; {note}")
    for name in _FILES:
        if (runs / "smoke/figure_3" / name).read_bytes() != (expected / name).read_bytes():
            return Outcome("wrong", f"{name} differs; {note}")
    if over := left_aside(folder):
        return Outcome("left over", f"{over[:5]}; {note}")
    return Outcome("right", note)


def killed_reproduction(random: Random, folder: Path) -> Outcome:
    """The parent alone is killed, or the whole group."""
    runs, expected = _linked(folder)
    hits = []
    for _ in range(KILLS):
        process = _begin(folder, runs)
        alone = random.random() < 0.6
        if _wait_for_work(process, random, runs):
            workers = _family(process)
            os.kill(process.pid, signal.SIGKILL) if alone else os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            hits.append(f"{'the parent alone' if alone else 'the group'} of {len(workers)}")
            if left := _left_running(workers):
                for worker in left:
                    worker.kill()
                return Outcome("left over", f"{len(left)} workers run on; {hits}")
    return _final(folder, runs, expected, f"{len(hits)} killed in flight ({', '.join(hits)})")


def interrupted_reproduction(random: Random, folder: Path) -> Outcome:
    """Ctrl-C, which a terminal sends to the parent and to its workers."""
    runs, expected = _linked(folder)
    process = _begin(folder, runs)
    note = "after the end"
    if _wait_for_work(process, random, runs):
        workers = _family(process)
        note = f"in flight, {len(workers)} workers"
        os.killpg(process.pid, signal.SIGINT)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return Outcome("hang", f"60 s after Ctrl-C; {note}: {(folder / '.log').read_text()[-900:]}")
        text = (folder / ".log").read_text()
        lines = [line for line in text.splitlines() if line.startswith("interrupted")]
        if code == 0:
            note = "after the end"
        elif "Traceback" in text or code != 130 or len(lines) != 1:
            return Outcome("traceback", f"exit {code}; {note}: {text[:400]} ... {text[-900:]}")
        if left := _left_running(workers):
            for worker in left:
                worker.kill()
            return Outcome("left over", f"{len(left)} workers run on; {note}")
    return _final(folder, runs, expected, note)
