"""What is minimised and how: the loss in the precision of the device, the optimizer, the clipping of gradients."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from omegaconf import DictConfig
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from pma.config import TrainConfig
from pma.model.loss import Bf16Loss, loss

# (model, inputs, targets) -> (reported loss, loss to differentiate), both means over the targets that are not negative
Loss = Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]


def training_loss(cfg: DictConfig, device: torch.device, say: Callable[[str], None]) -> Loss:
    """Return the loss of one process: fp32 on a CPU, bf16 with fp32 parameters on a GPU; compiled where that pays.

    Args:
        say: prints a line, should torch.compile be impossible here.
    """
    compiled = cfg.compile if cfg.compile is not None else device.type == "cuda"
    if compiled and device.type == "cpu" and shutil.which("g++") is None:
        say("no C++ compiler (g++) here: training without torch.compile")
        compiled = False
    eager: Loss = loss if device.type == "cpu" else Bf16Loss.rounded
    # One graph: a break in it would make the host wait for the GPU in every step.
    step = torch.compile(eager, fullgraph=True, dynamic=False) if compiled else eager

    @cache
    def prepared(model: PreTrainedModel) -> nn.Module:
        module = model if device.type == "cpu" else Bf16Loss(model)
        if compiled:  # transformers puts hooks in at a model's first call, which a graph cannot hold
            token = torch.zeros(1, 1, dtype=torch.int64, device=device)
            with torch.no_grad():
                eager(module, token, token)
        return module

    return lambda model, inputs, targets: step(prepared(model), inputs, targets)


def make_optimizer(t: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW (arXiv 1711.05101) or schedule-free AdamW (arXiv 2405.15682) at rate 0.

    The gains of norms do not decay, as is usual since GPT-2.
    """
    decayed = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": t.weight_decay}, {"params": gains, "weight_decay": 0.0}]
    if t.optimizer == "schedule_free":
        optimizer = AdamWScheduleFree(groups, lr=0.0, betas=(t.beta1, t.beta2), eps=t.eps)
        optimizer.train()
        return optimizer
    return torch.optim.AdamW(groups, lr=0.0, betas=(t.beta1, t.beta2), eps=t.eps, fused=True)


def clip_gradients(parameters: list[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scale the gradients down to a common norm of at most `max_norm` (None: leave them), and return their norm before.

    Of sharded parameters all processes call it together, and get the norm over all of them.
    """
    norm = nn.utils.clip_grad_norm_(parameters, max_norm or float("inf"))
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
