"""Models: configs of every scale, counts, the loss and its router, and what must survive a save."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM

from pma.config import CONF_DIR, ModelConfig
from pma.model.build import build, flops_per_token, load_pretrained, parameter_counts
from pma.model.loss import Bf16Loss, loss
from pma.train.one_process import MicroBatches

FILES = sorted((CONF_DIR / "model").glob("*/*.yaml"))
LADDERS = [
    ["dense_411m", "dense_2b", "dense_8b", "dense_70b"],
    ["moe_1.3b_13b", "moe_3b_30b", "moe_10b_100b", "moe_20b_200b"],
]


def read(path: Path) -> ModelConfig:
    m = OmegaConf.merge(OmegaConf.structured(ModelConfig), OmegaConf.load(path))
    OmegaConf.set_readonly(m, True)
    return m


def smoke(name: str) -> ModelConfig:
    name, _, changed = name.partition(" ")
    return replace(OmegaConf.to_object(read(CONF_DIR / "model" / "smoke" / f"{name}.yaml")), qk_norm=not changed)


def make(name: str, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(smoke(name), max_positions=64)


def some_tokens(batch: int = 4, length: int = 32) -> torch.Tensor:
    return torch.randint(512, (batch, length + 1), generator=torch.Generator().manual_seed(0))


def next_token_loss(model: torch.nn.Module, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return loss(model, tokens[:, :-1], tokens[:, 1:])


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


DENSE, MOE = "dense_411m", "moe_1.3b_13b"
kinds = pytest.mark.parametrize("name", [DENSE, MOE, f"{DENSE} without-qk-norm", f"{MOE} without-qk-norm"])
moe = pytest.mark.parametrize("name", [MOE, f"{MOE} without-qk-norm"])


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_config_states_its_true_size(path):
    m = read(path)
    assert m.name == f"{path.parent.name}/{path.stem}" and m.kind == path.stem.split("_")[0]
    counts = parameter_counts(m)
    body = counts.total - counts.embedding, counts.active - counts.embedding
    stated = f"{counts.total:,} total, {counts.active:,} active; without embeddings {body[0]:,} and {body[1]:,}."
    assert stated in path.read_text()
    if m.nominal_total is not None:
        assert counts.total == pytest.approx(m.nominal_total, rel=0.03)
        assert counts.active == pytest.approx(m.nominal_active, rel=0.03)


def test_the_paper_scale_states_the_paper_sizes():
    assert all(read(p).nominal_total for p in FILES if p.parent.name == "paper")


@pytest.mark.parametrize("scale", ["smoke", "cpu", "gpu", "paper"])
@pytest.mark.parametrize("ladder", LADDERS, ids=["dense", "moe"])
def test_ladders_grow(scale, ladder):
    sizes = [read(CONF_DIR / "model" / scale / f"{name}.yaml") for name in ladder]
    for small, large in zip(sizes, sizes[1:], strict=False):
        assert parameter_counts(large).total > 1.3 * parameter_counts(small).total
        assert flops_per_token(large, 64) > 1.2 * flops_per_token(small, 64)


@kinds
def test_counts_are_those_of_the_built_model(name):
    counts = parameter_counts(smoke(name))
    model = make(name)
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.embedding == model.lm_head.weight.numel()
    if name.startswith("moe"):  # 2 of 4 experts idle, of 3 matrices each, in 2 layers
        assert counts.total - counts.active == 2 * 2 * 3 * 16 * 16
    else:
        assert counts.total == counts.active


def test_flops_by_hand():
    m = smoke("dense_411m")  # 2 layers: q, k, v, o, three feed-forward matrices, four gains; a last gain; lm_head
    multiplied = 2 * (16 * 32 * 2 + 16 * 16 * 2 + 3 * 16 * 48 + 2 * 16 + 2 * 16) + 16 + 512 * 16
    assert flops_per_token(m, 64) == 6 * multiplied + 12 * 2 * 2 * 16 * 64


@kinds
def test_only_qk_norm_is_switched_off(name):
    plain, ours = (make(n).state_dict() for n in (name.split()[0], name))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in plain.items() if k in ours}
    assert all("q_norm" in k or "k_norm" in k for k in plain.keys() - ours.keys())
    assert any("q_norm" in k for k in ours) == smoke(name).qk_norm


@kinds
def test_same_seed_same_model(name):
    a, b, c = (make(name, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["lm_head.weight"], c["lm_head.weight"])
    assert all(tensor.dtype == torch.float32 for tensor in a.values())


@kinds
def test_loss_and_gradients_equal_those_of_transformers(name):
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


@kinds
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_targets_not_learnt_count_nothing_in_loss_and_gradients(name, micro_batches):
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


def test_a_micro_batch_without_anything_to_learn_leaves_the_rest_as_it_is():
    model, tokens = make("dense_411m"), some_tokens()
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[2:] = -100
    reported = MicroBatches(model, loss, 2, threads=1).backward(inputs, targets)
    assert torch.equal(reported, next_token_loss(model, tokens[:2])[0])


@kinds
def test_cross_entropy_equals_that_of_labels(name):
    model, tokens = make(name), some_tokens()
    with torch.no_grad():
        theirs = model(input_ids=tokens, labels=tokens, output_router_logits=False).loss
        torch.testing.assert_close(next_token_loss(model, tokens)[0], theirs)


@moe
def test_load_balancing_counts_every_layer(name):
    model, tokens = make(name), some_tokens()
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


@kinds
def test_mixed_precision_computes_in_bf16_and_keeps_router_and_gradients_in_fp32(name):
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


def sort_tokens_by_expert(model: torch.nn.Module) -> None:
    """As on a GPU."""
    for module in model.modules():
        if hasattr(module, "sorted_forward"):
            module.forward = module.sorted_forward


@moe
def test_experts_of_the_gpu_compute_what_transformers_do(name):
    model, tokens = make(name), some_tokens()
    expected = next_token_loss(model, tokens)[1]
    expected.backward()
    expected_gradients = gradients(model)
    model.zero_grad()
    sort_tokens_by_expert(model)
    total = next_token_loss(model, tokens)[1]
    total.backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(gradients(model), expected_gradients, rtol=1e-4, atol=1e-6)


@kinds
def test_the_gpu_step_is_one_graph(name):
    # fullgraph refuses whatever would make the host wait for a GPU: .item(), nonzero, control flow on values.
    model, tokens = make(name), some_tokens()
    exact = next_token_loss(model, tokens)[0]  # also the first call, at which transformers puts hooks in
    sort_tokens_by_expert(model)
    step = torch.compile(Bf16Loss.rounded, fullgraph=True, dynamic=False, backend="aot_eager")
    cross_entropy, total = step(Bf16Loss(model), tokens[:, :-1], tokens[:, 1:])
    total.backward()
    torch.testing.assert_close(cross_entropy, exact, rtol=1e-3, atol=0)
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@kinds
def test_round_trip_gives_the_same_model(name, tmp_path):
    model, tokens = make(name), some_tokens()
    next_token_loss(model, tokens)[1].backward()
    model.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    ours = load_pretrained(tmp_path)
    assert type(plain) is type(ours) is type(model)
    with torch.no_grad():
        logits = model(tokens).logits
        assert torch.equal(plain(tokens).logits, logits)
        assert torch.equal(ours(tokens).logits, logits)
    first, second = next_token_loss(model, tokens)[1], next_token_loss(ours, tokens)[1]
    assert torch.equal(first, second)


def test_loading_from_a_wrong_folder_says_so(tmp_path):
    with pytest.raises(ValueError, match="no config.json"):
        load_pretrained(tmp_path)


@kinds
def test_replicas_in_threads_give_the_same_bits_as_in_turn(name):
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
