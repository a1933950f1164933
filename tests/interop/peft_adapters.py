"""Adapters by PEFT's own code: `write OUT` makes OUT/checkpoint-N, `verify OUT MERGED W...` loads a merge of them.

Run in the environment that tests/interop/check.py makes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

STEPS = (10, 20, 30)


def base() -> nn.Module:
    """The model that the adapters change; the same at each call."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 8), nn.Linear(8, 5))


def write(out: Path) -> None:
    """Train an adapter with rank-stabilised scales and save it three times."""
    config = LoraConfig(r=3, lora_alpha=4, use_rslora=True, target_modules=["0", "1", "2"], rank_pattern={"2": 2})
    model = get_peft_model(base(), config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for step in STEPS:
        for _ in range(3):
            optimizer.zero_grad()
            (model(torch.arange(11)) - 1).square().sum().backward()
            optimizer.step()
        model.save_pretrained(out / f"checkpoint-{step}")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of the model with an adapter merged into it by PEFT, in float64."""
    model = PeftModel.from_pretrained(base(), folder).double().merge_and_unload()
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def verify(out: Path, merged: Path, shares: list[float]) -> float:
    """The largest difference between the model with the merged adapter and the mean of the models with each."""
    each = [weights(out / f"checkpoint-{step}") for step in STEPS]
    made = weights(merged)
    return max(
        float((tensor - sum(share * one[name] for share, one in zip(shares, each, strict=True))).abs().max())
        for name, tensor in made.items()
    )


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        print(verify(Path(sys.argv[2]), Path(sys.argv[3]), [float(share) for share in sys.argv[4:]]))
