"""Names and shapes of Qwen3's tensors in torchtitan, and what transformers calls them."""

from __future__ import annotations

from pma.config import ModelConfig

TensorNames = dict[str, tuple[tuple[int, ...], list[str]]]  # by torchtitan's name: shape, transformers' names


def tensor_names(m: ModelConfig) -> TensorNames:
    """Shape of every tensor of torchtitan's Qwen3, and its names in models that transformers saves.

    A tensor of grouped experts has a name for each expert: it stacks their matrices along the first axis, each as
    transformers saves it. All other tensors have one name. Tied models have their lm_head in the embeddings.
    Source: torchtitan/models/qwen3/state_dict_adapter.py.
    """
    h, q, kv = m.hidden_size, m.heads * m.head_dim, m.kv_heads * m.head_dim
    of_layer: dict[str, tuple[tuple[int, ...], str]] = {
        "attention_norm.weight": ((h,), "input_layernorm.weight"),
        "attention.qkv_linear.wq.weight": ((q, h), "self_attn.q_proj.weight"),
        "attention.qkv_linear.wk.weight": ((kv, h), "self_attn.k_proj.weight"),
        "attention.qkv_linear.wv.weight": ((kv, h), "self_attn.v_proj.weight"),
        "attention.wo.weight": ((h, q), "self_attn.o_proj.weight"),
        "attention.q_norm.weight": ((m.head_dim,), "self_attn.q_norm.weight"),
        "attention.k_norm.weight": ((m.head_dim,), "self_attn.k_norm.weight"),
        "ffn_norm.weight": ((h,), "post_attention_layernorm.weight"),
    }
    if m.kind == "dense":
        f = m.intermediate_size
        assert f is not None  # pma.config.validate refuses anything else
        for source, target, shape in (("w1", "gate", (f, h)), ("w3", "up", (f, h)), ("w2", "down", (h, f))):
            of_layer[f"feed_forward.{source}.weight"] = shape, f"mlp.{target}_proj.weight"
    else:
        e, f = m.experts, m.expert_intermediate_size
        assert e is not None and f is not None  # pma.config.validate refuses anything else
        of_layer["moe.router.gate.weight"] = (e, h), "mlp.gate.weight"
        for source, target, shape in (("w1_EFD", "gate", (f, h)), ("w3_EFD", "up", (f, h)), ("w2_EDF", "down", (h, f))):
            name = f"moe.routed_experts.inner_experts.{source}"
            of_layer[name] = (e, *shape), f"mlp.experts.{{}}.{target}_proj.weight"
    tensors: TensorNames = {"tok_embeddings.weight": ((m.vocab_size, h), ["model.embed_tokens.weight"])}
    tensors |= {"norm.weight": ((h,), ["model.norm.weight"])}
    if not m.tie_embeddings:
        tensors["lm_head.weight"] = (m.vocab_size, h), ["lm_head.weight"]
    for i in range(m.layers):
        for name, (whole, target) in of_layer.items():
            targets = [target.format(e) for e in range(m.experts or 0)] if "{}" in target else [target]
            tensors[f"layers.{i}.{name}"] = whole, [f"model.layers.{i}.{saved}" for saved in targets]
    return tensors
