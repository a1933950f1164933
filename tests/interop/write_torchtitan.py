"""Checkpoints of a tiny model by torchtitan's own manager of checkpoints, optimizers and schedules, on the CPU.

`write_torchtitan.py OUT` trains and writes OUT/step-N, and OUT/expected-N.pt beside; `write_torchtitan.py OUT MERGED`
loads MERGED, the checkpoint of a merge, and trains on from it. Run by torchrun in the environment that
tests/interop/check.py makes; its processes share the tensors.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.optimizer import LRSchedulersContainer, OptimizersContainer, ParamGroupConfig


class Counter:
    """What torchtitan's trainer and loader of data keep: a number."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"step": torch.tensor(self.step)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])


class Training:
    """A model in shards, with the parts of torchtitan's trainer that are saved."""

    def __init__(self, folder: Path, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 5), nn.LayerNorm(5))
        fully_shard(self.model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
        groups = [ParamGroupConfig(pattern=".*", optimizer_name="AdamW", optimizer_kwargs={"lr": 0.01})]
        self.optimizers = OptimizersContainer(
            OptimizersContainer.Config(param_groups=groups, implementation="for-loop"), model_parts=[self.model]
        )
        schedule = LRSchedulersContainer.Config(warmup_steps=8)
        self.schedules = schedule.build(optimizers=self.optimizers, training_steps=100)
        self.counter = Counter()
        self.checkpoints = CheckpointManager(
            CheckpointManager.Config(enable=True, folder=str(folder), interval=1, keep_latest_k=0, **options),
            dataloader=Counter(),
            model_parts=[self.model],
            optimizers=self.optimizers,
            lr_schedulers=self.schedules,
            states={"train_state": self.counter},
            sd_adapter=None,
        )

    def step(self) -> None:
        self.optimizers.zero_grad()
        self.model(torch.arange(11)).square().sum().backward()
        self.optimizers.step()
        self.schedules.step()
        self.counter.step += 1


def write(out: Path) -> None:
    training = Training(out)
    for step in (10, 20, 30):
        training.step()
        training.checkpoints.save(step)
        expected = {name: value.full_tensor() for name, value in training.model.state_dict().items()}
        if dist.get_rank() == 0:
            torch.save(expected, out / f"expected-{step}.pt")


def resume(merged: Path) -> None:
    where = {"initial_load_path": str(merged.absolute()), "initial_load_model_only": False}
    training = Training(merged.parent / "next", **where)
    assert training.checkpoints.load()
    assert training.counter.step == 3
    training.step()
    assert {float(state["step"]) for optimizer in training.optimizers for state in optimizer.state.values()} == {4.0}
    assert next(iter(training.schedules)).last_epoch == 4
    assert training.checkpoints.save(31)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    write(Path(sys.argv[1])) if len(sys.argv) == 2 else resume(Path(sys.argv[2]))
    dist.barrier()
    dist.destroy_process_group()
