"""The plan's memory formulas against what autograd, the optimizer and FSDP2 hold."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from pma.config import CONF_DIR, ModelConfig, TrainConfig
from pma.model.build import build
from pma.model.loss import Bf16Loss, loss
from pma.plan.memory import activation_bytes, check_shards, layer_activations, outer_activations, sizes, training_memory
from pma.train.objective import make_optimizer

SEQUENCES, LENGTH = 2, 128


def small(kind: str, **changes) -> ModelConfig:
    name = {"dense": "dense_411m", "moe": "moe_1.3b_13b"}[kind]
    path = CONF_DIR / "model" / "smoke" / f"{name}.yaml"
    m = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(path)))
    # Widths that differ from each other, so that no term of a formula can stand in for another.
    return replace(m, hidden_size=96, layers=3, heads=4, kv_heads=2, head_dim=16, **changes)


def trained(m: ModelConfig, dtype: torch.dtype = torch.float32, recompute: bool = False) -> tuple[nn.Module, int]:
    """A model after a backward pass, and the bytes that autograd kept for it, but for parameters and their copies."""
    torch.manual_seed(0)
    model = build(m, LENGTH)
    for module in model.modules():  # as on a GPU
        if hasattr(module, "sorted_forward"):
            module.forward = module.sorted_forward
    if recompute:
        model.train().gradient_checkpointing_enable({"use_reentrant": False})
    inputs, targets = torch.randint(m.vocab_size, (2, SEQUENCES, LENGTH))
    with torch.no_grad():
        loss(model, inputs, targets)  # transformers puts hooks in at the first call
    weights = {tuple(p.shape) for p in model.parameters() if p.ndim > 1} - {(m.vocab_size, m.hidden_size)}
    weights |= {tuple(shape[::-1]) for shape in weights if len(shape) == 2}
    weights |= {(shape[0], shape[2], shape[1]) for shape in weights if len(shape) == 3}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        copy = dtype == torch.bfloat16 and tuple(tensor.shape) in weights
        if not copy and tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    step = loss if dtype == torch.float32 else Bf16Loss(model).rounded
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        total = step(*((model,) if dtype == torch.float32 else ()), inputs, targets)[1]
    bytes_kept = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    total.backward()
    return model, bytes_kept


kinds = pytest.mark.parametrize("kind", ["dense", "moe"])


@kinds
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_what_autograd_keeps(kind, qk_norm, dtype):
    m = small(kind, qk_norm=qk_norm)
    _, measured = trained(m, dtype)
    assert activation_bytes(m, SEQUENCES * LENGTH, LENGTH, dtype.itemsize) == pytest.approx(measured, rel=0.1)


@kinds
def test_recomputation_keeps_inputs_of_layers(kind):
    m, tokens = small(kind), SEQUENCES * LENGTH
    _, measured = trained(m, recompute=True)  # what a layer computes again passes no hook
    one_layer = trained(m)[1] - trained(replace(m, layers=m.layers - 1))[1]  # and its load balancing
    formula = activation_bytes(m, tokens, LENGTH, 4, recompute=True)
    assert formula == pytest.approx(measured + one_layer, rel=0.1)
    assert outer_activations(m, tokens, LENGTH, 4) + tokens * layer_activations(m, 4) < formula


@kinds
def test_parameters_gradients_and_moments_are_what_a_step_holds(kind):
    m = small(kind)
    model, _ = trained(m)
    optimizer = make_optimizer(TrainConfig(), model)
    optimizer.step()
    memory = training_memory(m, sizes(m), 1, SEQUENCES * LENGTH, LENGTH, recompute=False, gpu=False)
    assert memory.parameters == pytest.approx(sum(p.nbytes for p in model.parameters()), rel=0.1)
    assert memory.gradients == pytest.approx(sum(p.grad.nbytes for p in model.parameters()), rel=0.1)
    moments = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    assert memory.optimizer == pytest.approx(moments, rel=0.1)


@kinds
@pytest.mark.parametrize("gpus", [2, 3, 8])  # more than the experts too, and where nothing divides evenly
def test_shards_are_those_of_fsdp(kind, gpus):
    m = small(kind)
    check_shards(m, sizes(m), gpus)
    with pytest.raises(AssertionError, match="counted"):
        check_shards(m, replace(sizes(m), shapes=sizes(m).shapes[:-10]), gpus)
    assert not torch.distributed.is_initialized()
