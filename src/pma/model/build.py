"""Dense and MoE language models: built from a `ModelConfig` or loaded from a folder, and counted.

Dense is transformers' Qwen3, MoE its Qwen3-MoE: pre-norm, rotary positions, grouped-query attention with QK-norm,
SwiGLU; every layer of an MoE is sparse, without a shared expert. The same without QK-norm is its Llama and Mixtral.
What is saved is plain Qwen3, Qwen3-MoE, Llama or Mixtral.

Counting convention, here and in conf/model: every parameter counts, embeddings and lm_head included (once when
tied). Active parameters are all of them but the experts a token is not routed to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.utils import logging as transformers_logging

from pma.config import ModelConfig
from pma.model.moe import adapt, expert_groups

transformers_logging.disable_progress_bar()  # a bar for each of hundreds of snapshots helps nobody


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters; `embedding` is the share of `total` and of `active` in embeddings and lm_head."""

    total: int
    active: int
    embedding: int


def hf_config(m: ModelConfig, max_positions: int, eos_token_id: int = 0) -> PreTrainedConfig:
    """Return the transformers config of a model for sequences of up to `max_positions` tokens."""
    shared: dict[str, Any] = {
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
        shared["intermediate_size"] = m.intermediate_size
        return (Qwen3Config if m.qk_norm else LlamaConfig)(**shared)
    shared |= {
        "num_experts_per_tok": m.experts_per_token,
        "output_router_logits": True,
        "router_aux_loss_coef": m.load_balancing_coefficient,
    }
    if not m.qk_norm:
        shared |= {"num_local_experts": m.experts, "intermediate_size": m.expert_intermediate_size}
        return MixtralConfig(**shared)
    shared |= {"num_experts": m.experts, "moe_intermediate_size": m.expert_intermediate_size}
    return Qwen3MoeConfig(norm_topk_prob=True, **shared)


def build(m: ModelConfig, max_positions: int, eos_token_id: int = 0) -> PreTrainedModel:
    """Return a freshly initialised model on the CPU in fp32; the same torch.manual_seed gives the same weights."""
    config = hf_config(m, max_positions, eos_token_id)
    return adapt(AutoModelForCausalLM.from_config(config, dtype=torch.float32))


def build_meta(m: ModelConfig) -> PreTrainedModel:
    """Return the model without storage, on the meta device: any size in about a second, for counting."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(hf_config(m, max_positions=1))


def load_pretrained(folder: Path) -> PreTrainedModel:
    """Load a model folder in Hugging Face layout, in fp32 on the CPU.

    Raises:
        ValueError: when the folder holds no model, or not all of it.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no config.json in it; give the folder of a snapshot or of a merged model")
    with loading(folder):
        result: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    model, report = result
    _require_whole(report, str(folder))
    return adapt(model)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder.

    Raises:
        ValueError: when there is none, or a damaged one.
    """
    with loading(folder):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Turn whatever transformers makes of damaged files of a folder into one error that names it.

    Raises:
        ValueError: naming the folder.
    """
    try:
        yield
    except Exception as error:  # a config or tokenizer that says something odd fails anywhere in transformers
        first = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{folder}: not loaded ({first}); put its files back as they were written") from None


def assets_folder(checkpoint: Path, assets: str | None) -> Path:
    """Where config and tokenizer of a checkpoint lie: in `assets`, in its folder, or beside its file.

    Raises:
        ValueError: saying which of them is not there.
    """
    place = Path(assets) if assets is not None else checkpoint if checkpoint.is_dir() else checkpoint.parent
    for name, pattern in (("tokenizer", "tokenizer*"), ("config.json", "config.json")):
        if not any(place.glob(pattern)):
            raise ValueError(f"{place}: no {name} there; assets=FOLDER names a folder with config and tokenizer")
    return place


def load_architecture(folder: Path) -> PreTrainedModel:
    """Build the model that a folder's config.json describes, in fp32 on the CPU; its weights are still random.

    Args:
        folder: see `assets_folder`.

    Raises:
        ValueError: for a config that no model can be built from.
    """
    with loading(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        return adapt(AutoModelForCausalLM.from_config(config, dtype=torch.float32))


def _require_whole(report: dict[str, Any], source: str) -> None:
    # transformers only warns about missing tensors, and initialises them at random.
    if not report["missing_keys"]:
        return
    missing, strange = _some(report["missing_keys"]), _some(report["unexpected_keys"])
    if strange:
        raise ValueError(
            f"{source}: {missing} missing, and instead {strange} found; give weights of this architecture, and use a "
            f"trainer's converter to Hugging Face's layout first where it has names of its own"
        )
    raise ValueError(f"{source}: {missing} missing; give the folder of a whole model")


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep transformers from printing a table of the tensors that do not fit: the error that follows names them."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def load_weights(model: PreTrainedModel, tensors: dict[str, Tensor]) -> None:
    """Put `tensors`, named and shaped as in a saved model folder, into `model` in place.

    Raises:
        ValueError: when a tensor of the model is missing, or has another shape.
    """
    # Through from_pretrained, because a saved MoE holds a tensor for each expert, a model in memory one for all.
    try:
        with _without_warnings():
            result: Any = type(model).from_pretrained(
                None, config=model.config, state_dict=tensors, dtype=torch.float32, output_loading_info=True
            )
    except RuntimeError as error:  # how transformers reports a shape, after a table of all of them
        if "mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            "the weights to load have other shapes than the model; give some of its architecture"
        ) from None
    loaded, report = result
    _require_whole(report, "the weights to load")
    copy_parameters(model, loaded.state_dict())


def copy_parameters(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy whole or sharded tensors, by name, into a model's parameters, which may be sharded."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(laid_out_as(parameter, tensors[name]))


def laid_out_as(like: Tensor, value: Tensor) -> Tensor:
    """Return `value`, sharded over processes where `like` is."""
    if isinstance(like, DTensor) and not isinstance(value, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value


def parameter_counts(m: ModelConfig) -> ParameterCounts:
    """Return exact counts, taken from the model on the meta device."""
    model = build_meta(m)
    total = sum(p.numel() for p in model.parameters())
    idle = 0
    if m.experts and m.experts_per_token:
        experts = sum(p.numel() for group in expert_groups(model) for p in group.parameters())
        idle = experts // m.experts * (m.experts - m.experts_per_token)
    tables = {model.get_input_embeddings().weight, model.get_output_embeddings().weight}
    return ParameterCounts(total=total, active=total - idle, embedding=sum(p.numel() for p in tables))


def flops_per_token(m: ModelConfig, sequence_length: int) -> float:
    """Return the training FLOPs a token: 6 N + 12 L H Q T (PaLM, arXiv 2204.02311, appendix B).

    N are the active parameters that are multiplied with: without the embedding lookup, with lm_head even where it is
    tied. L layers, H heads of dimension Q, T = sequence_length; causality is not discounted, as in the source.
    """
    counts = parameter_counts(m)
    multiplied = counts.active - counts.embedding + m.vocab_size * m.hidden_size
    return 6.0 * multiplied + 12.0 * m.layers * m.heads * m.head_dim * sequence_length
