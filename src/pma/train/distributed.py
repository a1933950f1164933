"""One run on several processes: torchrun starts them, FSDP2 shards the model over them, each reads its part of a batch.

    torchrun --nproc_per_node=2 -m pma.train run=moe_main scale=smoke

The batch of a step and its micro-batches are those of a single process, so the loss curve is the same to float
tolerance. Experts are sharded as all else is and not kept apart by expert parallelism: a layer's experts are gathered
for the moment that they work, which is simple and enough while one layer fits a GPU (docs/scale.md).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from pma.config import ParallelConfig
from pma.files import publish_folder, write_json
from pma.merge.formats import SAFETENSORS
from pma.model.loss import LossModule
from pma.model.moe import routers
from pma.train.checkpoint import named_state


def processes() -> int:
    """Processes of this run; torchrun says how many."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def speaks() -> bool:
    """Whether this process speaks for all of them."""
    return os.environ.get("RANK", "0") == "0"


class World:
    """The processes of a run, seen from one of them.

    Attributes:
        rank, size: of this process, and how many there are.
        device: cuda:LOCAL_RANK, or cpu.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = device
        self._writers = dist.new_group(backend="gloo")  # of their own: a checkpoint is written while training goes on
        self._writing: tuple[Any, Path, Path, Callable[[], None]] | None = None

    @property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    def after_first(self, work: Callable[[], Any]) -> Any:
        """`work` in the first process, then in the others, which find it done."""
        found = work() if self.first else None
        dist.barrier()
        return found if self.first else work()

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        told = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told.item())

    def sum(self, value: Tensor) -> Tensor:
        """Sum over all processes."""
        value = value.clone()
        dist.all_reduce(value)
        return value

    def rows(self, count: int) -> slice:
        """This process's part of `count` sequences."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    # ---- the model ----

    def shard(self, model: PreTrainedModel, parallel: ParallelConfig) -> LossModule:
        """The loss of a model whose parameters are spread over the processes; on GPUs it computes in bf16.

        Raises:
            ValueError: when parallel.shard does not divide the processes.
        """
        width = parallel.shard or self.size
        if self.size % width:
            raise ValueError(f"parallel.shard={width}: give a divisor of the {self.size} processes, or null for all")
        shape, names = ((self.size,), ("shard",))
        if width < self.size:
            shape, names = (self.size // width, width), ("replicate", "shard")
        mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=names)
        bf16 = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if self.device.type == "cuda" else None
        options = {"mesh": mesh, **({"mp_policy": bf16} if bf16 else {})}
        exact = MixedPrecisionPolicy(torch.float32, torch.float32, cast_forward_inputs=False)
        whole = LossModule(model)
        for router in routers(model):
            fully_shard(router, mesh=mesh, **({"mp_policy": exact} if bf16 else {}))
        for layer in model.model.layers:
            fully_shard(layer, **options)
        fully_shard(whole, **options)
        return whole

    # ---- on disk ----

    def save_snapshot(self, folder: Path, model: PreTrainedModel, dtype: torch.dtype, finish: Callable) -> None:
        """Publish the weights in Hugging Face layout, a file a process: each tensor is gathered for one of them.

        Args:
            finish: writes what else belongs in the folder, in the first process, and is given the folder.
        """
        mine: dict[str, Tensor] = {}
        for index, (name, tensor) in enumerate(model.state_dict().items()):
            whole = tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()
            if index % self.size == self.rank:
                mine[name] = whole.to("cpu", dtype)
        mine = {k: v.contiguous() for k, v in revert_weight_conversion(model, mine).items()}
        with self._published(folder) as aside:
            file = f"model-{self.rank + 1:05d}-of-{self.size:05d}.safetensors"
            save_file(mine, aside / file, metadata={"format": "pt"})
            told: list[Any] = [None] * self.size
            dist.all_gather_object(told, (file, {name: t.nbytes for name, t in mine.items()}))
            if self.first:
                weight_map = {name: file for file, sizes in told for name in sizes}
                total = sum(size for _, sizes in told for size in sizes.values())
                write_json(
                    aside / f"{SAFETENSORS}.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
                )
                model.config.save_pretrained(aside)
                model.generation_config.save_pretrained(aside)
                finish(aside)

    @contextmanager
    def _published(self, folder: Path) -> Iterator[Path]:
        """A folder that the first process makes and publishes and all fill."""
        if self.first:
            with publish_folder(folder) as aside:
                dist.broadcast_object_list([str(aside)], src=0)
                yield aside
                dist.barrier()  # all have written
        else:
            told: list[Any] = [None]
            dist.broadcast_object_list(told, src=0)
            yield Path(told[0])
            dist.barrier()
        dist.barrier()  # it is published

    def save_checkpoint(
        self, folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, tokens: int, then: Callable[[], None]
    ) -> None:
        """Write a torch distributed checkpoint in the background: weights and optimizer state by name, position.

        It gets its name at the next call, or by `finish_checkpoint`; then the first process calls `then`.
        """
        self.finish_checkpoint()
        aside = folder.with_name(f".{folder.name}.partial")
        if self.first:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            write_json(aside / "state.json", {"tokens": tokens})
        dist.barrier()
        state = named_state(model, optimizer)
        written = dcp.async_save(state, checkpoint_id=aside, process_group=self._writers)
        self._writing = written, aside, folder, then

    def finish_checkpoint(self) -> None:
        """Wait for the checkpoint under way, and give it its name."""
        if self._writing is None:
            return
        written, aside, folder, then = self._writing
        written.result()
        self._writing = None
        dist.barrier()
        if self.first:
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(aside, folder)
            then()
        dist.barrier()


class ShardedMicroBatches:
    """Gradients of the mean loss over a batch, of which each process has its micro-batches; see MicroBatches.

    Args:
        step: (inputs, targets) -> (reported loss, loss to differentiate), means over the targets not negative.
        count: micro-batches of the whole batch, a multiple of the processes.
    """

    def __init__(self, world: World, step: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], count: int) -> None:
        self._world, self._step, self._count = world, step, count // world.size

    def backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Add the gradient to `.grad`; inputs and targets are this process's, int64 (sequences, length).

        Returns:
            The mean reported loss over the whole batch, detached; the same in all processes.
        """
        world, parts = self._world, targets.chunk(self._count)
        total = world.sum((targets >= 0).sum()).clamp(min=1)
        reported = torch.zeros((), device=inputs.device)
        for one, target in zip(inputs.chunk(self._count), parts, strict=True):
            share = (target >= 0).sum() / total
            value, differentiated = self._step(one, target)
            (differentiated * share * world.size).backward()  # FSDP takes the mean over processes, this is a sum
            reported += value.detach() * share
        return world.sum(reported)


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The processes that torchrun started, connected for the time of the block."""
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    # torchrun may keep its store over a restart, and in it the addresses of processes that are dead.
    store, rank, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"restart-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield World(device)
    finally:
        dist.destroy_process_group()
