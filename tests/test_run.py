"""A run on disk keeps its identity from one version of the code to the next."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from pma.config import ROOT, TrainingJob
from pma.files import read_manifest
from pma.run import identity

PUBLISHED = ROOT / "runs" / "cpu" / "published"


@pytest.mark.parametrize("folder", sorted(PUBLISHED.glob("*-seed*")), ids=lambda folder: folder.name)
def test_published_runs_keep_their_identity(folder):
    cfg = OmegaConf.merge(OmegaConf.structured(TrainingJob), OmegaConf.load(folder / "config.yaml"))
    cfg.runs_dir, cfg.scale.name = str(PUBLISHED.parent), PUBLISHED.name  # where its parent's manifest lies
    assert identity(cfg) == read_manifest(folder)["config_hash"]
