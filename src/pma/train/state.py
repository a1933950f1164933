"""What changes while a run trains, and so stands in its checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from schedulefree import AdamWScheduleFree
from transformers import PreTrainedModel

from pma.train.averages import OnlineAverages, Overwriting


@dataclass(frozen=True)
class TrainingState:
    """Model, optimizer, the averages that run along, and the one that overwrites the weights."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    averages: OnlineAverages
    overwriting: Overwriting

    @contextmanager
    def weights_to_use(self) -> Iterator[None]:
        """For the time of the block the model has the weights that it would be used with after training so far.

        These are its own, but with schedule-free AdamW, which takes gradients at one point (y of arXiv 2405.15682) and
        hands over another (x). Afterwards the weights have the same bits as before.
        """
        if not isinstance(self.optimizer, AdamWScheduleFree):
            yield
            return
        parameters = list(self.model.parameters())
        kept = [parameter.detach().clone() for parameter in parameters]
        self.optimizer.eval()
        try:
            yield
        finally:
            self.optimizer.train()  # computes y again, with rounding: a snapshot must not change the run
            with torch.no_grad():
                for parameter, value in zip(parameters, kept, strict=True):
                    parameter.copy_(value)
