"""Where a run's numbers go: metrics.jsonl always, W&B when wanted. The only module that imports wandb."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from pma.files import write_text


def _logged_in() -> bool:
    import wandb

    return wandb.login(prompt=False)


class Tracker:
    """Writes metrics of one run; tokens are the step axis.

    Args:
        folder: the run's folder; metrics.jsonl lies there.
        resume_tokens: position the run goes on from; later lines of an earlier try are dropped.
        tracking: mode (auto, online, offline, off), project and entity.
        run: what wandb.init is told: id, name, group, job_type, tags, config.
    """

    def __init__(self, folder: Path, resume_tokens: int, tracking: Any, **run: Any) -> None:
        self._path = folder / "metrics.jsonl"
        if self._path.exists():
            kept = [line for line in _complete_lines(self._path) if json.loads(line)["tokens"] <= resume_tokens]
            write_text(self._path, "".join(line + "\n" for line in kept))
        self._file = open(self._path, "a", encoding="utf-8")
        self._run: Any = None
        if tracking.mode != "off":
            self._safely(lambda: self._start(folder, tracking, run))

    def _safely(self, step: Callable[[], object]) -> None:
        # A tracker that breaks must not stop a training run: one warning, and the JSONL goes on.
        try:
            step()
        except Exception as error:
            print(f"W&B stopped ({type(error).__name__}: {error}); metrics.jsonl goes on", file=sys.stderr)
            self._run = None

    def _start(self, folder: Path, tracking: Any, run: dict[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            mode=tracking.mode if tracking.mode != "auto" else ("online" if _logged_in() else "offline"),
            dir=str(folder),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
            **run,
        )
        self._run.define_metric("tokens")
        self._run.define_metric("*", step_metric="tokens")

    def log(self, tokens: int, **metrics: float) -> None:
        """Write one row of metrics after `tokens` tokens."""
        row = {"tokens": tokens, **metrics}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._run is not None:
            self._safely(lambda: self._run.log(row))

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._run is not None:
            self._safely(lambda: self._run.finish(exit_code=0 if kind is None else 1))


def _complete_lines(path: Path) -> list[str]:
    # A kill can leave the last line half written.
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
