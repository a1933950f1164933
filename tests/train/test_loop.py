"""A run from its start to its end: what it saves, that a broken run ends with the same bits, and what stops it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pma.config import CONF_DIR
from pma.files import revision
from pma.json_files import read_manifest
from pma.layout import checkpoints, snapshots
from pma.snapshot import verify
from pma.train.stop import REQUEUE, StopRequest


def test_snapshots_stand_at_exact_intervals_and_a_second_call_does_nothing(lab, metrics, capsys):
    folder = lab.train()
    kept = snapshots(folder)
    assert list(kept) == list(range(2560, 15361, 2560))
    for tokens, path in kept.items():
        assert verify(path)["tokens"] == tokens
    assert list(checkpoints(folder)) == [10240, 15360]  # the newest two
    rows = metrics(folder)
    assert [row["tokens"] for row in rows] == list(range(2560, 15361, 2560))
    assert rows[-1]["loss"] < rows[0]["loss"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    lab.train()
    assert "nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    with pytest.raises(ValueError, match="holds another run.*run_id="):
        lab.train("schedule.peak_lr=1e-3")


def test_a_manifest_names_the_revision_of_the_code_as_every_record_does(trunk):
    assert read_manifest(trunk)["versions"]["revision"] == (revision() or "unknown")


def test_killed_three_times_it_ends_with_the_same_bits(lab, metrics, last_weights, assert_same_bits):
    model = "model=smoke/dense_411m"
    whole, killed = lab.train(model, "run_id=whole"), lab.folder("killed")
    overrides = json.dumps(lab.overrides(model, "run_id=killed"))
    script = Path(__file__).with_name("killed_runs.py")
    environment = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src")}
    command = [sys.executable, str(script), overrides, "2560", "7680", "12800"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    assert_same_bits(last_weights(killed), last_weights(whole))
    assert metrics(killed) == metrics(whole)
    assert not list(killed.rglob("*.partial*"))


def test_a_stopped_run_goes_on_with_the_same_bits(shared_lab, trunk, last_weights, assert_same_bits, capsys):
    stopped = shared_lab.train("run_id=stopped", "stop=7680")
    assert max(snapshots(stopped)) == 7680 and read_manifest(stopped)["tokens"] == 7680
    shared_lab.train("run_id=stopped")
    assert "resumed at 7,680 tokens" in capsys.readouterr().out
    assert_same_bits(last_weights(stopped), last_weights(trunk))


def test_a_run_in_pieces_of_time_ends_with_the_same_bits(shared_lab, trunk, metrics, last_weights, assert_same_bits):
    pieces = ["run_id=pieces", "minutes=1e-9", "train.snapshots_at=[2560,7680]"]
    handler, seen = signal.getsignal(signal.SIGTERM), []
    while not seen or seen[-1] < 15360:
        seen.append(read_manifest(shared_lab.train(*pieces))["tokens"])
    assert seen == [2560, 5120, 7680, 10240, 12800, 15360]  # every tenth step is logged, and a place to stop
    assert signal.getsignal(signal.SIGTERM) == handler  # a program that trains can be ended afterwards
    folder = shared_lab.folder("pieces")
    assert list(snapshots(folder)) == [2560, 7680, 15360]
    assert_same_bits(last_weights(folder), last_weights(trunk))
    assert metrics(folder) == metrics(trunk)


def test_other_snapshots_can_be_kept_of_a_run_that_is_trained_in_part(shared_lab):
    shared_lab.train("run_id=added", "train.snapshots_at=[2560]", "stop=5120")
    folder = shared_lab.train("run_id=added", "train.snapshots_at=[2560,7680]", "stop=10240")
    assert list(snapshots(folder)) == [2560, 7680]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_s_signal_ends_a_run_in_good_order(shared_lab, number):
    name = f"ended-{number}"
    folder = shared_lab.folder(name)

    def end() -> None:
        while not (folder / "snapshots").exists():
            time.sleep(0.002)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=end, daemon=True)
    sender.start()
    with pytest.raises(SystemExit) as ended:
        shared_lab.train(f"run_id={name}", "train.total_tokens=102400", "train.checkpoint_interval=102400")
    sender.join()
    assert ended.value.code == REQUEUE
    at = read_manifest(folder)["tokens"]
    assert 0 < at < 102400 and list(checkpoints(folder)) == [at]


def test_a_thread_that_cannot_catch_signals_can_still_train():
    def use() -> None:
        with StopRequest(None) as stop:
            assert not stop.pending

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()


def test_divergence_stops_the_run_names_the_step_and_keeps_good_snapshots(lab):
    with pytest.raises(ValueError, match=r"not finite at step \d+ .*init.weights=MERGED"):
        lab.train("schedule.peak_lr=1e30", "train.clip_norm=null", "run_id=nan")
    for path in snapshots(lab.folder("nan")).values():
        assert all(tensor.isfinite().all() for tensor in load_file(path / "model.safetensors").values())
