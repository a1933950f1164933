"""How every command starts: Hydra composes and checks the config, user errors end in one line, not a traceback."""

from __future__ import annotations

import functools
import gc
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError

from pma.config import CONF_DIR, hash_json, register
from pma.hints import explain, missing_package

_SWEEP = {"-m", "--multirun"}

_INTERRUPTED = 130  # the exit status that shells give Ctrl-C

# safetensors reports a full disk and a truncated file by a type of its own.
ERRORS = (ValueError, OSError, OmegaConfBaseException, SafetensorError)


def run(task: Callable[[DictConfig], None], job: type, config_name: str, folder: str = "") -> None:
    """Run a command with the config `conf/<folder>/<config_name>.yaml` and the overrides of the command line.

    A user error (ValueError, OSError, a wrong config) goes to stderr as `error: ...`, without traceback, and the exit
    status is 1. In a sweep the other jobs go on first. HYDRA_FULL_ERROR=1 shows the traceback. Ctrl-C ends in one line
    too, and the exit status 130.

    Args:
        task: a function at the top of a module, so that a launcher can send it to another process.
        job: the dataclass that is the config's schema.
        folder: of the primary config. The groups below it are what NAME=CHOICE on the command line can mean, so a
            command with a plain value `model=DIR` has to stand apart from the group conf/model.
    """
    try:
        _run(task, job, config_name, folder)
    except (Exception, KeyboardInterrupt) as error:
        if not _interrupted(error):
            raise
        print("interrupted; what was published is kept, and the same command goes on from it", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: Hydra's own cleaning up fails where it interrupts the reading of a config."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = None if error.__suppress_context__ else error.__context__
    return error is not None


def _run(task: Callable[[DictConfig], None], job: type, config_name: str, folder: str) -> None:
    register(job)
    if task.__module__ == "__main__":  # by its real name: a launcher would otherwise pickle it with all its globals
        spec = sys.modules["__main__"].__spec__
        assert spec is not None, "commands are run with python -m"
        task = getattr(importlib.import_module(spec.name), task.__name__)
    arguments = sys.argv[1:]
    if _SWEEP & {*arguments}:  # all runs of a sweep are one W&B group, in whatever process they run
        os.environ.setdefault("WANDB_RUN_GROUP", f"sweep-{hash_json(arguments)}")
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        _start(task, CONF_DIR / folder, config_name, arguments)
    else:
        try:
            _start(_UserErrors(task), CONF_DIR / folder, config_name, arguments)
        except (HydraException, OmegaConfBaseException) as error:  # of the command line, or of a sweep's jobs
            raise SystemExit(explain(error, CONF_DIR / folder, config_name, arguments)) from None
    gc.freeze()  # going through all objects once more at exit takes a quarter of a second


def quiet_libraries() -> None:
    """Keep lines of libraries that say nothing to a user off the terminal; their warnings and errors stay.

    Hydra shows what any library logs at level INFO, as matplotlib does when it first looks for fonts.
    """
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it warns that its first search takes long


def _start(task: Callable[[DictConfig], None], folder: Path, config_name: str, arguments: list[str]) -> None:
    """Run, sweep, print the help, or leave any other flag to Hydra.

    `hydra.main` composes each config twice, and for --help lists each group of configs many times: seconds.
    """
    overrides = [argument for argument in arguments if argument not in _SWEEP]
    flags = [argument for argument in overrides if argument.startswith("-")]
    if (flags and {*flags} - {"--help", "-h"}) or any(word.startswith("hydra.mode=") for word in overrides):
        hydra.main(version_base="1.3", config_path=str(folder), config_name=config_name)(task)()
        return
    with hydra.initialize_config_dir(str(folder), job_name=config_name, version_base="1.3"):
        if flags:
            print(help_text(folder, config_name, [word for word in overrides if word not in flags]))
            return
        app = GlobalHydra.instance().hydra
        assert app is not None
        if len(overrides) < len(arguments):
            app.multirun(config_name, task, [*overrides, "hydra.mode=MULTIRUN"])
        else:
            app.run(config_name, task, [*overrides, "hydra.mode=RUN"])


def help_text(folder: Path, config_name: str, overrides: list[str]) -> str:
    """Help of a command: the examples of its conf file, the groups that it can choose from, and all its keys."""
    cfg = hydra.compose(config_name, overrides, return_hydra_config=True)
    sections = [cfg.hydra.help.header.strip()]
    if groups := "\n".join(f"  {name}: {', '.join(choices)}" for name, choices in config_groups(folder)):
        sections.append(f"Groups, of each one choice (GROUP=CHOICE):\n{groups}")
    with open_dict(cfg):
        del cfg["hydra"]
    sections.append(f"Keys and their values (KEY=VALUE, a.b=VALUE):\n\n{OmegaConf.to_yaml(cfg).rstrip()}")
    return "\n\n".join(sections)


def config_groups(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Groups of a config folder by name, with their choices."""
    for path in sorted(path for path in folder.rglob("*") if path.is_dir()):
        name = path.relative_to(folder).as_posix()
        if (choices := sorted(file.stem for file in path.glob("*.yaml"))) and not name.startswith(("hydra", "command")):
            yield name, choices


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
        quiet_libraries()
        try:
            self._task(cfg)
        except ModuleNotFoundError as error:
            if (hint := missing_package(error)) is None:  # a module of ours: a defect
                raise
            raise SystemExit(f"error: {hint}") from None
        except ERRORS as error:
            line = f"error: {message(error)}"
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise CompactHydraException(line) from None  # Hydra goes on with the sweep, then reports it
            raise SystemExit(line) from None
