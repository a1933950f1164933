"""Checkpoints of a tiny GPT by Megatron-Core's own code, on the CPU.

`write_megatron.py OUT` trains and writes OUT/iter_N, and OUT/expected-N.pt beside; `write_megatron.py OUT MERGED` loads
MERGED, the checkpoint of a merge, and trains on from it. Run by torchrun in the environment that tests/interop/check.py
makes; its processes share the tensors.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

torch.cuda.synchronize = lambda *arguments: None  # Megatron's writer waits for a GPU that is not there
torch.cuda.current_device = lambda: "cpu"

from megatron.core import dist_checkpointing, parallel_state  # noqa: E402
from megatron.core.dist_checkpointing import ShardedObject  # noqa: E402
from megatron.core.dist_checkpointing.optimizer import (  # noqa: E402
    get_param_id_to_sharded_param_map,
    make_sharded_optimizer_tensor,
    optim_state_to_sharding_state,
)
from megatron.core.models.gpt import GPTModel  # noqa: E402
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec  # noqa: E402
from megatron.core.tensor_parallel.random import CudaRNGStatesTracker  # noqa: E402
from megatron.core.transformer import TransformerConfig  # noqa: E402

CudaRNGStatesTracker.fork = lambda *arguments: contextlib.nullcontext()  # dropout draws on the GPU


class Training:
    """A model in bf16 and AdamW on fp32 copies of its weights, as Megatron's optimizer for half precision has them."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        config = TransformerConfig(
            num_layers=2,
            hidden_size=8,
            num_attention_heads=2,
            use_cpu_initialization=True,
            params_dtype=torch.bfloat16,
            bf16=True,
            pipeline_dtype=torch.bfloat16,
        )
        layer = get_gpt_layer_local_spec()
        self.model = GPTModel(config, layer, vocab_size=16, max_sequence_length=8, parallel_output=True).bfloat16()
        self.parameters = list(self.model.parameters())
        self.main = [parameter.detach().float().clone() for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(self.main, lr=0.01)

    def step(self) -> None:
        """One step on eight tokens."""
        tokens = torch.arange(8).unsqueeze(0)
        mask = torch.ones(1, 1, 8, 8, dtype=torch.bool).triu(1)
        self.model.zero_grad()
        self.model(tokens, tokens, mask, labels=tokens + 1).float().mean().backward()
        for main, parameter in zip(self.main, self.parameters, strict=True):
            main.grad = parameter.grad.float()
        self.optimizer.step()
        self.copy_down()

    def copy_down(self) -> None:
        """Take the model from its fp32 copies, as Megatron does after each step."""
        with torch.no_grad():
            for main, parameter in zip(self.main, self.parameters, strict=True):
                parameter.copy_(main)

    def state(self, iteration: int) -> dict[str, Any]:
        """All that is saved, under the keys that Megatron's optimizer writes."""
        model = self.model.sharded_state_dict()
        places = get_param_id_to_sharded_param_map(model, self.parameters)
        optimizer = self.optimizer.state_dict()
        step = next(iter(optimizer["state"].values()))["step"]
        optim_state_to_sharding_state(optimizer, places, exclude_keys="step")
        optimizer["state"]["common_step"] = step
        main = [
            make_sharded_optimizer_tensor(places[i], main, prefix="optimizer.state.fp32_param")
            for i, main in enumerate(self.main)
        ]
        rng = ShardedObject("rng_state", [torch.get_rng_state()], (1,), (0,), replica_id=dist.get_rank())
        kept = {"optimizer": optimizer, "fp32_from_fp16_params": [main]}
        return {"model": model, "optimizer": kept, "rng_state": rng, "iteration": iteration, "checkpoint_version": 3.0}

    def load(self, folder: Path) -> int:
        """Go on from a checkpoint; return its iteration."""
        self.step()  # AdamW makes its state in its first step
        loaded = dist_checkpointing.load(self.state(0), str(folder))
        self.model.load_state_dict(loaded["model"])
        kept = loaded["optimizer"]["optimizer"]
        step = kept["state"].pop("common_step")
        for state in kept["state"].values():
            state["step"] = step.clone()
        self.optimizer.load_state_dict(kept)
        for main, value in zip(self.main, loaded["optimizer"]["fp32_from_fp16_params"][0], strict=True):
            main.copy_(value)
        return loaded["iteration"]


def write(out: Path) -> None:
    training = Training()
    for iteration in (10, 20, 30):
        folder = out / f"iter_{iteration:07d}"
        folder.mkdir(parents=True, exist_ok=True)
        training.step()
        dist_checkpointing.save(training.state(iteration), str(folder))
        expected = dist_checkpointing.load_plain_tensors(str(folder))
        expected = {k: v for k, v in expected.items() if torch.is_tensor(v) and not k.startswith("optimizer.")}
        if dist.get_rank() == 0:
            (out / "latest_checkpointed_iteration.txt").write_text(str(iteration))
            torch.save(expected, out / f"expected-{iteration}.pt")


def resume(merged: Path) -> None:
    iteration = int((merged.parent / "latest_checkpointed_iteration.txt").read_text())
    assert merged.name == f"iter_{iteration:07d}"
    training = Training()
    assert training.load(merged) == iteration
    weights = [parameter.detach().clone() for parameter in training.parameters]
    training.copy_down()  # the merge stays, since the fp32 copies were merged too
    for before, after in zip(weights, training.parameters, strict=True):
        torch.testing.assert_close(before, after.detach(), rtol=0.02, atol=1e-4)
    training.step()
    assert {float(state["step"]) for state in training.optimizer.state.values()} == {4.0}
    assert all(bool(torch.isfinite(parameter).all()) for parameter in training.parameters)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=dist.get_world_size())
    write(Path(sys.argv[1])) if len(sys.argv) == 2 else resume(Path(sys.argv[2]))
    dist.barrier()
    dist.destroy_process_group()
