"""Train one run in a process of its own, of this machine or of a scheduler's job."""

from __future__ import annotations

import os
from collections.abc import Sequence

import submitit
from hydra import compose, initialize_config_dir

from pma import cli
from pma.config import CONF_DIR, register
from pma.train.loop import train


def train_run(overrides: Sequence[str], quiet: bool = False) -> str | None:
    """Train the run of some Hydra overrides; return what went wrong, in one line, if a user can mend it.

    A quiet run prints nothing: the caller shows how far it is.
    """
    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("config", list(overrides))
    try:
        train(cfg, quiet)
    except cli.ERRORS as error:
        return cli.message(error)
    return None


def train_task(overrides: Sequence[str]) -> str | None:
    """Do the same as one task of a job; the tasks of a job are the processes that train one run together."""
    if submitit.JobEnvironment().num_tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
    else:
        os.environ["WORLD_SIZE"] = "1"
    return train_run(overrides)
