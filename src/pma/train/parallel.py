"""The gradients of one batch from equal micro-batches, side by side in threads.

Each micro-batch runs forward and backward in its own thread with one intra-op thread; the gradients are then added in
the order of the micro-batches. For small models this is faster than intra-op threads, and the bits do not depend on
how many threads there are: that only decides how many micro-batches run at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

Loss = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]


class MicroBatches:
    """Accumulates the gradient of the mean loss over `count` equal micro-batches into the model's `.grad`.

    Args:
        model: its parameters are shared by the replicas of further threads.
        loss: (model, inputs, targets) -> (reported loss, loss to differentiate), both means over the targets that are
            not negative.
        count: micro-batches a batch.
        threads: CPU threads; micro-batches that run at once. On a GPU they run one after the other.
    """

    def __init__(self, model: nn.Module, loss: Loss, count: int, threads: int) -> None:
        self._loss, self._count = loss, count
        on_cpu = next(model.parameters()).device.type == "cpu"
        workers = min(count, threads) if on_cpu else 1
        self._replicas = [model] + [_sharing_copy(model) for _ in range(workers - 1)]
        self._pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) if on_cpu else None
        if on_cpu:  # for the optimizer step and the norm: reductions over several threads would change the bits
            torch.set_num_threads(1)

    def backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Add the gradient for `inputs` with `targets`, both int64 (batch, length), to `.grad`.

        Micro-batches weigh by their learnt targets (those not negative), so that loss and gradient are the means over
        all learnt targets of the batch.

        Returns:
            The mean reported loss, detached.
        """
        learnt = torch.stack([(part >= 0).sum() for part in targets.chunk(self._count)])
        shares = learnt / learnt.sum().clamp(min=1)
        parts = list(zip(inputs.chunk(self._count), targets.chunk(self._count), shares, strict=True))
        assert len(parts) == self._count
        losses = []
        for start in range(0, self._count, len(self._replicas)):
            group = list(zip(self._replicas, parts[start : start + len(self._replicas)], strict=False))
            if self._pool is None:
                losses += [self._one(replica, *part) for replica, part in group]
            else:
                losses += list(self._pool.map(lambda pair: self._one(pair[0], *pair[1]), group))
            self._gather()
        return (torch.stack(losses) * shares).sum()

    def _one(self, replica: nn.Module, inputs: Tensor, targets: Tensor, share: Tensor) -> Tensor:
        reported, differentiated = self._loss(replica, inputs, targets)
        (differentiated * share).backward()
        return reported.detach()

    def _gather(self) -> None:
        own = list(self._replicas[0].parameters())
        for replica in self._replicas[1:]:
            pairs = [(p, q) for p, q in zip(own, replica.parameters(), strict=True) if q.grad is not None]
            torch._foreach_add_([p.grad for p, _ in pairs], [q.grad for _, q in pairs])
            for _, q in pairs:
                q.grad = None


def _sharing_copy(model: nn.Module) -> nn.Module:
    replica = copy.deepcopy(model)
    for own, shared in zip(replica.parameters(), model.parameters(), strict=True):
        own.data = shared.data
    return replica
