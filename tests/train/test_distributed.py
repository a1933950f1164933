"""Training on several processes: the curve of one, resume on another number, killed workers, signals to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors import safe_open
from test_train import config
from transformers import AutoModelForCausalLM

from pma.config import CONF_DIR
from pma.corpus import TokenDataset
from pma.files import read_manifest
from pma.layout import snapshots
from pma.snapshot import verify
from pma.train.loop import REQUEUE, train

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src"), "OMP_NUM_THREADS": "1"}
# Four micro-batches, so that one, two and four processes can share them.
FEWER = ["scale.micro_batches=4", "train.total_tokens=7680", "train.checkpoint_interval=2560"]


def start(processes: int, tmp_path: Path, *overrides: str, restarts: int = 0) -> subprocess.Popen:
    """torchrun with the config of the tests."""
    torchrun = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--max-restarts={restarts}"]
    command = [sys.executable, *torchrun, "--standalone", "-m", "pma.train", *arguments(tmp_path, *overrides)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def arguments(tmp_path: Path, *overrides: str) -> list[str]:
    from test_train import SMALL, folders

    return [*SMALL, *folders(tmp_path), *FEWER, *overrides]


def done(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output[-3000:]


def losses(tmp_path: Path, run_id: str) -> list[float]:
    lines = (tmp_path / "runs" / "smoke" / run_id / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def weights(tmp_path: Path, run_id: str) -> dict[str, torch.Tensor]:
    found = snapshots(tmp_path / "runs" / "smoke" / run_id)
    tensors = {}
    for path in found[max(found)].glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}
    return tensors


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():  # Adam divides by small moments: last bits of gradients show
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_every_process_reads_its_part_of_the_same_batch(tmp_path):
    folder = train(config(tmp_path, "train.total_tokens=2560", "stop=2560"))
    corpus = Path(read_manifest(folder)["corpus"])
    data = TokenDataset(corpus, 0, 64, 4)
    for step in (0, 7, data.epoch_steps):
        whole = data.batch(step)
        for size in (2, 4):
            parts = [data.batch(step, slice(r * 4 // size, (r + 1) * 4 // size)) for r in range(size)]
            for k in (0, 1):
                assert (torch.cat([torch.from_numpy(p[k]) for p in parts]) == torch.from_numpy(whole[k])).all()


@pytest.mark.parametrize("kind, sizes", [("dense_411m", (2,)), ("moe_1.3b_13b", (2, 4))])
def test_several_processes_give_the_curve_of_one(tmp_path, kind, sizes):
    model = f"model=smoke/{kind}"
    train(config(tmp_path, *FEWER, model, "run_id=one"))
    for size in sizes:
        copies = ["parallel.shard=2"] if size == 4 else []  # two copies of the parameters, each on two processes
        done(start(size, tmp_path, model, f"run_id=on-{size}", *copies))
        assert losses(tmp_path, f"on-{size}") == pytest.approx(losses(tmp_path, "one"), rel=1e-5)
        close(weights(tmp_path, "one"), weights(tmp_path, f"on-{size}"))
        folder = snapshots(tmp_path / "runs" / "smoke" / f"on-{size}")[7680]
        assert len(list(folder.glob("*.safetensors"))) == size and verify(folder)["processes"] == size
        AutoModelForCausalLM.from_pretrained(folder)


def test_saved_on_two_processes_it_goes_on_on_four_and_on_one(tmp_path):
    train(config(tmp_path, *FEWER, "run_id=one"))
    done(start(2, tmp_path, "run_id=moved", "stop=2560"))
    done(start(4, tmp_path, "run_id=moved", "stop=5120"))
    train(config(tmp_path, *FEWER, "run_id=moved"))
    assert losses(tmp_path, "moved") == pytest.approx(losses(tmp_path, "one"), rel=1e-5)
    close(weights(tmp_path, "one"), weights(tmp_path, "moved"))


def test_on_two_processes_a_run_starts_from_other_weights(tmp_path):
    train(config(tmp_path, *FEWER, "run_id=base"))
    start_from = [f"init.weights={snapshots(tmp_path / 'runs' / 'smoke' / 'base')[7680]}", "init.tokens=0", "stop=2560"]
    train(config(tmp_path, *FEWER, *start_from, "run_id=one"))
    done(start(2, tmp_path, *start_from, "run_id=two"))
    assert losses(tmp_path, "two") == pytest.approx(losses(tmp_path, "one"), rel=1e-5)
    assert losses(tmp_path, "one")[0] < losses(tmp_path, "base")[0]


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    done(start(2, tmp_path, "run_id=whole"))
    process = start(2, tmp_path, "run_id=killed", restarts=1)
    watched = tmp_path / "runs" / "smoke" / "killed" / "checkpoints" / "tokens-000000000002560"
    while process.poll() is None and not watched.exists():
        time.sleep(0.02)
    psutil.Process(process.pid).children()[-1].kill()
    done(process)
    assert losses(tmp_path, "killed") == losses(tmp_path, "whole")
    one, other = weights(tmp_path, "whole"), weights(tmp_path, "killed")
    assert all(torch.equal(one[name], tensor) for name, tensor in other.items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_scheduler_s_signal_ends_a_run_in_good_order(tmp_path, number):
    more = ["train.total_tokens=102400", "train.checkpoint_interval=102400", "run_id=ended"]
    command = [sys.executable, "-m", "pma.train", *arguments(tmp_path, *more)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    folder = tmp_path / "runs" / "smoke" / "ended"
    while process.poll() is None and not (folder / "snapshots").exists():
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=60) == REQUEUE
    at = read_manifest(folder)["tokens"]
    assert 0 < at < 102400 and (folder / "checkpoints" / f"tokens-{at:015d}" / "state.json").exists()


def test_processes_that_cannot_share_the_micro_batches_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="3 processes share them"):
        train(config(tmp_path, *FEWER))
