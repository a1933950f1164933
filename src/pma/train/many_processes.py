"""A run on several processes: torchrun starts them, FSDP2 shards the model over them, each reads its part of a batch.

    torchrun --nproc_per_node=2 -m pma.train run=moe_main scale=smoke

The batch of a step and its micro-batches are those of a single process, so the loss curve is the same to float
tolerance. Experts are sharded like all other parameters and not kept apart by expert parallelism: the experts of a
layer are gathered for the moment in which they work. That is simple, and enough while one layer fits a GPU
(docs/distributed.md).
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed import checkpoint as dcp
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from pma.device import choose_device, cpu_threads
from pma.files import publish_folder, remove_folder, write_json
from pma.merge.formats import DCP, SAFETENSORS
from pma.merge.write import dcp_errors
from pma.model.loss import LossModule
from pma.model.moe import routers
from pma.train.checkpoint import file_hashes, named_state, write_state
from pma.train.state import TrainingState
from pma.train.world import Weights, World, process_count

Result = TypeVar("Result")
_CONNECTIONS = itertools.count()  # of this process


@dataclass(frozen=True)
class _Writing:
    """A checkpoint under way: it is written to `aside`, and renamed to `folder` when `written` is done."""

    written: Future[Any]
    aside: Path
    folder: Path
    tokens: int
    then: Callable[[], None]


class ManyProcesses(World):
    """See `World`. All methods but `print` and `rows` are called by all processes together."""

    _model: PreTrainedModel
    _loss: LossModule
    _micro_batches: int  # of this process

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, dist.get_rank(), dist.get_world_size())
        self._writers = dist.new_group(backend="gloo")  # of its own: a checkpoint is written while training goes on
        self._writing: _Writing | None = None

    @classmethod
    @contextmanager
    def connect(cls, cfg: DictConfig) -> Iterator[ManyProcesses]:
        """Yield the world of the processes that torchrun started, connected for the time of the block.

        Raises:
            ValueError: when the processes cannot share the micro-batches equally, or the device is missing.
        """
        if cfg.scale.micro_batches % process_count():
            raise ValueError(
                f"scale.micro_batches={cfg.scale.micro_batches}: {process_count()} processes share them, give a "
                f"multiple; it is part of a run's identity, for an MoE balances its experts in each micro-batch"
            )
        device = torch.device(choose_device(cfg.device))
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        # torchrun keeps its store over a restart, and over the runs of a process: in it stand addresses of processes
        # that are dead, and of groups that are gone.
        store, rank, size = next(dist.rendezvous("env://"))
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
        store = dist.PrefixStore(f"restart-{restart}-run-{next(_CONNECTIONS)}", store)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        try:
            yield cls(device)
        finally:
            dist.destroy_process_group()

    def first_then_all(self, work: Callable[[], Result]) -> Result:
        if self.first:
            result = work()
            dist.barrier()
            return result
        dist.barrier()
        return work()

    def any(self, flag: bool) -> bool:
        flags = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    # ---- the model ----

    def place(self, cfg: DictConfig, model: PreTrainedModel) -> None:
        threads = cpu_threads(cfg.threads)
        torch.set_num_threads(max(1, threads // self.size) if self.device.type == "cpu" else threads)
        self._model, self._loss = model, LossModule(model)
        self._micro_batches = cfg.scale.micro_batches // self.size
        self._shard(self._mesh(cfg.parallel.shard))

    def _mesh(self, shard: int | None) -> DeviceMesh:
        width = shard or self.size
        if self.size % width:
            raise ValueError(f"parallel.shard={width}: give a divisor of the {self.size} processes, or null for all")
        if width == self.size:
            return init_device_mesh(self.device.type, (self.size,), mesh_dim_names=("shard",))
        shape = (self.size // width, width)
        return init_device_mesh(self.device.type, shape, mesh_dim_names=("replicate", "shard"))

    def _shard(self, mesh: DeviceMesh) -> None:
        """Spread the parameters over the mesh; on GPUs the model computes in bf16 and its routers in fp32."""
        rounded: dict[str, Any] = {"mesh": mesh}
        exact: dict[str, Any] = {"mesh": mesh}
        if self.device.type == "cuda":
            rounded["mp_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
            exact["mp_policy"] = MixedPrecisionPolicy(torch.float32, torch.float32, cast_forward_inputs=False)
        for router in routers(self._model):
            fully_shard(router, **exact)
        for layer in self._model.model.layers:
            fully_shard(layer, **rounded)
        fully_shard(self._loss, **rounded)

    def backward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        total = self._sum((targets >= 0).sum()).clamp(min=1)
        mean = torch.zeros((), device=inputs.device)
        parts = zip(inputs.chunk(self._micro_batches), targets.chunk(self._micro_batches), strict=True)
        for part, target in parts:
            share = (target >= 0).sum() / total
            reported, differentiated = self._loss(part, target)
            (differentiated * share * self.size).backward()  # FSDP takes the mean over processes, this is a sum
            mean += reported.detach() * share
        return self._sum(mean)

    def _sum(self, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    # ---- on disk ----

    def save_snapshot(self, folder: Path, weights: Weights, dtype: str, complete: Callable[[Path], None]) -> None:
        """Each process writes a file: every tensor is gathered, and kept by one of them."""
        tensors: dict[str, Tensor] = {}
        for index, (name, tensor) in enumerate(weights.items()):
            whole = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
            if index % self.size == self.rank:
                tensors[name] = whole.to("cpu", getattr(torch, dtype))
        tensors = {k: v.contiguous() for k, v in revert_weight_conversion(self._model, tensors).items()}
        with self._publish(folder) as aside:
            file = f"model-{self.rank + 1:05d}-of-{self.size:05d}.safetensors"
            save_file(tensors, aside / file, metadata={"format": "pt"})
            sizes: list[Any] = [None] * self.size
            dist.all_gather_object(sizes, (file, {name: tensor.nbytes for name, tensor in tensors.items()}))
            if self.first:
                weight_map = {name: file for file, bytes_of in sizes for name in bytes_of}
                total = sum(sum(bytes_of.values()) for _, bytes_of in sizes)
                index_file = aside / f"{SAFETENSORS}.index.json"
                write_json(index_file, {"metadata": {"total_size": total}, "weight_map": weight_map})
                self._model.config.save_pretrained(aside)
                self._model.generation_config.save_pretrained(aside)
                complete(aside)

    @contextmanager
    def _publish(self, folder: Path) -> Iterator[Path]:
        """Yield a folder that the first process creates and publishes, and that all fill."""
        if self.first:
            with publish_folder(folder) as aside:
                dist.broadcast_object_list([str(aside)], src=0)
                yield aside
                dist.barrier()  # all have written
        else:
            path: list[Any] = [None]
            dist.broadcast_object_list(path, src=0)
            yield Path(path[0])
            dist.barrier()
        dist.barrier()  # it is published

    def save_checkpoint(self, folder: Path, state: TrainingState, tokens: int, then: Callable[[], None]) -> None:
        """Each process writes its shards of a torch distributed checkpoint, which gets its name in `finish`."""
        self.finish()
        aside = folder.with_name(f".{folder.name}.partial")
        if self.first:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        dist.barrier()
        written = dcp.async_save(named_state(state), checkpoint_id=aside, process_group=self._writers)
        assert isinstance(written, Future)
        self._writing = _Writing(written, aside, folder, tokens, then)

    def finish(self) -> None:
        writing, self._writing = self._writing, None
        if writing is None:
            return
        with dcp_errors(writing.folder):
            writing.written.result()
        hashes: list[Any] = [None] * self.size
        dist.all_gather_object(hashes, file_hashes(writing.aside, f"__{self.rank}_*"))  # each of what it wrote
        if self.first:
            all_hashes = {name: value for own in hashes for name, value in own.items()}
            write_state(writing.aside, writing.tokens, all_hashes | file_hashes(writing.aside, DCP))
            if writing.folder.exists():
                remove_folder(writing.folder)
            os.replace(writing.aside, writing.folder)
            writing.then()
        dist.barrier()
