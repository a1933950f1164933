"""Routers and experts: what they balance, and that sorting tokens changes nothing."""

from __future__ import annotations

import torch


def test_load_balancing_counts_every_layer(moe_name, make, some_tokens, next_token_loss):
    model, tokens = make(moe_name), some_tokens()
    inputs = []
    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(lambda gate, args, out: inputs.append((gate.weight, args[0])))
    cross_entropy, total = next_token_loss(model, tokens)
    assert len(inputs) == model.config.num_hidden_layers

    p = torch.cat([(x.reshape(-1, x.shape[-1]) @ w.T).softmax(-1) for w, x in inputs])
    chosen = torch.zeros_like(p).scatter(1, p.topk(2, dim=-1).indices, 1.0)
    expected = 4 * (chosen.mean(0) * p.mean(0)).sum()  # experts * sum of f_i P_i
    torch.testing.assert_close((total - cross_entropy) / 0.01, expected, rtol=1e-3, atol=0)
    assert expected >= 2 * 0.99  # near its floor, experts per token, at initialisation

    (total - cross_entropy).backward()
    assert all(layer.mlp.gate.weight.grad.abs().sum() > 0 for layer in model.model.layers)


def test_experts_of_the_gpu_compute_what_transformers_do(
    moe_name, make, some_tokens, gradients, next_token_loss, sort_tokens_by_expert
):
    model, tokens = make(moe_name), some_tokens()
    expected = next_token_loss(model, tokens)[1]
    expected.backward()
    expected_gradients = gradients(model)
    model.zero_grad()
    sort_tokens_by_expert(model)
    total = next_token_loss(model, tokens)[1]
    total.backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradients(model), expected_gradients, rtol=1e-4, atol=1e-6)
