"""A plane of weight space: known geometry, what each point puts into the model, the way to the optimum."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pma.config import ModelConfig
from pma.merge import average, sma
from pma.model.build import build
from pma.weightspace.landscape import fit_plane, measure, snapshot_vectors, weight_vector, write_vector

TINY = {"name": "tiny", "vocab_size": 32, "hidden_size": 8, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 4}
DENSE = ModelConfig(kind="dense", intermediate_size=8, **TINY)
MOE = ModelConfig(kind="moe", experts=4, experts_per_token=2, expert_intermediate_size=8, **TINY)


def snapshots_of(model: torch.nn.Module, folder: Path, n: int) -> list[Path]:
    generator = torch.Generator().manual_seed(0)
    folders = [folder / str(i) for i in range(n)]
    for path in folders:
        for p in model.parameters():
            p.data += 0.05 * torch.randn(p.shape, generator=generator)
        model.save_pretrained(path)
    return folders


@pytest.fixture(scope="module")
def moe(tmp_path_factory):
    torch.manual_seed(0)
    model = build(MOE, max_positions=16)
    return model, snapshots_of(model, tmp_path_factory.mktemp("snapshots"), n=9)


@pytest.fixture(scope="module")
def measured(moe):
    """Four snapshots before a window of four, and an end; the loss is the squared distance to a point of the plane."""
    model, folders = moe
    outside, window, annealed = folders[:4], dict(zip((10, 20, 30, 40), folders[4:8], strict=True)), folders[8]
    plane = fit_plane(snapshot_vectors(outside, model), snapshot_vectors([annealed], model)[0])
    target = plane.point(torch.tensor([2.5, 0.3], dtype=torch.float64))

    def loss() -> float:
        vector = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        return float((vector - target).square().sum())

    return measure(window, outside, annealed, model, lambda: {"a": 1.0}, loss, resolution=4), plane, target


@pytest.mark.parametrize("config", [DENSE, MOE], ids=lambda m: m.kind)
def test_a_vector_written_back_gives_the_same_model(config, tmp_path):
    model = build(config, max_positions=16)
    folders = snapshots_of(model, tmp_path, n=2)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}  # the newest snapshot
    vectors = snapshot_vectors(folders, model)
    assert vectors.shape == (2, sum(p.numel() for p in model.parameters()))
    write_vector(model, vectors[0])
    assert not torch.equal(model.lm_head.weight, expected["lm_head.weight"])
    write_vector(model, vectors[1])
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in expected.items())
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert vectors[1].count_nonzero() > 0.9 * vectors.shape[1]  # the vector shares no memory with the model


def test_the_plane_runs_through_the_mean_and_the_end_and_along_the_widest_scatter():
    axes = torch.linalg.qr(torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0].T
    start = torch.randn(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scatter = torch.tensor([[0.0, -3.0, 0.2], [1.0, -1.0, -0.2], [-1.0, 1.0, 0.2], [0.0, 3.0, -0.2]]).double()
    plane = fit_plane(start + scatter @ axes, start + 7 * axes[0])
    torch.testing.assert_close(plane.basis @ plane.basis.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(plane.origin, start)
    torch.testing.assert_close(plane.coordinates((start + 7 * axes[0])[None])[0], torch.tensor([7.0, 0.0]).double())
    assert (plane.basis[1] @ axes[1]).abs() > 0.99 and plane.coordinates((start + scatter[-1] @ axes)[None])[0, 1] > 0
    back = plane.point(torch.tensor([2.0, -1.0], dtype=torch.float64))
    torch.testing.assert_close(plane.coordinates(back[None])[0], torch.tensor([2.0, -1.0]).double())


def test_the_grid_grows_until_its_optimum_is_an_inner_point(measured):
    table, _, _ = measured
    grid = table[(table["role"] == "grid") & (table["metric"] == "loss")]
    best = grid.loc[grid["value"].idxmin()]
    assert grid["x"].min() < best["x"] < grid["x"].max() and grid["y"].min() < best["y"] < grid["y"].max()
    optimum = table[(table["role"] == "optimum") & (table["metric"] == "loss")].iloc[0]
    assert optimum[["x", "y", "value"]].tolist() == best[["x", "y", "value"]].tolist()
    for axis, target in (("x", 2.5), ("y", 0.3)):  # the nearest point of the grid
        lines = sorted(grid[axis].unique())
        assert abs(best[axis] - target) <= (lines[1] - lines[0]) / 2 + 1e-6


def test_scores_are_those_of_the_weights_at_the_point(moe, measured):
    (model, folders), (table, plane, target) = moe, measured
    losses = table[table["metric"] == "loss"]
    merged = weight_vector(model, average(folders[4:8], sma(4)))
    row = losses[losses["role"] == "merged"].iloc[0]
    assert row["value"] == pytest.approx((merged - target).square().sum().item(), rel=1e-4)
    assert row[["x", "y"]].tolist() == pytest.approx(plane.coordinates(merged[None])[0].tolist(), abs=1e-4)
    counts = table[table["metric"] == "a"].groupby("role").size().to_dict()
    assert (counts["snapshot"], counts["merged"], counts["annealed"]) == (4, 1, 1)
    assert (losses["role"] == "outside").sum() == 4


def test_a_line_leads_from_the_weights_themselves_to_the_optimum(moe, measured):
    (model, folders), (table, plane, target) = moe, measured
    best = table[table["role"] == "optimum"].iloc[0]
    optimum = plane.point(torch.tensor([best["x"], best["y"]], dtype=torch.float64))
    snapshot = snapshot_vectors(folders[6:7], model)[0]  # of 30 tokens, off the plane
    line = table[(table["role"] == "line") & (table["tokens"] == 30)].sort_values("along")
    assert line["along"].tolist() == [0, 0.25, 0.5, 0.75]
    for along, value in zip(line["along"], line["value"], strict=True):
        expected = (snapshot + along * (optimum - snapshot) - target).square().sum().item()
        assert value == pytest.approx(expected, rel=1e-3)
    assert 0 < table["share"].iloc[0] < 1


def test_what_spans_no_plane_is_refused(moe):
    model, folders = moe
    with pytest.raises(ValueError, match="at least 2 and 3"):
        measure({1: folders[0]}, folders[:3], folders[8], model, dict, float, resolution=4)
    vectors = snapshot_vectors(folders[:3], model)
    with pytest.raises(ValueError, match="at least 3"):
        fit_plane(vectors[:2], vectors[2])
    with pytest.raises(ValueError, match="along one line"):
        fit_plane(torch.stack([vectors[0]] * 3), vectors[1])
