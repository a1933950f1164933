"""Memory of training by formulas, from a model's shapes alone; tests/plan/test_plan_memory.py measures the same."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from pma.config import ModelConfig
from pma.model.build import build_meta
from pma.model.loss import LOGITS_AT_ONCE_CPU, LOGITS_AT_ONCE_GPU

_LOGITS_AT_ONCE = {True: LOGITS_AT_ONCE_GPU, False: LOGITS_AT_ONCE_CPU}


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters of one layer and of what stands outside the layers, and all tensors' shapes."""

    layer: int
    root: int
    shapes: tuple[tuple[int, ...], ...]

    @property
    def total(self) -> int:
        """Parameters in all."""
        return self.share(1)

    def share(self, gpus: int) -> int:
        """The largest number of parameters that one of so many GPUs holds.

        FSDP2 divides every tensor along its first axis, so that a tensor of experts helps as many GPUs as it has
        experts, and no more.
        """
        return sum(-(-shape[0] // gpus) * math.prod(shape[1:]) for shape in self.shapes)


def sizes(m: ModelConfig) -> Sizes:
    """Sizes of a model, from its shapes on the meta device."""
    model = build_meta(m)
    shapes = tuple(tuple(p.shape) for p in model.parameters())
    layers = [sum(p.numel() for p in layer.parameters()) for layer in model.model.layers]
    return Sizes(max(layers), sum(map(math.prod, shapes)) - sum(layers), shapes)


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the peak, by part. An upper bound: the parts do not all peak at the same moment."""

    parameters: float
    gradients: float
    optimizer: float
    working: float  # copies to compute with, and gradients on their way to the shards
    activations: float
    head: float  # of the cross-entropy while it runs

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(asdict(self).values())


def layer_activations(m: ModelConfig, element: int) -> float:
    """Bytes a token that autograd keeps of one layer; `element` is 2 for bf16, 4 for fp32.

    Counted as in arXiv 2205.05198, section 4.1, for this forward: attention that keeps its inputs, output and fp32
    log-sum-exp, and no matrix of scores; norms that keep an fp32 input, its fp32 scale, and the normalised values;
    SwiGLU that keeps gate, silu(gate), up and their product. An MoE has, for each of a token's experts, its copy of
    the input, the same four and its output (`_SortedExperts.sorted_forward`), and an fp32 input of the router.
    """
    d, q, k = m.hidden_size, m.heads * m.head_dim, m.kv_heads * m.head_dim
    attention = (2 * q + 2 * k) * element + 4 * m.heads
    norms = 2 * ((4 + element) * d + 4) + element * d  # and what queries, keys and values are made of
    if m.qk_norm:
        norms += (4 + element) * (q + k) + 4 * (m.heads + m.kv_heads)
    if m.kind == "dense":
        return attention + norms + element * (d + 4 * m.intermediate_size)
    router = 4 * d + 4 * m.experts + 4 + 32 * m.experts_per_token  # fp32 probabilities and weights, int64 places
    copies = m.experts_per_token * element * (2 * d + 4 * m.expert_intermediate_size)
    return attention + norms + router + copies


def outer_activations(m: ModelConfig, tokens: int, sequence_length: int, element: int) -> float:
    """Bytes that autograd keeps outside the layers of `tokens` tokens: the final norm, the gradients that the
    cross-entropy takes at once (of its input and of its weight), ids, rotary tables, and the load-balancing loss."""
    per_token = (4 + 2 * element) * m.hidden_size + 4 + 8
    if m.kind == "moe":
        per_token += m.layers * (4 * m.experts + 8 * m.experts_per_token)
    rotary = 2 * element * m.head_dim * sequence_length
    return tokens * per_token + rotary + element * m.vocab_size * m.hidden_size


def activation_bytes(
    m: ModelConfig, tokens: int, sequence_length: int, element: int = 2, recompute: bool = False
) -> float:
    """Bytes that autograd keeps for the backward pass of `tokens` tokens at once.

    With `recompute` it keeps each layer's input, and all of the one layer that is computed again.
    """
    layer = tokens * layer_activations(m, element)
    kept = layer + m.layers * tokens * element * m.hidden_size if recompute else m.layers * layer
    return kept + outer_activations(m, tokens, sequence_length, element)


def training_memory(
    m: ModelConfig, s: Sizes, gpus: int, tokens: int, sequence_length: int, recompute: bool, gpu: bool = True
) -> Memory:
    """Memory of one process that works on `tokens` tokens at once.

    fp32 parameters (4 bytes), gradients (4) and AdamW moments (8) are sharded over the GPUs. To compute, FSDP2 gathers
    bf16 copies of a layer and of the next (2 bytes each); the gradients of one layer wait in bf16 (2) and in fp32 for
    the reduction (4); embedding, final norm and head stay gathered. One GPU holds a bf16 copy of the whole model
    (pma.model.Bf16Loss), a CPU none. The cross-entropy needs the fp32 gradient of its weight, and 8 bytes a logit of
    one chunk.
    """
    share = s.share(gpus)
    working = 0.0 if not gpu else 2.0 * s.total if gpus == 1 else 10.0 * s.layer + 2.0 * s.root
    logits = min(tokens, max(1, _LOGITS_AT_ONCE[gpu] // m.vocab_size)) * m.vocab_size
    activations = activation_bytes(m, tokens, sequence_length, 2 if gpu else 4, recompute)
    head = 4 * m.vocab_size * m.hidden_size + 8 * logits
    return Memory(4 * share, 4 * share, 8 * share, working, activations, head)


def shard_bytes(m: ModelConfig, gpus: int) -> int:
    """Bytes of the fp32 parameters that the first of `gpus` processes holds, the largest share: FSDP2's own sharding
    of the model on the meta device, under a fake process group."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    model = build_meta(m).float()
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=gpus)
    try:
        mesh = init_device_mesh("cpu", (gpus,))
        for part in (*model.model.layers, model):
            fully_shard(part, mesh=mesh)
        return sum(p.to_local().nbytes for p in model.parameters())
    finally:
        dist.destroy_process_group()


def check_shards(m: ModelConfig, s: Sizes, gpus: int) -> None:
    """Hold `Sizes.share`, which the plan counts with, against FSDP2's own sharding, to 10%."""
    sharded, counted = shard_bytes(m, gpus), 4 * s.share(gpus)
    assert abs(sharded - counted) <= 0.1 * counted, f"{m.name} on {gpus} GPUs: {sharded} bytes a GPU, counted {counted}"
