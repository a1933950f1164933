"""What a run shows while it trains: metrics.jsonl and W&B, a bar or a few lines, and an error when it diverges."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from pma.layout import snapshots
from pma.run import run_folder, target_tokens
from pma.tracking import Tracker, snapshot_artifact
from pma.words import duration, quantity

_LINES = 5  # printed by a run whose output is no terminal, at equal parts of its length


class DivergedError(ValueError):
    """The loss or the gradient norm is not finite."""


class Progress:
    """The metrics of a run since the last logged step, and where they are shown.

    Losses and norms stay on the device until they are needed: reading a number off a GPU makes the host wait for it.

    Args:
        cfg: of the run.
        start: position in tokens from which this call trains.
        shown: false in all processes but the first, which alone prints and writes.
        wandb: what W&B is given about the run.
        quiet: whether neither bar nor lines are shown; files are written all the same.
    """

    def __init__(self, cfg: DictConfig, start: int, shown: bool, wandb: dict[str, Any], quiet: bool = False) -> None:
        self._cfg, self._folder, self._shown, self._wandb, self._quiet = cfg, run_folder(cfg), shown, wandb, quiet
        self._start, self._end, self._batch = start, target_tokens(cfg), cfg.scale.batch_tokens
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._best = float("inf")
        self._began = self._logged = time.perf_counter()
        self._tracker: Tracker | None = None
        self._open = ExitStack()

    def __enter__(self) -> Progress:
        if self._shown:
            self._tracker = self._open.enter_context(
                Tracker(self._folder, self._start, self._cfg.tracking, **self._wandb)
            )
        visible = self._shown and not self._quiet
        terminal = visible and sys.stderr.isatty()
        self._bar = self._open.enter_context(
            tqdm(
                total=self._end,
                initial=self._start,
                unit="tok",
                unit_scale=True,
                desc=self._cfg.run_id,
                disable=not terminal,
            )
        )
        self._prints = visible and not terminal
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    @property
    def seconds(self) -> float:
        """Seconds since this call began to train."""
        return time.perf_counter() - self._began

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Take the loss and the gradient norm of a step, scalars on the device."""
        self._losses.append(loss)
        self._norms.append(norm)
        self._bar.update(self._batch)

    def check_finite(self, tokens: int) -> None:
        """Look at the steps since the last log; call it before weights at `tokens` are saved.

        Raises:
            DivergedError: naming the first step whose loss or gradient norm is not finite.
        """
        finite = torch.stack(self._losses).isfinite() & torch.stack(self._norms).isfinite()
        bad = (~finite).nonzero()
        if len(bad):
            step = tokens // self._batch - len(self._losses) + int(bad[0])
            raise DivergedError(
                f"{self._cfg.run_id}: loss or gradient norm is not finite at step {step} "
                f"({step * self._batch:,} tokens). The snapshots before it are good and stay in "
                f"{self._folder / 'snapshots'}. Lower schedule.peak_lr or train.clip_norm, or start a run from a merge "
                f"of snapshots before the step with init.weights=MERGED init.tokens=TOKENS (the paper's section 4.4)"
            )

    def log(self, tokens: int, rate: float) -> None:
        """Write the mean loss of the steps since the last log, the last gradient norm, the rate and the speed."""
        now, steps = time.perf_counter(), len(self._losses)
        speed = steps * self._batch / (now - self._logged)
        loss_mean = torch.stack(self._losses).mean().item()
        if self._tracker is not None:
            norm = self._norms[-1].item()
            self._tracker.log(tokens, loss=loss_mean, lr=rate, gradient_norm=norm, tokens_per_second=round(speed))
        self._best = min(self._best, loss_mean)
        self._bar.set_postfix(loss=f"{loss_mean:.3f}", best=f"{self._best:.3f}", refresh=False)
        if self._prints and self._fifth(tokens) != self._fifth(tokens - steps * self._batch):
            left = (self._end - tokens) / (tokens - self._start) * (now - self._began)
            print(
                f"{self._cfg.run_id}: {tokens:,} of {self._end:,} tokens, loss {loss_mean:.3f} "
                f"(best {self._best:.3f}), {quantity(speed)} tokens/s, {duration(left)} left",
                flush=True,
            )
        self._logged = now
        self._losses.clear()
        self._norms.clear()

    def _fifth(self, tokens: int) -> int:
        return tokens * _LINES // self._end

    def link_snapshots(self) -> None:
        """Tell W&B which snapshots this call has written."""
        if self._tracker is not None:
            written = [tokens for tokens in snapshots(self._folder) if tokens > self._start]
            self._tracker.made([snapshot_artifact(self._folder, tokens) for tokens in written])
