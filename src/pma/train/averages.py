"""Averages of the weights that run along with training: one exponential average of every step for each alpha."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        for i, average in enumerate(self._averages if stored else []):
            for name, tensor in average.items():
                tensor.copy_(laid_out_as(tensor, stored[f"{i}.{name}"]))
