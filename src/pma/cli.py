"""How every command starts: Hydra composes and checks the config, user errors end in one line, not a traceback."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import sys
from collections.abc import Callable

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError

from pma.config import CONF_DIR, hash_json, register


def run(task: Callable[[DictConfig], None], job: type, config_name: str, folder: str = "") -> None:
    """Run a command with the config `conf/<folder>/<config_name>.yaml` and the overrides of the command line.

    A user error (ValueError, OSError, a wrong config) goes to stderr as `error: ...`, without traceback, and the exit
    status is 1; in a sweep the other jobs go on first. HYDRA_FULL_ERROR=1 shows the traceback.

    Args:
        task: a function at the top of a module, so that a launcher can send it to another process.
        job: the dataclass that is the config's schema.
        folder: of the primary config. The groups below it are what NAME=CHOICE on the command line can mean, so a
            command with a plain value `model=DIR` has to stand apart from the group conf/model.
    """
    register(job)
    if task.__module__ == "__main__":  # by its real name: a launcher would otherwise pickle it with all its globals
        task = getattr(importlib.import_module(sys.modules["__main__"].__spec__.name), task.__name__)
    if {"-m", "--multirun"} & set(sys.argv):  # all runs of a sweep are one W&B group, in whatever process they run
        os.environ.setdefault("WANDB_RUN_GROUP", f"sweep-{hash_json(sys.argv[1:])}")
    if os.environ.get("HYDRA_FULL_ERROR") != "1":
        task = _UserErrors(task)
    hydra.main(version_base="1.3", config_path=str(CONF_DIR / folder), config_name=config_name)(task)()
    gc.freeze()  # going through all objects once more at exit takes a quarter of a second


# safetensors reports a full disk and a truncated file by a type of its own.
ERRORS = (ValueError, OSError, OmegaConfBaseException, SafetensorError)


def message(error: BaseException) -> str:
    """A user error in one line."""
    text = " ".join(str(error).partition("\n    full_key")[0].split())  # OmegaConf adds its own names to the message
    if "No space left" in text:
        text += "; make room and run the same command again: what was published is kept"
    return text


class _UserErrors:
    """A task whose user errors end in one line."""

    def __init__(self, task: Callable[[DictConfig], None]) -> None:
        functools.update_wrapper(self, task)  # Hydra names the job after the function's module
        self._task = task

    def __call__(self, cfg: DictConfig) -> None:
        try:
            self._task(cfg)
        except ERRORS as error:
            line = f"error: {message(error)}"
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise CompactHydraException(line) from None  # Hydra goes on with the sweep, then reports it
            raise SystemExit(line) from None
