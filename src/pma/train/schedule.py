"""The learning rate as a pure function of tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pma.config import InitConfig, ScheduleConfig


def learning_rate(schedule: ScheduleConfig, total_tokens: int, tokens: int, init: InitConfig | None = None) -> float:
    """Return the rate of the step that starts after `tokens` tokens, in a run of `total_tokens`.

    Warmup-Stable-Decay (arXiv 2404.06395): linear from 0 to the peak over `warmup_tokens`, then the peak, then over
    the last `decay_tokens` from the peak to `end_lr`. With p the part of the decay that has passed:
    cosine (1 + cos(pi p)) / 2 (arXiv 1608.03983), linear 1 - p, 1-sqrt 1 - sqrt(p) (arXiv 2405.18392).

    A run that starts at `init.tokens` with `init.rewarm_tokens` rises from 0 to this schedule over so many tokens.
    """
    rate = _scheduled(schedule, total_tokens, tokens)
    if init is None or init.rewarm_tokens is None:
        return rate
    return rate * min(1.0, (tokens - (init.tokens or 0)) / init.rewarm_tokens)


def _scheduled(schedule: ScheduleConfig, total_tokens: int, tokens: int) -> float:
    if tokens < schedule.warmup_tokens:
        return schedule.peak_lr * tokens / schedule.warmup_tokens
    decay_start = total_tokens - schedule.decay_tokens
    if schedule.decay_shape == "none" or tokens <= decay_start:
        return schedule.peak_lr
    p = min((tokens - decay_start) / schedule.decay_tokens, 1.0)
    factor = {"cosine": (1 + math.cos(math.pi * p)) / 2, "linear": 1 - p, "1-sqrt": 1 - math.sqrt(p)}
    return schedule.end_lr + (schedule.peak_lr - schedule.end_lr) * factor[schedule.decay_shape]
