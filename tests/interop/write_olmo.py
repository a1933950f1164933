"""Write checkpoints of a tiny model with OLMo-core's own code: OUT/stepN, and OUT/expected-N.pt beside.

Run by torchrun in the environment that tests/interop/check.py makes; its processes share the tensors.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from olmo_core.distributed.checkpoint import save_model_and_optim_state
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def main(out: Path) -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 5), nn.LayerNorm(5))
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in (10, 20, 30):
        optimizer.zero_grad()
        model(torch.arange(11)).square().sum().backward()
        optimizer.step()
        folder = out / f"step{step}"
        save_model_and_optim_state(folder / "model_and_optim", model, optimizer, save_overwrite=True)
        expected = {f"model.{name}": value.full_tensor() for name, value in model.state_dict().items()}
        if dist.get_rank() == 0:
            (folder / "config.json").write_text("{}")
            (folder / ".metadata.json").write_text('{"version": "3.0.0"}')
            torch.save(expected, out / f"expected-{step}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
