"""A run's identity: published runs keep theirs, and what does not change the weights does not change it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from pma.config import CONF_DIR, ROOT, config_hash, register
from pma.json_files import read_manifest
from pma.run import identity

PUBLISHED = ROOT / "runs" / "cpu" / "published"
SEEDS_OF: dict[str, list[str]] = {}
for path in sorted(PUBLISHED.glob("*-seed*/manifest.json")):
    SEEDS_OF.setdefault(path.parent.name.rpartition("-seed")[0], []).append(path.parent.name)
# Composing a config takes a tenth of a second: each run with one of its seeds, each seed with some of the runs.
RUNS = [folders[i % len(folders)] for i, folders in enumerate(SEEDS_OF.values())]


def config(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory) -> Path:
    """A folder of runs in which the published ones stand where training would have put them."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "cpu").symlink_to(PUBLISHED)
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_a_published_run_has_the_identity_that_its_config_gives_today(name, runs_dir):
    run, _, seed = name.rpartition("-seed")
    cfg = config(f"run={run}", f"seed={seed}", f"runs_dir={runs_dir}")
    assert identity(cfg) == read_manifest(PUBLISHED / name)["config_hash"]


def test_which_snapshots_are_kept_is_no_part_of_the_identity():
    plain = config_hash(config())
    assert config_hash(config("train.snapshots_at=[8192,16384]")) == plain
    assert config_hash(config("train.snapshots_at=[]")) == plain
