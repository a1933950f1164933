"""Score a plane of weight space that the merged snapshots had no part in choosing (Figure 8 of arXiv 2505.12082).

The paper draws contours over two chosen weights. Two weights hold millionths of what distinguishes snapshots, so this
plane is another: it runs through the mean of snapshots *before* the merged window, towards the end of a run annealed
from the same trajectory (x), and along the first principal direction of those earlier snapshots across that (y). No
snapshot of the window decides where the plane lies, so the window's mean is not at its middle by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector
from tqdm import tqdm
from transformers import PreTrainedModel

from pma.merge import average
from pma.model.build import load_weights

LOSS = "loss"  # held-out cross-entropy, nats a token
ALONG = (0.0, 0.25, 0.5, 0.75)  # of the way to the optimum


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
    """A plane of weight space.

    Attributes:
        origin: (parameters,), at coordinates (0, 0).
        basis: (2, parameters), orthonormal rows: a step of 1 along x and along y in the L2 norm of the weights.
    """

    origin: Tensor
    basis: Tensor

    def coordinates(self, vectors: Tensor) -> Tensor:
        """(n, 2) float64: where `vectors` (n, parameters) fall when projected."""
        return _products(vectors - self.origin, self.basis)

    def point(self, at: Tensor) -> Tensor:
        """(parameters,): the weights at the coordinates `at` (2,)."""
        return self.origin + at.to(self.basis) @ self.basis


def _products(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T in float64 on the CPU, without a float64 copy of the whole."""
    parts = zip(a.split(2**22, dim=1), b.split(2**22, dim=1), strict=True)
    return sum(part.double() @ other.double().T for part, other in parts).cpu()


def fit_plane(outside: Tensor, annealed: Tensor) -> Plane:
    """The plane of the text at the top of this file.

    Args:
        outside: (n, parameters), the earlier snapshots; the newest has y >= 0.
        annealed: (parameters,), the annealed end.

    Raises:
        ValueError: when they span no plane.
    """
    origin = outside.mean(0)
    x = annealed - origin
    scatter = outside - origin
    length = x.norm()
    if len(outside) < 3 or not length > 0:
        raise ValueError(f"{len(outside)} earlier snapshots and an annealed end that span no plane; give at least 3")
    x = x / length
    scatter = scatter - torch.outer(scatter @ x, x)
    values, vectors = torch.linalg.eigh(_products(scatter, scatter))  # n x n: its eigenvectors give the directions
    if values[-1] <= 1e-10 * length.double().square():  # nothing but rounding
        raise ValueError("earlier snapshots that differ along one line only; give others")
    first = vectors[:, -1] * (-1.0 if vectors[-1, -1] < 0 else 1.0)  # eigenvectors come with either sign
    y = first.to(scatter) @ scatter
    return Plane(origin, torch.stack([x, y / y.norm()]))


Scores: TypeAlias = dict[str, float]


def _grid(
    plane: Plane, inside: Tensor, resolution: int, score: Callable[[Tensor], Scores], by: str
) -> dict[tuple[float, float], Scores]:
    """Scores by coordinates, on a grid around `inside` (n, 2) that grows until its best point by `by` is an inner one.

    It grows by a line at a time, at most `resolution` of them a side: a surface that falls without end has none.
    """
    low, high = inside.min(0).values, inside.max(0).values
    step = (high - low) / (resolution - 1) * 1.5  # a quarter of the points' range beyond them on each side
    start = low - (high - low) / 4
    axes = [[float(start[a] + step[a] * i) for i in range(resolution)] for a in range(2)]
    known: dict[tuple[float, float], Scores] = {}
    while True:
        for x, y in product(*axes):
            if (x, y) not in known:
                known[x, y] = score(plane.point(torch.tensor([x, y], dtype=torch.float64)))
        best = min(known, key=lambda at: known[at][by])
        grown = False
        for a, axis in enumerate(axes):
            if len(axis) < 3 * resolution and best[a] in (axis[0], axis[-1]):
                first = best[a] == axis[0]
                axis.insert(0 if first else len(axis), best[a] + float(step[a]) * (-1 if first else 1))
                grown = True
        if not grown:
            return known


def measure(
    window: Mapping[int, Path],
    outside: Sequence[Path],
    annealed: Path,
    model: PreTrainedModel,
    score: Callable[[], Scores],
    loss: Callable[[], float],
    resolution: int,
) -> pd.DataFrame:
    """Scores on the plane, and the loss along the lines from each snapshot of a window, and their mean, to its optimum.

    Args:
        window: snapshots by tokens.
        outside: earlier snapshots, oldest first, none of the window.
        annealed: the end of a run annealed from the same trajectory.
        model: of their architecture; holds the optimum afterwards.
        score: scores by metric of what `model` holds when it is called.
        loss: held-out loss of what `model` holds; the optimum of the plane is the grid's point with the least.
        resolution: points along an axis of the grid, before it grows.

    Returns:
        Rows role, tokens, x, y, along, metric, value, share. Roles: grid; snapshot and merged (the window's, scored
        where they are, shown at their projections), outside, annealed; optimum, the grid's best; line, the loss at
        `along` (0 to 1) of the way from the snapshot of `tokens`, or from the merged model (tokens 0), to the optimum.
        share: of the window's variance about its mean that lies in the plane.

    Raises:
        ValueError: for a window of fewer than 2 snapshots, folders that span no plane or cannot be averaged.
    """
    if len(window) < 2 or resolution < 3:
        raise ValueError(f"{len(window)} snapshots, resolution={resolution}: give at least 2 and 3")
    order = sorted(window)
    vectors = snapshot_vectors([window[at] for at in order], model)
    merged, others = vectors.mean(0), snapshot_vectors(outside, model)
    end = snapshot_vectors([annealed], model)
    plane = fit_plane(others, end[0])
    bar = tqdm(desc="points", leave=False, disable=None)

    def scored(vector: Tensor) -> Scores:
        write_vector(model, vector)
        bar.update()
        return {**score(), LOSS: loss()}

    rows: list[tuple[str, int, float, float, float, str, float]] = []

    def add(role: str, tokens: int, at: Tensor, scores: Scores, along: float = 0.0) -> None:
        rows.extend((role, tokens, *at.tolist(), along, metric, value) for metric, value in scores.items())

    named = [("snapshot", at, vector) for at, vector in zip(order, vectors, strict=True)]
    named += [("merged", 0, merged), ("annealed", 0, end[0])]
    places = plane.coordinates(torch.stack([vector for _, _, vector in named]))
    for (role, tokens, vector), place in zip(named, places, strict=True):
        add(role, tokens, place, scored(vector))
    for i, place in enumerate(plane.coordinates(others)):
        add("outside", i, place, {LOSS: float("nan")})
    grid = _grid(plane, torch.cat([places, plane.coordinates(others)]), resolution, scored, LOSS)
    for at, scores in grid.items():
        add("grid", 0, torch.tensor(at), scores)
    best = min(grid, key=lambda at: grid[at][LOSS])
    add("optimum", 0, torch.tensor(best), grid[best])
    optimum = plane.point(torch.tensor(best, dtype=torch.float64))
    for (role, tokens, vector), place in zip(named, places, strict=True):
        for along in ALONG if role != "annealed" else ():
            write_vector(model, vector + along * (optimum - vector))
            bar.update()
            add("line", tokens, place, {LOSS: loss()}, along)
    bar.close()
    write_vector(model, optimum)
    scatter = vectors - merged
    share = _products(scatter, plane.basis).square().sum() / _products(scatter, scatter).trace()
    columns = ["role", "tokens", "x", "y", "along", "metric", "value"]
    return pd.DataFrame(rows, columns=columns).assign(share=float(share))
