"""Averages of the weights while they are trained: exponential ones of every step, and one that takes their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pma.model.build import laid_out_as


class OnlineAverages:
    """Averages a, after each step a <- (1 - alpha) a + alpha weights, beginning as the weights (PMA's EMA, every step).

    They do not change training. Sharded parameters have sharded averages.

    Args:
        alphas: of each average, above 0 and below 1; its weights are about 1 / alpha steps old in the mean.
        model: in training, already on its device or spread over processes.
    """

    def __init__(self, alphas: Sequence[float], model: nn.Module) -> None:
        self._model, self._parameters = model, dict(model.named_parameters())
        self.alphas = list(alphas)
        self._update = [get_ema_multi_avg_fn(1 - alpha) for alpha in self.alphas]
        self._averages: list[dict[str, Tensor]] = []
        self.restart()

    def restart(self) -> None:
        """Begin anew: every average is the weights as they stand."""
        self._averages = [{n: p.detach().clone() for n, p in self._parameters.items()} for _ in self.alphas]

    def update(self) -> None:
        """Take in the weights after a step."""
        weights = [parameter.detach() for parameter in self._parameters.values()]
        for update, average in zip(self._update, self._averages, strict=True):
            update(list(average.values()), weights, None)

    def weights(self, index: int) -> dict[str, Tensor]:
        """The state dict of the model, with the average of the alpha at `index` in the place of its parameters."""
        names = {id(parameter): name for name, parameter in self._parameters.items()}  # a tied tensor has two names
        state = self._model.state_dict(keep_vars=True)
        return {name: self._averages[index].get(names.get(id(own), ""), own).detach() for name, own in state.items()}

    def state(self) -> dict[str, Tensor]:
        """All averages, as a checkpoint holds them: INDEX.NAME."""
        return {f"{i}.{name}": a for i, average in enumerate(self._averages) for name, a in average.items()}

    def load(self, stored: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; of a checkpoint without averages they begin anew."""
        self.restart()
        for i, average in enumerate(self._averages if any(name.startswith("0.") for name in stored) else []):
            for name, tensor in average.items():
                tensor.copy_(laid_out_as(tensor, stored[f"{i}.{name}"]))


class Overwriting:
    """Overwrites the live weights with the mean of their last n copies, after the n-th; then the copies begin anew.

    As MindFormers' PmaAdamW: the optimizer's state stays as it is. Sharded parameters have sharded sums.

    Args:
        interval: between copies, tokens; None for a run that is left alone.
        n: copies.
        model: in training, already on its device or spread over processes.
    """

    def __init__(self, interval: int | None, n: int | None, model: nn.Module) -> None:
        self._interval, self._n = interval, n or 0
        self._parameters = dict(model.named_parameters()) if interval else {}
        self._sums = {name: torch.zeros_like(parameter) for name, parameter in self._parameters.items()}
        self._copies = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def update(self, tokens: int) -> None:
        """Take a copy where one is due after `tokens` tokens, and overwrite the weights after the n-th."""
        if self._interval is None or tokens % self._interval:
            return
        for name, parameter in self._parameters.items():
            self._sums[name].add_(parameter)
        self._copies += 1
        if self._copies == self._n:
            for name, parameter in self._parameters.items():
                parameter.copy_(self._sums[name] / self._n)
            self.restart()

    def restart(self) -> None:
        """Begin anew, without copies."""
        for total in (*self._sums.values(), self._copies):
            total.zero_()

    def state(self) -> dict[str, Tensor]:
        """How many copies there are, and their sums, as a checkpoint holds them: copies, sum.NAME."""
        if self._interval is None:
            return {}
        return {"copies": self._copies} | {f"sum.{name}": total for name, total in self._sums.items()}

    @torch.no_grad()
    def load(self, stored: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; of a checkpoint without copies they begin anew."""
        self.restart()
        if "copies" in stored and self._interval is not None:
            self._copies.copy_(stored["copies"])
            for name, total in self._sums.items():
                total.copy_(laid_out_as(total, stored[f"sum.{name}"]))
