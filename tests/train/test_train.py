"""Training: golden losses, bits that do not depend on threads, exact resume after kill -9, forks, divergence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from pma.config import CONF_DIR, register
from pma.files import read_manifest
from pma.layout import checkpoints, snapshots, trajectory
from pma.merge import average
from pma.model.build import build
from pma.model.loss import loss
from pma.snapshot import verify
from pma.train.loop import _initialise, make_optimizer, train
from pma.train.one_process import MicroBatches

GENERATED = [  # text that needs no download
    "data.name=test",
    "data.sources=[]",
    "data.benchmarks=[]",
    "data.continued={dictionary: 0, code: 0}",
    "data.instruct.bytes={dialogue: 0, dictionary: 0}",
    "tracking=off",
    "threads=1",
    "train.fork_points=[]",
]
SMALL = [
    "scale=smoke",
    *GENERATED,
    "train.total_tokens=15360",
    "train.snapshot_interval=2560",
    "train.checkpoint_interval=5120",
    "train.log_interval=10",
    "schedule.warmup_tokens=1280",
]


def config(tmp_path: Path, *overrides: str):
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("config", [*SMALL, *folders(tmp_path), *overrides])


def folders(tmp_path: Path) -> list[str]:
    return [f"runs_dir={tmp_path / 'runs'}", f"data_dir={tmp_path.parent / 'data'}"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = snapshots(folder)
    return load_file(found[max(found)] / "model.safetensors")


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def twenty_losses(kind: str, threads: int, micro_batches: int = 2) -> list[float]:
    register()
    model_name = {"moe": "moe_1.3b_13b", "dense": "dense_411m"}[kind]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", ["scale=smoke", f"model=smoke/{model_name}"])
    torch.manual_seed(0)
    model = build(cfg.model, 32)
    optimizer = make_optimizer(cfg.train, model)
    optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] = 3e-3
    parts = MicroBatches(model, loss, micro_batches, threads)
    generator = torch.Generator().manual_seed(1)
    # Tokens with structure to learn: a noisy walk over the vocabulary.
    walk = torch.randint(0, 4, (20, 8, 33), generator=generator).cumsum(-1) % cfg.model.vocab_size
    losses = []
    for tokens in walk:
        losses.append(parts.backward(tokens[:, :-1], tokens[:, 1:]).item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return losses


GOLDEN = {"dense": (6.16597, 5.63917, 4.96088), "moe": (6.16333, 5.70424, 5.03998)}  # steps 1, 10, 20


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_golden_losses(kind):
    losses = twenty_losses(kind, threads=1)
    assert [losses[i] for i in (0, 9, 19)] == pytest.approx(GOLDEN[kind], rel=1e-3)


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_bits_do_not_depend_on_threads(kind):
    one = twenty_losses(kind, threads=1, micro_batches=4)
    assert twenty_losses(kind, threads=2, micro_batches=4) == one
    assert twenty_losses(kind, threads=4, micro_batches=4) == one


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch():
    assert twenty_losses("dense", 1, 1) == pytest.approx(twenty_losses("dense", 2, 4), rel=1e-4)


def test_snapshots_stand_at_exact_intervals_and_a_second_call_does_nothing(tmp_path, capsys):
    folder = train(config(tmp_path))
    found = snapshots(folder)
    assert list(found) == list(range(2560, 15361, 2560))
    for tokens, path in found.items():
        assert verify(path)["tokens"] == tokens
    assert list(checkpoints(folder)) == [10240, 15360]  # the newest two
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["tokens"] for row in rows] == list(range(2560, 15361, 2560))
    assert rows[-1]["loss"] < rows[0]["loss"]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    train(config(tmp_path))
    assert "nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    with pytest.raises(ValueError, match="holds another run.*run_id="):
        train(config(tmp_path, "schedule.peak_lr=1e-3"))


def test_killed_three_times_it_ends_with_the_same_bits(tmp_path):
    whole = train(config(tmp_path, "run_id=whole"))
    command = [sys.executable, "-m", "pma.train", *SMALL, *folders(tmp_path), "run_id=killed"]
    killed = tmp_path / "runs" / "smoke" / "killed"
    environment = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src")}
    for kill_at in (2560, 7680, 12800):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (killed / "snapshots" / f"tokens-{kill_at:015d}").exists():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert_same_bits(weights(whole), weights(killed))
    metrics = [
        [{**json.loads(line), "tokens_per_second": 0} for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, killed)
    ]
    assert metrics[0] == metrics[1]
    assert not list(killed.rglob("*.partial*"))


def test_a_fork_from_a_checkpoint_goes_on_and_one_from_weights_starts_anew(tmp_path):
    whole = train(config(tmp_path, "run_id=whole", "train.fork_points=[5120]"))
    fork = [f"init.checkpoint={checkpoints(whole)[5120]}", "run_id=fork"]
    assert_same_bits(weights(whole), weights(train(config(tmp_path, *fork))))
    fresh = [f"init.weights={snapshots(whole)[5120]}", "init.tokens=5120", "run_id=fresh"]
    rows = (train(config(tmp_path, *fresh)) / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[0])["tokens"] == 7680  # same position, so same data, but a fresh optimizer
    assert not torch.equal(*(weights(tmp_path / "runs/smoke" / run)["model.norm.weight"] for run in ("whole", "fresh")))


def test_a_stopped_run_goes_on_with_the_same_bits(tmp_path):
    whole = train(config(tmp_path, "run_id=whole"))
    stopped = train(config(tmp_path, "run_id=stopped", "stop=7680"))
    assert max(snapshots(stopped)) == 7680 and read_manifest(stopped)["tokens"] == 7680
    train(config(tmp_path, "run_id=stopped"))
    assert_same_bits(weights(whole), weights(stopped))


def test_a_run_starts_from_its_parent_and_continues_its_trajectory(tmp_path):
    trunk = train(config(tmp_path, "run_id=trunk-seed0", "train.fork_points=[5120]"))
    parent = "init.parent={run: trunk, tokens: 5120, n: %d, interval: 2560, optimizer: %s}"
    fork = train(config(tmp_path, parent % (1, "last"), "run_id=fork"))
    assert_same_bits(weights(trunk), weights(fork))
    assert list(trajectory(fork)) == list(snapshots(trunk))  # the window of a merge may reach back before the fork
    assert trajectory(fork)[2560] == snapshots(trunk)[2560] and trajectory(fork)[7680] == snapshots(fork)[7680]
    merged = train(config(tmp_path, parent % (2, "null"), "run_id=merged"))
    expected = average([snapshots(trunk)[2560], snapshots(trunk)[5120]], [0.5, 0.5])
    assert_same_bits(load_file(snapshots(merged)[0] / "model.safetensors"), expected)
    with pytest.raises(ValueError, match="no checkpoint at 2,560.*fork_points"):
        train(config(tmp_path, (parent % (1, "last")).replace("5120", "2560"), "run_id=nothing"))
    with pytest.raises(ValueError, match="train run=elsewhere first"):
        train(config(tmp_path, (parent % (1, "last")).replace("trunk", "elsewhere"), "run_id=nowhere"))


def test_a_merged_start_takes_the_optimizer_state_it_is_told_to(tmp_path):
    trunk = train(config(tmp_path, "run_id=trunk-seed0", "train.fork_points=[2560,5120]"))
    parent = "init.parent={run: trunk, tokens: 5120, n: 2, interval: 2560, optimizer: %s}"
    stop = ["init.tokens=5120"]
    old, new = (load_file(checkpoints(trunk)[t] / "optimizer.safetensors") for t in (2560, 5120))
    for kind in ("null", "last", "mean"):
        model = build(config(tmp_path).model, 64)
        optimizer = make_optimizer(config(tmp_path).train, model)
        cfg = config(tmp_path, parent % kind, f"run_id=from_{kind}", *stop)
        assert _initialise(cfg, model, optimizer) == 5120
        state = {name: optimizer.state[p] for name, p in model.named_parameters()}
        for name, held in state.items():
            if kind == "null":
                assert not held
                continue
            for key in ("exp_avg", "exp_avg_sq"):
                expected = new[f"{key}.{name}"] if kind == "last" else (new[f"{key}.{name}"] + old[f"{key}.{name}"]) / 2
                assert torch.equal(held[key], expected)
            assert held["step"] == new[f"step.{name}"]
    run = train(config(tmp_path, parent % "mean", "run_id=mean", "init.tokens=5120", "init.rewarm_tokens=5120"))
    assert read_manifest(run)["optimizer_state"] == "mean"
    rates = [json.loads(line)["lr"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rates[0] < rates[-1] == config(tmp_path).schedule.peak_lr
    with pytest.raises(ValueError, match="init.tokens"):
        train(config(tmp_path, "init.rewarm_tokens=1024", "run_id=lost"))


def test_divergence_stops_the_run_names_the_step_and_keeps_good_snapshots(tmp_path):
    with pytest.raises(ValueError, match=r"not finite at step \d+ .*init.weights=MERGED"):
        train(config(tmp_path, "schedule.peak_lr=1e30", "train.clip_norm=null", "run_id=nan"))
    for path in snapshots(tmp_path / "runs" / "smoke" / "nan").values():
        assert all(tensor.isfinite().all() for tensor in load_file(path / "model.safetensors").values())


def test_a_bad_start_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match="no config.json"):
        train(config(tmp_path, f"init.weights={tmp_path}", "run_id=bad"))


@pytest.mark.parametrize("kind", ["dense_411m", "moe_1.3b_13b"])
def test_a_run_in_pieces_of_time_ends_with_the_same_bits(tmp_path, kind):
    whole = train(config(tmp_path, f"model=smoke/{kind}", "run_id=whole"))
    pieces = config(tmp_path, f"model=smoke/{kind}", "run_id=pieces", "minutes=1e-9", "train.snapshots_at=[2560,7680]")
    handler, seen = signal.getsignal(signal.SIGTERM), []
    while not seen or seen[-1] < 15360:
        seen.append(read_manifest(train(pieces))["tokens"])
    assert seen == [2560, 5120, 7680, 10240, 12800, 15360]  # every tenth step is logged, and a place to stop
    assert signal.getsignal(signal.SIGTERM) == handler  # a program that trains can be ended afterwards
    folder = tmp_path / "runs" / "smoke" / "pieces"
    assert list(snapshots(folder)) == [2560, 7680, 15360]
    assert all(torch.equal(weights(whole)[name], tensor) for name, tensor in weights(folder).items())
    lines = [(path / "metrics.jsonl").read_text().splitlines() for path in (whole, folder)]
    losses = [[json.loads(line)["loss"] for line in one] for one in lines]
    assert losses[0] == losses[1]
