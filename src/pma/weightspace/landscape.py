"""Score the weights of two planes that run through a merged model (Figure 8 of arXiv 2505.12082).

The merged model is the mean of the snapshots (SMA). Every point of a plane is merged + (x - x0) u + (y - y0) v, with
the merged model at (x0, y0); what stands in neither direction is held at the merged model's values.

weights: our reading of the paper's axes, "the mean of two chosen parameters of one layer". Two parameter tensors A
    and B of one layer, x = mean of A, y = mean of B: a point shifts all entries of A by one constant and all of B by
    another. The choice looks at no data: the middle layer (number layers // 2, from 0) and its two RMSNorm gains, in
    front of attention and of the feed-forward or experts. A shift of gains scales what the block reads; the mean of
    a weight matrix, near 0, stands for nothing.
principal: through the first two principal directions of the snapshots, distances in the L2 norm of the weights, the
    merged model at (0, 0), the newest snapshot at x, y >= 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from tqdm import tqdm
from transformers import PreTrainedModel

from pma.merge import average
from pma.model.build import load_weights


@torch.no_grad()
def weight_vector(model: PreTrainedModel, tensors: dict[str, Tensor]) -> Tensor:
    """Weights, named as in a model folder, as a vector (parameters of `model`,) on its device; they stay in `model`.

    Raises:
        ValueError: when a tensor of the model is missing.
    """
    load_weights(model, tensors)
    return parameters_to_vector(model.parameters())


def snapshot_vectors(folders: Sequence[Path], model: PreTrainedModel) -> Tensor:
    """Snapshots of `model`'s architecture as rows: (snapshots, parameters), fp32.

    Raises:
        ValueError: for folders that cannot be averaged, or with weights missing.
    """
    return torch.stack([weight_vector(model, average([folder], [1.0])) for folder in folders])


@torch.no_grad()
def write_vector(model: PreTrainedModel, vector: Tensor) -> None:
    """Copy a vector of `weight_vector` into the parameters in place: hundreds of points a second for a small model."""
    parameters = list(model.parameters())
    for parameter, part in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(part.view_as(parameter))


@dataclass(frozen=True)
class Plane:
    """A plane through the merged model.

    Attributes:
        basis: (2, parameters), orthogonal rows: a step of 1 along x and along y.
        merged: (2,) float64, coordinates of the merged model.
    """

    name: str
    basis: Tensor
    merged: Tensor

    def coordinates(self, deviations: Tensor) -> Tensor:
        """(n, 2) float64: where weights fall that differ from the merged model by `deviations` (n, parameters)."""
        return self.merged + _products(deviations, self.basis) / self.squared_lengths()

    def deviation(self, point: Tensor) -> Tensor:
        """(parameters,): the weights at `point` (2,) minus the merged model."""
        return (point - self.merged).to(self.basis) @ self.basis

    def squared_lengths(self) -> Tensor:
        """(2,) float64: of the basis."""
        return _products(self.basis, self.basis).diagonal()


def _products(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T in float64 on the CPU, without a float64 copy of the whole."""
    parts = zip(a.split(2**22, dim=1), b.split(2**22, dim=1), strict=True)
    return sum(part.double() @ other.double().T for part, other in parts).cpu()


def weights_plane(model: PreTrainedModel, merged: Tensor) -> Plane:
    """The plane of the means of two norm gains of one layer: `weights` in the text at the top of this file.

    Args:
        model: of the snapshots' architecture; only names and shapes are read.
        merged: the mean of the snapshots as a vector of `weight_vector`.
    """
    layer = f"model.layers.{model.config.num_hidden_layers // 2}"
    chosen = [f"{layer}.{norm}.weight" for norm in ("input_layernorm", "post_attention_layernorm")]
    named = dict(model.named_parameters())
    assert all(name in named for name in chosen), chosen
    basis = torch.stack(
        [torch.cat([merged.new_full((p.numel(),), name == axis) for name, p in named.items()]) for axis in chosen]
    )
    means = torch.stack([merged[row > 0].double().mean() for row in basis]).cpu()
    return Plane("weights", basis, means)


def principal_plane(deviations: Tensor) -> Plane:
    """The plane of the first two principal directions of snapshots minus their mean, `deviations` (n, parameters).

    From the n x n Gram matrix in float64: its eigenvectors q give the directions deviations' q / |deviations' q|.

    Raises:
        ValueError: when the snapshots do not span a plane.
    """
    values, vectors = torch.linalg.eigh(_products(deviations, deviations))
    values, vectors = values[-2:].flip(0), vectors[:, -2:].flip(1)
    if len(deviations) < 3 or values[1] <= 1e-12 * values[0]:
        raise ValueError(f"{len(deviations)} snapshots that span no plane; give at least 3 that differ")
    signs = torch.where(vectors[-1] < 0, -1.0, 1.0)  # eigenvectors come with either sign
    basis = (vectors * signs / values.sqrt()).T.to(deviations) @ deviations
    return Plane("principal", basis, torch.zeros(2, dtype=torch.float64))


def _grid(coordinates: Tensor, resolution: int, margin: float) -> list[Tensor]:
    low, high = coordinates.min(0).values, coordinates.max(0).values
    room = margin * (high - low)
    axes = np.linspace((low - room).numpy(), (high + room).numpy(), resolution).T
    return [torch.tensor(point, dtype=torch.float64) for point in product(*axes)]


def planes(
    folders: Sequence[Path],
    model: PreTrainedModel,
    score: Callable[[], dict[str, float]],
    resolution: int,
    margin: float = 0.5,
) -> pd.DataFrame:
    """Scores of snapshots, their mean, and a grid of points around them in both planes.

    Args:
        folders: snapshots, oldest first.
        model: of their architecture; holds the merged model afterwards.
        score: scores by metric of what `model` holds when it is called: snapshots + 1 times, and for each plane
            resolution^2 + snapshots times.
        resolution: points along an axis. Give an even number: the merged model lies near the middle of the grid, and a
            point right on it would often be the best only because it is the merged model.
        margin: how far the grid reaches beyond the snapshots on each side of an axis, as a share of their range on it.

    Returns:
        One row a point and metric: plane (weights | principal), role, snapshot (1 = oldest; 0 where the point is
        none), x, y, metric, value, and explained_x, explained_y, the shares of the snapshots' variance over all
        weights that lie along the axes. Roles: grid; merged; snapshot, the score of the whole snapshot, at its
        projection; snapshot_in_plane, the score of the plane's point there.

    Raises:
        ValueError: for fewer than 3 snapshots, snapshots that do not differ, or folders that cannot be averaged.
    """
    if len(folders) < 3 or resolution < 2:
        raise ValueError(f"{len(folders)} snapshots, resolution={resolution}: give at least 3 and 2 to span a plane")
    vectors = snapshot_vectors(folders, model)
    merged = vectors.mean(0)
    deviations = vectors - merged
    both_planes = [weights_plane(model, merged), principal_plane(deviations)]
    progress = tqdm(
        total=len(folders) + 1 + 2 * (resolution**2 + len(folders)), desc="points", leave=False, disable=None
    )

    def scored(vector: Tensor) -> dict[str, float]:
        write_vector(model, vector)
        progress.update()
        return score()

    snapshot_scores = [scored(vector) for vector in vectors]
    merged_scores = scored(merged)
    rows = []
    for plane in both_planes:
        at = plane.coordinates(deviations)
        variance = (at - plane.merged).square().sum(0) * plane.squared_lengths()
        explained = variance / _products(deviations, deviations).trace()
        points = [("grid", 0, p, scored(merged + plane.deviation(p))) for p in _grid(at, resolution, margin)]
        for i, (point, scores) in enumerate(zip(at, snapshot_scores, strict=True), start=1):
            points.append(("snapshot", i, point, scores))
            points.append(("snapshot_in_plane", i, point, scored(merged + plane.deviation(point))))
        points.append(("merged", 0, plane.merged, merged_scores))
        rows += [
            (plane.name, role, i, *point.tolist(), metric, value, *explained.tolist())
            for role, i, point, scores in points
            for metric, value in scores.items()
        ]
    progress.close()
    write_vector(model, merged)
    columns = ["plane", "role", "snapshot", "x", "y", "metric", "value", "explained_x", "explained_y"]
    return pd.DataFrame(rows, columns=columns)
