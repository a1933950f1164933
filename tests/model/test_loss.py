"""The training loss and its gradients against transformers', in fp32 and bf16, in one graph, in threads."""

from __future__ import annotations

import copy
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from pma.model.loss import Bf16Loss, loss
from pma.train.one_process import MicroBatches


def test_loss_and_gradients_equal_those_of_transformers(name, make, some_tokens, gradients, next_token_loss):
    model, tokens = make(name), some_tokens(41, 64)  # 2624 rows: more than one chunk of logits, the last one shorter
    cross_entropy, total = next_token_loss(model, tokens)
    assert cross_entropy.item() == pytest.approx(math.log(512), rel=0.01)
    total.backward()
    ours = gradients(model)

    model.zero_grad()
    outputs = model(input_ids=tokens[:, :-1])
    expected = F.cross_entropy(outputs.logits.flatten(0, 1), tokens[:, 1:].flatten())
    expected_total = expected + 0.01 * outputs.aux_loss if name.startswith("moe") else expected
    torch.testing.assert_close(cross_entropy, expected)
    torch.testing.assert_close(total, expected_total)
    expected_total.backward()
    for key, grad in gradients(model).items():
        torch.testing.assert_close(ours[key], grad, rtol=1e-4, atol=1e-7, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_targets_not_learnt_count_nothing_in_loss_and_gradients(name, micro_batches, make, some_tokens, gradients):
    model, tokens = make(name), some_tokens()
    model.config.router_aux_loss_coef = 0.0
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[0, :20] = targets[1] = targets[3, 5] = -100  # micro-batches differ in how many targets they learn
    reported = MicroBatches(model, loss, micro_batches, threads=1).backward(inputs, targets)
    ours = gradients(model)

    model.zero_grad()
    expected = F.cross_entropy(model(input_ids=inputs).logits.flatten(0, 1), targets.flatten())
    expected.backward()
    torch.testing.assert_close(reported, expected.detach())
    for key, grad in gradients(model).items():
        torch.testing.assert_close(ours[key], grad, rtol=1e-4, atol=1e-7, msg=lambda text, key=key: f"{key}: {text}")


def test_a_micro_batch_without_anything_to_learn_leaves_the_rest_as_it_is(make, some_tokens, next_token_loss):
    model, tokens = make("dense_411m"), some_tokens()
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[2:] = -100
    reported = MicroBatches(model, loss, 2, threads=1).backward(inputs, targets)
    assert torch.equal(reported, next_token_loss(model, tokens[:2])[0])


def test_cross_entropy_equals_that_of_labels(name, make, some_tokens, next_token_loss):
    model, tokens = make(name), some_tokens()
    with torch.no_grad():
        theirs = model(input_ids=tokens, labels=tokens, output_router_logits=False).loss
        torch.testing.assert_close(next_token_loss(model, tokens)[0], theirs)


def test_mixed_precision_computes_in_bf16_and_keeps_router_and_gradients_in_fp32(
    name, make, some_tokens, next_token_loss
):
    model, tokens = make(name), some_tokens()
    exact = next_token_loss(model, tokens)[0]
    seen = {}
    block = model.model.layers[0].mlp
    if hasattr(block, "gate"):
        block.gate.register_forward_hook(lambda gate, args, out: seen.update(logits=out[0].dtype))
    block.register_forward_hook(lambda mlp, args, out: seen.update(mlp=(args[0].dtype, out.dtype)))
    cross_entropy, total = Bf16Loss(model).rounded(tokens[:, :-1], tokens[:, 1:])
    assert seen.get("logits", torch.float32) == torch.float32 and seen["mlp"] == (torch.bfloat16, torch.bfloat16)
    assert cross_entropy.dtype == total.dtype == torch.float32
    assert not torch.equal(cross_entropy, exact)
    torch.testing.assert_close(cross_entropy, exact, rtol=1e-3, atol=0)
    total.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_the_gpu_step_is_one_graph(name, make, some_tokens, next_token_loss, sort_tokens_by_expert):
    # fullgraph refuses whatever would make the host wait for a GPU: .item(), nonzero, control flow on values.
    model, tokens = make(name), some_tokens()
    exact = next_token_loss(model, tokens)[0]  # also the first call, at which transformers puts hooks in
    sort_tokens_by_expert(model)
    step = torch.compile(Bf16Loss.rounded, fullgraph=True, dynamic=False, backend="aot_eager")
    cross_entropy, total = step(Bf16Loss(model), tokens[:, :-1], tokens[:, 1:])
    total.backward()
    torch.testing.assert_close(cross_entropy, exact, rtol=1e-3, atol=0)
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_replicas_in_threads_give_the_same_bits_as_in_turn(name, make, some_tokens, gradients, next_token_loss):
    torch.set_num_threads(1)
    model, tokens = make(name), some_tokens(8)
    replica = copy.deepcopy(model)
    for own, shared in zip(replica.parameters(), model.parameters(), strict=True):
        own.data = shared.data

    def step(net: torch.nn.Module, part: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        net.zero_grad()
        total = next_token_loss(net, part)[1]
        total.backward()
        return total.detach(), gradients(net)

    in_turn = [step(model, part) for part in tokens.chunk(2)]
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in range(5):
            at_once = list(pool.map(step, (model, replica), tokens.chunk(2)))
            for (loss_a, grads_a), (loss_b, grads_b) in zip(in_turn, at_once, strict=True):
                assert torch.equal(loss_a, loss_b)
                assert all(torch.equal(grads_a[key], grads_b[key]) for key in grads_a)
