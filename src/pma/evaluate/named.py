"""lm-eval's own tasks, by their names there, as a suite: python -m pma.choose tasks=[hellaswag,arc_easy]"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager

from pma.evaluate.suites import Suite, check_limit, set_shots

_NAME = "tasks"


def load_tasks(
    names: Sequence[str], include_path: str | None = None, limit: int | None = None
) -> tuple[Suite, dict[str, list[str]]]:
    """Build a suite out of tasks and groups of lm-eval, with the shots that their definitions say.

    Args:
        names: as in `lm_eval --tasks`.
        include_path: folder with definitions of your own, as in `lm_eval --include_path`.
        limit: first documents a task; None takes all.

    Returns:
        The suite, and the tasks that each name stands for.

    Raises:
        ValueError: for a name that lm-eval does not know, or a task whose documents are not to be had.
    """
    check_limit(limit)
    if include_path is not None and not Path(include_path).is_dir():
        raise ValueError(f"include_path={include_path}: no such folder; give one with task definitions of lm-eval")
    manager = _manager(names, include_path)
    tasks: dict[str, Task] = {}
    parts: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        if name not in manager.task_index:
            raise ValueError(
                f"tasks: lm-eval knows no {name}; `lm_eval ls tasks` lists its names, and include_path=DIR adds yours"
            )
        try:
            loaded = manager.load([name])["tasks"]
            set_shots(loaded, None)
        except Exception as error:  # the hub's libraries raise what they like; all of it means "not to be had"
            raise ValueError(
                f"tasks: {name} could not be loaded ({str(error).strip().splitlines()[0]}); its documents come from "
                f"the Hugging Face hub or from where its definition says"
            ) from error
        tasks |= loaded
        parts[name] = list(loaded)
    definition = re.sub(r" at 0x\w+", "", repr({name: task.dump_config() for name, task in tasks.items()}))
    return Suite(_NAME, tasks, {}, [], [], limit, definition), parts


def _manager(names: Sequence[str], include_path: str | None) -> TaskManager:
    """lm-eval's index of tasks; without its thousands of own ones where yours are all that is asked for."""
    if include_path is not None:
        own = TaskManager(include_path=include_path, include_defaults=False)
        if all(name in own.task_index for name in names):
            return own
    return TaskManager(include_path=include_path)
