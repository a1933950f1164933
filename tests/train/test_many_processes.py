"""Training on several processes: the curve of one, resume on another number of them, killed workers, who prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM

from pma.config import CONF_DIR
from pma.corpus import TokenDataset
from pma.json_files import read_manifest
from pma.layout import average_dir, snapshots
from pma.snapshot import verify

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CONF_DIR.parent / "src"), "OMP_NUM_THREADS": "1"}
# Four micro-batches, so that one, two and four processes can share them; 30 steps.
FEWER = ["scale.micro_batches=4", "train.total_tokens=7680", "train.checkpoint_interval=2560"]
FEWER += ["train.online_ema=[0.1]"]
KINDS = {"dense": "model=smoke/dense_411m", "moe": "model=smoke/moe_1.3b_13b"}


def torchrun(processes: int, *command: str, restarts: int = 0) -> subprocess.Popen:
    """Start a command on several processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
    return subprocess.Popen(
        [*launcher, f"--max-restarts={restarts}", *command],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    """Wait for success; what was printed."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]
    return output


@pytest.fixture(scope="module")
def start_from(shared_lab, one_process) -> list[str]:
    """Overrides of a run that starts from other weights."""
    return [f"init.weights={snapshots(one_process['moe'])[7680]}", "init.tokens=0", "stop=2560"]


@pytest.fixture(scope="module")
def one_process(shared_lab) -> dict[str, Path]:
    """Both kinds of model trained in one process."""
    return {kind: shared_lab.train(*FEWER, model, f"run_id={kind}_on_1") for kind, model in KINDS.items()}


@pytest.fixture(scope="module")
def launched(shared_lab, start_from) -> dict[int, str]:
    """All runs on two processes, then all on four; what was printed, by the number of processes."""

    def overrides(*more: str) -> str:
        return json.dumps(shared_lab.overrides(*FEWER, *more))

    on_two = [overrides(model, f"run_id={kind}_on_2") for kind, model in KINDS.items()]
    on_two += [overrides("run_id=moved", "stop=2560"), overrides(*start_from, "run_id=from_weights_on_2")]
    # two copies of the parameters, each on two processes
    on_four = [overrides("run_id=moved", "stop=5120", "parallel.shard=2")]
    script = str(Path(__file__).with_name("runs_in_turn.py"))
    return {size: finish(torchrun(size, script, *runs)) for size, runs in ((2, on_two), (4, on_four))}


def assert_close(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():  # Adam divides by small moments: last bits of gradients show
        torch.testing.assert_close(actual[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture
def assert_same_curve(metrics, last_weights):
    def check(actual: Path, expected: Path) -> None:
        losses = [[row["loss"] for row in metrics(folder)] for folder in (actual, expected)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert_close(last_weights(actual), last_weights(expected))

    return check


@pytest.mark.parametrize("size", [2, 4])
def test_every_process_reads_its_part_of_the_same_batch(trunk, size):
    data = TokenDataset(Path(read_manifest(trunk)["corpus"]), 0, 64, 4)
    for step in (0, 7, data.epoch_steps):
        whole = data.batch(step)
        parts = [data.batch(step, slice(r * 4 // size, (r + 1) * 4 // size)) for r in range(size)]
        for k in (0, 1):
            assert (torch.cat([torch.from_numpy(p[k]) for p in parts]) == torch.from_numpy(whole[k])).all()


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_curve_of_one(shared_lab, one_process, launched, assert_same_curve, kind):
    assert_same_curve(shared_lab.folder(f"{kind}_on_2"), one_process[kind])


def test_saved_on_two_processes_it_goes_on_on_four_and_on_one(shared_lab, one_process, launched, assert_same_curve):
    assert_same_curve(shared_lab.train(*FEWER, "run_id=moved"), one_process["moe"])


def test_averages_of_every_step_are_those_of_one_process(shared_lab, one_process, launched):
    """Saved in shards on two processes, gone on with on four, and at last on one."""
    shared_lab.train(*FEWER, "run_id=moved")
    for run, alone in (("dense_on_2", "dense"), ("moe_on_2", "moe"), ("moved", "moe")):
        actual, expected = (
            AutoModelForCausalLM.from_pretrained(average_dir(folder, 0.1, 7680)).state_dict()
            for folder in (shared_lab.folder(run), one_process[alone])
        )
        assert_close(actual, expected)


@pytest.mark.parametrize("run, tokens, size", [("dense_on_2", 7680, 2), ("moe_on_2", 7680, 2), ("moved", 5120, 4)])
def test_a_snapshot_in_a_file_a_process_is_whole(shared_lab, launched, run, tokens, size):
    snapshot = snapshots(shared_lab.folder(run))[tokens]
    assert len(list(snapshot.glob("*.safetensors"))) == size and verify(snapshot)["processes"] == size
    AutoModelForCausalLM.from_pretrained(snapshot)


def test_on_two_processes_a_run_starts_from_other_weights(
    shared_lab, one_process, launched, start_from, assert_same_curve, metrics
):
    alone = shared_lab.train(*FEWER, *start_from, "run_id=from_weights_on_1")
    assert_same_curve(shared_lab.folder("from_weights_on_2"), alone)
    assert metrics(alone)[0]["loss"] < metrics(one_process["moe"])[0]["loss"]


def test_only_the_first_process_prints(launched):
    lines = launched[4].splitlines()
    assert sum("moved: resumed at 2,560 tokens" in line for line in lines) == 1
    assert sum("moved: trained to 5,120" in line for line in lines) == 1


def test_a_killed_worker_costs_nothing_but_time(shared_lab, launched, metrics, last_weights, assert_same_bits):
    command = ["-m", "pma.train", *shared_lab.overrides(*FEWER, KINDS["dense"], "run_id=killed_worker")]
    process = torchrun(2, *command, restarts=1)
    killed = shared_lab.folder("killed_worker")
    while process.poll() is None and not (killed / "checkpoints" / "tokens-000000000002560").exists():
        time.sleep(0.02)
    psutil.Process(process.pid).children()[-1].kill()
    lines = finish(process).splitlines()
    assert sum("killed_worker: resumed at" in line for line in lines) == 1
    assert sum(line.startswith("next: python -m pma.merge") for line in lines) == 1
    whole = shared_lab.folder("dense_on_2")
    assert metrics(killed) == metrics(whole)
    assert_same_bits(last_weights(killed), last_weights(whole))


def test_processes_that_cannot_share_the_micro_batches_are_refused(shared_lab, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="3 processes share them"):
        shared_lab.train(*FEWER, "run_id=refused")
