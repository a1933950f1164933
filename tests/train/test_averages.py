"""Averages that run along with training, and schedule-free AdamW: their weights, their checkpoints, their refusals."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from pma.layout import average_dir, checkpoints, snapshots
from pma.snapshot import verify

STEPS = ["train.total_tokens=7680", "train.snapshot_interval=256", "train.checkpoint_interval=2560"]
EMA = [*STEPS, "train.online_ema=[0.1,0.02]"]
OVER = [*STEPS, "train.overwrite_interval=512", "train.overwrite_n=3"]
FREE = [*STEPS, "train.optimizer=schedule_free", "schedule.peak_lr=1e-2"]


def weights_in(folder):
    """Of a snapshot, as they are used."""
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def averaged(shared_lab):
    """A run with two averages, a snapshot of each after every step."""
    return shared_lab.train(*EMA, "run_id=averaged")


@pytest.fixture(scope="module")
def free(shared_lab):
    """A run of schedule-free AdamW, a snapshot after every step."""
    return shared_lab.train(*FREE, "run_id=free")


def test_averages_leave_the_weights_as_they_are(shared_lab, averaged, last_weights, assert_same_bits):
    assert_same_bits(last_weights(averaged), last_weights(shared_lab.train(*STEPS, "run_id=not_averaged")))


@pytest.mark.parametrize("alpha", [0.1, 0.02])
def test_an_average_takes_in_every_step(averaged, alpha):
    saved = snapshots(averaged)
    assert len(saved) == 30
    for before, after in pairwise(saved):
        old, new = (weights_in(average_dir(averaged, alpha, at)) for at in (before, after))
        weights = weights_in(saved[after])
        expected = {name: (1 - alpha) * old[name].double() + alpha * weights[name].double() for name in weights}
        assert_close(new, {name: value.float() for name, value in expected.items()}, rtol=1e-6, atol=1e-7)
    assert verify(average_dir(averaged, alpha, 7680))["tokens"] == 7680


def test_a_stopped_run_goes_on_with_the_bits_of_its_averages(shared_lab, averaged, last_weights, assert_same_bits):
    shared_lab.train(*EMA, "run_id=stopped_average", "stop=2560")
    stopped = shared_lab.train(*EMA, "run_id=stopped_average")
    for alpha in (0.1, 0.02):
        assert_same_bits(*(weights_in(average_dir(run, alpha, 7680)) for run in (stopped, averaged)))
    assert_same_bits(last_weights(stopped), last_weights(averaged))


def test_a_fork_begins_its_averages_anew(shared_lab, trunk, assert_same_bits):
    parent = "init.parent={run: trunk, seed: 0, tokens: 5120, n: 1, optimizer: last}"
    fork = shared_lab.train(parent, "run_id=averaged_fork", "train.online_ema=[0.1]", "stop=7680")
    assert_same_bits(weights_in(average_dir(fork, 0.1, 5120)), weights_in(snapshots(trunk)[5120]))


def test_schedule_free_hands_over_its_average(free):
    at_end = checkpoints(free)[7680]
    y, z = (load_file(at_end / f"{file}.safetensors") for file in ("weights", "optimizer"))
    used = weights_in(snapshots(free)[7680])
    name = "model.norm.weight"
    assert_close(used[name], y[name].lerp(z[f"z.{name}"], 1 - 1 / 0.9), rtol=1e-6, atol=1e-7)
    assert not torch.equal(used[name], y[name])


def test_snapshots_do_not_change_a_schedule_free_run(shared_lab, free, last_weights, assert_same_bits):
    few = shared_lab.train(*FREE, "run_id=free_few", "train.snapshots_at=[7680]")
    assert list(snapshots(few)) == [7680]
    assert_same_bits(last_weights(few), last_weights(free))


def test_a_stopped_schedule_free_run_goes_on_with_the_same_bits(
    shared_lab, free, metrics, last_weights, assert_same_bits
):
    shared_lab.train(*FREE, "run_id=free_stopped", "stop=2560")
    stopped = shared_lab.train(*FREE, "run_id=free_stopped")
    assert_same_bits(last_weights(stopped), last_weights(free))
    assert metrics(stopped) == metrics(free)
    losses = [row["loss"] for row in metrics(free)]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("kept, wanted", [("free", "null"), ("averaged", "schedule_free")])
def test_the_state_of_another_optimizer_is_refused(shared_lab, request, kept, wanted):
    checkpoint = max(checkpoints(request.getfixturevalue(kept)).items())[1]
    with pytest.raises(ValueError, match="state of another optimizer; give train.optimizer"):
        shared_lab.train(f"init.checkpoint={checkpoint}", f"run_id=other_{wanted}", f"train.optimizer={wanted}")


@pytest.fixture(scope="module")
def overwritten(shared_lab):
    """A run whose weights are overwritten every 1536 tokens."""
    return shared_lab.train(*OVER, "run_id=overwritten")


def test_weights_are_overwritten_by_the_mean_of_their_copies(shared_lab, overwritten, assert_same_bits):
    """Right after it a snapshot is the mean of three: two snapshots, and the one that is overwritten."""
    alone = shared_lab.train(*STEPS, "run_id=left_alone")
    for at in (512, 1024):  # no overwriting yet
        assert_same_bits(weights_in(snapshots(overwritten)[at]), weights_in(snapshots(alone)[at]))
    copies = [weights_in(snapshots(alone)[at]) for at in (512, 1024, 1536)]
    mean = {name: (sum(copy[name].double() for copy in copies) / 3).float() for name in copies[0]}
    assert_close(weights_in(snapshots(overwritten)[1536]), mean, rtol=1e-6, atol=1e-7)


def test_a_stopped_run_goes_on_with_its_copies(shared_lab, overwritten, last_weights, assert_same_bits):
    options = [*OVER, "run_id=stopped_copies"]
    shared_lab.train(*options, "stop=2560")  # with two of three copies taken
    assert_same_bits(last_weights(shared_lab.train(*options)), last_weights(overwritten))


@pytest.mark.parametrize(
    "options, message",
    [
        (["train.overwrite_n=3"], "train.overwrite_n=3: .*with train.overwrite_interval"),
        ([*OVER, "train.optimizer=schedule_free"], "weights of schedule-free AdamW cannot be overwritten"),
    ],
)
def test_copies_that_cannot_be_merged_are_refused(shared_lab, options, message):
    with pytest.raises(ValueError, match=message):
        shared_lab.train(*options, "run_id=impossible")


@pytest.mark.parametrize("alphas", ["[1.0]", "[0.0]", "[0.1,0.1]"])
def test_impossible_alphas_are_refused(shared_lab, alphas):
    with pytest.raises(ValueError, match="train.online_ema=.*give different numbers above 0 and below 1"):
        shared_lab.train(f"train.online_ema={alphas}", "run_id=impossible")


def test_the_options_count_in_a_run_s_identity_only_where_they_are_set(averaged, free, trunk):
    hashes = {json.loads((run / "manifest.json").read_text())["config_hash"] for run in (averaged, free, trunk)}
    assert len(hashes) == 3
