"""What the disk holds of a plan. Runs are manifests and empty folders here: nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from pma.files import write_json
from pma.json_files import MANIFEST
from pma.layout import checkpoint_dir, snapshot_dir
from pma.reproduce import runs
from pma.reproduce.experiment import RunSeed
from pma.reproduce.progress import check_snapshots, missing_tokens
from pma.reproduce.runs import keep_needed, required
from pma.run import identity, run_folder

V = 512  # tokens, of scale smoke


def pretend_trained(cfg: DictConfig, tokens: int) -> Path:
    """Leave on disk what a run trained to `tokens` leaves: a manifest, a checkpoint, the snapshots that it keeps."""
    folder = run_folder(cfg)
    folder.mkdir(parents=True)
    write_json(folder / MANIFEST, {"config_hash": identity(cfg), "tokens": tokens})
    checkpoint_dir(folder, tokens).mkdir(parents=True)
    for position in cfg.train.snapshots_at:
        if position <= tokens:
            snapshot_dir(folder, position).mkdir(parents=True)
    return folder


@pytest.fixture
def needed(monkeypatch) -> Callable[..., dict[RunSeed, DictConfig]]:
    """Configs of a job whose runs keep what it reads, and what `others` read."""

    def configs_of(job: DictConfig, *others: DictConfig) -> dict[RunSeed, DictConfig]:
        monkeypatch.setattr(runs, "all_experiments", lambda: [job.experiment, *others])
        configs = required(job, [job.experiment])
        keep_needed(job, [job.experiment], configs)
        return configs

    return configs_of


def test_a_trained_run_that_lacks_a_snapshot_needed_now_is_named_before_any_work(compose_job, needed, tmp_path):
    job = compose_job("experiment=figure_4", "scale.snapshots=needed", f"runs_dir={tmp_path}")
    configs = needed(job)
    folder = pretend_trained(configs["moe_main", 0], 100 * V)
    assert missing_tokens(configs["moe_main", 0]) == 100 * V
    check_snapshots(job, [job.experiment], configs)
    # A point that another experiment, or another seed's, added since: on what is trained already, and past it.
    job.experiment.parts[0].points = [25.5, 80.5, 200]
    with pytest.raises(ValueError, match="lacks the snapshots at") as caught:
        check_snapshots(job, [job.experiment], configs)
    message = str(caught.value)
    assert str(folder) in message and "Remove the folders" in message and f"{int(71.5 * V):,}" in message
    for window_end in (80.5, 79.5, 78.5, 77.5, 76.5, 75.5, 74.5, 73.5, 72.5, 71.5):
        snapshot_dir(folder, int(window_end * V)).mkdir(exist_ok=True)
    check_snapshots(job, [job.experiment], configs)


def test_what_another_experiment_needs_is_not_asked_of_this_one(compose_job, needed, tmp_path):
    job = compose_job("experiment=figure_3", "scale.snapshots=needed", f"runs_dir={tmp_path}")
    configs = needed(job, compose_job("experiment=figure_4").experiment)
    folder = pretend_trained(configs["moe_main", 0], 200 * V)
    snapshot_dir(folder, int(25.5 * V)).rmdir()  # of figures 4 and 5
    check_snapshots(job, [job.experiment], configs)


def test_a_run_still_to_start_needs_its_parents_snapshots(compose_job, needed, tmp_path):
    job = compose_job("experiment=figure_6", "scale.snapshots=needed", f"runs_dir={tmp_path}")
    configs = needed(job)
    folder = pretend_trained(configs["moe_main", 0], 125 * V)
    check_snapshots(job, [job.experiment], configs)
    snapshot_dir(folder, 125 * V).rmdir()
    with pytest.raises(ValueError, match="moe_main-seed0 lacks the snapshots at 64,000 tokens"):
        check_snapshots(job, [job.experiment], configs)
    for key, cfg in configs.items():  # the runs that started from it need it no more
        if key[0] != "moe_main":
            pretend_trained(cfg, 20 * V)
            snapshot_dir(run_folder(cfg), 0).mkdir(parents=True)
    check_snapshots(job, [job.experiment], configs)


@pytest.mark.parametrize("points,position", [([10.25], "640, 1,152"), ([5], "-2,048")])
def test_windows_that_a_run_never_saves_are_refused_before_training(compose_job, tmp_path, points, position):
    job = compose_job("experiment=figure_4", f"runs_dir={tmp_path}")
    job.experiment.parts[0].points = points
    with pytest.raises(ValueError, match=rf"experiment figure_4 reads snapshots of run=moe_main at .*{position}"):
        check_snapshots(job, [job.experiment], required(job, [job.experiment]))
