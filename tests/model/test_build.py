"""Models of every scale: configs, counts, and what must survive a save and a load."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from pma.config import CONF_DIR
from pma.model.build import flops_per_token, load_pretrained, load_weights, parameter_counts

FILES = sorted((CONF_DIR / "model").glob("*/*.yaml"))
LADDERS = [
    ["dense_411m", "dense_2b", "dense_8b", "dense_70b"],
    ["moe_1.3b_13b", "moe_3b_30b", "moe_10b_100b", "moe_20b_200b"],
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_config_states_its_true_size(path, read):
    m = read(path)
    assert m.name == f"{path.parent.name}/{path.stem}" and m.kind == path.stem.split("_")[0]
    counts = parameter_counts(m)
    body = counts.total - counts.embedding, counts.active - counts.embedding
    stated = f"{counts.total:,} total, {counts.active:,} active; without embeddings {body[0]:,} and {body[1]:,}."
    assert stated in path.read_text()
    if m.nominal_total is not None:
        assert counts.total == pytest.approx(m.nominal_total, rel=0.03)
        assert counts.active == pytest.approx(m.nominal_active, rel=0.03)


def test_the_paper_scale_states_the_paper_sizes(read):
    assert all(read(p).nominal_total for p in FILES if p.parent.name == "paper")


@pytest.mark.parametrize("scale", ["smoke", "cpu", "gpu", "paper"])
@pytest.mark.parametrize("ladder", LADDERS, ids=["dense", "moe"])
def test_ladders_grow(scale, ladder, read):
    sizes = [read(CONF_DIR / "model" / scale / f"{name}.yaml") for name in ladder]
    for small, large in zip(sizes, sizes[1:], strict=False):
        assert parameter_counts(large).total > 1.3 * parameter_counts(small).total
        assert flops_per_token(large, 64) > 1.2 * flops_per_token(small, 64)


def test_counts_are_those_of_the_built_model(name, make, smoke):
    counts = parameter_counts(smoke(name))
    model = make(name)
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.embedding == model.lm_head.weight.numel()
    if name.startswith("moe"):  # 2 of 4 experts idle, of 3 matrices each, in 2 layers
        assert counts.total - counts.active == 2 * 2 * 3 * 16 * 16
    else:
        assert counts.total == counts.active


def test_flops_by_hand(smoke):
    m = smoke("dense_411m")  # 2 layers: q, k, v, o, three feed-forward matrices, four gains; a last gain; lm_head
    multiplied = 2 * (16 * 32 * 2 + 16 * 16 * 2 + 3 * 16 * 48 + 2 * 16 + 2 * 16) + 16 + 512 * 16
    assert flops_per_token(m, 64) == 6 * multiplied + 12 * 2 * 2 * 16 * 64


def test_only_qk_norm_is_switched_off(name, make, smoke):
    plain, ours = (make(n).state_dict() for n in (name.split()[0], name))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in plain.items() if k in ours}
    assert all("q_norm" in k or "k_norm" in k for k in plain.keys() - ours.keys())
    assert any("q_norm" in k for k in ours) == smoke(name).qk_norm


def test_same_seed_same_model(name, make):
    a, b, c = (make(name, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["lm_head.weight"], c["lm_head.weight"])
    assert all(tensor.dtype == torch.float32 for tensor in a.values())


def test_round_trip_gives_the_same_model(name, tmp_path, make, some_tokens, next_token_loss):
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


def test_weights_of_another_shape_are_refused_in_one_line(make):
    with pytest.raises(ValueError, match="other shapes than the model"):
        load_weights(make("dense_411m"), make("dense_2b").state_dict())


def test_weights_under_the_names_of_another_library_are_refused_in_one_line(make, capfd):
    model = make("dense_411m")
    renamed = {f"decoder.{name}": tensor for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"missing, and instead decoder\..* found; .* converter to Hugging Face"):
        load_weights(model, renamed)
    assert capfd.readouterr() == ("", "")
