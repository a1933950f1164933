"""Write checkpoints of a tiny GPT with Megatron-Core's own code, on the CPU: OUT/iter_N, and OUT/expected-N.pt beside.

Run by torchrun in the environment that tests/interop/check.py makes; its processes share the tensors.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

torch.cuda.synchronize = lambda *arguments: None  # Megatron's writer waits for a GPU that is not there
torch.cuda.current_device = lambda: "cpu"

from megatron.core import dist_checkpointing, parallel_state  # noqa: E402
from megatron.core.dist_checkpointing import ShardedObject  # noqa: E402
from megatron.core.models.gpt import GPTModel  # noqa: E402
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec  # noqa: E402
from megatron.core.transformer import TransformerConfig  # noqa: E402


def main(out: Path) -> None:
    dist.init_process_group("gloo")
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=dist.get_world_size())
    torch.manual_seed(0)
    config = TransformerConfig(
        num_layers=2, hidden_size=8, num_attention_heads=2, use_cpu_initialization=True, params_dtype=torch.bfloat16
    )
    model = GPTModel(config, get_gpt_layer_local_spec(), vocab_size=16, max_sequence_length=8, parallel_output=True)
    for iteration in (10, 20, 30):
        folder = out / f"iter_{iteration:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01 * torch.randn_like(parameter)
        sharded = model.sharded_state_dict()
        dist_checkpointing.save(
            {
                "model": sharded,
                "optimizer": _moments(sharded),
                "rng_state": ShardedObject(
                    "rng_state", [torch.get_rng_state()], (1,), (0,), replica_id=dist.get_rank()
                ),
                "iteration": iteration,
                "checkpoint_version": 3.0,
            },
            str(folder),
        )
        expected = dist_checkpointing.load_plain_tensors(str(folder))
        expected = {k: v for k, v in expected.items() if torch.is_tensor(v) and not k.startswith("optimizer.")}
        if dist.get_rank() == 0:
            (out / "latest_checkpointed_iteration.txt").write_text(str(iteration))
            torch.save(expected, out / f"expected-{iteration}.pt")
    dist.barrier()
    dist.destroy_process_group()


def _moments(sharded: dict) -> dict:
    """What Adam keeps of each parameter, under the keys that Megatron's optimizer writes."""
    tensors = {key: value for key, value in sharded.items() if hasattr(value, "local_shape")}
    moments = {}
    for key, value in tensors.items():
        zeros = torch.zeros_like(value.data, dtype=torch.float32)
        moments[key] = replace(value, key=f"optimizer.state.exp_avg.{value.key}", data=zeros, dtype=zeros.dtype)
    return moments


if __name__ == "__main__":
    main(Path(sys.argv[1]))
