"""Eq. 15: exact on a quadratic; Hessian products against differences of gradients on tiny models."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from pma.config import ModelConfig
from pma.merge import average, sma
from pma.model.build import build
from pma.model.loss import loss
from pma.weightspace.curvature import _cross_entropy, derivatives, measure
from pma.weightspace.inequality import hessian_terms, inequality, windows
from pma.weightspace.landscape import snapshot_vectors, weight_vector, write_vector

TINY = {"name": "tiny", "vocab_size": 32, "hidden_size": 16, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 8}
DENSE = ModelConfig(kind="dense", intermediate_size=16, **TINY)
MOE = ModelConfig(kind="moe", experts=4, experts_per_token=2, expert_intermediate_size=16, **TINY)
TOKENS = torch.randint(32, (6, 17), generator=torch.Generator().manual_seed(1))

both = pytest.mark.parametrize("config", [DENSE, MOE], ids=lambda m: m.kind)


def make(config: ModelConfig) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build(config, max_positions=32)
    with torch.no_grad():  # away from the symmetric start, where much of the Hessian is 0
        for p in model.parameters():
            p.mul_(4 if p.ndim > 1 else 1)
    return model


def snapshots_of(model, folder, n=3, step=5e-4):
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.Generator().manual_seed(2)
    for i in range(n):
        model.load_state_dict({name: t + step * torch.randn(t.shape, generator=generator) for name, t in start.items()})
        model.save_pretrained(folder / str(i))
    model.load_state_dict(start)
    return [folder / str(i) for i in range(n)]


def losses_of(singles: list[float], merged: float) -> pd.DataFrame:
    rows = [("snapshot", 1, 0, i, value) for i, value in enumerate(singles, 1)]
    rows.append(("merged", len(singles), 1, len(singles), merged))
    return pd.DataFrame(rows, columns=["what", "n", "interval", "tokens", "value"])


def quadratic(k: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Terms and losses of L(x) = 3 + g'x + 1/2 x'Hx around 0, with an H that is not definite, from `derivatives`."""
    generator = torch.Generator().manual_seed(seed)
    gradient, half, points = (torch.randn(s, generator=generator).double() for s in (6, (6, 6), (k, 6)))
    hessian = half + half.T

    def value(x):
        return 3 + gradient @ x + x @ hessian @ x / 2

    x = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    first, second = derivatives(value(x), [x], points)
    torch.testing.assert_close(first, points @ gradient)
    torch.testing.assert_close(second, points @ hessian @ points.T)
    numbered = range(1, k + 1)
    terms = pd.DataFrame([("hessian", i, j, second[i - 1, j - 1].item()) for i in numbered for j in numbered])
    losses = losses_of([value(point).item() for point in points], value(points.mean(0)).item())
    return terms.set_axis(["term", "i", "j", "value"], axis=1), losses


@pytest.mark.parametrize("k,seed", [(2, 0), (3, 1), (10, 2)])
def test_on_a_quadratic_the_predicted_gain_is_the_gain(k, seed):
    terms, losses = quadratic(k, seed)
    assert windows(losses) == [list(range(k, 0, -1))]
    result = inequality(terms, losses, range(1, k + 1))
    assert result["predicted_gain"] == pytest.approx(result["measured_gain"], rel=1e-9)
    assert (result["cross"] < result["bound"]) == (result["measured_gain"] > 0)
    assert 0 <= result["negative_curvature"] <= 1


def test_sides_of_the_inequality_by_hand():
    # One direction, H = 2, d = (1, 3): cross 2 * 1 * 2 * 3 = 12, bound 2 + 18 = 20, gain 2 * variance / 2 = 1.
    values = {(1, 1): 2.0, (1, 2): 6.0, (2, 1): 6.0, (2, 2): 18.0}
    terms = pd.DataFrame([("hessian", i, j, v) for (i, j), v in values.items()], columns=["term", "i", "j", "value"])
    result = inequality(terms, losses_of([1.0, 9.0], 4.0), [2, 1])
    assert result == pytest.approx(
        {"cross": 12, "bound": 20, "predicted_gain": 1, "measured_gain": 1, "negative_curvature": 0}
    )


def chosen_experts(model: torch.nn.Module, tokens: torch.Tensor) -> list[list]:
    logits = model.model(input_ids=tokens[:, :-1], use_cache=False, output_router_logits=True).router_logits
    return [layer.topk(2).indices.sort().values.tolist() for layer in logits]


@both
def test_double_backward_equals_differences_of_gradients(config):
    model = make(config)
    tokens = TOKENS[:1]
    parameters = list(model.parameters())
    count = sum(p.numel() for p in parameters)
    directions = torch.randn(2, count, generator=torch.Generator().manual_seed(3))
    first, second = derivatives(_cross_entropy(model, tokens), parameters, directions)
    routing = []

    def slopes(point):
        # Through the loss of training, with its fused head and attention.
        write_vector(model, point)
        if config is MOE:
            routing.append(chosen_experts(model, tokens))
        gradients = torch.autograd.grad(loss(model, tokens[:, :-1], tokens[:, 1:])[0], parameters)
        return directions.double() @ torch.cat([g.flatten() for g in gradients]).double()

    origin = torch.nn.utils.parameters_to_vector(parameters).detach().clone()
    torch.testing.assert_close(first, slopes(origin), rtol=1e-4, atol=1e-4)
    step = 1e-4
    differences = [(slopes(origin + step * d) - slopes(origin - step * d)) / (2 * step) for d in directions]
    assert all(experts == routing[0] for experts in routing)  # else a jump, not a derivative, is measured
    torch.testing.assert_close(second, torch.stack(differences), rtol=0.01, atol=0.01 * second.abs().max().item())
    torch.testing.assert_close(second, second.T, rtol=1e-3, atol=1e-4 * second.abs().max().item())


@both
def test_measured_terms_predict_measured_losses(config, tmp_path):
    model = make(config)
    folders = dict(zip((10, 20, 30), snapshots_of(model, tmp_path), strict=True))
    reference = average([folders[10]], [1.0])
    terms, losses = measure(folders, [(30, 20, 10), (30, 20)], reference, model, TOKENS)
    loss_of = losses.set_index(["what", "n", "tokens"])["value"]
    assert loss_of["snapshot", 1, 10] == loss_of["reference", 1, 0]
    first = terms[terms["term"] == "gradient"].set_index("i")["value"]
    second = terms[terms["term"] == "hessian"].set_index(["i", "j"])["value"]
    assert first[10] == 0 and second[10, 10] == 0  # snapshot 10 is the reference
    for i in (20, 30):
        change = loss_of["snapshot", 1, i] - loss_of["reference", 1, 0]
        assert change == pytest.approx(first[i] + second[i, i] / 2, rel=0.2, abs=2e-6)
    assert windows(losses) == [[30, 20, 10], [30, 20]]
    write_vector(model, weight_vector(model, average(list(folders.values()), sma(3))))
    assert loss_of["merged", 3, 30] == pytest.approx(loss(model, TOKENS[:, :-1], TOKENS[:, 1:])[0].item(), abs=1e-5)


def test_the_terms_of_a_window_are_those_it_has_alone(tmp_path):
    model = make(DENSE)
    folders = dict(zip((10, 20, 30), snapshots_of(model, tmp_path), strict=True))
    reference = average([folders[20]], [1.0])
    together, _ = measure(folders, [(30, 20, 10), (30, 10)], reference, model, TOKENS)
    alone, _ = measure({at: folders[at] for at in (10, 30)}, [(30, 10)], reference, model, TOKENS)
    assert hessian_terms(together, [10, 30]) == pytest.approx(hessian_terms(alone), rel=1e-4, abs=1e-9)


def test_parts_do_not_change_the_result(tmp_path, monkeypatch):
    model = make(DENSE)
    folders = dict(enumerate(snapshots_of(model, tmp_path), 1))
    reference = average(list(folders.values()), sma(3))
    whole, losses = measure(folders, [(3, 2, 1)], reference, model, TOKENS)
    monkeypatch.setattr("pma.weightspace.curvature._TOKENS_AT_ONCE", 16 * 4)  # 4 and 2 sequences
    parts, losses_of_parts = measure(folders, [(3, 2, 1)], reference, model, TOKENS)
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-3, atol=1e-6)
    pd.testing.assert_frame_equal(losses, losses_of_parts, rtol=1e-5)
    vectors = snapshot_vectors(list(folders.values()), model)
    assert torch.allclose(vectors.mean(0), weight_vector(model, reference), atol=1e-7)


def test_a_window_of_one_snapshot_is_refused(tmp_path):
    model = make(DENSE)
    folders = snapshots_of(model, tmp_path, n=1)
    with pytest.raises(ValueError, match="at least 2"):
        measure({1: folders[0]}, [(1,)], average(folders, [1.0]), model, TOKENS)
