"""The parts of an MoE that compute otherwise than in transformers: fp32 routers, and experts on sorted tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.mixtral.modeling_mixtral import MixtralExperts, MixtralTopKRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts, Qwen3MoeTopKRouter

_EXPERTS = (Qwen3MoeExperts, MixtralExperts)
_ROUTERS = (Qwen3MoeTopKRouter, MixtralTopKRouter)


def routers(model: nn.Module) -> list[nn.Module]:
    """Return the routers of a model, one a layer; a dense model has none."""
    return [module for module in model.modules() if isinstance(module, _ROUTERS)]


def expert_groups(model: nn.Module) -> list[nn.Module]:
    """Return the modules that hold all experts of a layer, one a layer; a dense model has none."""
    return [module for module in model.modules() if isinstance(module, _EXPERTS)]


def adapt(model: PreTrainedModel) -> PreTrainedModel:
    """Give the routers and experts of `model` the classes below, in place, and return it.

    Only the class of a module changes, without a hook or a wrapper, so that names, weights, copies and saved files
    stay those of transformers.
    """
    for module in model.modules():
        module.__class__ = _REPLACEMENTS.get(type(module), type(module))
    return model


class _Fp32Router(nn.Module):
    """Chooses experts in fp32 whatever the input: rounded logits would flip choices (Switch, section 2.4)."""

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(hidden_states.float())


class _SortedExperts(nn.Module):
    """On a GPU: transformers' grouped experts with gathers in both directions.

    The backward pass of transformers adds up the copies of a token by atomics, which is slow and differs from call to
    call.
    """

    # of transformers' class, which this one stands before
    num_experts: int
    gate_up_proj: Tensor
    down_proj: Tensor
    _apply_gate: Callable[[Tensor], Tensor]

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        if hidden_states.device.type == "cpu":
            return super().forward(hidden_states, top_k_index, top_k_weights)
        return self.sorted_forward(hidden_states, top_k_index, top_k_weights)

    def sorted_forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Return the weighted sum over each token's chosen experts, (tokens, width).

        Args:
            hidden_states: (tokens, width).
            top_k_index: the chosen experts, int64 (tokens, chosen).
            top_k_weights: their weights, (tokens, chosen).
        """
        experts, order = torch.sort(top_k_index.flatten(), stable=True)
        back = torch.argsort(order)
        each = torch.arange(self.num_experts, device=experts.device)
        ends = torch.searchsorted(experts, each, right=True, out_int32=True)  # rows up to each expert's last
        rows = _ToExperts.apply(hidden_states, order, back, top_k_index.shape[1])
        rows = self._apply_gate(F.grouped_mm(rows, self.gate_up_proj.transpose(-2, -1), offs=ends))
        rows = F.grouped_mm(rows, self.down_proj.transpose(-2, -1), offs=ends)
        copies = _FromExperts.apply(rows, order, back).view(*top_k_index.shape, -1)
        return (copies * top_k_weights[..., None]).sum(1).to(hidden_states.dtype)


class _ToExperts(torch.autograd.Function):
    """Row `order[i] // chosen` of x for each i; `back` is the inverse of the permutation `order`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor, chosen: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.chosen = chosen
        return x[order // chosen]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        return grad[back].unflatten(0, (-1, ctx.chosen)).sum(1), None, None, None


class _FromExperts(torch.autograd.Function):
    """Rows put back from the permutation `order`, whose inverse is `back`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return rows[back]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (order,) = ctx.saved_tensors
        return grad[order], None, None


_REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    base: type(f"{mixin.__name__}{base.__name__}", (mixin, base), {})
    for mixin, bases in ((_Fp32Router, _ROUTERS), (_SortedExperts, _EXPERTS))
    for base in bases
}
