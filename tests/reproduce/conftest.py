"""Jobs of pma.reproduce for its tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from pma.config import CONF_DIR, register
from pma.reproduce.job import PartConfig, RecipeConfig, ReproduceJob

Compose = Callable[..., DictConfig]


@pytest.fixture
def compose_job() -> Iterator[Compose]:
    """The job of some overrides at scale smoke on one CPU thread; Hydra stays open for the configs of its runs."""
    register(ReproduceJob)
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield lambda *overrides: compose(
            "reproduce", ["scale=smoke", "device=cpu", "threads=1", "tracking=off", *overrides]
        )


@pytest.fixture
def two_merges(compose_job: Compose) -> Compose:
    """A job of some overrides with two merges of the main run at 200 V, or at every one of `points`."""

    def make(*overrides: str, points: tuple[float, ...] = (200,)) -> DictConfig:
        job = compose_job("experiment=figure_4", "jobs=1", *overrides)
        merges = [RecipeConfig("last"), RecipeConfig("sma", n=3)]
        job.experiment.parts = [PartConfig(["moe_main"], points=list(points), recipes=merges)]
        return job

    return make
