"""The training loss: cross-entropy without all logits at once, load balancing for an MoE, in fp32 or bf16."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from pma.model.moe import routers

# Logits that the cross-entropy holds at once, a chunk of rows times the vocabulary. 2 MiB of fp32 logits fit the
# second-level cache of a CPU core; a GPU wants long matrix products.
LOGITS_AT_ONCE_CPU = 2**19
LOGITS_AT_ONCE_GPU = 2**28


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
    """Mean cross-entropy of hidden @ weight.T; the forward pass computes the gradients too, a chunk of rows at a time.

    The logits of one chunk stay in cache and all of them never exist together (the idea of Cut Cross-Entropy, arXiv
    2411.09009, and of Liger Kernel, arXiv 2410.10989), which for small models halves the cost of the head on a CPU.
    Softmax and sums are fp32 whatever the dtype of the matrix products. Rows whose target is negative count nothing:
    their gradients are cleared in what is as wide as a hidden state, never in the logits.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        logits_at_once = LOGITS_AT_ONCE_CPU if hidden.device.type == "cpu" else LOGITS_AT_ONCE_GPU
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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * grad, weight_grad * grad, None


class LossModule(nn.Module):
    """`loss` of a model, as a module: FSDP2 shards modules, and `functional_call` gives modules other weights."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return `loss` in the type that the parameters have."""
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
        """Return `loss` in bf16."""
        parameters = dict(self.named_parameters())
        weights = {name: parameters[name].bfloat16() for name in self._rounded}
        return functional_call(self, weights, (inputs, targets))
