"""Dense and MoE language models from a `ModelConfig`, their exact parameter counts, and the training loss.

Dense is transformers' Qwen3, MoE its Qwen3-MoE: pre-norm, rotary positions, grouped-query attention with QK-norm,
SwiGLU; every layer of an MoE is sparse, without a shared expert. The same without QK-norm is its Llama and Mixtral.
What is saved is plain Qwen3, Qwen3-MoE, Llama or Mixtral.

Counting convention, here and in conf/model: every parameter counts, embeddings and lm_head included (once when
tied). Active parameters are all of them but the experts a token is not routed to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.func import functional_call
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.models.mixtral.modeling_mixtral import MixtralExperts, MixtralTopKRouter
from transformers.models.qwen3_moe.modeling_qwen3_moe import (
    Qwen3MoeExperts,
    Qwen3MoeTopKRouter,
    load_balancing_loss_func,
)
from transformers.utils import logging as transformers_logging

from pma.config import ModelConfig

_EXPERTS = (Qwen3MoeExperts, MixtralExperts)

transformers_logging.disable_progress_bar()  # a bar for each of hundreds of snapshots helps nobody


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters; `embedding` is the share of `total` and of `active` in embeddings and lm_head."""

    total: int
    active: int
    embedding: int


def hf_config(m: ModelConfig, max_positions: int, eos_token_id: int = 0) -> PreTrainedConfig:
    """The transformers config of a model for sequences of up to `max_positions` tokens."""
    shared = {
        "vocab_size": m.vocab_size,
        "hidden_size": m.hidden_size,
        "num_hidden_layers": m.layers,
        "num_attention_heads": m.heads,
        "num_key_value_heads": m.kv_heads,
        "head_dim": m.head_dim,
        "max_position_embeddings": max_positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": m.rope_theta},
        "tie_word_embeddings": m.tie_embeddings,
        "initializer_range": m.initializer_range,
        "attention_dropout": 0.0,
        "bos_token_id": eos_token_id,
        "eos_token_id": eos_token_id,
    }
    if m.kind == "dense":
        return (Qwen3Config if m.qk_norm else LlamaConfig)(intermediate_size=m.intermediate_size, **shared)
    shared |= {
        "num_experts_per_tok": m.experts_per_token,
        "output_router_logits": True,
        "router_aux_loss_coef": m.load_balancing_coefficient,
    }
    if not m.qk_norm:
        return MixtralConfig(num_local_experts=m.experts, intermediate_size=m.expert_intermediate_size, **shared)
    return Qwen3MoeConfig(
        num_experts=m.experts, moe_intermediate_size=m.expert_intermediate_size, norm_topk_prob=True, **shared
    )


def build(m: ModelConfig, max_positions: int, eos_token_id: int = 0) -> PreTrainedModel:
    """A freshly initialised model on the CPU in fp32; the same for the same torch.manual_seed."""
    config = hf_config(m, max_positions, eos_token_id)
    return _adapted(AutoModelForCausalLM.from_config(config, dtype=torch.float32))


def build_meta(m: ModelConfig) -> PreTrainedModel:
    """The model without storage, for counting: any size in about a second."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(hf_config(m, max_positions=1))


def load_pretrained(folder: Path) -> PreTrainedModel:
    """A model folder in Hugging Face layout, in fp32 on the CPU.

    Raises:
        ValueError: when the folder holds no model, or not all of it.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no config.json in it; give the folder of a snapshot or of a merged model")
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    _require_whole(report, str(folder))
    return _adapted(model)


def _require_whole(report: dict[str, Any], source: str) -> None:
    # transformers only warns, and initialises what is missing.
    if report["missing_keys"]:
        raise ValueError(f"{source}: {', '.join(sorted(report['missing_keys']))} missing; the model is not whole")


def load_weights(model: PreTrainedModel, tensors: dict[str, Tensor]) -> None:
    """Put `tensors`, named and shaped as in a saved model folder, into `model` in place.

    Raises:
        ValueError: when a tensor of the model is missing.
    """
    # Through from_pretrained, because a saved MoE holds one tensor an expert and a model in memory all of them in one.
    loaded, report = type(model).from_pretrained(
        None, config=model.config, state_dict=tensors, dtype=torch.float32, output_loading_info=True
    )
    _require_whole(report, "the weights given")
    copy_parameters(model, loaded.state_dict())


def copy_parameters(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy whole or sharded tensors, by name, into a model's parameters, which may be sharded."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(laid_out_as(parameter, tensors[name]))


def laid_out_as(like: Tensor, value: Tensor) -> Tensor:
    """A tensor, sharded over processes as another one is."""
    if isinstance(like, DTensor) and not isinstance(value, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


def parameter_counts(m: ModelConfig) -> ParameterCounts:
    """Exact counts, taken from the model on the meta device."""
    model = build_meta(m)
    total = sum(p.numel() for p in model.parameters())
    experts = sum(p.numel() for x in model.modules() if isinstance(x, _EXPERTS) for p in x.parameters())
    idle = experts // m.experts * (m.experts - m.experts_per_token) if experts else 0
    tables = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
    return ParameterCounts(total=total, active=total - idle, embedding=sum(p.numel() for p in tables))


def flops_per_token(m: ModelConfig, sequence_length: int) -> float:
    """Training FLOPs a token: 6 N + 12 L H Q T (PaLM, arXiv 2204.02311, appendix B).

    N are the active parameters that are multiplied with: without the embedding lookup, with lm_head even where it is
    tied. L layers, H heads of dimension Q, T = sequence_length; causality is not discounted, as in the source.
    """
    counts = parameter_counts(m)
    multiplied = counts.active - counts.embedding + m.vocab_size * m.hidden_size
    return 6.0 * multiplied + 12.0 * m.layers * m.heads * m.head_dim * sequence_length


def loss(model: PreTrainedModel, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Next-token loss of `inputs` with `targets`, both int64 (batch, length); a target of -100 is not learnt.

    Returns:
        The mean cross-entropy in nats a learnt target (0 where there is none), and the loss to differentiate: the
        same, for an MoE plus its coefficient times the load-balancing loss over all layers (Switch Transformer, arXiv
        2101.03961, eq. 4, summed over the chosen experts, so that perfect balance gives experts_per_token).
    """
    # No attention mask: attention is then causal by flag and nothing quadratic is materialised.
    outputs = model.model(input_ids=inputs, use_cache=False)
    hidden = outputs.last_hidden_state.flatten(0, 1)
    cross_entropy = _LinearCrossEntropy.apply(hidden, model.lm_head.weight, targets.flatten())
    config = model.config
    if not getattr(config, "num_experts", None):
        return cross_entropy, cross_entropy
    assert len(outputs.router_logits) == config.num_hidden_layers
    balance = load_balancing_loss_func(outputs.router_logits, config.num_experts, config.num_experts_per_tok)
    return cross_entropy, cross_entropy + config.router_aux_loss_coef * balance


class _LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of hidden @ weight.T, with the gradients taken at once, a few rows at a time.

    The logits of one chunk stay in cache and all of them never exist together (the idea of Cut Cross-Entropy, arXiv
    2411.09009, and of Liger Kernel, arXiv 2410.10989), which for small models halves the cost of the head on a CPU.
    Softmax and sums are fp32 whatever the dtype of the matrix products. Rows whose target is negative count nothing:
    their gradients are cleared in what is as wide as a hidden state, never in the logits.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        # 2 MiB of fp32 logits fit the second-level cache of a core; a GPU wants long matrix products.
        logits_at_once = 2**19 if hidden.device.type == "cpu" else 2**28
        rows = max(1, logits_at_once // len(weight))
        total = hidden.new_zeros((), dtype=torch.float32)
        hidden_grad, weight_grad = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        learnt = (targets >= 0)[:, None]
        count = learnt.sum().clamp(min=1)
        targets = targets.clamp(min=0)[:, None]
        chunks = zip(*(t.split(rows) for t in (hidden, targets, learnt, hidden_grad)), strict=True)
        for part, target, counts, part_grad in chunks:
            logits = F.linear(part, weight)
            log_p = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
            log_p_target = log_p.gather(1, target)
            total -= (log_p_target * counts).sum()
            # d(cross-entropy)/d(logits) = softmax - one_hot(target)
            logits_grad = log_p.exp_().scatter_(1, target, log_p_target.exp() - 1).to(logits.dtype)
            part_grad.copy_(logits_grad @ weight * counts)
            weight_grad += logits_grad.T @ (part * counts)
        ctx.save_for_backward(hidden_grad.div_(count), weight_grad.div_(count).to(weight.dtype))
        return total / count

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * grad, weight_grad * grad, None


class _Fp32Router(nn.Module):
    """Chooses experts in fp32 whatever comes in: rounded logits would flip choices (Switch, section 2.4)."""

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().forward(hidden_states.float())


class _SortedExperts(nn.Module):
    """On a GPU: transformers' grouped experts with gathers in both directions.

    Its own backward adds up the copies of a token by atomics, which is slow and differs from call to call.
    """

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        if hidden_states.device.type == "cpu":
            return super().forward(hidden_states, top_k_index, top_k_weights)
        return self.sorted_forward(hidden_states, top_k_index, top_k_weights)

    def sorted_forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """The sum over the chosen experts; hidden_states (tokens, width), the other two (tokens, chosen)."""
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
    def forward(ctx, x: Tensor, order: Tensor, back: Tensor, chosen: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.chosen = chosen
        return x[order // chosen]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        return grad[back].unflatten(0, (-1, ctx.chosen)).sum(1), None, None, None


class _FromExperts(torch.autograd.Function):
    """Rows put back from the permutation `order`, whose inverse is `back`."""

    @staticmethod
    def forward(ctx, rows: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return rows[back]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        (order,) = ctx.saved_tensors
        return grad[order], None, None


_ROUTERS = (Qwen3MoeTopKRouter, MixtralTopKRouter)
_REPLACEMENTS = {
    base: type(f"{mixin.__name__}{base.__name__}", (mixin, base), {})
    for mixin, bases in ((_Fp32Router, _ROUTERS), (_SortedExperts, _EXPERTS))
    for base in bases
}


def routers(model: nn.Module) -> list[nn.Module]:
    """The routers of an MoE."""
    return [module for module in model.modules() if isinstance(module, _ROUTERS)]


class LossModule(nn.Module):
    """`loss` of a model, as a module: what is sharded, or given other weights, as one."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """`loss` in the type that the parameters have."""
        return loss(self.model, inputs, targets)


class Bf16Loss(LossModule):
    """`loss` of a model in bf16 throughout but for its routers, norms' sums and the softmax; the parameters stay fp32.

    Every call rounds the parameters anew, and gradients come back to them in fp32: mixed precision with master weights
    (arXiv 1710.03740), whose residual stream is bf16 too, as under FSDP2's mixed precision.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        kept = {id(parameter) for router in routers(model) for parameter in router.parameters()}
        self._rounded = [name for name, parameter in self.named_parameters() if id(parameter) not in kept]

    def rounded(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """`loss` in bf16."""
        parameters = dict(self.named_parameters())
        weights = {name: parameters[name].bfloat16() for name in self._rounded}
        return functional_call(self, weights, (inputs, targets))


def _adapted(model: PreTrainedModel) -> PreTrainedModel:
    # Another class for the same module, and no hook or wrapper: names, weights, copies and saved files stay plain.
    for module in model.modules():
        module.__class__ = _REPLACEMENTS.get(type(module), type(module))
    return model
