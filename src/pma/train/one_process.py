"""A run in one process: micro-batches side by side in threads, files written by a thread beside training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from pma.device import choose_device, cpu_threads
from pma.snapshot import copy_weights, save_snapshot
from pma.train.checkpoint import copy_state, save_checkpoint
from pma.train.objective import Loss, training_loss
from pma.train.state import TrainingState
from pma.train.world import Weights, World

Result = TypeVar("Result")


class OneProcess(World):
    """See `World`."""

    _model: PreTrainedModel
    _micro_batches: MicroBatches

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    @classmethod
    @contextmanager
    def connect(cls, cfg: DictConfig) -> Iterator[OneProcess]:
        """Yield the world of one run; at the end, whatever happened, what is being written is whole."""
        world = cls(torch.device(choose_device(cfg.device)))
        try:
            yield world
        finally:
            world._writer.shutdown()

    def first_then_all(self, work: Callable[[], Result]) -> Result:
        return work()

    def any(self, flag: bool) -> bool:
        return flag

    def place(self, cfg: DictConfig, model: PreTrainedModel) -> None:
        self._model = model
        loss = training_loss(cfg, self.device, self.print)
        self._micro_batches = MicroBatches(model, loss, cfg.scale.micro_batches, cpu_threads(cfg.threads))

    def backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self._micro_batches.backward(inputs, targets)

    def save_snapshot(self, folder: Path, weights: Weights, dtype: str, complete: Callable[[Path], None]) -> None:
        self._write(save_snapshot, folder, self._model, copy_weights(weights, dtype), complete)

    def save_checkpoint(self, folder: Path, state: TrainingState, tokens: int, then: Callable[[], None]) -> None:
        copies = copy_state(state)

        def save() -> None:
            save_checkpoint(folder, copies, tokens)
            then()

        self._write(save)

    def finish(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, task: Callable[..., None], *arguments: Any) -> None:
        self.finish()  # one file at a time: a slow disk holds up training instead of filling the memory with copies
        self._writing = self._writer.submit(task, *arguments)


class MicroBatches:
    """The gradient of the mean loss over a batch, from `count` equal micro-batches, added to the model's `.grad`.

    Each micro-batch runs forward and backward in its own thread with one intra-op thread; the gradients are then added
    in the order of the micro-batches. For small models this is faster than intra-op threads. The number of threads
    does not change the bits: it only decides how many micro-batches run at once.

    Args:
        model: its parameters are shared by the replicas of further threads.
        loss: see `pma.train.objective.Loss`.
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
                losses += [self._backward_part(replica, *part) for replica, part in group]
            else:
                losses += list(self._pool.map(lambda pair: self._backward_part(pair[0], *pair[1]), group))
            self._gather()
        return (torch.stack(losses) * shares).sum()

    def _backward_part(self, replica: nn.Module, inputs: Tensor, targets: Tensor, share: Tensor) -> Tensor:
        reported, differentiated = self._loss(replica, inputs, targets)
        (differentiated * share).backward()
        return reported.detach()

    def _gather(self) -> None:
        """Add the gradients of the replicas to those of the model, in the order of the replicas."""
        own = list(self._replicas[0].parameters())
        for replica in self._replicas[1:]:
            pairs: list[Any] = [(p, q) for p, q in zip(own, replica.parameters(), strict=True) if q.grad is not None]
            torch._foreach_add_([p.grad for p, _ in pairs], [q.grad for _, q in pairs])
            for _, q in pairs:
                q.grad = None


def _sharing_copy(model: nn.Module) -> nn.Module:
    """Return a copy of `model` on the same memory of parameters, with gradients of its own."""
    replica = copy.deepcopy(model)
    for own, shared in zip(replica.parameters(), model.parameters(), strict=True):
        own.data = shared.data
    return replica
