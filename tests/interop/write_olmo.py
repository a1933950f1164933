"""Checkpoints of a tiny model by OLMo-core's own code.

`write_olmo.py OUT` trains and writes OUT/stepN, and OUT/expected-N.pt beside; `write_olmo.py OUT MERGED` loads MERGED,
the checkpoint of a merge, and trains on from it. Run by torchrun in the environment that tests/interop/check.py makes;
its processes share the tensors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from olmo_core.distributed.checkpoint import load_model_and_optim_state, save_model_and_optim_state
from olmo_core.train.checkpoint import Checkpointer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def build() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 5), nn.LayerNorm(5))
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.arange(11)).square().sum().backward()
    optimizer.step()


def write(out: Path) -> None:
    model, optimizer = build()
    for step in (10, 20, 30):
        train_step(model, optimizer)
        folder = out / f"step{step}"
        save_model_and_optim_state(folder / "model_and_optim", model, optimizer, save_overwrite=True)
        expected = {f"model.{name}": value.full_tensor() for name, value in model.state_dict().items()}
        if dist.get_rank() == 0:
            (folder / "train").mkdir()
            torch.save({"global_step": step}, folder / "train" / "rank0.pt")
            (folder / "config.json").write_text("{}")
            (folder / ".metadata.json").write_text('{"version": "3.0.0"}')
            torch.save(expected, out / f"expected-{step}.pt")


def resume(merged: Path) -> None:
    assert Checkpointer.latest_checkpoint(merged.parent).rstrip("/").endswith(merged.name)
    model, optimizer = build()
    load_model_and_optim_state(merged / "model_and_optim", model, optimizer)
    train_step(model, optimizer)
    assert {float(state["step"]) for state in optimizer.state.values()} == {4.0}
    assert all(bool(torch.isfinite(value.full_tensor()).all()) for value in model.state_dict().values())


if __name__ == "__main__":
    dist.init_process_group("gloo")
    write(Path(sys.argv[1])) if len(sys.argv) == 2 else resume(Path(sys.argv[2]))
    dist.barrier()
    dist.destroy_process_group()
