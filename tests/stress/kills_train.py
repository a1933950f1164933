"""Training killed at any moment: after kills and one more call, the metrics and weights of a run never killed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from campaign import HANG, Ended, Outcome, Running, command
from kills import Killer, finished, writing
from prepared import prepared
from tiny import RUN

ONE, TWO = 4, 2  # kills of one trial: of one process, of two
ROOT = Path(__file__).parents[2]
SMALL = [  # 24 steps, a snapshot every 4, a checkpoint every 8
    *RUN,
    "train.total_tokens=6144",
    "train.snapshot_interval=1024",
    "train.checkpoint_interval=2048",
    "train.log_interval=4",
    "schedule.warmup_tokens=1024",
]


def arguments(folder: Path) -> list[str]:
    """Of the command, with a corpus that all trials share."""
    data = prepared(folder, "corpus", _make_corpus)
    return [*SMALL, f"data_dir={data}"]


def _make_corpus(aside: Path) -> None:
    ended = command("pma.train", *SMALL, f"data_dir={aside}", "stop=1024", folder=aside)
    assert ended.code == 0, ended.stderr[-1500:]


def result(folder: Path) -> dict:
    """What a run must end with: its metrics but for the speed, its snapshots, the bytes of weights, its position."""
    run = folder / "runs/smoke/run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = sorted((run / "snapshots").glob("*/*.safetensors")) + sorted((run / "checkpoints").glob("*/*"))
    return {
        "metrics": [{key: value for key, value in row.items() if key != "tokens_per_second"} for row in rows],
        "weights": {
            str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in weights
            if path.suffix == ".safetensors"
        },
        "tokens": json.loads((run / "manifest.json").read_text())["tokens"],
        "checkpoints": sorted(path.name for path in (run / "checkpoints").iterdir() if path.name[0] != "."),
    }


def never_killed(folder: Path, launch: list[str]) -> dict:
    """The result of a run that nobody kills."""
    given = arguments(folder)

    def make(aside: Path) -> None:
        ended = launched(launch, given, aside) if launch else command("pma.train", *given, folder=aside)
        assert ended.code == 0, ended.stderr[-1500:]
        (aside / "result.json").write_text(json.dumps({**result(aside), "seconds": ended.seconds}))

    return json.loads((prepared(folder, f"run-on-{'two' if launch else 'one'}", make) / "result.json").read_text())


def difference(now: dict, expected: dict) -> str:
    """What differs between two results, in words."""
    return ", ".join(f"other {key}" for key in now if now[key] != expected[key])


def killed_training(random: Random, folder: Path) -> Outcome:
    """One process, killed again and again, and then let finish."""
    given, expected = arguments(folder), never_killed(folder, [])
    run = folder / "runs/smoke/run"
    killer = Killer(random, expected["seconds"], lambda: writing(run, run / "snapshots", run / "checkpoints"))
    while not killer.enough(ONE):
        ended = killer.kill(Running("pma.train", *given, folder=folder))
        if ended.code == 0:  # trained to its end: there is nothing more to kill
            if differs := difference(result(folder), expected):
                return Outcome("wrong", f"{differs}; {killer.note}")
            shutil.rmtree(folder / "runs")
        if ended.code > 0:
            return Outcome("traceback", f"{ended.stderr[-600:]}; {killer.note}")
    return outcome(command("pma.train", *given, folder=folder), folder, expected, killer.note)


def outcome(ended: Ended, folder: Path, expected: dict, note: str) -> Outcome:
    """What came of the last call of a run in folder/runs."""
    return finished(ended, folder / "runs", note, lambda: difference(result(folder), expected))


# ---- two processes ----

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "--max-restarts=0"]


def launched(launch: list[str], given: list[str], folder: Path, killer: Killer | None = None) -> Ended:
    """Train under a launcher; with a killer, all its processes are killed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    began = time.monotonic()
    with open(folder / ".stderr", "w+") as log:
        process = subprocess.Popen(
            [*launch, "-m", "pma.train", *given, "scale.micro_batches=2"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        if killer is not None:
            return killer.kill(_Launched(process, began, folder))
        return _Launched(process, began, folder).end(2 * HANG)


class _Launched(Running):
    """A launcher and its workers, in a session of their own."""

    def __init__(self, process: subprocess.Popen, began: float, folder: Path) -> None:
        self._popen, self._begun, self._log = process, began, folder / ".stderr"

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def send(self, number: int) -> None:
        """To the launcher and its workers, which torchrun gives sessions of their own."""
        import psutil

        whole = [psutil.Process(self._popen.pid), *psutil.Process(self._popen.pid).children(recursive=True)]
        for each in whole:
            each.send_signal(number)

    def end(self, seconds: float, killed: bool = False) -> Ended:
        try:
            code, hung = self._popen.wait(seconds), False
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            code, hung = self._popen.wait(), True
        text = self._log.read_text(errors="replace")
        return Ended(code, "", text, time.monotonic() - self._begun, hung, killed)


def killed_training_on_two(random: Random, folder: Path) -> Outcome:
    """Two processes of torchrun."""
    given, expected = arguments(folder), never_killed(folder, TORCHRUN)
    run = folder / "runs/smoke/run"
    killer = Killer(random, expected["seconds"], lambda: writing(run / "snapshots", run / "checkpoints"))
    while not killer.enough(TWO):
        if launched(TORCHRUN, given, folder, killer).code == 0:
            shutil.rmtree(folder / "runs")
    return outcome(launched(TORCHRUN, given, folder), folder, expected, killer.note)
