"""Every checkpoint of a real Trainer is merged once and scored; one that fails is tried again, and none is lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pma.config import CONF_DIR
from pma.merge import average, ema, sma
from pma.watch.follow import TRIES, Watch, follow
from pma.watch.kept import KeptMerge

RUNNING_EMA = {"method": "ema", "alpha": 0.5}


def test_every_checkpoint_is_merged_and_scored_once(watched, read_rows):
    rows = read_rows(watched[1])
    assert [row["position"] for row in rows] == [2, 4, 6, 8, 10, 12, 14, 16]
    for row in rows:
        gain = row["raw/average/bits_per_byte"] - row["sma_6/average/bits_per_byte"]  # bits saved
        assert row["sma_6/gain/average/bits_per_byte"] == pytest.approx(gain)
        gain = row["sma_6/average/acc"] - row["raw/average/acc"]
        assert row["sma_6/gain/average/acc"] == pytest.approx(gain)
    table = pd.read_csv(watched[1] / "records.csv")
    assert set(table["method"]) == {"last", "sma_6", "ema_0.2"}
    assert table.groupby("tokens").size().nunique() == 1 and table["tokens"].nunique() == 8
    assert table[table["method"] == "sma_6"].groupby("tokens")["n"].first().tolist() == [1, 2, 3, 4, 5, 6, 6, 6]


def test_merges_are_those_of_the_checkpoints_even_of_deleted_ones(watched):
    run, output = watched
    assert sorted(int(path.name.split("-")[1]) for path in run.glob("checkpoint-*")) == [8, 10, 12, 14, 16]
    held = [output / "held" / str(at) for at in (6, 8, 10, 12, 14, 16)]
    assert sorted(path.name for path in (output / "held").iterdir()) == ["10", "12", "14", "16", "6", "8"]
    merged = load_file(output / "merged" / "sma_6" / f"{16:012d}" / "model.safetensors")
    expected = average(held, sma(6))
    assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())
    assert [int(path.name) for path in sorted((output / "merged" / "sma_6").iterdir())] == [14, 16]


def test_text_of_your_own_is_scored_without_a_corpus(watched, tmp_path, make_job, look, read_rows, capsys):
    run, _ = watched
    (tmp_path / "held.jsonl").write_text('{"text": "one plus two"}\n{"text": "three four"}\n')
    job = make_job(run, tmp_path / "out", [{"method": "sma", "n": 2}], text=str(tmp_path / "held.jsonl"))
    look(Watch(job))
    rows = read_rows(tmp_path / "out")
    assert len(rows) == 5 and {"raw/text/bits_per_byte", "sma_2/gain/text/bits_per_byte"} <= rows[-1].keys()
    assert "text/bits_per_byte" in capsys.readouterr().out


def test_the_running_ema_is_the_recursion_over_all_checkpoints(watched):
    output = watched[1]
    before, now = (output / "merged" / "ema_0.2" / f"{at:012d}" for at in (14, 16))
    expected = average([before, output / "held" / "16"], ema(2, 0.2))
    merged = load_file(now / "model.safetensors")
    assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())
    assert len(json.loads((now / "manifest.json").read_text())["sources"]) == 2


@pytest.fixture
def run(tmp_path, make_checkpoint):
    """Checkpoints at 100, 200 and 300 that hold 1, 2 and 3."""
    for number in (1, 2, 3):
        make_checkpoint(tmp_path / "run" / f"checkpoint-{number}00", float(number))
    return tmp_path / "run"


def _value(output, recipe: str, position: int) -> float:
    return load_file(output / "merged" / recipe / f"{position:012d}" / "model.safetensors")["w"][0].item()


def _fail(monkeypatch, position: int, times: int) -> None:
    """Updates at a position raise, so many times."""
    update, left = KeptMerge.update, [times]

    def failing(self, at, *rest):
        if at == position and left[0] > 0:
            left[0] -= 1
            raise OSError("Stale file handle")
        return update(self, at, *rest)

    monkeypatch.setattr(KeptMerge, "update", failing)


def test_a_checkpoint_that_failed_once_is_tried_again_before_any_later_one(
    run, tmp_path, make_job, look, read_rows, monkeypatch, capsys
):
    watch = Watch(make_job(run, tmp_path / "out", [RUNNING_EMA, {"method": "sma", "n": 2}]))
    _fail(monkeypatch, 100, times=1)
    look(watch)
    assert read_rows(watch.output) == []  # 200 and 300 wait: the running EMA must not go past 100
    assert f"100: Stale file handle ({TRIES - 1} more tries)" in capsys.readouterr().out
    look(watch)
    assert [row["position"] for row in read_rows(watch.output)] == [100, 200, 300]
    assert _value(watch.output, "ema_0.5", 300) == 0.5 * 3 + 0.5 * (0.5 * 2 + 0.5 * 1)
    assert _value(watch.output, "sma_2", 300) == 2.5


def test_a_window_of_a_billion_is_filled_as_far_as_it_goes():
    assert KeptMerge("wma", 10**9, None).window(300, [100, 200, 300]) == [100, 200, 300]


def test_a_checkpoint_is_given_up_after_three_tries_and_tried_again_after_a_restart(
    run, tmp_path, make_job, look, read_rows, monkeypatch, capsys
):
    job = make_job(run, tmp_path / "out", [RUNNING_EMA, {"method": "sma", "n": 3}])
    watch = Watch(job)
    _fail(monkeypatch, 100, times=TRIES)
    for _ in range(TRIES):
        look(watch)
    assert read_rows(watch.output) == []
    assert f"100: Stale file handle (given up after {TRIES} tries" in capsys.readouterr().out
    look(watch)
    assert [row["position"] for row in read_rows(watch.output)] == [200, 300]
    assert _value(watch.output, "ema_0.5", 300) == 2.5 and _value(watch.output, "sma_3", 300) == 2.5

    look(Watch(job))
    assert [row["position"] for row in read_rows(watch.output)] == [200, 300, 100]  # the row is not lost
    assert "100: ema_0.5 holds later checkpoints already and goes on without this one" in capsys.readouterr().out
    assert _value(watch.output, "ema_0.5", 300) == 2.5
    look(Watch(job))
    assert len(read_rows(watch.output)) == 3


def test_a_checkpoint_that_is_complete_late_gets_its_row_and_records(
    run, tmp_path, make_job, look, read_rows, monkeypatch
):
    class Scorer:
        def __init__(self, job, cache_dir):
            pass

        def require(self, folder):
            pass

        def score(self, folder, part=None):
            from pma.evaluate.scorer import Score

            value = load_file(folder / "model.safetensors")["w"].mean().item()
            return {("average", "acc"): Score("average", "acc", value, 0.1, 10)}

    monkeypatch.setattr("pma.watch.follow.FolderScorer", Scorer)
    state = run / "checkpoint-200" / "trainer_state.json"
    state.write_text("{")  # still being written
    watch = Watch(make_job(run, tmp_path / "out", [{"method": "sma", "n": 2}], suite="proxy", corpus="unused"))
    look(watch)
    assert watch.waiting() == ["checkpoint-200"]
    state.write_text("{}")
    look(watch)
    assert watch.waiting() == []
    assert [row["position"] for row in read_rows(watch.output)] == [100, 300, 200]
    table = pd.read_csv(watch.output / "records.csv")
    assert table["tokens"].tolist() == [100, 100, 200, 200, 300, 300]
    assert table[table["method"] == "sma_2"]["value"].tolist() == [1.0, 1.5, 2.0]  # 300 was merged without 200


def test_a_row_that_a_full_disk_cut_off_is_written_once(run, tmp_path, make_job, look, read_rows):
    job = make_job(run, tmp_path / "out", [{"method": "sma", "n": 2}], keep=9)
    watch = Watch(job)
    look(watch)
    metrics = watch.output / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text(lines[0])
    watch = Watch(job)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    watch.step = _small_files(watch.step, len(lines[0]) + 5, before)
    look(watch)
    assert metrics.read_text() == lines[0]
    look(watch)
    assert metrics.read_text() == "".join(lines)


def _small_files(step, most, before):
    """The first call is on a full disk: rows do not fit; merges, which are there, are not written."""

    def once(*arguments):
        limits = (most, before[1]) if not calls else before
        calls.append(arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        try:
            return step(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    calls = []
    return once


def test_what_a_killed_watch_left_aside_goes_though_its_checkpoint_is_gone(run, tmp_path, make_job):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    aside = [tmp_path / "out" / place for place in ("held", "merged/sma_2")]
    aside = [folder / f".50.partial-{socket.gethostname()}-{done.pid}" for folder in aside]
    for folder in aside:
        folder.mkdir(parents=True)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        follow(make_job(run, tmp_path / "out", [{"method": "sma", "n": 2}], poll=0.01, idle=0.01))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert not any(folder.exists() for folder in aside)


def test_impossible_jobs_are_refused_before_any_work(run, tmp_path, make_job):
    sma_of_2 = [{"method": "sma", "n": 2}]
    for recipes, options, message in [
        ([], {}, "recipes: give at least one"),
        ([{"method": "sma"}], {}, "recipes: sma needs n; only ema runs without a window"),
        ([{"method": "sma", "n": 0}], {}, "recipes: n=0: give at least 1 checkpoint"),
        (sma_of_2, {"poll": 0}, "poll=0.0: give seconds"),
        (sma_of_2, {"poll": float("nan")}, "poll=nan: give seconds"),
        (sma_of_2, {"idle": float("nan")}, "idle=nan: give seconds"),
        (sma_of_2, {"keep": -1}, "keep=-1 tokens_per_step=1"),
        (sma_of_2, {"anneal": 100.0}, "anneal=100.0: an estimate needs scores"),
        (sma_of_2, {"anneals": "own.csv"}, "anneals=own.csv: goes with anneal=TOKENS"),
        (sma_of_2, {"anneal": float("inf"), "text": "held.jsonl"}, "anneal=inf: give the length"),
        (sma_of_2, {"anneal": 100.0, "anneals": "no.csv", "text": "held.jsonl"}, "anneals=no.csv: no such file"),
        (sma_of_2, {"suite": "proxy"}, "suite=proxy: give corpus=DIR"),
        (sma_of_2, {"suite": "proxy", "text": "held.jsonl"}, "suite=proxy text=held.jsonl: give one of them"),
        (sma_of_2, {"text": "nowhere.jsonl"}, "text=nowhere.jsonl: no such file"),
        (sma_of_2, {"dtype": "int8"}, "dtype=int8"),
        (sma_of_2, {"run_dir": "absent"}, "run_dir=absent: no such folder"),
        (sma_of_2, {"state": "ema"}, "checkpoint-300: state=ema, and no EMA is in it"),
    ]:
        with pytest.raises(ValueError, match=message):
            Watch(make_job(run, tmp_path / "out", recipes, **options))
    assert not (tmp_path / "out").exists()


def test_following_ends_when_nothing_new_comes(run, tmp_path, make_job, read_rows, capsys):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        follow(make_job(run, tmp_path / "out", [RUNNING_EMA], poll=0.01, idle=0.05))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert [row["position"] for row in read_rows(tmp_path / "out")] == [100, 200, 300]
    assert "nothing new for 0.05 s; done" in capsys.readouterr().out


def test_the_command_ends_on_sigterm_after_the_checkpoint_at_hand(run, tmp_path, read_rows):
    command = [sys.executable, "-m", "pma.watch", f"run_dir={run}", f"output={tmp_path / 'out'}", "poll=60"]
    environment = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src"), "OMP_NUM_THREADS": "1"}
    options = ["recipes=[{method: sma, n: 2}]", "tracking.mode=off"]
    process = subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while len(read_rows(tmp_path / "out")) < 3 and time.time() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "step 300: sma_2 of 2 checkpoints" in output
