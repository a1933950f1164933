"""Planes of weight space: known geometry, the merged model's place, what each point puts into the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pma.config import ModelConfig
from pma.merge import average, sma
from pma.model.build import build
from pma.weightspace.landscape import (
    planes,
    principal_plane,
    snapshot_vectors,
    weight_vector,
    weights_plane,
    write_vector,
)

TINY = {"name": "tiny", "vocab_size": 32, "hidden_size": 8, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 4}
DENSE = ModelConfig(kind="dense", intermediate_size=8, **TINY)
MOE = ModelConfig(kind="moe", experts=4, experts_per_token=2, expert_intermediate_size=8, **TINY)
GAINS = ("model.layers.1.input_layernorm.weight", "model.layers.1.post_attention_layernorm.weight")


def snapshots_of(model: torch.nn.Module, folder: Path, n: int = 4) -> list[Path]:
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
    return model, snapshots_of(model, tmp_path_factory.mktemp("snapshots"))


@pytest.fixture(scope="module")
def table(moe):
    model, folders = moe
    return planes(folders, model, lambda: {"a": model.lm_head.weight.sum().item(), "b": 1.0}, resolution=3, margin=0.5)


@pytest.mark.parametrize("config", [DENSE, MOE], ids=lambda m: m.kind)
def test_a_vector_written_back_gives_the_same_model(config, tmp_path):
    model = build(config, max_positions=16)
    folders = snapshots_of(model, tmp_path, n=2)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}  # the newest snapshot
    vectors = snapshot_vectors(folders, model)
    assert vectors.shape == (2, sum(p.numel() for p in model.parameters()))
    write_vector(model, vectors[0])
    assert not torch.equal(model.state_dict()[GAINS[0]], expected[GAINS[0]])
    write_vector(model, vectors[1])
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in expected.items())
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert vectors[1].count_nonzero() > 0.9 * vectors.shape[1]  # the vector shares no memory with the model


def test_principal_plane_of_known_geometry():
    # Points of an ellipse in the plane of two orthonormal directions, and a little noise of known size across it.
    axes = torch.linalg.qr(torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0].T
    angles = torch.linspace(0.3, 0.3 + 2 * torch.pi, 9, dtype=torch.float64)[:-1]
    across = 0.1 * torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    inside = torch.stack([5 * angles.cos(), 2 * angles.sin(), across], dim=1)
    plane = principal_plane(inside @ axes)
    torch.testing.assert_close(plane.basis @ plane.basis.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close((plane.basis @ axes.T).abs(), torch.eye(2, 3, dtype=torch.float64), atol=1e-9, rtol=0)
    at = plane.coordinates(inside @ axes)
    torch.testing.assert_close(at.abs(), inside[:, :2].abs())
    assert (at[-1] >= 0).all()
    back = torch.stack([plane.deviation(point) for point in at])
    torch.testing.assert_close(back, inside[:, :2].sign() * inside[:, :2].abs() @ axes[:2])


def test_weights_plane_shifts_two_tensors_and_holds_the_rest(moe):
    model, folders = moe
    merged = weight_vector(model, average(folders, sma(4)))
    plane = weights_plane(model, merged)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.testing.assert_close(plane.merged, torch.stack([before[name].double().mean() for name in GAINS]))
    point = plane.merged + torch.tensor([0.25, -0.5])
    write_vector(model, merged + plane.deviation(point))
    for name, p in model.named_parameters():
        shift = dict(zip(GAINS, (0.25, -0.5), strict=True)).get(name, 0.0)
        torch.testing.assert_close(p.detach(), before[name] + shift)
    vectors = snapshot_vectors(folders, model)
    write_vector(model, vectors[2])
    means = [dict(model.named_parameters())[name].detach().double().mean() for name in GAINS]
    torch.testing.assert_close(plane.coordinates(vectors - merged)[2], torch.stack(means), atol=1e-6, rtol=0)


def test_the_table_holds_every_point_of_both_planes(table):
    counts = table[table["metric"] == "a"].groupby(["plane", "role"]).size()
    for plane in ("weights", "principal"):
        assert counts[plane].to_dict() == {"grid": 9, "snapshot": 4, "snapshot_in_plane": 4, "merged": 1}
    assert set(table["metric"]) == {"a", "b"} and table.notna().all(axis=None)


def test_merged_is_at_the_origin_and_the_mean_of_the_dots(table):
    for plane, rows in table.groupby("plane"):
        merged = rows[rows["role"] == "merged"].iloc[0]
        dots = rows[rows["role"] == "snapshot"]
        assert merged[["x", "y"]].tolist() == pytest.approx(dots[["x", "y"]].mean().tolist(), abs=1e-6)
        assert plane == "weights" or merged[["x", "y"]].tolist() == [0, 0]


def test_the_grid_reaches_beyond_the_snapshots_by_the_margin(table):
    for _, rows in table.groupby("plane"):
        grid, dots = (rows.loc[rows["role"] == role, "x"] for role in ("grid", "snapshot"))
        span = dots.max() - dots.min()
        assert grid.min() == pytest.approx(dots.min() - 0.5 * span)
        assert grid.max() == pytest.approx(dots.max() + 0.5 * span)


def test_scores_are_those_of_the_weights_at_the_point(moe, table):
    model, folders = moe
    # The score is linear in the weights: in the plane it is merged + its change along each direction.
    rows = table[(table["plane"] == "principal") & (table["metric"] == "a")]
    merged = rows[rows["role"] == "merged"].iloc[0]
    grid = rows[rows["role"] == "grid"]
    corners = grid.pivot(index="y", columns="x", values="value").to_numpy()
    assert corners[1, 1] == pytest.approx(corners[[0, 0, 2, 2], [0, 2, 0, 2]].mean(), abs=1e-4)
    newest = rows[(rows["role"] == "snapshot") & (rows["snapshot"] == 4)].iloc[0]
    for row, tensors in ((merged, average(folders, sma(4))), (newest, average(folders[3:], [1.0]))):
        assert row["value"] == pytest.approx(tensors["model.embed_tokens.weight"].sum().item(), abs=1e-4)
    # Norm gains are no part of the score: in the other plane nothing moves it.
    flat = table[(table["plane"] == "weights") & (table["metric"] == "a") & (table["role"] != "snapshot")]
    assert flat["value"].nunique() == 1


def test_explained_shares_are_of_the_whole_variance(table, moe):
    shares = table.groupby("plane")[["explained_x", "explained_y"]].first()
    assert (shares.loc["weights"] < 0.05).all() and (shares.loc["weights"] > 0).all()
    assert shares.loc["principal", "explained_x"] >= shares.loc["principal", "explained_y"] > 0.1
    assert shares.loc["principal"].sum() <= 1


def test_snapshots_that_span_no_plane_are_refused(moe, tmp_path):
    model, folders = moe
    with pytest.raises(ValueError, match="at least 3"):
        planes(folders[:2], model, dict, resolution=3)
    with pytest.raises(ValueError, match="span no plane"):
        planes([folders[0], folders[0], folders[1]], model, dict, resolution=3)
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="missing"):
        planes([tmp_path] * 3, model, dict, resolution=3)
