"""Where a run starts: from a checkpoint, from weights, from a parent's snapshots and optimizer state."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from pma.json_files import read_manifest
from pma.layout import checkpoints, snapshots, trajectory
from pma.merge import average
from pma.model.build import build
from pma.train.averages import OnlineAverages, Overwriting
from pma.train.objective import make_optimizer
from pma.train.start import initialise
from pma.train.state import TrainingState

PARENT = "init.parent={run: trunk, tokens: %d, n: %d, interval: 2560, optimizer: %s}"


def test_a_fork_from_a_checkpoint_goes_on_and_a_start_from_weights_is_new(
    shared_lab, trunk, metrics, last_weights, assert_same_bits
):
    fork = shared_lab.train(f"init.checkpoint={checkpoints(trunk)[5120]}", "run_id=fork_of_checkpoint")
    assert_same_bits(last_weights(fork), last_weights(trunk))
    weights = [f"init.weights={snapshots(trunk)[5120]}", "init.tokens=5120"]
    fresh = shared_lab.train(*weights, "run_id=from_weights")
    assert metrics(fresh)[0]["tokens"] == 7680  # same position, so same data, but a fresh optimizer
    assert not torch.equal(last_weights(fresh)["model.norm.weight"], last_weights(trunk)["model.norm.weight"])


def test_a_fork_of_its_parent_continues_the_parent_s_trajectory(shared_lab, trunk, last_weights, assert_same_bits):
    fork = shared_lab.train(PARENT % (5120, 1, "last"), "run_id=fork")
    assert_same_bits(last_weights(fork), last_weights(trunk))
    assert list(trajectory(fork)) == list(snapshots(trunk))  # the window of a merge may reach back before the fork
    assert trajectory(fork)[2560] == snapshots(trunk)[2560] and trajectory(fork)[7680] == snapshots(fork)[7680]


def test_a_run_starts_from_the_mean_of_its_parent_s_snapshots(shared_lab, trunk, assert_same_bits):
    merged = shared_lab.train(PARENT % (5120, 2, "null"), "run_id=merged", "stop=2560")
    expected = average([snapshots(trunk)[2560], snapshots(trunk)[5120]], [0.5, 0.5])
    assert_same_bits(load_file(snapshots(merged)[0] / "model.safetensors"), expected)


@pytest.mark.parametrize("kind", ["null", "last", "mean"])
def test_a_merged_start_takes_the_optimizer_state_that_the_config_names(shared_lab, trunk, kind):
    older, newer = (load_file(checkpoints(trunk)[t] / "optimizer.safetensors") for t in (2560, 5120))
    cfg = shared_lab.config(PARENT % (5120, 2, kind), "run_id=not_trained", "init.tokens=5120")
    model = build(cfg.model, 64)
    optimizer = make_optimizer(cfg.train, model)
    state = TrainingState(model, optimizer, OnlineAverages([], model), Overwriting(None, None, model))
    assert initialise(cfg, state) == 5120
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        if kind == "null":
            assert not state
            continue
        for key in (f"exp_avg.{name}", f"exp_avg_sq.{name}"):
            expected = newer[key] if kind == "last" else (newer[key] + older[key]) / 2
            assert torch.equal(state[key.split(".")[0]], expected)
        assert state["step"] == newer[f"step.{name}"]


def test_a_rewarmed_run_comes_back_to_its_peak(shared_lab, trunk, metrics):
    start = [PARENT % (5120, 2, "mean"), "init.tokens=5120", "init.rewarm_tokens=5120", "stop=12800"]
    run = shared_lab.train(*start, "run_id=rewarmed")
    assert read_manifest(run)["optimizer_state"] == "mean"
    first, *_, last = metrics(run)
    assert first["lr"] < last["lr"] == shared_lab.config().schedule.peak_lr


@pytest.mark.parametrize(
    "start, message",
    [
        (PARENT % (7680, 1, "last"), "no checkpoint at 7,680 tokens.*fork_points of run=trunk"),
        (PARENT % (20480, 2, "null"), "no snapshot at 20,480, 17,920 tokens.*snapshots_at of run=trunk"),
        ((PARENT % (5120, 1, "last")).replace("trunk", "elsewhere"), "train run=elsewhere first"),
        ("init.rewarm_tokens=1024", "init.tokens"),
        ("init.weights=/", "no config.json"),
        ("init.checkpoint=/", "no checkpoint there"),
    ],
)
def test_a_bad_start_is_refused_before_training(shared_lab, trunk, start, message):
    with pytest.raises(ValueError, match=message):
        shared_lab.train(start, "run_id=refused")


def test_a_parent_that_did_not_keep_a_snapshot_is_refused_with_the_mend(shared_lab):
    shared_lab.train("run_id=sparse-seed0", "train.snapshots_at=[5120]", "stop=5120")
    start = (PARENT % (5120, 2, "null")).replace("trunk", "sparse")
    with pytest.raises(ValueError, match="no snapshot at 2,560 tokens.*train.snapshots_at of run=sparse"):
        shared_lab.train(start, "run_id=of_sparse")


@pytest.mark.parametrize("start", ["weights", "checkpoint", "parent"])
@pytest.mark.parametrize("model", ["dense_411m", "moe_3b_30b"])
def test_another_architecture_is_refused(shared_lab, trunk, start, model):
    given = {
        "weights": f"init.weights={snapshots(trunk)[5120]}",
        "checkpoint": f"init.checkpoint={checkpoints(trunk)[5120]}",
        "parent": PARENT % (5120, 2, "null"),
    }
    with pytest.raises(ValueError, match="architecture|whole model"):
        shared_lab.train(given[start], f"model=smoke/{model}", "run_id=refused")
